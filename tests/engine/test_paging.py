"""Queues larger than memory: bounded in memory, complete in the store, in order for the client."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from mqtrio import DroppedEvent, PublishEvent, RefusedError, StoreError, hookimpl
from mqtrio.state.session import Session
from mqtrio.testing import FaultyStore, Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    Subscribe,
    SubscriptionRequest,
)
from tests.engine.agreement import agree

#: Memory holds two messages of a client that is away, four of one that is there.
SMALL: dict[str, Any] = {"page_messages": 2, "window_messages": 4}
LASTING: dict[str, Any] = {"session_expiry_interval": 1000}


async def away(harness: Harness, client_id: str = "peer", topic: str = "a", qos: int = 2) -> None:
    """A session whose client is away."""
    peer = await harness.connect(client_id, **LASTING)
    await peer.subscribe(topic, qos)
    await peer.drop()


async def publish(harness: Harness, numbers: range, topic: str = "a", **options: Any) -> None:
    for number in numbers:
        await harness.broker.publish(topic, b"%d" % number, **{"qos": 1} | options)


async def back(harness: Harness, client_id: str = "peer", **fields: Any) -> Peer:
    peer = harness.peer(client_id)
    await peer.connect(**LASTING | {"clean_start": False} | fields, session_present=True)
    return peer


async def take(peer: Peer, count: int) -> list[int]:
    """So many messages, each acknowledged when it comes."""
    return [int((await peer.message()).payload) for _ in range(count)]


def session_of(harness: Harness, client_id: str = "peer") -> Session:
    return harness.broker._core.sessions.by_id[client_id]


def in_memory(harness: Harness, client_id: str = "peer") -> int:
    return len(session_of(harness, client_id).deliveries())


def dropped(harness: Harness) -> dict[str, int]:
    return {reason: n for reason, n in harness.broker.statistics().dropped.items() if n}


# -- what memory holds


async def test_window_of_a_connected_client() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        peer = await harness.connect("peer", receive_maximum=3, **LASTING)
        await peer.subscribe("a", 2)
        for number in range(40):
            await publish(harness, range(number, number + 1), qos=1 + number % 2)
            assert in_memory(harness) <= 3 + 4
        (info,) = harness.broker.sessions()
        assert (info.inflight, info.waiting) == (3, 37)
        await agree(harness, store)
        taken = []
        for _ in range(40):
            taken += await take(peer, 1)
            assert in_memory(harness) <= 3 + 4
        assert taken == list(range(40))
        await peer.nothing()
        await agree(harness, store)
    assert store.reads
    assert store.state.messages == {}


@pytest.mark.parametrize("size", [1, 5000])
async def test_window_in_bytes(size: int) -> None:
    """The bytes bound the window as well, and one message always fits."""
    store = FaultyStore()
    bounds = {"window_bytes": 10_000, "page_bytes": 5000}
    async with open_harness(store=store, limits=bounds) as harness:
        peer = await harness.connect("peer", receive_maximum=1, **LASTING)
        await peer.subscribe("a", 1)
        for number in range(60):
            await harness.broker.publish("a", b"%d" % number + b" " * size, qos=1)
        assert session_of(harness).queue_bytes < 10_000 + size + 300
        await peer.drop()
        assert session_of(harness).queue_bytes <= 5000
        peer = await back(harness, receive_maximum=1)
        taken = []
        for _ in range(60):
            taken += await take(peer, 1)
            assert session_of(harness).queue_bytes < 2 * (5000 + size + 300)
        assert taken == list(range(60))


async def test_page_of_an_absent_client() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness)
        empty = harness.broker.statistics().memory
        await publish(harness, range(2))
        full = harness.broker.statistics().memory
        await publish(harness, range(2, 50))
        assert (in_memory(harness), harness.broker.statistics().memory) == (2, full)
        assert full > empty
        (info,) = harness.broker.sessions()
        assert (info.waiting, info.dropped) == (50, 0)
        assert info.waiting_bytes == sum(201 + len(b"%d" % number) for number in range(50))
        assert store.reads == []
        await agree(harness, store)
        peer = await back(harness)
        assert await take(peer, 50) == list(range(50))


async def test_a_client_that_leaves_takes_its_window_along() -> None:
    """What memory held for it goes, but for a page."""
    store = FaultyStore()
    limits = SMALL | {"window_messages": 1000}
    async with open_harness(store=store, limits=limits) as harness:
        peer = await harness.connect("peer", receive_maximum=1, **LASTING)
        await peer.subscribe("a", 1)
        await publish(harness, range(100))
        assert in_memory(harness) == 100
        await peer.drop()
        assert in_memory(harness) == 1 + 2
        await agree(harness, store)
        peer = await back(harness)
        assert await take(peer, 100) == list(range(100))
        await agree(harness, store)


async def test_used_up_memory_does_not_refuse_what_the_store_can_take() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits={"memory": 20_000}) as harness:
        await away(harness)
        await publish(harness, range(200))
        assert harness.broker.statistics().memory < 21_000
        assert harness.broker.sessions()[0].waiting == 200
        peer = await back(harness)
        assert await take(peer, 200) == list(range(200))


async def test_sessions_that_are_not_stored_stay_in_memory() -> None:
    async with open_harness(limits=SMALL) as harness:  # with the memory store
        await away(harness)
        await publish(harness, range(50))
        assert in_memory(harness) == 50
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        peer = await harness.connect("peer", receive_maximum=1)
        await peer.subscribe("a", 1)
        await publish(harness, range(50))
        assert in_memory(harness) == 50
        assert store.state.messages == {}


# -- at start


async def test_no_queue_is_read_at_start() -> None:
    """Many sessions come back at once, known by their numbers; each is read when its client is."""
    names = [f"client {number}" for number in range(50)]
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        for name in names:
            await away(harness, name)
        await publish(harness, range(20))
    store = FaultyStore(store.state.copy())
    async with open_harness(store=store, limits=SMALL) as harness:
        await trio.sleep(1)
        assert store.reads == []
        assert {
            info.client_id: info.waiting for info in harness.broker.sessions()
        } == dict.fromkeys(names, 20)
        assert all(info.waiting_bytes >= 20 * 200 for info in harness.broker.sessions())
        assert harness.broker._core.recorder.messages == {}
        peer = await back(harness, names[7])
        assert await take(peer, 20) == list(range(20))
        assert {name for name, _ in store.reads} == {names[7]}
        await agree(harness, store)


async def test_what_was_under_way_is_known_before_anything_new() -> None:
    """Identifiers and QoS 2 states stand in the first pages; nothing new overtakes them."""
    store = FaultyStore()
    limits = SMALL | {"page_messages": 1}
    async with open_harness(store=store, limits=limits) as harness:
        peer = await harness.connect("peer", receive_maximum=4, **LASTING)
        await peer.subscribe("a", 2)
        await publish(harness, range(8), qos=2)
        sent = [await peer.expect(Publish) for _ in range(4)]
        await peer.send(PubRec(sent[2].packet_id))
        await peer.expect(PubRel, packet_id=sent[2].packet_id)
        await trio.sleep(1)
    store = FaultyStore(store.state.copy())
    async with open_harness(store=store, limits=limits) as harness:
        peer = await back(harness, receive_maximum=4)
        got = await peer.arrived()
        assert PubRel(sent[2].packet_id) in got
        again = [packet for packet in got if isinstance(packet, Publish)]
        assert [(packet.packet_id, packet.dup) for packet in again] == [
            (sent[number].packet_id, True) for number in (0, 1, 3)
        ]
        await peer.send(PubComp(sent[2].packet_id))
        new = await peer.expect(Publish, payload=b"4", dup=False)
        assert new.packet_id not in {packet.packet_id for packet in again}
        await agree(harness, store)


# -- order


async def test_what_the_journal_still_holds_is_neither_missed_nor_overtaken() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness)
        await publish(harness, range(10))
        store.delay = 0.3
        peer = await back(harness)
        other = await harness.connect("other")
        taken: list[int] = []
        for number in range(10, 40):
            await other.send(Publish("a", b"%d" % number, 1, packet_id=number))
            await trio.sleep(0.05)
            for packet in await peer.arrived():
                assert isinstance(packet, Publish)
                taken.append(int(packet.payload))
                await peer.send(PubAck(packet.packet_id))
        taken += await take(peer, 40 - len(taken))
        assert taken == list(range(40))
        await agree(harness, store)


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_comes_while_the_first_page_is_read_waits_its_turn(qos: int) -> None:
    """Nothing is in memory yet, and nothing under way: all the same it is not the next."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        await away(harness)
        await publish(harness, range(5))
    store = FaultyStore(store.state.copy())
    store.read_delay = 1
    async with open_harness(store=store) as harness:
        peer = await back(harness)
        other = await harness.connect("other")
        for number in range(5, 8):
            await other.send(Publish("a", b"%d" % number, qos, packet_id=number))
        await peer.nothing()
        assert await take(peer, 8) == list(range(8))
        await agree(harness, store)


