"""Plugins that come and go while clients are connected, and observers that are alone."""

from typing import Any

import pytest
import trio

from mqtrio import Allow, Deny, Drop
from mqtrio.testing import HookRecorder, open_harness
from mqtrio.wire.packets import (
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
)

ALLOW = Allow()
QOS = pytest.mark.parametrize("qos", [0, 1, 2])
RETAIN = pytest.mark.parametrize("retain", [False, True])


#: Every hook that can be added alone, and what it then sees of one publish to one subscriber.
ALONE = {
    "published": 1,
    "delivered": 1,
    "authorize_publish": 1,
    "transform_publish": 1,
}


@pytest.mark.parametrize("hook", list(ALONE))
@QOS
@RETAIN
@pytest.mark.parametrize("count", [1, 2, 300])
async def test_one_hook_alone_sees_every_message(
    hook: str, qos: int, retain: bool, count: int
) -> None:
    """Whatever short way messages take where nobody is asked: who is plugged in sees them."""
    recorder = HookRecorder(answers={hook: ALLOW if hook == "authorize_publish" else None})
    async with open_harness(limits={"receive_maximum": 1000}) as harness:
        same = await harness.connect("same")
        other = await harness.connect("other", version=4)
        for subscriber in (same, other):
            await subscriber.subscribe("a", 2)
        peer = await harness.connect("peer")
        await peer.publish("a", b"before", qos, retain=retain)
        await peer.ping()
        await harness.broker.add_plugin(recorder)
        await peer.send(
            *(
                Publish("a", b"%d" % number, qos, retain, packet_id=number if qos else 0)
                for number in range(1, count + 1)
            )
        )
        await peer.settle()
        await harness.broker.remove_plugin("HookRecorder")
        await peer.send(Publish("a", b"after", qos, retain, packet_id=999 if qos else 0))
        await peer.settle()
        for subscriber in (same, other):
            got = [
                packet.payload
                for packet in await subscriber.arrived()
                if isinstance(packet, Publish)
            ]
            assert len(got) == count + 2
    sent = [b"%d" % number for number in range(1, count + 1)]
    for client_id in ("same", "other") if hook == "delivered" else ("peer",):
        events = [event for event in recorder.of(hook) if event.client_id == client_id]
        assert [event.payload for event in events] == sent


@QOS
async def test_delivered_is_told_when_a_message_goes_out(qos: int) -> None:
    recorder = HookRecorder("delivered", "acknowledged")
    async with open_harness(plugins=[recorder]) as harness:
        away = await harness.connect("away", session_expiry_interval=100)
        await away.subscribe("a", 2)
        await away.drop()
        await harness.broker.publish("a", "x", qos=qos)
        assert recorder.calls == []
        await away.stream.aclose()
        again = harness.peer("away")
        await again.connect(clean_start=False, session_present=True)
        if qos:
            await again.message(b"x")
            await again.settle()
    assert recorder.hooks == (["delivered", "acknowledged"] if qos else [])


@QOS
async def test_dropped_is_told_of_what_is_too_large(qos: int) -> None:
    recorder = HookRecorder("dropped", "delivered")
    async with open_harness(plugins=[recorder]) as harness:
        small = await harness.connect("small", maximum_packet_size=50)
        await small.subscribe("a", 2)
        await harness.broker.publish("a", b"x" * 100, qos=qos)
        await harness.broker.publish("a", b"x", qos=qos)
        await small.message(b"x")
        assert harness.broker.statistics().dropped == {"packet_too_large": 1}
    assert [(e.client_id, e.reason, e.qos) for e in recorder.of("dropped")] == [
        ("small", "packet_too_large", qos)
    ]
    assert [event.payload for event in recorder.of("delivered")] == [b"x"]


# -- coming and going


async def test_an_authorizer_that_comes_is_asked_at_once() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        await peer.publish("a", b"x", 1)
        await harness.broker.add_plugin(
            HookRecorder(answers={"authorize_publish": Deny()}), "guard"
        )
        await peer.send(Publish("a", b"x", 1, packet_id=9))
        await peer.expect(PubAck, reason_code=0x87)
        await harness.broker.remove_plugin("guard")
        await peer.publish("a", b"x", 1)


