"""One pipeline for all: which hooks a message meets, by the door that it came by."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from mqtrio import (
    Allow,
    BrokerStatistics,
    Close,
    Deny,
    Drop,
    PublishEvent,
    ReasonCode,
    RefusedError,
    Reject,
    Throttle,
)
from mqtrio.testing import HookRecorder, Peer, open_harness
from mqtrio.wire.packets import PubAck, Publish, PublishProperties
from tests.engine.origins import ORIGINS, PUBLISHER, Origin

ALL = pytest.mark.parametrize("origin", list(ORIGINS))
BOTH = pytest.mark.parametrize("colour", ["sync", "async"])

TOPIC = "t/1"
ALLOW = Allow()


class Table:
    """A plugin for every hook that a message can meet; each call is one row."""

    def __init__(
        self, colour: str, authorize: object = ALLOW, transform: object = None, pick: object = None
    ) -> None:
        self.colour = colour
        self.recorder = HookRecorder(
            *("published", "delivered", "acknowledged", "dropped", "retained_changed"),
            answers={
                "authorize_publish": self._coloured(authorize),
                "transform_publish": self._coloured(transform),
                "compile_delivery": lambda event: self._filter,
            },
        )
        #: The delivery filter of all subscriptions; None: what lets everything pass.
        self.pick = pick

    def _coloured(self, answer: Any) -> Callable[[PublishEvent], Any]:
        def now(event: PublishEvent) -> Any:
            return answer(event) if callable(answer) else answer

        async def later(event: PublishEvent) -> Any:
            await trio.sleep(1)
            return now(event)

        return now if self.colour == "sync" else later

    def _filter(self, event: PublishEvent) -> PublishEvent | None:
        self.recorder.calls.append(("filter", event))
        return self.pick(event) if callable(self.pick) else event

    @property
    def rows(self) -> list[str]:
        return [hook for hook in self.recorder.hooks if hook != "compile_delivery"]


async def _published(table: Table, origin: Origin) -> tuple[list[Any], BrokerStatistics]:
    """Publish one message at QoS 1 to one subscriber; returns what the subscriber got."""
    async with open_harness(plugins=[table.recorder]) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("t/#", 2)
        table.recorder.clear()
        await ORIGINS[origin](harness, TOPIC, b"payload", 1, False)
        await trio.sleep(5)
        got = await subscriber.arrived()
        statistics = harness.broker.statistics()
        rows = list(table.recorder.calls)
    table.recorder.calls[:] = rows
    return got, statistics


#: What a hook answers -> the hooks that are called, whether it arrives, a counter of dropped ones.
CASES: dict[str, tuple[dict[str, Any], list[str], bool, str | None]] = {
    "all let it pass": (
        {},
        ["authorize_publish", "transform_publish", "filter", "delivered", "published"],
        True,
        None,
    ),
    "denied": ({"authorize": Deny()}, ["authorize_publish"], False, None),
    "nobody allows it": ({"authorize": None}, ["authorize_publish"], False, None),
    "Drop": (
        {"transform": Drop()},
        ["authorize_publish", "transform_publish", "dropped"],
        False,
        "transform",
    ),
    "Reject": ({"transform": Reject()}, ["authorize_publish", "transform_publish"], False, None),
    "Close": ({"transform": Close()}, ["authorize_publish", "transform_publish"], False, None),
    "Throttle": (
        {"transform": Throttle(1)},
        ["authorize_publish", "transform_publish", "filter", "delivered", "published"],
        True,
        None,
    ),
    "changed": (
        {"transform": lambda event: event.changed(payload=b"other")},
        ["authorize_publish", "transform_publish", "filter", "delivered", "published"],
        True,
        None,
    ),
    "changed into what can't be": (
        {"transform": lambda event: event.changed(topic="t/+")},
        ["authorize_publish", "transform_publish"],
        False,
        None,
    ),
    "changed to where nobody listens": (
        {"transform": lambda event: event.changed(topic="elsewhere")},
        ["authorize_publish", "transform_publish", "published"],
        False,
        None,
    ),
    "filtered": (
        {"pick": lambda event: None},
        ["authorize_publish", "transform_publish", "filter", "dropped", "published"],
        False,
        "delivery_filter",
    ),
}


@ALL
@BOTH
@pytest.mark.parametrize("case", list(CASES))
async def test_which_hooks_a_message_meets(origin: Origin, colour: str, case: str) -> None:
    answers, hooks, arrives, counter = CASES[case]
    table = Table(
        colour,
        answers.get("authorize", ALLOW),
        answers.get("transform"),
        answers.get("pick"),
    )
    got, statistics = await _published(table, origin)
    if not arrives and not counter and "published" not in hooks and origin in ("will", "system"):
        hooks, counter = [*hooks, "dropped"], "refused"  # nobody waits for its answer
    assert table.rows == hooks
    assert [type(packet) for packet in got] == ([Publish] if arrives else [])
    assert statistics.dropped.get(counter or "transform", 0) == (1 if counter else 0)
    for hook, event in table.recorder.calls:
        assert event.origin == origin, hook
        receiver = hook == "delivered" or (hook == "dropped" and event.reason == "delivery_filter")
        assert event.client_id == ("subscriber" if receiver else PUBLISHER[origin]), hook


@ALL
async def test_hooks_see_what_was_published_and_what_became_of_it(origin: Origin) -> None:
    table = Table("sync", ALLOW, lambda e: e.changed(topic="t/2", payload=b"changed"))
    await _published(table, origin)
    seen = {hook: (event.topic, event.payload, event.qos) for hook, event in table.recorder.calls}
    assert seen == {
        "authorize_publish": ("t/1", b"payload", 1),
        "transform_publish": ("t/1", b"payload", 1),
        "filter": ("t/2", b"changed", 1),
        "delivered": ("t/2", b"changed", 1),
        "published": ("t/2", b"changed", 1),
    }


@ALL
async def test_a_subscribers_own_version(origin: Origin) -> None:
    table = Table("sync", ALLOW, None, lambda e: e.changed(payload=b"for you", qos=0))
    got, _ = await _published(table, origin)
    assert [(packet.payload, packet.qos) for packet in got] == [(b"for you", 0)]
    (published,) = table.recorder.of("published")
    assert (published.payload, published.qos) == (b"payload", 1)


@ALL
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_acknowledged_is_told_of_the_receiver(origin: Origin, qos: int) -> None:
    recorder = HookRecorder("acknowledged")
    async with open_harness(plugins=[recorder]) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("t/#", 2)
        await ORIGINS[origin](harness, TOPIC, b"payload", qos, False)
        await subscriber.message(b"payload", qos=qos)
        await subscriber.settle()
    told = [(e.client_id, e.topic, e.qos, e.reason_code) for e in recorder.of("acknowledged")]
    assert told == ([("subscriber", TOPIC, qos, 0)] if qos else [])


@ALL
async def test_retained_messages_are_told_of_and_filtered_when_replayed(origin: Origin) -> None:
    table = Table("sync", ALLOW, None, lambda e: e.changed(payload=e.payload + b"!"))
    async with open_harness(plugins=[table.recorder]) as harness:
        await ORIGINS[origin](harness, TOPIC, b"payload", 1, True)
        assert table.rows == [
            *("authorize_publish", "transform_publish", "retained_changed", "published"),
        ]
        (changed,) = table.recorder.of("retained_changed")
        assert (changed.client_id, changed.payload, changed.removed, changed.origin) == (
            *(PUBLISHER[origin], b"payload", False, origin),
        )
        table.recorder.clear()
        late = await harness.connect("late")
        await late.subscribe("t/#", 1)
        await late.message(b"payload!", retain=True)
        await late.settle()
        assert table.rows == ["filter", "delivered", "acknowledged"]
        (replayed,) = table.recorder.of("filter")
        assert (replayed.client_id, replayed.origin) == (PUBLISHER[origin], origin)

        table.recorder.clear()
        table.pick = lambda event: None
        blind = await harness.connect("blind")
        await blind.subscribe("t/#", 1)
        await blind.nothing()
        assert table.rows == ["filter", "dropped"]
        assert table.recorder.of("dropped")[0].reason == "delivery_filter"

        table.recorder.clear()
        await harness.broker.publish(TOPIC, b"", retain=True)
        (changed,) = table.recorder.of("retained_changed")
        assert (changed.payload, changed.removed) == (b"", True)


@ALL
async def test_a_refused_message_is_not_retained(origin: Origin) -> None:
    for answers in ({"authorize": Deny()}, {"transform": Drop()}, {"transform": Reject()}):
        table = Table("sync", answers.get("authorize", ALLOW), answers.get("transform"))
        async with open_harness(plugins=[table.recorder]) as harness:
            await ORIGINS[origin](harness, TOPIC, b"payload", 1, True)
            await trio.sleep(1)
            assert harness.broker.retained() == []
            assert table.recorder.of("retained_changed") == []


#: Origin -> whether it may publish to `$` topics where no plugin authorizes.
TRUSTED = {"client": False, "will": False, "local": True, "system": True, "bridge": True}


@ALL
async def test_topics_that_begin_with_a_dollar_sign(origin: Origin) -> None:
    async with open_harness() as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("$x/#")
        await ORIGINS[origin](harness, "$x/1", b"payload", 0, False)
        arrived = await subscriber.arrived()
        assert [type(p) for p in arrived] == ([Publish] if TRUSTED[origin] else [])
    async with open_harness(
        plugins=[HookRecorder(answers={"authorize_publish": ALLOW})]
    ) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("$x/#")
        await ORIGINS[origin](harness, "$x/1", b"payload", 0, False)
        await subscriber.message(b"payload")


@ALL
async def test_who_is_told_of_a_refusal(origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    recorder = HookRecorder(answers={"authorize_publish": Deny(ReasonCode.QUOTA_EXCEEDED)})
    async with open_harness(plugins=[recorder]) as harness:
        await ORIGINS[origin](harness, TOPIC, b"payload", 1, False)
        if origin == "client":
            (answer,) = await harness.peers[0].arrived()
            assert answer == PubAck(1, 0x97)
        refused = [record for record in caplog.records if record.name == "mqtrio.publish"]
        detached = origin in ("will", "system")
        assert len(refused) == detached
        assert harness.broker.statistics().dropped.get("refused", 0) == detached
        assert "payload" not in caplog.text


@pytest.mark.parametrize("reason_code", [0x87, 0x97])
async def test_a_program_is_told_by_an_exception(reason_code: int) -> None:
    recorder = HookRecorder(answers={"authorize_publish": Deny(ReasonCode(reason_code))})
    async with open_harness(plugins=[recorder]) as harness:
        for qos in (0, 1, 2):
            with pytest.raises(RefusedError) as caught:
                await harness.broker.publish(TOPIC, qos=qos)
            assert caught.value.reason_code == reason_code


async def _aliased(peer: Peer) -> None:
    await peer.send(
        Publish("t/alias", b"1", properties=PublishProperties(topic_alias=3)),
        Publish("", b"2", properties=PublishProperties(topic_alias=3)),
    )
    await peer.ping()


async def test_the_alias_is_resolved_before_anybody_is_asked() -> None:
    recorder = HookRecorder(
        "published", answers={"authorize_publish": ALLOW, "transform_publish": None}
    )
    async with open_harness(plugins=[recorder]) as harness:
        await _aliased(await harness.connect("ann"))
    assert [(hook, event.topic, event.payload) for hook, event in recorder.calls] == [
        (hook, "t/alias", payload)
        for payload in (b"1", b"2")
        for hook in ("authorize_publish", "transform_publish", "published")
    ]


async def test_an_alias_of_a_denied_message_stands() -> None:
    recorder = HookRecorder(
        answers={"authorize_publish": lambda e: Deny() if e.payload == b"1" else ALLOW}
    )
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("t/#")
        await _aliased(ann)
        await ann.message(b"2", topic="t/alias")


@pytest.mark.parametrize(
    "topic",
    ["", "a/#", "a/+", "a\0b", "x" * 65536, "/".join("a" * 200)],
    ids=["empty", "#", "+", "NUL", "too long", "too many levels"],
)
@ALL
async def test_a_changed_topic_is_checked(origin: Origin, topic: str) -> None:
    recorder = HookRecorder(
        "published",
        "plugin_failed",
        answers={"transform_publish": lambda event: event.changed(topic=topic)},
    )
    async with open_harness(plugins=[recorder]) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("#")
        await ORIGINS[origin](harness, TOPIC, b"payload", 1, True)
        await subscriber.nothing()
        assert harness.broker.retained() == []
    assert recorder.of("published") == []
    (failure,) = recorder.of("plugin_failed")
    assert (failure.hook, failure.kind) == ("transform_publish", "answer")


class Call:
    """A hook of which the test says when it answers."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.events: list[Any] = []
        self.go = trio.Event()

    async def __call__(self, event: Any) -> Any:
        self.events.append(event)
        await self.go.wait()
        return self.answer(event)


@ALL
async def test_while_one_origin_waits_others_go_on(origin: Origin) -> None:
    wait = Call(lambda event: ALLOW)
    fast = HookRecorder(
        answers={"authorize_publish": lambda e: ALLOW if e.topic == "fast" else wait(e)}
    )
    async with open_harness(plugins=[fast]) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("#")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ORIGINS[origin], harness, TOPIC, b"slow", 0, False)
            await subscriber.nothing()
            assert len(wait.events) == 1
            await harness.broker.publish("fast", b"fast")
            await subscriber.message(b"fast")
            wait.go.set()
        await subscriber.message(b"slow")