async def test_a_client_that_comes_and_goes_while_a_page_is_read() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness)
        await publish(harness, range(20))
        for _ in range(3):
            peer = await back(harness, receive_maximum=1)
            await peer.expect(Publish, payload=b"0")
            store.hang()
            await peer.drop()
            store.go_on()
        peer = await back(harness)
        assert await take(peer, 20) == list(range(20))
        await agree(harness, store)


# -- lifetimes


async def test_what_has_expired_unread_is_dropped_when_it_is_read() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness)
        await publish(harness, range(10), message_expiry_interval=5)
        await publish(harness, range(10, 15))
        await trio.sleep(6)
        peer = await back(harness)
        assert await take(peer, 5) == list(range(10, 15))
        assert dropped(harness) == {"expired": 10}
        await agree(harness, store)
    assert store.state.messages == {}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("limits", [{"queue_messages": 10}, {"queue_bytes": 10 * 202}])
async def test_what_has_expired_unread_refuses_nothing(
    limits: dict[str, Any], restarted: bool
) -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL | limits) as harness:
        await away(harness)
        await publish(harness, range(4, 10))
        await publish(harness, range(4), message_expiry_interval=5)
        with pytest.raises(RefusedError):
            await publish(harness, range(99, 100))
        if not restarted:
            await _expire_and_go_on(harness)
            await agree(harness, store)
    if restarted:
        store = FaultyStore(store.state.copy())
        async with open_harness(store=store, limits=SMALL | limits) as harness:
            await _expire_and_go_on(harness)
            await agree(harness, store)


