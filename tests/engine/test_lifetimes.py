"""Intervals: of sessions, of wills, of messages; and what each does to the others."""

from typing import Any

import pytest
import trio

from mqtrio import PublishEvent
from mqtrio.testing import FaultyStore, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    NEVER_EXPIRES,
    Disconnect,
    PubAck,
    Publish,
    PublishProperties,
    PubRec,
    Will,
)

STORES = pytest.mark.parametrize("durable", [False, True])


def store(durable: bool) -> FaultyStore | None:
    return FaultyStore() if durable else None


def expiring(seconds: int | None) -> PublishProperties:
    return PublishProperties(message_expiry_interval=seconds)


# -- sessions

#: Session expiry interval at CONNECT, then at DISCONNECT (None: not said) -> how long it stays.
INTERVALS: dict[tuple[int | None, int | None], float | None] = {
    (None, None): 0,
    (0, None): 0,
    (0, 0): 0,
    (50, None): 50,
    (50, 0): 0,
    (50, 10): 10,
    (50, 500): 500,
    (50, NEVER_EXPIRES): None,
    (NEVER_EXPIRES, None): None,
    (NEVER_EXPIRES, 10): 10,
}


@STORES
@pytest.mark.parametrize("case", list(INTERVALS), ids=str)
async def test_how_long_a_session_stays(case: tuple[int | None, int | None], durable: bool) -> None:
    recorder = HookRecorder("session_ended")
    async with open_harness(store=store(durable), plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=case[0])
        await peer.subscribe("a", 1)
        await trio.sleep(1000)  # it does not run while the client is there
        begin = trio.current_time()
        await peer.disconnect(session_expiry_interval=case[1])
        stays = INTERVALS[case]
        if stays is None:
            await trio.sleep(10**4)
            assert len(harness.broker.sessions()) == 1
            assert recorder.calls == []
            return
        if stays:
            await trio.sleep(stays - 1)
            assert len(harness.broker.sessions()) == 1
        await trio.sleep(begin + stays + 1 - trio.current_time())
        assert harness.broker.sessions() == []
        assert harness.broker.statistics().subscriptions == 0
    (ended,) = recorder.of("session_ended")
    assert ended.reason == ("expired" if stays else "disconnected")


@STORES
async def test_what_is_lost_with_a_session_is_told(durable: bool) -> None:
    recorder = HookRecorder("dropped", "session_ended")
    async with open_harness(store=store(durable), plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=50, receive_maximum=2)
        await peer.subscribe("a", 2)
        for number in range(5):
            await harness.broker.publish("a", b"%d" % number, qos=1 + number % 2)
        first = await peer.expect(Publish, payload=b"0")
        second = await peer.expect(Publish, payload=b"1")
        await peer.send(PubAck(first.packet_id), PubRec(second.packet_id))
        await peer.settle()
        await peer.drop()
        await trio.sleep(100)
        # One was acknowledged, one has arrived; of the one under way nobody knows.
        assert harness.broker.statistics().dropped == {"session_ended": 2}
    assert recorder.hooks == ["dropped"] * 2 + ["session_ended"]
    assert {(e.client_id, e.reason) for e in recorder.of("dropped")} == {("peer", "session_ended")}


async def test_an_interval_of_0_can_not_be_prolonged() -> None:
    """3.14.2.2.2: a protocol error, and then the session ends as it was to."""
    async with open_harness() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        peer = await harness.connect("peer", will=Will("wills", b"gone"))
        await peer.send(Disconnect(session_expiry_interval=10))
        await peer.expect_closed(0x82)
        await watcher.message(b"gone")
        assert [session.client_id for session in harness.broker.sessions()] == ["watcher"]


@STORES
async def test_the_interval_begins_anew_with_each_connection(durable: bool) -> None:
    async with open_harness(store=store(durable)) as harness:
        for _ in range(5):
            peer = harness.peer("peer")
            await peer.connect(clean_start=False, session_expiry_interval=50)
            await peer.drop()
            await trio.sleep(40)
        assert len(harness.broker.sessions()) == 1
        await trio.sleep(11)
        assert harness.broker.sessions() == []


async def test_the_next_connection_says_its_own_interval() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.drop()
        peer = harness.peer("peer")
        await peer.connect(clean_start=False, session_expiry_interval=0, session_present=True)
        await peer.drop()
        assert harness.broker.sessions() == []


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("clean", [True, False])
async def test_clean_session_of_mqtt_3(version: int, clean: bool) -> None:
    async with open_harness() as harness:
        peer = harness.peer("peer", version=version)
        await peer.connect(clean_start=clean)
        await peer.drop()
        await trio.sleep(10**4)
        assert len(harness.broker.sessions()) == (0 if clean else 1)


