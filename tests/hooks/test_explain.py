"""Explanations: the real hooks are asked, each answer is noted, and the engine's rules decide."""

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow, Challenge, Close, Deny, Drop, Reject, Throttle
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import AdmitEvent, DeliveryEvent, PublishEvent, SubscribeEvent
from mqtrio.hooks.explain import Entrance, explain
from mqtrio.hooks.explanation import Explanation, HookDecision, Question
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import DeliveryFilter
from mqtrio.hooks.specs import HOOKS, hookimpl
from mqtrio.reasons import ReasonCode
from mqtrio.settings import SessionRules, Settings
from tests.hooks.driver import drive

SETTINGS = Settings()
PUBLISH = Question(client_id="sensor-1", username="ann", publish="a/b", qos=1)
SUBSCRIBE = Question(client_id="sensor-1", username="ann", subscribe="a/#", qos=2)


def manager_of(**plugins: dict[str, Any]) -> HookManager:
    """Plugin name -> its hooks: answers, or functions of the event."""
    manager = HookManager()
    for name, hooks in plugins.items():
        made = type("Made", (), {hook: hookimpl(_method(answer)) for hook, answer in hooks.items()})
        manager.add(made(), name)
    return manager


def _method(answer: Any) -> Callable[[Any, Any], Any]:
    def method(self: object, event: Any) -> Any:
        return answer(event) if callable(answer) else answer

    return method


async def ask(
    manager: HookManager,
    question: Question,
    *,
    settings: Settings = SETTINGS,
    anonymous: bool = False,
    **more: Any,
) -> Explanation:
    return await explain(manager, settings, question, Entrance(anonymous), **more)


def answers(decision: HookDecision) -> list[tuple[str, str]]:
    return [(answer.plugin, answer.answer) for answer in decision.answers]


def short(explained: Explanation) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.hook, each.decision, each.decided_by) for each in explained.decisions]


# -- who decided


async def test_every_plugin_is_named_with_its_answer_and_why() -> None:
    manager = manager_of(
        first={"authorize_publish": None},
        acl={"authorize_publish": Allow(max_qos=1, why="line 3: ann may write a/+")},
        last={"authorize_publish": Allow(why="in working hours")},
    )
    explained = await ask(manager, PUBLISH)
    assert explained.allowed
    [decision] = explained.decisions
    assert decision is explained.decisive
    assert answers(decision) == [("first", "None"), ("acl", "Allow"), ("last", "Allow")]
    assert decision.decided_by == ("acl", "last")
    assert decision.why == "line 3: ann may write a/+; in working hours"
    assert [answer.detail for answer in decision.answers] == ["", "max_qos 1", ""]


async def test_one_deny_decides_and_the_rest_is_not_asked() -> None:
    manager = manager_of(
        open={"authorize_publish": Allow()},
        guard={"authorize_publish": Deny(ReasonCode.QUOTA_EXCEEDED, why="too many today")},
        never={"authorize_publish": lambda event: pytest.fail("it was asked")},
    )
    explained = await ask(manager, PUBLISH)
    assert not explained.allowed
    decision = explained.decisive
    assert answers(decision) == [("open", "Allow"), ("guard", "Deny"), ("never", "not asked")]
    assert (decision.decided_by, decision.why) == (("guard",), "too many today")
    assert decision.detail == "0x97 QUOTA_EXCEEDED"
    assert [answer.asked for answer in decision.answers] == [True, True, False]


async def test_nobody_allowed_it() -> None:
    explained = await ask(manager_of(acl={"authorize_subscribe": None}), SUBSCRIBE)
    decision = explained.decisive
    assert not explained.allowed
    assert (decision.decided_by, decision.why) == (("broker",), "nobody allowed it")


async def test_together_they_can_deny_what_each_allows() -> None:
    manager = manager_of(acl={"authorize_publish": Allow(max_qos=0, why="ann")})
    decision = (await ask(manager, PUBLISH)).decisive
    assert (decision.decision, decision.decided_by) == ("Deny", ("broker",))
    assert decision.why == "QoS 1 is above the allowed 0"


@pytest.mark.parametrize(("topic", "allowed"), [("a", True), ("$SYS/x", False)])
async def test_without_plugins_the_brokers_rule_decides(topic: str, allowed: bool) -> None:
    explained = await ask(HookManager(), Question(client_id="c", publish=topic))
    assert explained.allowed is allowed
    assert short(explained) == [("authorize_publish", "Allow" if allowed else "Deny", ("broker",))]
    assert explained.decisive.why