async def test_what_was_remembered_is_forgotten_when_plugins_change() -> None:
    recorder = HookRecorder(answers={"authorize_publish": Allow(remember=True)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        for number in range(3):
            await peer.publish("a", b"x", number)
            await peer.publish("b", b"x", number)
        await peer.ping()
        assert [event.topic for event in recorder.of("authorize_publish")] == [
            *("a", "b"),
        ]
        await harness.broker.add_plugin(HookRecorder("published"), "other")
        await peer.publish("a", b"x", 1)
        assert len(recorder.calls) == 3
        await harness.broker.add_plugin(
            HookRecorder(answers={"authorize_publish": Deny()}), "guard"
        )
        await peer.send(Publish("a", b"x", 1, packet_id=9))
        await peer.expect(PubAck, reason_code=0x87)


async def test_another_client_is_not_remembered() -> None:
    recorder = HookRecorder(answers={"authorize_publish": Allow(remember=True)})
    async with open_harness(plugins=[recorder]) as harness:
        for name in ("ann", "bob", "ann"):
            peer = await harness.connect(name)
            await peer.publish("a", b"x", 1)
    assert [event.client_id for event in recorder.of("authorize_publish")] == ["ann", "bob", "ann"]


@pytest.mark.parametrize("where", ["client", "this process"])
async def test_delivery_filters_come_and_go_with_their_plugin(where: str) -> None:
    made: list[Any] = []

    def compile_delivery(event: Any) -> Any:
        made.append((event.client_id, event.topic_filter, event.reason))
        return lambda message: None if message.payload == b"secret" else message

    async with open_harness() as harness:
        async with harness.broker.subscribe("a") as messages:
            peer = await harness.connect("peer", session_expiry_interval=100)
            await peer.subscribe("a")

            async def got() -> list[bytes]:
                await trio.testing.wait_all_tasks_blocked()
                if where == "client":
                    return [p.payload for p in await peer.arrived() if isinstance(p, Publish)]
                found: list[bytes] = []
                with trio.move_on_after(1):
                    while True:
                        found.append((await messages.receive()).payload)
                return found

            async def publish() -> list[bytes]:
                for payload in (b"secret", b"open"):
                    await harness.broker.publish("a", payload)
                return await got()

            assert await publish() == [b"secret", b"open"]
            await harness.broker.add_plugin(
                HookRecorder(answers={"compile_delivery": compile_delivery}), "filter"
            )
            assert ("peer", "a", "reload") in made
            assert await publish() == [b"open"]
            await harness.broker.remove_plugin("filter")
            assert await publish() == [b"secret", b"open"]


async def test_a_filter_is_made_anew_when_a_session_is_resumed() -> None:
    recorder = HookRecorder(answers={"compile_delivery": None})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=100)
        await peer.subscribe("a", 1)
        await peer.subscribe("$share/g/b", 1)
        await peer.drop()
        again = harness.peer("peer")
        await again.connect(clean_start=False, session_present=True)
    assert [
        (event.client_id, event.topic_filter, event.qos, event.reason)
        for event in recorder.of("compile_delivery")
    ] == [
        ("peer", "a", 1, "subscribe"),
        ("peer", "$share/g/b", 1, "subscribe"),
        ("peer", "a", 1, "resume"),
        ("peer", "$share/g/b", 1, "resume"),
    ]


async def test_two_plugins_filter_one_after_the_other() -> None:
    plugins = [
        HookRecorder(
            answers={
                "compile_delivery": lambda e, mark=mark: (
                    lambda message: message.changed(payload=message.payload + mark)
                )
            }
        )
        for mark in (b"1", b"2")
    ]
    async with open_harness(plugins=plugins) as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("a")
        await harness.broker.publish("a", b"0")
        await peer.message(b"012")


# -- in the middle of an awaited call


class Slow:
    """A hook that waits for the test, and then answers."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.go = trio.Event()
        self.asked = 0

    async def __call__(self, event: Any) -> Any:
        self.asked += 1
        await self.go.wait()
        return self.answer


@pytest.mark.parametrize("answer", [ALLOW, Deny()])
async def test_a_plugin_that_is_removed_while_it_thinks_has_its_say(answer: Any) -> None:
    slow = Slow(answer)
    async with open_harness() as harness:
        await harness.broker.add_plugin(HookRecorder(answers={"authorize_publish": slow}), "slow")
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x", 1, packet_id=1), Publish("a", b"x", 1, packet_id=2))
        await peer.nothing()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.broker.remove_plugin, "slow")
            await trio.testing.wait_all_tasks_blocked()
            assert "slow" not in harness.broker.plugins
            slow.go.set()
        await peer.expect(PubAck, packet_id=1, reason_code=0x10 if answer is ALLOW else 0x87)
        await peer.expect(PubAck, packet_id=2, reason_code=0x10)  # nobody is asked any more
        assert slow.asked == 1


async def test_a_plugin_removed_while_another_one_thinks_is_not_asked() -> None:
    slow = Slow(ALLOW)
    later = HookRecorder(answers={"authorize_publish": Deny()})
    async with open_harness() as harness:
        await harness.broker.add_plugin(HookRecorder(answers={"authorize_publish": slow}), "slow")
        await harness.broker.add_plugin(later, "later")
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x", 1, packet_id=1))
        await peer.nothing()
        await harness.broker.remove_plugin("later")
        slow.go.set()
        await peer.expect(PubAck, packet_id=1, reason_code=0x10)
    assert later.calls == []


async def test_a_plugin_added_while_another_one_thinks_judges_what_follows() -> None:
    slow = Slow(ALLOW)
    dropper = HookRecorder(answers={"transform_publish": Drop(), "authorize_publish": Deny()})
    async with open_harness() as harness:
        await harness.broker.add_plugin(HookRecorder(answers={"authorize_publish": slow}), "slow")
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x", 1, packet_id=1), Publish("a", b"y", 1, packet_id=2))
        await peer.nothing()
        await harness.broker.add_plugin(dropper, "dropper")
        slow.go.set()
        await peer.expect(PubAck, packet_id=1)
        await peer.expect(PubAck, packet_id=2, reason_code=0x87)
    assert [event.payload for event in dropper.of("authorize_publish")] == [b"y"]


async def test_a_plugin_that_comes_while_a_subscribe_is_judged_filters_it() -> None:
    slow = Slow(ALLOW)
    async with open_harness() as harness:
        await harness.broker.add_plugin(HookRecorder(answers={"authorize_subscribe": slow}), "slow")
        peer = await harness.connect("peer")
        await peer.send(Subscribe(1, (SubscriptionRequest("a"),)))
        await peer.nothing()
        closed = HookRecorder(answers={"compile_delivery": lambda e: lambda message: None})
        await harness.broker.add_plugin(closed, "closed")
        slow.go.set()
        await peer.expect(SubAck)
        await harness.broker.publish("a", b"x")
        await peer.nothing()


async def test_a_plugin_may_have_itself_removed_by_a_hook() -> None:
    async with trio.open_nursery() as nursery, open_harness() as harness:

        def once(event: Any) -> None:
            nursery.start_soon(harness.broker.remove_plugin, "once")

        recorder = HookRecorder(answers={"published": once})
        await harness.broker.add_plugin(recorder, "once")
        peer = await harness.connect("peer")
        await peer.publish("a", b"x", 1)
        await peer.publish("a", b"y", 1)
    assert [event.payload for event in recorder.of("published")] == [b"x"]


async def test_an_observer_that_goes_on_failing_is_switched_off() -> None:
    recorder = HookRecorder("plugin_failed", answers={"published": lambda e: 1 / 0})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        for _ in range(12):
            await peer.publish("a", b"x", 1)
    assert len(recorder.of("published")) == 10
    assert [event.switched_off for event in recorder.of("plugin_failed")] == [False] * 9 + [True]