async def _expire_and_go_on(harness: Harness) -> None:
    await trio.sleep(6)
    await publish(harness, range(1))
    await trio.sleep(1)
    assert dropped(harness)["expired"] == 4
    assert harness.broker.sessions()[0].waiting == 7
    await publish(harness, range(1, 4))
    with pytest.raises(RefusedError):
        await publish(harness, range(99, 100))
    peer = await back(harness)
    assert await take(peer, 10) == [*range(4, 10), *range(4)]


async def test_what_has_expired_in_memory_refuses_nothing() -> None:
    async with open_harness(limits={"queue_messages": 4}) as harness:
        await away(harness)
        await publish(harness, range(2), message_expiry_interval=5)
        await publish(harness, range(2, 4))
        await trio.sleep(6)
        await publish(harness, range(4, 6))
        with pytest.raises(RefusedError):
            await publish(harness, range(99, 100))
        assert dropped(harness) == {"expired": 2, "refused": 1}
        peer = await back(harness)
        assert await take(peer, 4) == [2, 3, 4, 5]


# -- full


@pytest.mark.parametrize("limits", [{"queue_messages": 10}, {"queue_bytes": 10 * 202}])
@pytest.mark.parametrize(
    ("overflow", "kept"),
    [("reject", range(10)), ("drop_newest", range(10)), ("drop_oldest", range(7, 17))],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_full_queue(
    limits: dict[str, Any], overflow: str, kept: range, restarted: bool
) -> None:
    """The limits are about all of it, and what becomes of the rest as if it were in memory."""
    bounds = SMALL | limits | {"overflow": overflow}
    store = FaultyStore()
    async with open_harness(store=store, limits=bounds) as harness:
        await away(harness)
        await publish(harness, range(10))
        if not restarted:
            await _overflow(harness, overflow, kept)
            await agree(harness, store)
    if restarted:
        store = FaultyStore(store.state.copy())
        async with open_harness(store=store, limits=bounds) as harness:
            await _overflow(harness, overflow, kept)
            await agree(harness, store)


async def _overflow(harness: Harness, overflow: str, kept: range) -> None:
    for number in range(10, 17):
        try:
            await publish(harness, range(number, number + 1))
        except RefusedError:
            assert overflow == "reject"
    await trio.sleep(1)
    assert harness.broker.sessions()[0].waiting == 10
    reason = "refused" if overflow == "reject" else "queue_full"
    assert dropped(harness) == {reason: 7}
    peer = await back(harness)
    assert await take(peer, 10) == list(kept)
    await peer.nothing()


async def test_a_full_queue_of_what_was_sent_before() -> None:
    """Nothing of it may be dropped for newer messages, and there is nothing unread yet."""
    bounds = SMALL | {"queue_messages": 3, "overflow": "drop_oldest"}
    store = FaultyStore()
    async with open_harness(store=store, limits=bounds) as harness:
        peer = await harness.connect("peer", **LASTING)
        await peer.subscribe("a", 1)
        await publish(harness, range(6))
        for number in range(6):
            await peer.expect(Publish, payload=b"%d" % number)
        await peer.drop()
        peer = await back(harness, receive_maximum=1)
        await publish(harness, range(6, 9))
        assert await take(peer, 7) == [0, 1, 2, 3, 4, 5, 8]
        assert dropped(harness) == {"queue_full": 2}
        await agree(harness, store)


async def test_what_is_gone_from_memory_is_not_read_again() -> None:
    """It stands in the store until the next commit, in the midst of what memory lets go."""
    bounds = SMALL | {"window_messages": 10, "maximum_inflight": 1, "queue_messages": 6}
    store = FaultyStore()
    async with open_harness(store=store, limits=bounds) as harness:
        peer = await harness.connect("peer", **LASTING)
        await peer.subscribe("a", 1)
        other = await harness.connect("other")
        for number in range(7):
            lifetime = {4: 5, 5: 6}.get(number)
            properties = PublishProperties(message_expiry_interval=lifetime)
            await other.send(Publish("a", b"%d" % number, 1, False, False, number + 1, properties))
            await other.expect(PubAck, packet_id=number + 1)
        await peer.expect(Publish, payload=b"0")
        await trio.sleep(5)
        store.delay = 3
        await other.send(Publish("a", b"7", 1, packet_id=10))  # in the place of 4
        await other.settle()
        await peer.drop()
        await trio.sleep(1)
        await other.send(Publish("a", b"8", 1, packet_id=11))  # in the place of 5
        await other.expect(PubAck, packet_id=10, reason_code=0)
        await other.expect(PubAck, packet_id=11, reason_code=0)
        await agree(harness, store)
        assert dropped(harness) == {"expired": 2}
        peer = await back(harness)
        assert await take(peer, 7) == [0, 1, 2, 3, 6, 7, 8]
        await agree(harness, store)


# -- the end of a session


@pytest.mark.parametrize("end", ["clean_start", "expired", "administrative"])
async def test_the_end_of_a_session_with_unread_messages(end: str) -> None:
    recorder = HookRecorder("dropped")
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL, plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=50)
        await peer.subscribe("a", 1)
        await peer.drop()
        await publish(harness, range(20))
        if end == "clean_start":
            peer = await harness.connect("peer", clean_start=True, **LASTING)
            await peer.subscribe("a", 1)
            await publish(harness, range(50, 60))
            assert await take(peer, 10) == list(range(50, 60))
        elif end == "expired":
            await trio.sleep(60)
        else:
            assert harness.broker.end_session("peer")
        await agree(harness, store)
        assert dropped(harness) == {"session_ended": 20}
        assert [event.client.client_id for event in recorder.of("dropped")] == ["peer"] * 20
    assert store.state.messages == {}
    assert set(store.state.sessions) == ({"peer"} if end == "clean_start" else set())