async def test_admit_comes_first_and_its_veto_ends_it() -> None:
    manager = manager_of(
        limits={"admit": Deny(ReasonCode.QUOTA_EXCEEDED, why="ann has 5 connections")},
        acl={"authorize_publish": Allow()},
    )
    assert short(await ask(manager, PUBLISH)) == [("admit", "Deny", ("limits",))]
    manager = manager_of(
        limits={"admit": None}, acl={"authorize_publish": Allow(), "admit": Allow(why="known")}
    )
    assert short(await ask(manager, PUBLISH)) == [
        ("admit", "Allow", ("acl",)),
        ("authorize_publish", "Allow", ("acl",)),
    ]


# -- transforms and filters


async def test_a_chain_of_transforms() -> None:
    manager = manager_of(
        rewrite={"transform_publish": lambda event: event.changed(topic=f"site/{event.topic}")},
        slow={"transform_publish": Throttle(2, why="a burst")},
        quiet={"transform_publish": None},
        cap={"transform_publish": lambda event: event.changed(qos=0, payload=b"secret")},
    )
    explained = await ask(manager, PUBLISH)
    assert (explained.allowed, explained.topic, explained.qos) == (True, "site/a/b", 0)
    decision = explained.decisions[-1]
    assert decision.hook == "transform_publish"
    assert decision.decided_by == ("rewrite", "cap")
    assert decision.detail == "topic 'site/a/b', qos 0, payload"
    assert [(answer.answer, answer.detail) for answer in decision.answers] == [
        ("changed", "topic 'site/a/b'"),
        ("Throttle", "2 s"),
        ("None", ""),
        ("changed", "qos 0, payload"),
    ]
    assert "secret" not in repr(explained)


@pytest.mark.parametrize(
    "refusal",
    [Drop(why="noise"), Reject(ReasonCode.QUOTA_EXCEEDED, why="noise"), Close(why="noise")],
)
async def test_a_transform_that_ends_it(refusal: Any) -> None:
    manager = manager_of(rules={"transform_publish": refusal}, later={"transform_publish": None})
    explained = await ask(manager, PUBLISH)
    assert not explained.allowed
    decision = explained.decisive
    assert (decision.hook, decision.decision) == ("transform_publish", type(refusal).__name__)
    assert (decision.decided_by, decision.why) == (("rules",), "noise")
    assert answers(decision)[1] == ("later", "not asked")


async def test_a_subscription_shows_what_is_granted_and_who_filters() -> None:
    def filter_of(event: DeliveryEvent) -> DeliveryFilter:
        assert (event.topic_filter, event.qos) == ("site/a/#", 1)
        return lambda message: message

    manager = manager_of(
        acl={"authorize_subscribe": Allow(max_qos=1), "compile_delivery": filter_of},
        rewrite={
            "transform_subscribe": lambda event: event.changed(topic_filter="site/a/#"),
            "compile_delivery": None,
        },
    )
    explained = await ask(manager, SUBSCRIBE)
    assert (explained.allowed, explained.action, explained.asked) == (True, "subscribe", "a/#")
    assert (explained.topic, explained.qos) == ("site/a/#", 1)
    assert short(explained) == [
        ("authorize_subscribe", "Allow", ("acl",)),
        ("transform_subscribe", "changed", ("rewrite",)),
        ("compile_delivery", "filter", ("acl",)),
    ]
    assert answers(explained.decisions[-1]) == [("acl", "filter"), ("rewrite", "None")]
    assert explained.decisive.hook == "authorize_subscribe"