# -- wills

#: Will delay interval, session expiry interval -> when the will is published: whichever ends first.
DELAYS: dict[tuple[int, int], int] = {
    (0, 0): 0,
    (0, 100): 0,
    (50, 0): 0,
    (50, 100): 50,
    (50, 50): 50,
    (100, 50): 50,
    (50, NEVER_EXPIRES): 50,
    (NEVER_EXPIRES, 50): 50,
}


@STORES
@pytest.mark.parametrize("case", list(DELAYS), ids=str)
@pytest.mark.parametrize("how", ["lost", "DISCONNECT 0x04", "a protocol error"])
async def test_when_a_will_is_published(case: tuple[int, int], how: str, durable: bool) -> None:
    delay, interval = case
    async with open_harness(store=store(durable)) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        peer = await harness.connect(
            "peer",
            session_expiry_interval=interval,
            will=Will("wills", b"gone", delay_interval=delay),
        )
        if how == "lost":
            await peer.drop()
        elif how == "DISCONNECT 0x04":
            await peer.disconnect(0x04)
        else:
            await peer.send(b"\x00\x00")
            await peer.expect_closed(0x81)
        if DELAYS[case]:
            await trio.sleep(DELAYS[case] - 1)
            await watcher.nothing()
        await watcher.message(b"gone")
        assert trio.current_time() == DELAYS[case]
        await trio.sleep(1000)
        await watcher.nothing()


async def test_disconnect_can_bring_the_end_of_the_session_before_the_delay() -> None:
    async with open_harness() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        peer = await harness.connect(
            "peer",
            session_expiry_interval=1000,
            will=Will("wills", b"gone", delay_interval=500),
        )
        await peer.disconnect(0x04, session_expiry_interval=20)
        await watcher.message(b"gone")
        assert trio.current_time() == 20


@pytest.mark.parametrize("code", [0x00, 0x04, 0x80, 0x82])
async def test_only_a_normal_disconnect_forgets_the_will(code: int) -> None:
    async with open_harness() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        peer = await harness.connect("peer", will=Will("wills", b"gone"))
        await peer.disconnect(code)
        if code:
            await watcher.message(b"gone")
        await watcher.nothing()


async def test_the_lifetime_of_a_will_begins_when_it_is_published() -> None:
    async with open_harness() as harness:
        lasting = await harness.connect("lasting", session_expiry_interval=1000)
        await lasting.subscribe("wills", 1)
        await lasting.drop()
        peer = await harness.connect(
            "peer",
            session_expiry_interval=1000,
            will=Will("wills", b"gone", 1, False, 100, expiring(30)),
        )
        await peer.drop()
        await trio.sleep(110)
        lasting = harness.peer("lasting")
        await lasting.connect(clean_start=False, session_expiry_interval=1000)
        await lasting.message(b"gone", properties=expiring(20))


# -- messages


async def _back(harness: Any, version: int = 5) -> Peer:
    peer: Peer = harness.peer("peer", version=version)
    fields = {"session_expiry_interval": 10**6} if version == 5 else {}
    await peer.connect(clean_start=False, session_present=True, **fields)
    return peer


@STORES
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_lifetime_is_counted_down_in_the_queue(qos: int, durable: bool) -> None:
    async with open_harness(store=store(durable)) as harness:
        peer = await harness.connect("peer", session_expiry_interval=10**6)
        await peer.subscribe("a", 2)
        await peer.drop()
        other = await harness.connect("other")
        for seconds in (10, 20, 30, None):
            payload = str(seconds).encode()
            await other.publish("a", payload, qos, properties=expiring(seconds))
        await trio.sleep(15)
        peer = await _back(harness)
        await peer.message(b"20", properties=expiring(5))
        await peer.message(b"30", properties=expiring(15))
        got = await peer.message(b"None")
        assert got.properties is None or got.properties.message_expiry_interval is None
        await peer.nothing()
        assert harness.broker.statistics().dropped == {"expired": 1}


async def test_a_lifetime_ends_for_mqtt_3_too() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", version=4, clean_start=False)
        await peer.subscribe("a", 1)
        await peer.drop()
        for seconds in (10, 20):
            await harness.broker.publish("a", str(seconds), qos=1, message_expiry_interval=seconds)
        await trio.sleep(15)
        peer = await _back(harness, 4)
        await peer.message(b"20", properties=None)
        await peer.nothing()