@pytest.mark.parametrize("limits", [{}, SMALL], ids=["in memory", "unread"])
@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_an_observer_ends_a_session_that_is_full(
    limits: dict[str, Any], overflow: str
) -> None:
    """What was to take the place of a dropped message is for nobody."""

    class Harsh:
        @hookimpl
        def dropped(self, event: DroppedEvent) -> None:
            if event.reason != "session_ended":
                harness.broker.end_session("peer")

    bounds = limits | {"queue_messages": 5, "overflow": overflow}
    store = FaultyStore()
    async with open_harness(store=store, limits=bounds, plugins=[Harsh()]) as harness:
        memory = harness.broker._core.memory
        await away(harness, qos=1)
        await publish(harness, range(1), message_expiry_interval=5)
        await publish(harness, range(1, 5))
        await trio.sleep(6)
        await publish(harness, range(5, 7))
        await agree(harness, store)
        assert harness.broker._core.memory == memory
    assert store.state.messages == {}
    assert store.state.sessions == {}


@pytest.mark.parametrize("crash", [False, True])
async def test_other_members_get_what_was_unread(crash: bool) -> None:
    """Shared subscriptions: also where the broker dies before all has found its way."""
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness, "peer", "$share/g/a")
        await publish(harness, range(20))
        await away(harness, "other", "$share/g/a")
        if crash:
            store.fail_next_read(1_000_000)
        assert harness.broker.end_session("peer")
        await trio.sleep(5)
        state = store.state.copy()
        store.heal()
        await trio.sleep(5)
    if crash:
        assert len(state.sessions) == 2
        store = FaultyStore(state)
    async with open_harness(store=FaultyStore(store.state.copy()), limits=SMALL) as harness:
        await trio.sleep(5)
        assert [info.client_id for info in harness.broker.sessions()] == ["other"]
        peer = await back(harness, "other")
        assert await take(peer, 20) == list(range(20))
        assert dropped(harness) == {}


async def test_names_of_ended_sessions_are_nobodys() -> None:
    async with open_harness() as harness:
        peer = harness.peer("$ended/x")
        await peer.send(peer.connect_packet())
        await peer.expect_closed(0x85)


