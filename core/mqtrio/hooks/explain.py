"""Asking the real hooks about a publish or subscribe that nobody makes, with notes of each answer.

The decisions are those of combine.py, in the engine's order; only the calls are replaced by ones
that keep notes. What is asked here counts in no statistics, is told to no observer, and changes
nothing in the broker. The plugins themselves are really asked: one that counts what it is asked
(a rate limit) counts this too.
"""

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import trio
from attrs import define

from mqtrio.errors import ProtocolError
from mqtrio.hooks import combine
from mqtrio.hooks.answers import (
    Allow,
    Challenge,
    Deny,
    Permissions,
)
from mqtrio.hooks.asked import Asked
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.combine import Steps
from mqtrio.hooks.events import (
    AcceptEvent,
    AdmitEvent,
    AuthenticateEvent,
    DeliveryEvent,
    PublishEvent,
    SubscribeEvent,
)
from mqtrio.hooks.explanation import (
    BROKER,
    Explanation,
    HookDecision,
    Question,
)
from mqtrio.hooks.notes import NotedHooks, Timer, code, detail, word
from mqtrio.reasons import ReasonCode
from mqtrio.settings import Settings
from mqtrio.state.topics import check_topic, check_topic_filter

T = TypeVar("T")

#: What stands for the reason where no plugin has given one.
_NO_OBJECTION: Final = "nobody objects"
_DEFAULTS: Final = {
    "authorize_publish": "no plugin implements it: all but $ topics may be published to",
    "authorize_subscribe": "no plugin implements it: every topic filter is allowed",
}


class Mount(Protocol):
    """Where the topics of a listener's clients lie."""

    def topic(self, inner: str) -> str:
        """What a client's topic stands for."""

    def topic_filter(self, inner: str) -> str:
        """What a client's topic filter stands for."""


@define(frozen=True)
class Entrance:
    """What holds for the clients of the listener in question.

    `anonymous_allowed`: whether it lets in those that nobody knows. `authenticate`: the names of
    those who are asked there who a client is; None: all.
    """

    anonymous_allowed: bool
    authenticate: Sequence[str] | None = None
    mount: Mount | None = None


async def explain(
    hooks: Asked,
    settings: Settings,
    question: Question,
    entrance: Entrance,
    timer: Timer = time.perf_counter,
) -> Explanation:
    """Ask the plugins what would become of the question, each within `limits.hook_deadline`.

    Raises ValueError for a topic or a topic filter that can't be.
    """
    topic = _topic_of(question, entrance.mount, settings.limits.topic_levels)
    inquiry = _Inquiry(hooks, settings, question, entrance, topic, timer)
    return await _answered(inquiry.steps(), settings.limits.hook_deadline)


def _topic_of(question: Question, mount: Mount | None, levels: int) -> str:
    """The topic or topic filter that is meant, checked."""
    try:
        if question.publish is not None:
            check_topic(question.publish)
            topic = question.publish if mount is None else mount.topic(question.publish)
            check_topic(topic, levels)
        else:
            topic = question.subscribe or ""
            check_topic_filter(topic)
            topic = topic if mount is None else mount.topic_filter(topic)
            check_topic_filter(topic, levels)
    except ProtocolError as error:
        raise ValueError(str(error)) from None
    return topic


async def _answered(steps: Steps[T], deadline: float) -> T:
    """Await what the steps yield, each time under the deadline; their result."""
    error: Exception | None = None
    value: Any = None
    try:
        while True:
            awaitable = steps.send(value) if error is None else steps.throw(error)
            error = value = None
            try:
                with trio.fail_after(deadline):
                    value = await awaitable
            except Exception as caught:  # noqa: BLE001 - a plugin's, thrown into the steps
                error = caught
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()


