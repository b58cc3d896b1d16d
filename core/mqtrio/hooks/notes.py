"""Keeping notes of what plugins answer: calls that stand in the place of a broker's own."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from mqtrio.hooks.answers import Allow, Close, Deny, MaybeAwaitable, Permissions, Reject, Throttle
from mqtrio.hooks.asked import Asked
from mqtrio.hooks.calls import Call, Calls, failure
from mqtrio.hooks.events import (
    ChangedMessage,
    DeliveryEvent,
    PluginFailedEvent,
    PublishEvent,
    SubscribeEvent,
)
from mqtrio.hooks.explanation import NOT_ASKED, PluginAnswer
from mqtrio.hooks.specs import HOOKS
from mqtrio.reasons import ReasonCode

#: Seconds from any beginning.
Timer = Callable[[], float]


class Noted(Call):
    """A plugin's call in whose place it stands, and the notes of the one time that it is made."""

    __slots__ = ("asked", "answer", "event", "seconds", "error", "_original", "_ask", "_timer")

    def __init__(self, original: Call, ask: Callable[[Any], Any], timer: Timer) -> None:
        super().__init__(original.plugin, original.hook, self._note, _tell_nobody)
        self._original = original
        self.asked = False
        self.answer: Any = None
        self.event: Any = None
        self.seconds = 0.0
        self.error: Exception | None = None
        self._ask = ask
        self._timer = timer

    def _note(self, event: Any) -> Any:
        self.asked = True
        self.event = event
        started = self._timer()
        try:
            answer = self._ask(event)
        finally:
            self.seconds = self._timer() - started
        if HOOKS[self.hook].awaits and inspect.isawaitable(answer):
            return self._note_later(answer, started)
        self.answer = answer
        return answer

    async def _note_later(self, answer: Awaitable[Any], started: float) -> Any:
        try:
            self.answer = await answer
        finally:
            self.seconds = self._timer() - started
        return self.answer

    def begin(self) -> None:
        """Who removes the plugin waits for this answer, too."""
        self._original.begin()

    def end(self) -> None:
        """It was awaited, or given up."""
        self._original.end()

    def failed(self, error: Exception) -> None:
        """Keep it, and write it to the log; it isn't counted, and no observer is told."""
        self.error = error
        kind, why = failure(error)
        self._log(error, kind, why)

    @property
    def noted(self) -> PluginAnswer:
        """The notes as a value."""
        if not self.asked:
            return PluginAnswer(plugin=self.plugin, answer=NOT_ASKED)
        if self.error is not None:
            kind, why = failure(self.error)
            if kind == "raised":
                why = f"raised {type(self.error).__name__}"  # its text might tell a secret
            return PluginAnswer(
                plugin=self.plugin, answer=kind, why=why, seconds=self.seconds, failed=True
            )
        return PluginAnswer(
            plugin=self.plugin,
            answer=word(self.answer, self.event),
            detail=detail(self.answer, self.event),
            why=getattr(self.answer, "why", ""),
            seconds=self.seconds,
        )


def _tell_nobody(call: Call, event: PluginFailedEvent) -> None:
    """An explanation is no traffic: what fails in it is told to whoever asked for it."""


class NotedHooks:
    """The hooks of a broker at this moment, with notes of what is answered."""

    def __init__(self, hooks: Asked, timer: Timer) -> None:
        def noted(calls: Calls) -> tuple[Noted, ...]:
            return tuple(Noted(call, partial(_ask, call), timer) for call in calls)

        self.accept = noted(hooks.accept)
        self.authenticate = noted(hooks.authenticate)
        self.admit = noted(hooks.admit)
        self.authorize_publish = noted(hooks.authorize_publish)
        self.authorize_subscribe = noted(hooks.authorize_subscribe)
        self.transform_publish = noted(hooks.transform_publish)
        self.transform_subscribe = noted(hooks.transform_subscribe)
        self.compile_delivery = noted(hooks.compile_delivery)
        self.permissions: dict[str, Call] = {}
        self.delivery_filters: Mapping[str, Call] = {}
        self._tallies = hooks.permissions
        self._timer = timer

    def permit(self, permissions: Permissions) -> Permissions:
        """A client's permissions, asked with notes from now on."""
        publish, subscribe = (
            Noted(self._tallies[hook], ask, self._timer)
            for hook, ask in (
                ("authorize_publish", permissions.authorize_publish),
                ("authorize_subscribe", permissions.authorize_subscribe),
            )
        )
        self.permissions = {call.hook: call for call in (publish, subscribe)}
        return _NotedPermissions(publish, subscribe)

    def notes(self, hook: str) -> tuple[Noted, ...]:
        """All that may be asked for a hook, in their order."""
        calls: tuple[Noted, ...] = getattr(self, hook)
        permissions = self.permissions.get(hook)
        return (*calls, permissions) if isinstance(permissions, Noted) else calls


class _NotedPermissions:
    def __init__(self, publish: Noted, subscribe: Noted) -> None:
        self._publish = publish
        self._subscribe = subscribe

    def authorize_publish(self, event: PublishEvent, /) -> MaybeAwaitable[Allow | Deny | None]:
        answer: MaybeAwaitable[Allow | Deny | None] = self._publish.function(event)
        return answer

    def authorize_subscribe(self, event: SubscribeEvent, /) -> MaybeAwaitable[Allow | Deny | None]:
        answer: MaybeAwaitable[Allow | Deny | None] = self._subscribe.function(event)
        return answer


def _ask(call: Call, event: object) -> Any:
    # Looked up now, not before: the plugin may have been removed meanwhile.
    return call.function(event)


def word(answer: object, event: object) -> str:
    """The name of an answer."""
    if answer is None:
        return "None"
    if isinstance(answer, ChangedMessage | SubscribeEvent):
        return "unchanged" if answer is event else "changed"
    if isinstance(event, DeliveryEvent) and callable(answer):
        return "filter"
    return "unchanged" if answer is event else type(answer).__name__


def detail(answer: object, event: object) -> str:
    """What an answer holds; nothing that is secret, and no payload."""
    if answer is event:
        return ""
    match answer:
        case Deny() | Reject() | Close():
            return code(answer.reason_code)
        case Throttle():
            return f"{answer.seconds:g} s"
        case Allow():
            parts = [
                f"{name} {value!r}"
                for name in ("username", "client_id", "max_qos")
                if (value := getattr(answer, name)) is not None
            ]
            parts += ["permissions"] if answer.permissions is not None else []
            parts += ["limits"] if answer.limits is not None else []
            return ", ".join([*parts, *(["remember"] if answer.remember else [])])
        case ChangedMessage() if isinstance(event, PublishEvent):
            return _changes(event, answer, ("topic", "qos", "retain", "payload", "properties"))
        case SubscribeEvent() if isinstance(event, SubscribeEvent):
            return _changes(
                event,
                answer,
                ("topic_filter", "qos", "no_local", "retain_as_published", "retain_handling"),
            )
    return ""


def _changes(before: object, after: object, names: tuple[str, ...]) -> str:
    """The fields that differ, with their values where those are short and no content."""
    return ", ".join(
        name if name in ("payload", "properties") else f"{name} {getattr(after, name)!r}"
        for name in names
        if getattr(before, name) != getattr(after, name)
    )


def code(reason_code: int) -> str:
    """A reason code as number and name."""
    return f"0x{reason_code:02X} {ReasonCode(reason_code).name}"