async def test_a_lifetime_ends_while_the_window_is_full() -> None:
    recorder = HookRecorder("dropped")
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", receive_maximum=1)
        await peer.subscribe("a", 1)
        for number, seconds in enumerate((None, 10, 100)):
            await harness.broker.publish("a", str(number), qos=1, message_expiry_interval=seconds)
        first = await peer.expect(Publish, payload=b"0")
        await trio.sleep(50)
        await peer.send(PubAck(first.packet_id))
        await peer.message(b"2", properties=expiring(50))
        await peer.nothing()
    assert [(e.reason, e.client_id, e.topic) for e in recorder.of("dropped")] == [
        ("expired", "peer", "a")
    ]


async def test_what_was_under_way_comes_again_even_if_it_has_expired_since() -> None:
    """[MQTT-3.3.2-5] is about messages whose delivery has not begun."""
    async with open_harness() as harness:
        peer = await harness.connect("peer", session_expiry_interval=10**6)
        await peer.subscribe("a", 2)
        await harness.broker.publish("a", "x", qos=2, message_expiry_interval=10)
        first = await peer.expect(Publish, payload=b"x")
        await peer.drop()
        await trio.sleep(100)
        peer = await _back(harness)
        await peer.message(b"x", dup=True, packet_id=first.packet_id)


async def test_an_interval_of_0_is_for_who_is_there() -> None:
    async with open_harness() as harness:
        there = await harness.connect("there")
        await there.subscribe("a", 1)
        peer = await harness.connect("peer", session_expiry_interval=10**6)
        await peer.subscribe("a", 1)
        await peer.drop()
        await harness.broker.publish("a", "x", qos=1, message_expiry_interval=0)
        await there.message(b"x", properties=expiring(0))
        peer = await _back(harness)
        await peer.nothing()


@STORES
async def test_the_lifetime_of_a_retained_message(durable: bool) -> None:
    recorder = HookRecorder("retained_changed")
    async with open_harness(store=store(durable), plugins=[recorder]) as harness:
        other = await harness.connect("other")
        await other.publish("a", b"x", 1, retain=True, properties=expiring(100))
        await trio.sleep(40)
        early = await harness.connect("early")
        await early.subscribe("a", 1)
        await early.message(b"x", retain=True, properties=expiring(60))
        assert harness.broker.retained()[0].message_expiry_interval == 60
        await trio.sleep(61)
        late = await harness.connect("late")
        await late.subscribe("a", 1)
        await late.nothing()
        assert harness.broker.retained() == []
        assert harness.broker.statistics().retained == 0


async def test_a_retained_message_that_was_replaced_takes_no_other_with_it() -> None:
    async with open_harness() as harness:
        await harness.broker.publish("a", "old", retain=True, message_expiry_interval=50)
        await trio.sleep(40)
        await harness.broker.publish("a", "new", retain=True, message_expiry_interval=50)
        await trio.sleep(40)
        assert [message.payload for message in harness.broker.retained()] == [b"new"]
        await harness.broker.publish("a", "stays", retain=True)
        await trio.sleep(1000)
        assert [message.payload for message in harness.broker.retained()] == [b"stays"]


async def test_part_of_a_second_counts_as_a_whole_one() -> None:
    """A message is never said to live longer than it was, nor to have expired while it hasn't."""
    async with open_harness() as harness:
        peer = await harness.connect("peer", session_expiry_interval=10**6)
        await peer.subscribe("a", 1)
        await peer.drop()
        await harness.broker.publish("a", "x", qos=1, message_expiry_interval=10)
        await trio.sleep(9.5)
        peer = await _back(harness)
        await peer.message(b"x", properties=expiring(1))


async def test_a_subscribers_own_version_has_the_same_lifetime_or_its_own() -> None:
    def deliver(message: PublishEvent) -> PublishEvent:
        if message.payload == b"shorter":
            return message.changed(properties=message.with_properties(message_expiry_interval=20))
        return message.changed(payload=message.payload + b"!")

    recorder = HookRecorder(answers={"compile_delivery": lambda event: deliver})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=10**6)
        await peer.subscribe("a", 1)
        await peer.drop()
        for payload in ("same", "shorter"):
            await harness.broker.publish("a", payload, qos=1, message_expiry_interval=100)
        await harness.broker.publish("a", "kept", retain=True, message_expiry_interval=100)
        await trio.sleep(15)
        peer = await _back(harness)
        await peer.message(b"same!", properties=expiring(85))
        await peer.message(b"shorter", properties=expiring(5))
        await peer.subscribe("a")
        await peer.message(b"kept!", retain=True, properties=expiring(85))
