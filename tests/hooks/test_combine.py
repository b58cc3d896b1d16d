"""Several plugins: who is asked, who wins, what is handed on."""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow, Close, Deny, Drop, Reject, Throttle
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import (
    AcceptEvent,
    AdmitEvent,
    AuthenticateEvent,
    ChangedMessage,
    DeliveryEvent,
    Origin,
    PublishEvent,
    SubscribeEvent,
)
from mqtrio.hooks.manager import HookManager, default_allows_publish
from mqtrio.reasons import ReasonCode
from mqtrio.wire.packets import PublishProperties
from tests.hooks.driver import CLIENT, EVENTS, at_once, drive, plugin_of, publish_event

ALLOW = Allow()
CONSENTS = ("authorize_publish", "authorize_subscribe")


class Asked:
    """Plugins that answer what they are told to and note that they were asked."""

    def __init__(self, hook: str) -> None:
        self.hook = hook
        self.manager = HookManager()
        self.order: list[str] = []

    def add(self, name: str, answer: object | Callable[[Any], object]) -> "Asked":
        def method(plugin: object, event: Any) -> object:
            self.order.append(name)
            result = answer(event) if callable(answer) else answer
            if isinstance(result, Exception):
                raise result
            return result

        self.manager.add(plugin_of(self.hook, method), name)
        return self

    def decide(self, event: Any = None, *more: Any) -> Any:
        event = event or EVENTS[self.hook]()
        return at_once(getattr(combine, self.hook)(self.manager, event, *more))


# -- authenticate


def test_the_first_who_knows_the_client_decides() -> None:
    asked = Asked("authenticate").add("a", None).add("b", Allow(username="b")).add("c", Deny())
    assert asked.decide() == Allow(username="b")
    assert asked.order == ["a", "b"]


def test_a_failing_authenticator_denies_although_the_next_would_allow() -> None:
    asked = Asked("authenticate").add("a", LookupError()).add("b", ALLOW)
    answer = asked.decide()
    assert answer == Deny(ReasonCode.NOT_AUTHORIZED, why="a.authenticate failed")
    assert asked.order == ["a"]


def test_with_nobody_there_nobody_decides() -> None:
    manager = HookManager()
    assert at_once(combine.authenticate(manager, AuthenticateEvent(CLIENT))) is None
    assert type(at_once(combine.admit(manager, AdmitEvent(CLIENT)))) is Allow
    assert type(combine.accept(manager, AcceptEvent(CLIENT))) is Allow


# -- accept, admit


def test_all_are_asked_to_admit_and_one_veto_is_enough() -> None:
    asked = Asked("admit").add("a", ALLOW).add("b", None).add("c", Deny(ReasonCode.BANNED))
    assert asked.decide() == Deny(ReasonCode.BANNED)
    assert asked.order == ["a", "b", "c"]


def test_one_veto_refuses_a_connection() -> None:
    asked = Asked("accept").add("a", ALLOW).add("b", Deny(ReasonCode.BANNED)).add("c", ALLOW)
    answer = combine.accept(asked.manager, AcceptEvent(CLIENT))
    assert answer == Deny(ReasonCode.BANNED)


# -- authorize


@pytest.mark.parametrize("hook", CONSENTS)
def test_all_authorizers_are_asked_and_one_allow_is_needed(hook: str) -> None:
    asked = Asked(hook).add("a", None).add("b", ALLOW).add("c", None)
    assert type(asked.decide()) is Allow
    assert asked.order == ["a", "b", "c"]


@pytest.mark.parametrize("hook", CONSENTS)
def test_one_deny_wins_whoever_allows(hook: str) -> None:
    for answers in ([ALLOW, Deny()], [Deny(), ALLOW]):
        asked = Asked(hook)
        for number, answer in enumerate(answers):
            asked.add(str(number), answer)
        assert type(asked.decide()) is Deny