class _Inquiry:
    """One question on its way through the hooks, in the engine's order."""

    def __init__(
        self,
        hooks: Asked,
        settings: Settings,
        question: Question,
        entrance: Entrance,
        topic: str,
        timer: Timer,
    ) -> None:
        self._hooks = NotedHooks(hooks, timer)
        self._entrance = entrance
        self._names_count = not hooks.authenticate
        if entrance.authenticate is not None:
            by_plugin = {call.plugin: call for call in self._hooks.authenticate}
            named = [by_plugin[name] for name in entrance.authenticate if name in by_plugin]
            self._hooks.authenticate = tuple(named)
        self._settings = settings
        self._question = question
        self._client = ClientFacts(
            question.client_id,
            question.username,
            question.address,
            question.protocol_version,
            question.listener,
        )
        self._permissions: Permissions | None = None
        self._maximum_qos: int = settings.session.maximum_qos
        self._decisions: list[HookDecision] = []
        self._topic = topic
        self._qos = question.qos

    def steps(self) -> Steps[Explanation]:
        """Ask until somebody says no, or to the end."""
        question = self._question
        if question.authenticate:
            going_on = yield from self._connect()
        else:
            going_on = True
        if going_on and (yield from self._admit()):
            if question.publish is not None:
                yield from self._publish()
            else:
                yield from self._subscribe()
        return Explanation(
            allowed=all(decision.allowed for decision in self._decisions),
            client_id=self._client.client_id,
            username=self._client.username,
            action="subscribe" if question.publish is None else "publish",
            asked=question.publish or question.subscribe or "",
            topic=self._topic,
            qos=self._qos,
            decisions=tuple(self._decisions),
        )

    def _connect(self) -> Steps[bool]:
        """The door: accept, authenticate, and the listener's rule where nobody has decided."""
        question = self._question
        hooks = self._hooks
        if hooks.accept and not self._decided(
            "accept", combine.accept(hooks, AcceptEvent(self._client))
        ):
            return False
        answer: Allow | Deny | Challenge | None = None
        if hooks.authenticate:
            event = AuthenticateEvent(self._client, question.password)
            answer = yield from combine.authenticate(hooks, event)
        if answer is None:
            return self._anonymous()
        if not self._decided("authenticate", answer):
            return False
        assert isinstance(answer, Allow)
        if answer.username is not None:
            self._client.username = answer.username
        if answer.client_id is not None:
            self._client.client_id = answer.client_id
        if answer.max_qos is not None:
            self._maximum_qos = min(self._maximum_qos, answer.max_qos)
        if answer.permissions is not None:
            self._permissions = self._hooks.permit(answer.permissions)
        return True

    def _anonymous(self) -> bool:
        allowed = self._entrance.anonymous_allowed
        self._decisions.append(
            HookDecision(
                hook="authenticate",
                decision="Allow" if allowed else "Deny",
                allowed=allowed,
                why="no plugin knows the client, and this listener "
                + ("lets in anonymous ones" if allowed else "lets in no anonymous one"),
                answers=tuple(call.noted for call in self._hooks.authenticate),
            )
        )
        if not self._names_count:
            self._client.username = None  # nobody has vouched for the name
        return allowed

    def _admit(self) -> Steps[bool]:
        if not self._hooks.admit:
            return True
        verdict = yield from combine.admit(self._hooks, AdmitEvent(self._client))
        return self._decided("admit", verdict)

    def _publish(self) -> Steps[None]:
        question = self._question
        session = self._settings.session
        if question.retain and not session.retain_available:
            self._refuse(ReasonCode.RETAIN_NOT_SUPPORTED, "retained messages are not supported")
            return
        if question.qos > self._maximum_qos:
            self._refuse(
                ReasonCode.QOS_NOT_SUPPORTED, f"the highest QoS here is {self._maximum_qos}"
            )
            return
        if self._entrance.mount is not None and (question.publish or "").startswith("$"):
            why = "clients of a mount point can't publish to topics that begin with $"
            self._refuse(ReasonCode.NOT_AUTHORIZED, why)
            return
        hooks = self._hooks
        event = PublishEvent(
            self._client, self._topic, question.payload, question.qos, question.retain
        )
        allowed = yield from combine.authorize_publish(hooks, event, self._permissions)
        if not self._decided("authorize_publish", allowed) or not hooks.transform_publish:
            return
        levels = self._settings.limits.topic_levels
        changed = yield from combine.transform_publish(hooks, event, levels)
        if isinstance(changed, PublishEvent):
            self._topic, self._qos = changed.topic, changed.qos
        self._decided("transform_publish", changed, event)

    def _subscribe(self) -> Steps[None]:
        hooks = self._hooks
        event = SubscribeEvent(self._client, self._topic, self._question.qos)
        allowed = yield from combine.authorize_subscribe(hooks, event, self._permissions)
        if not self._decided("authorize_subscribe", allowed):
            return
        assert isinstance(allowed, Allow)
        if hooks.transform_subscribe:
            levels = self._settings.limits.topic_levels
            changed = yield from combine.transform_subscribe(hooks, event, levels)
            if not self._decided("transform_subscribe", changed, event):
                return
            assert isinstance(changed, SubscribeEvent)
            self._topic, self._qos = changed.topic_filter, changed.qos
        if allowed.max_qos is not None:
            self._qos = min(self._qos, allowed.max_qos)
        if hooks.compile_delivery:
            delivery = DeliveryEvent(self._client, self._topic, self._qos)
            self._compiled(combine.compile_delivery(hooks, delivery))

    # -- decisions

    def _refuse(self, reason_code: ReasonCode, why: str) -> None:
        """The broker itself says no, by its settings."""
        self._decisions.append(
            HookDecision(
                hook=BROKER, decision="Deny", allowed=False, detail=code(reason_code), why=why
            )
        )

    def _decided(self, hook: str, answer: object, event: object = None) -> bool:
        """Note what has come of a hook; returns whether it goes on."""
        goes_on = isinstance(answer, Allow | PublishEvent | SubscribeEvent)
        decision = word(answer, event)
        notes = self._hooks.notes(hook)
        if goes_on:
            deciders = [call for call in notes if call.noted.answer == decision]
        else:
            deciders = [
                call for call in notes if call.error or (call.asked and call.answer is answer)
            ]
        why = "; ".join(said for call in deciders if (said := call.noted.why))
        if not why and isinstance(answer, Allow):
            why = _NO_OBJECTION if notes else _DEFAULTS.get(hook, "")
        self._decisions.append(
            HookDecision(
                hook=hook,
                decision=decision,
                allowed=goes_on,
                decided_by=tuple(call.plugin for call in deciders) or (BROKER,),
                detail=detail(answer, event),
                why=why or getattr(answer, "why", ""),
                answers=tuple(call.noted for call in notes),
            )
        )
        return goes_on

    def _compiled(self, made: object) -> None:
        """Note what has come of compile_delivery, where a failure closes the subscription."""
        notes = self._hooks.compile_delivery
        closed = made is combine.deliver_nothing
        deciders = [
            call for call in notes if call.asked and (call.error if closed else call.answer)
        ]
        self._decisions.append(
            HookDecision(
                hook="compile_delivery",
                decision="nothing passes" if closed else "filter" if made else "no filter",
                allowed=not closed,
                decided_by=tuple(call.plugin for call in deciders) or (BROKER,),
                why="; ".join(call.noted.why for call in deciders if call.noted.why),
                answers=tuple(call.noted for call in notes),
            )
        )