async def test_a_filter_that_can_not_be_made_lets_nothing_pass(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = manager_of(acl={"compile_delivery": lambda event: 1 / 0})
    explained = await ask(manager, SUBSCRIBE)
    assert not explained.allowed
    decision = explained.decisive
    assert (decision.decision, decision.decided_by) == ("nothing passes", ("acl",))
    assert decision.why == "raised ZeroDivisionError"
    assert "acl: compile_delivery raised" in caplog.text


# -- failures


async def hang(event: Any) -> Any:
    await trio.sleep_forever()


def fail(event: Any) -> Any:
    raise KeyError("ann's password")


FAULTS: dict[str, tuple[Any, str, str]] = {
    "raises": (fail, "raised", "raised KeyError"),
    "hangs": (hang, "timeout", "took too long"),
    "nonsense": ("yes", "answer", "answered with str, not with "),
}

QUESTIONS = {
    "admit": PUBLISH,
    "authorize_publish": PUBLISH,
    "transform_publish": PUBLISH,
    "authorize_subscribe": SUBSCRIBE,
    "transform_subscribe": SUBSCRIBE,
    "authenticate": Question(client_id="c", publish="a", authenticate=True),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hook", QUESTIONS)
async def test_a_plugin_that_fails_is_the_one_that_decided(
    hook: str,
    fault: str,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    behaviour, answer, why = FAULTS[fault]
    told: list[object] = []
    manager = manager_of(
        broken={hook: behaviour},
        watcher={"plugin_failed": told.append},
    )
    explained = await ask(manager, QUESTIONS[hook])
    assert not explained.allowed
    decision = explained.decisive
    assert decision.decided_by == ("broken",)
    [noted] = decision.answers
    assert (noted.answer, noted.failed) == (answer, True)
    assert noted.why.startswith(why)
    assert decision.why == noted.why
    assert "ann's password" not in repr(explained)
    assert trio.current_time() == (5 if fault == "hangs" else 0)
    # It is no traffic: nothing is counted, nobody is told; the log has the traceback.
    assert told == []
    assert [(row.calls, row.failures) for row in manager.statistics()] == [(0, 0)] * 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# -- the same as the engine

BEHAVIOURS: dict[str, list[Any]] = {
    "authorize_publish": [None, Allow(), Allow(max_qos=0), Deny(why="no"), "nonsense", KeyError()],
    "authorize_subscribe": [None, Allow(), Allow(max_qos=0), Deny(), 1, KeyError()],
    "admit": [None, Allow(), Deny(ReasonCode.BANNED), 1.5, KeyError()],
    "transform_publish": [None, Drop(), Reject(), Close(), Throttle(1), Allow(), KeyError()],
    "transform_subscribe": [None, Reject(), Close(), Allow(), KeyError()],
}


def behave(answer: Any, waits: bool) -> Callable[[Any], Any]:
    def at_once(event: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def later(event: Any) -> Any:
        return at_once(event)

    return later if waits else at_once


@pytest.mark.parametrize(
    ("hook", "pair", "waits"),
    [
        (hook, pair, waits)
        for hook, each in BEHAVIOURS.items()
        for pair in itertools.product(each, repeat=2)
        for waits in (False, True)
    ],
)
async def test_it_decides_as_the_engine_does(hook: str, pair: tuple[Any, Any], waits: bool) -> None:
    manager = manager_of(
        **{name: {hook: behave(answer, waits)} for name, answer in zip("ab", pair, strict=True)}
    )
    question = QUESTIONS[hook]
    explained = await ask(manager, question)
    event = _event(question, hook)
    decided: Any = await drive(getattr(combine, hook)(manager, event))
    allowed = isinstance(decided, Allow | PublishEvent | SubscribeEvent)
    assert explained.allowed is allowed
    decision = explained.decisions[0] if hook == "admit" else explained.decisions[-1]
    assert decision.hook == hook
    assert decision.decision == ("unchanged" if decided is event else type(decided).__name__)
    if not allowed and not isinstance(decided, Drop):
        assert decision.detail == f"0x{decided.reason_code:02X} {decided.reason_code.name}"


def _event(question: Question, hook: str) -> Any:
    client = ClientFacts(question.client_id, question.username)
    if hook == "admit":
        return AdmitEvent(client)
    if question.publish is not None:
        return PublishEvent(client, question.publish, b"", question.qos)
    return SubscribeEvent(client, question.subscribe or "", question.qos)


# -- from the door on


async def test_authentication_is_not_asked_for_by_default() -> None:
    manager = manager_of(
        passwords={"authenticate": lambda event: pytest.fail("it was asked")},
    )
    assert (await ask(manager, PUBLISH)).allowed


class OnlyA:
    """Permissions for a/b."""

    def authorize_publish(self, event: PublishEvent) -> Allow | Deny:
        return Allow(why="the token's scope") if event.topic == "a/b" else Deny(why="no scope")

    async def authorize_subscribe(self, event: SubscribeEvent) -> Deny:
        raise LookupError


async def test_what_authentication_gives_holds_for_what_follows() -> None:
    def authenticate(event: Any) -> Allow | Deny:
        if event.password != b"right":
            return Deny(ReasonCode.BAD_USER_NAME_OR_PASSWORD, why="wrong password")
        return Allow(username="Ann", client_id="x", permissions=OnlyA(), max_qos=1, why="password")

    manager = manager_of(
        door={"accept": None},
        passwords={"authenticate": authenticate},
        acl={"authorize_publish": None},
    )

    def question(password: bytes, publish: str | None = "a/b", **fields: Any) -> Question:
        return Question(
            client_id="c",
            username="ann",
            authenticate=True,
            password=password,
            publish=publish,
            **fields,
        )

    refused = await ask(manager, question(b"wrong"))
    assert short(refused) == [
        ("accept", "Allow", ("broker",)),
        ("authenticate", "Deny", ("passwords",)),
    ]
    assert refused.decisive.why == "wrong password"
    assert "wrong'" not in repr(refused)
    allowed = await ask(manager, question(b"right"))
    assert (allowed.client_id, allowed.username) == ("x", "Ann")
    assert short(allowed)[1:] == [
        ("authenticate", "Allow", ("passwords",)),
        ("authorize_publish", "Allow", ("permissions",)),
    ]
    assert allowed.decisions[1].detail == "username 'Ann', client_id 'x', max_qos 1, permissions"
    assert answers(allowed.decisive) == [("acl", "None"), ("permissions", "Allow")]
    assert allowed.decisive.why == "the token's scope"
    above = await ask(manager, question(b"right", qos=2))
    assert above.decisive.hook == "broker"
    assert above.decisive.detail == "0x9B QOS_NOT_SUPPORTED"
    subscription = await ask(manager, question(b"right", None, subscribe="a/#"))
    assert not subscription.allowed
    assert subscription.decisive.decided_by == ("permissions",)
    assert subscription.decisive.why == "raised LookupError"
    # Nothing of it was counted as the permissions' of a client.
    assert [row.calls for row in manager.statistics()] == [0, 0, 0]


async def test_a_challenge_ends_it_undecided() -> None:
    manager = manager_of(scram={"authenticate": Challenge(b"nonce", why="SCRAM")})
    explained = await ask(manager, QUESTIONS["authenticate"])
    assert not explained.allowed
    assert short(explained) == [("authenticate", "Challenge", ("scram",))]
    assert "nonce" not in repr(explained)


@pytest.mark.parametrize("anonymous", [False, True])
async def test_whom_no_plugin_knows_the_listener_lets_in_or_not(anonymous: bool) -> None:
    manager = manager_of(passwords={"authenticate": None})
    question = Question(client_id="c", username="eve", publish="a", authenticate=True)
    explained = await ask(manager, question, anonymous=anonymous)
    assert explained.allowed is anonymous
    assert explained.username is None
    assert answers(explained.decisions[0]) == [("passwords", "None")]
    assert explained.decisions[0].decided_by == ("broker",)


async def test_the_door_can_be_shut() -> None:
    manager = manager_of(ban={"accept": Deny(why="a banned address")})
    explained = await ask(manager, QUESTIONS["authenticate"])
    assert short(explained) == [("accept", "Deny", ("ban",))]


# -- the broker's own settings


async def test_settings_of_the_broker() -> None:
    settings = Settings(session=SessionRules(maximum_qos=1, retain_available=False))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"qos": 2}, "0x9B QOS_NOT_SUPPORTED"),
        ({"retain": True}, "0x9A RETAIN_NOT_SUPPORTED"),
    ]
    for fields, code in cases:
        question = Question(client_id="c", publish="a", **fields)
        explained = await ask(HookManager(), question, settings=settings)
        assert not explained.allowed
        assert explained.decisive.hook == "broker"
        assert explained.decisive.detail == code
        assert (await ask(HookManager(), question)).allowed


# -- questions that make no sense, and time


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"publish": "a", "subscribe": "a"},
        {"publish": "a", "qos": 3},
        {"publish": "a", "protocol_version": 6},
        {"publish": "a", "password": b"x"},
        {"subscribe": "a", "retain": True},
        {"subscribe": "a", "payload": b"x"},
    ],
)
def test_a_question_that_makes_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give|qos|protocol|password|retain"):
        Question(client_id="c", **fields)