# -- filters


async def test_pages_hold_what_a_filter_has_made_of_messages() -> None:
    def change(message: PublishEvent) -> PublishEvent | None:
        if int(message.payload) % 2:
            return None
        return message.changed(payload=b"1%s" % message.payload)

    def recorder() -> HookRecorder:
        compiled: Callable[[object], Any] = lambda event: change  # noqa: E731 - it is a table
        return HookRecorder(answers={"compile_delivery": compiled})

    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL, plugins=[recorder()]) as harness:
        await away(harness)
        await publish(harness, range(20))
    store = FaultyStore(store.state.copy())
    async with open_harness(store=store, limits=SMALL, plugins=[recorder()]) as harness:
        await publish(harness, range(20, 24))
        peer = await back(harness)
        assert await take(peer, 12) == [int(f"1{number}") for number in range(0, 24, 2)]
        await peer.nothing()


# -- a store that fails


async def test_a_page_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness)
        await publish(harness, range(20))
        store.fail_next_read()
        peer = await back(harness, receive_maximum=1)
        # What memory has comes, and then the end.
        await peer.expect(Publish, payload=b"0")
        await peer.send(PubAck(1))
        await peer.expect(Publish, payload=b"1")
        await peer.expect_closed(0x80)
        assert "the queue of 'peer' can't be read: the disk can't be read" in caplog.messages
        await trio.sleep(5)
        peer = await back(harness)
        assert await take(peer, 19) == list(range(1, 20))
        await agree(harness, store)


async def test_a_failed_commit_with_unread_messages() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness, "peer")
        await away(harness, "untouched", "b")
        for topic in "ab":
            await publish(harness, range(10), topic)
        store.fail_next()
        other = await harness.connect("other")
        await other.send(Publish("a", b"lost", 1, packet_id=1))
        await other.expect(PubAck, reason_code=0x80)
        await agree(harness, store)
        await publish(harness, range(10, 12))
        assert {info.client_id: info.waiting for info in harness.broker.sessions()} == {
            "peer": 12,
            "untouched": 10,
            "other": 0,
        }
        await agree(harness, store)
        peer = await back(harness)
        assert await take(peer, 12) == list(range(12))


# -- subscribers of this process


async def test_a_subscriber_of_this_process() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        broker = harness.broker
        async with broker.subscribe("a", qos=1, session="worker"):
            pass
        await publish(harness, range(30))
        assert in_memory(harness, "$local/worker") == 2
        async with broker.subscribe("a", qos=1, session="worker", size=3) as messages:
            for number in range(15):
                message = await messages.receive(timeout=5)
                assert message.payload == b"%d" % number
                message.ack()
        await trio.sleep(1)
        assert len(store.state.queues["$local/worker"]) == 15
        store.fail_next_read()
        with pytest.raises(StoreError, match="can't be read"):
            await _listen(harness)
        await trio.sleep(5)
        async with broker.subscribe("a", qos=1, session="worker") as messages:
            for number in range(15, 30):
                message = await messages.receive(timeout=5)
                assert message.payload == b"%d" % number
                message.ack()
        await agree(harness, store)


async def test_retained_messages_wait_behind_what_is_unread() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness)
        await publish(harness, range(20))
        await publish(harness, range(20, 21), "kept", retain=True)
        peer = await back(harness)
        await peer.send(Subscribe(1, (SubscriptionRequest("kept", 1),)))
        packets = [packet for packet in await peer.arrived() if isinstance(packet, Publish)]
        for packet in packets:
            await peer.send(PubAck(packet.packet_id))
        taken = [int(packet.payload) for packet in packets]
        taken += await take(peer, 21 - len(taken))
        assert taken == list(range(21))
        await agree(harness, store)


async def test_properties_and_lifetimes_come_out_of_pages() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits=SMALL) as harness:
        await away(harness)
        for number in range(6):
            await harness.broker.publish(
                "a",
                b"%d" % number,
                qos=2,
                message_expiry_interval=100,
                user_properties=[("number", str(number))],
            )
        await trio.sleep(40)
        peer = await back(harness)
        for number in range(6):
            got = await peer.message(b"%d" % number, qos=2)
            assert got.properties == PublishProperties(
                message_expiry_interval=60, user_properties=(("number", str(number)),)
            )
        await agree(harness, store)


async def _listen(harness: Harness) -> None:
    """Take all messages that come, and acknowledge none."""
    async with harness.broker.subscribe("a", qos=1, session="worker", size=3) as messages:
        async for message in messages:
            assert int(message.payload) < 29