@pytest.mark.parametrize("hook", CONSENTS)
def test_where_all_pass_the_answer_is_no(hook: str) -> None:
    asked = Asked(hook).add("a", None).add("b", None)
    assert asked.decide() == Deny(ReasonCode.NOT_AUTHORIZED, why="nobody allowed it")


class Scopes:
    """Permissions as a token carries them."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def authorize_publish(self, event: PublishEvent) -> Any:
        return self.answer(event) if callable(self.answer) else self.answer

    def authorize_subscribe(self, event: SubscribeEvent) -> Any:
        return self.answer(event) if callable(self.answer) else self.answer


@pytest.mark.parametrize("hook", CONSENTS)
@pytest.mark.parametrize(
    ("plugins", "permissions", "decided"),
    [
        ([], ALLOW, Allow),
        ([], None, Deny),
        ([], Deny(), Deny),
        ([None], ALLOW, Allow),
        ([ALLOW], None, Allow),
        ([ALLOW], Deny(), Deny),
        ([Deny()], ALLOW, Deny),
        ([ALLOW], "nonsense", Deny),
    ],
)
def test_permissions_are_one_more_authorizer(
    hook: str, plugins: list[Any], permissions: Any, decided: type
) -> None:
    asked = Asked(hook)
    for number, answer in enumerate(plugins):
        asked.add(str(number), answer)
    assert type(asked.decide(None, Scopes(permissions))) is decided


async def test_permissions_may_wait_and_are_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(event: Any) -> Any:
        await trio.sleep_forever()

    manager = HookManager()
    answer = await drive(combine.authorize_publish(manager, publish_event(), Scopes(slow)))
    assert answer == Deny(why="permissions.authorize_publish failed")
    [row] = manager.statistics()
    assert (row.plugin, row.calls, row.failures, row.timeouts) == ("permissions", 1, 1, 1)


@pytest.mark.parametrize(
    ("answers", "remember"),
    [
        ([Allow(remember=True)], True),
        ([Allow(remember=True), Allow(remember=True)], True),
        ([Allow(remember=True), ALLOW], False),
        ([ALLOW, Allow(remember=True)], False),
        ([Allow(remember=True), None], False),
        ([None, Allow(remember=True)], False),
        ([Allow(remember=True, max_qos=2)], True),
        ([Allow(remember=True, max_qos=1)], False),
    ],
)
def test_an_answer_is_remembered_if_all_say_so(answers: list[Any], remember: bool) -> None:
    asked = Asked("authorize_publish")
    for number, answer in enumerate(answers):
        asked.add(str(number), answer)
    assert asked.decide().remember is remember


@pytest.mark.parametrize(
    ("answers", "lowest"),
    [
        ([ALLOW], None),
        ([Allow(max_qos=1)], 1),
        ([Allow(max_qos=1), Allow(max_qos=0)], 0),
        ([ALLOW, Allow(max_qos=1), None], 1),
        ([Allow(max_qos=0), ALLOW], 0),
    ],
)
def test_the_lowest_qos_is_granted(answers: list[Any], lowest: int | None) -> None:
    asked = Asked("authorize_subscribe")
    for number, answer in enumerate(answers):
        asked.add(str(number), answer)
    assert asked.decide().max_qos == lowest


@pytest.mark.parametrize(("qos", "decided"), [(0, Allow), (1, Allow), (2, Deny)])
def test_a_publish_above_the_granted_qos_is_denied(qos: int, decided: type) -> None:
    asked = Asked("authorize_publish").add("a", Allow(max_qos=1))
    assert type(asked.decide(publish_event(qos=qos))) is decided


def test_a_single_authorizers_answer_is_handed_on_with_its_why() -> None:
    answer = Allow(why="rule 7", remember=True)
    assert Asked("authorize_publish").add("a", answer).decide() is answer


def test_without_waiting_the_decision_is_there_at_once() -> None:
    decide = combine.authorize_publish_now
    event = publish_event()
    assert decide(HookManager(), event) == ALLOW
    asked = Asked("authorize_publish").add("a", None).add("b", Allow(why="rule 7"))
    assert decide(asked.manager, event) == Allow(why="rule 7", remember=False)
    asked.add("c", LookupError())
    assert decide(asked.manager, event) == Deny(why="c.authorize_publish failed")


async def test_several_authorizers_may_wait(autojump_clock: trio.testing.MockClock) -> None:
    async def soon(answer: Any) -> Any:
        await trio.sleep(1)
        return answer

    def soon_for_event(answer: Any, event: object) -> Any:
        return soon(answer)

    def decide(*answers: Any) -> Any:
        asked = Asked("authorize_publish")
        for number, answer in enumerate(answers[:-1]):
            asked.add(str(number), partial(soon_for_event, answer))
        asked.add("last", answers[-1])
        scopes = Scopes(lambda event: soon(Allow(remember=True)))
        return drive(combine.authorize_publish(asked.manager, publish_event(qos=1), scopes))

    before = trio.current_time()
    assert (await decide(Allow(remember=True), Allow(remember=True))).remember is True
    assert trio.current_time() - before == 2
    assert (await decide(Allow(remember=True), None, Allow(remember=True))).remember is False
    assert type(await decide(None, None, Allow(max_qos=1))) is Allow
    assert type(await decide(Allow(max_qos=0), Allow(), Allow())) is Deny
    assert type(await decide(Allow(), Deny(), Allow())) is Deny
    assert type(await decide(Allow(), Allow(), Deny())) is Deny


@pytest.mark.parametrize(
    ("topic", "origin", "allowed"),
    [
        ("a/b", "client", True),
        ("$SYS/x", "client", False),
        ("$SYS/x", "will", False),
        ("$SYS/x", "system", True),
        ("$SYS/x", "local", True),
        ("$SYS/x", "bridge", True),
        ("a/$b", "client", True),
    ],
)
def test_what_holds_where_nobody_authorizes(topic: str, origin: Origin, allowed: bool) -> None:
    assert default_allows_publish(topic, origin) is allowed
    event = publish_event(topic, origin=origin)
    answer = at_once(combine.authorize_publish(HookManager(), event))
    assert type(answer) is (Allow if allowed else Deny)
    assert at_once(combine.authorize_subscribe(HookManager(), SubscribeEvent(CLIENT, "#"))) == ALLOW


def test_an_authorizer_replaces_the_default_rule() -> None:
    asked = Asked("authorize_publish").add("a", ALLOW)
    assert asked.decide(publish_event("$SYS/x")) == ALLOW


# -- transform


def test_each_transform_sees_what_the_one_before_has_made() -> None:
    seen: list[tuple[str, bytes]] = []

    def append(text: str) -> Callable[[Any], object]:
        def transform(event: PublishEvent) -> object:
            seen.append((event.topic, event.payload))
            return event.changed(topic=f"{event.topic}/{text}")

        return transform

    asked = Asked("transform_publish").add("a", append("x")).add("b", None).add("c", append("y"))
    event = publish_event(properties=PublishProperties(content_type="t"), qos=1, retain=True)
    answer = asked.decide(event)
    assert type(answer) is ChangedMessage
    assert (answer.topic, answer.payload, answer.qos, answer.retain) == (
        "a/b/x/y",
        b"21.5",
        1,
        True,
    )
    assert answer.properties is event.properties
    assert (answer.client, answer.origin) == (event.client, event.origin)
    assert seen == [("a/b", b"21.5"), ("a/b/x", b"21.5")]
    assert event.topic == "a/b"


@pytest.mark.parametrize("end", [Drop(), Reject(), Close()])
def test_an_end_stops_the_chain(end: object) -> None:
    asked = Asked("transform_publish").add("a", end).add("b", None)
    assert asked.decide() is end
    assert asked.order == ["a"]


def test_a_pause_is_remembered_and_the_chain_goes_on() -> None:
    asked = (
        Asked("transform_publish")
        .add("a", Throttle(2))
        .add("b", lambda event: event.changed(payload=b"x"))
        .add("c", Throttle(1))
    )
    event = publish_event()
    assert asked.decide(event).payload == b"x"
    assert event.throttle == 2
    event = publish_event()
    asked.add("d", Drop())
    assert asked.decide(event) == Drop()
    assert event.throttle == 2


def changed(**fields: Any) -> Callable[[PublishEvent], ChangedMessage]:
    return lambda event: event.changed(**fields)


def with_properties(**fields: Any) -> Callable[[PublishEvent], ChangedMessage]:
    return lambda event: event.changed(properties=event.with_properties(**fields))


IMPOSSIBLE_MESSAGES: list[Callable[[PublishEvent], object]] = [
    changed(topic=""),
    changed(topic="a/+"),
    changed(topic="a\0b"),
    changed(topic="a/b/c/d/e"),
    changed(topic=b"a"),
    changed(topic="\ud800"),
    changed(payload="text"),
    changed(payload=bytearray(b"x")),
    changed(qos=3),
    changed(qos=True),
    changed(retain=1),
    changed(properties={"content_type": "x"}),
    with_properties(payload_format_indicator=2),
    with_properties(message_expiry_interval=-1),
    with_properties(message_expiry_interval=1 << 32),
    with_properties(content_type="\ud800"),
    with_properties(content_type="x" * 65_536),
    with_properties(response_topic="a/#"),
    with_properties(correlation_data=b"x" * 65_536),
    with_properties(correlation_data="x"),
    with_properties(user_properties=[("a", "b")]),
    with_properties(user_properties=(("a",),)),
    with_properties(user_properties=(("a", 1),)),
    with_properties(user_properties=(("a\0", "b"),)),
    lambda event: PublishEvent(ClientFacts("somebody else"), "a", b"").changed(),
    lambda event: publish_event(origin="system").changed(),
]


@pytest.mark.parametrize("made", IMPOSSIBLE_MESSAGES)
def test_a_transform_can_not_make_what_no_client_may_send(made: Callable[[Any], object]) -> None:
    asked = Asked("transform_publish").add("a", made).add("b", None)
    assert asked.decide(None, 4) == Reject(
        ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, why="a.transform_publish failed"
    )
    assert asked.order == ["a"]
    [first, _] = asked.manager.statistics()
    assert (first.calls, first.failures) == (1, 1)


GOOD_PROPERTIES: list[dict[str, Any]] = [
    {"payload_format_indicator": 1},
    {"message_expiry_interval": 0},
    {"content_type": "text/plain; é"},
    {"response_topic": "a/b"},
    {"correlation_data": b""},
    {"user_properties": (("a", ""), ("a", "b"))},
]


@pytest.mark.parametrize("fields", GOOD_PROPERTIES)
def test_good_properties_pass(fields: dict[str, Any]) -> None:
    answer = Asked("transform_publish").add("a", with_properties(**fields)).decide()
    [(name, value)] = fields.items()
    assert getattr(answer.properties, name) == value


def test_properties_that_are_not_named_stay() -> None:
    event = publish_event(
        properties=PublishProperties(1, 60, "text/plain", "reply", b"id", (("a", "b"),))
    )
    made = event.with_properties(message_expiry_interval=30)
    assert made == PublishProperties(1, 30, "text/plain", "reply", b"id", (("a", "b"),))
    assert event.changed(properties=None).properties is None


def test_requests_are_chained_too() -> None:
    asked = (
        Asked("transform_subscribe")
        .add("a", lambda event: event.changed(topic_filter=f"site/{event.topic_filter}"))
        .add("b", lambda event: event.changed(qos=0, retain_handling=2))
        .add("c", lambda event: event.changed(no_local=True, retain_as_published=True))
    )
    event = SubscribeEvent(CLIENT, "a/#", 1, identifier=7)
    assert asked.decide(event) == SubscribeEvent(
        CLIENT,
        "site/a/#",
        0,
        no_local=True,
        retain_as_published=True,
        retain_handling=2,
        identifier=7,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"topic_filter": ""},
        {"topic_filter": "a/#/b"},
        {"topic_filter": "a/b/c/d/e"},
        {"topic_filter": b"a"},
        {"qos": 3},
        {"no_local": 1},
        {"retain_as_published": None},
        {"retain_handling": 3},
        {"topic_filter": "$share/g/a", "no_local": True},
        {"client": ClientFacts("somebody else")},
        {"origin": "system"},
        {"identifier": -1},
    ],
)
def test_a_transform_can_not_make_what_no_client_may_ask(fields: dict[str, Any]) -> None:
    asked = Asked("transform_subscribe").add("a", lambda event: attrs.evolve(event, **fields))
    assert asked.decide(None, 4) == Reject(
        ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, why="a.transform_subscribe failed"
    )


# -- delivery


def compiled(manager: HookManager) -> Callable[[PublishEvent], PublishEvent | None]:
    made = combine.compile_delivery(manager, DeliveryEvent(CLIENT, "a/#"))
    assert made is not None
    return made


def test_filters_are_chained() -> None:
    asked = Asked("compile_delivery")
    asked.add("a", lambda event: lambda message: message.changed(payload=message.payload + b"1"))
    asked.add("none", None)
    asked.add("b", lambda event: lambda message: message.changed(payload=message.payload + b"2"))
    result = compiled(asked.manager)(publish_event())
    assert result is not None
    assert result.payload == b"21.512"


def test_a_filter_that_drops_ends_the_chain() -> None:
    asked = Asked("compile_delivery").add("a", lambda event: lambda message: None)
    asked.add("b", lambda event: pytest.fail)
    assert compiled(asked.manager)(publish_event()) is None


def broken_filter(message: PublishEvent) -> PublishEvent:
    raise LookupError


async def waiting_filter(message: PublishEvent) -> PublishEvent:
    raise AssertionError("never awaited")


def returns_a_coroutine(message: PublishEvent) -> Any:
    return waiting_filter(message)


@pytest.mark.parametrize(
    "faulty",
    [
        broken_filter,
        lambda message: "nonsense",
        lambda message: message.changed(topic="a/#"),
        lambda message: publish_event("another"),
        returns_a_coroutine,
    ],
)
def test_a_filter_that_fails_drops_and_is_counted(
    faulty: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    asked = Asked("compile_delivery").add("a", lambda event: faulty)
    assert compiled(asked.manager)(publish_event()) is None
    rows = {row.hook: (row.calls, row.failures) for row in asked.manager.statistics()}
    assert rows == {"compile_delivery": (1, 0), "delivery_filter": (1, 1)}
    assert "plugin a: delivery_filter" in caplog.text


def test_an_asynchronous_filter_lets_nothing_through() -> None:
    asked = Asked("compile_delivery").add("a", lambda event: waiting_filter)
    assert compiled(asked.manager)(publish_event()) is None
    rows = {row.hook: (row.calls, row.failures) for row in asked.manager.statistics()}
    assert rows == {"compile_delivery": (1, 1), "delivery_filter": (0, 0)}


def test_a_filter_that_can_not_be_made_closes_the_subscription_for_all_others() -> None:
    asked = Asked("compile_delivery").add("a", lambda event: lambda message: message)
    asked.add("b", LookupError())
    assert compiled(asked.manager)(publish_event()) is None


def test_without_filters_there_is_none() -> None:
    event = DeliveryEvent(CLIENT, "a/#")
    assert combine.compile_delivery(HookManager(), event) is None