@pytest.mark.parametrize("fields", [{"publish": "a/+"}, {"publish": ""}, {"subscribe": "a/#/b"}])
async def test_a_topic_that_can_not_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="topic"):
        await ask(HookManager(), Question(client_id="c", **fields))


async def test_the_time_of_each_answer_is_noted(autojump_clock: trio.testing.MockClock) -> None:
    async def slow(event: Any) -> Allow:
        await trio.sleep(0.25)
        return Allow()

    manager = manager_of(
        fast={"authorize_publish": None},
        slow={"authorize_publish": slow},
        hanging={"authorize_publish": hang},
        never={"authorize_publish": None},
    )
    explained = await ask(manager, PUBLISH, timer=trio.current_time)
    assert [each.seconds for each in explained.decisive.answers] == [0, 0.25, 5, 0]


async def test_a_plugin_that_goes_meanwhile_has_no_opinion() -> None:
    async def slow(event: Any) -> Allow:
        manager.remove("gone")
        return Allow()

    manager = manager_of(
        slow={"authorize_publish": slow},
        gone={"authorize_publish": Deny()},
    )
    explained = await ask(manager, PUBLISH)
    assert explained.allowed
    assert answers(explained.decisive) == [("slow", "Allow"), ("gone", "None")]


def test_each_deciding_hook_can_be_explained() -> None:
    """A hook that is added to the contract belongs into explanations too."""
    explained = {"accept", "compile_delivery", *QUESTIONS}
    kinds = {"decide", "transform"}
    assert explained == {hook.name for hook in HOOKS.values() if hook.kind in kinds}
