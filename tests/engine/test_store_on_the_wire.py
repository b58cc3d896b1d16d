"""What waits for the store, as clients see it; docs/durability.md has the table."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from mqtrio.store.changes import MessagePut, QueuedPut, RetainedPut
from mqtrio.testing import FaultyStore, Harness, Peer, open_harness
from mqtrio.wire.packets import (
    ConnAck,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    Will,
)
from tests.engine.agreement import agree

VERSIONS = pytest.mark.parametrize("version", [4, 5])


class Stage:
    """A broker with a store that can hang, and peers with and without a stored session."""

    def __init__(self, harness: Harness, store: FaultyStore, version: int) -> None:
        self.harness = harness
        self.store = store
        self.version = version

    async def peer(self, client_id: str, *, stored: bool, **fields: Any) -> Peer:
        return await self.harness.connect(
            client_id, version=self.version, **self.lasting(stored), **fields
        )

    def lasting(self, stored: bool) -> dict[str, Any]:
        """The fields of CONNECT that make a session last."""
        if self.version == 5:
            return {"session_expiry_interval": 1000 if stored else 0}
        return {"clean_start": not stored}

    async def waits(self, peer: Peer, wanted: Packet | type[Packet]) -> None:
        """Nothing comes while the store hangs; then this does."""
        await peer.nothing()
        self.store.go_on()
        await self.comes(peer, wanted)

    async def comes(self, peer: Peer, wanted: Packet | type[Packet]) -> None:
        """This comes, whether the store hangs or not."""
        packet = await peer.receive()
        kind = wanted if isinstance(wanted, type) else type(wanted)
        assert type(packet) is kind
        if not isinstance(wanted, type):
            assert packet == wanted


Scene = Callable[[Stage], Awaitable[None]]


async def run(scene: Scene, version: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        await scene(Stage(harness, store, version))
        store.go_on()
        await agree(harness, store)


# -- what waits


async def connack(s: Stage) -> None:
    s.store.hang()
    peer = s.harness.peer("a", version=s.version)
    await peer.send(peer.connect_packet(**s.lasting(True)))
    await s.waits(peer, ConnAck)


async def connack_of_a_resumed_session(s: Stage) -> None:
    await (await s.peer("a", stored=True)).drop()
    s.store.hang()
    peer = s.harness.peer("a", version=s.version)
    await peer.send(peer.connect_packet(**s.lasting(True) | {"clean_start": False}))
    await s.waits(peer, ConnAck(True) if s.version == 4 else ConnAck)


async def connack_that_ends_a_stored_session(s: Stage) -> None:
    await (await s.peer("a", stored=True)).drop()
    s.store.hang()
    peer = s.harness.peer("a", version=s.version)
    await peer.send(peer.connect_packet(**s.lasting(False)))
    await s.waits(peer, ConnAck(False) if s.version == 4 else ConnAck)


async def suback(s: Stage) -> None:
    peer = await s.peer("a", stored=True)
    s.store.hang()
    await peer.send(Subscribe(3, (SubscriptionRequest("x", 1),)))
    await s.waits(peer, SubAck(3, (1,)))


async def unsuback(s: Stage) -> None:
    peer = await s.peer("a", stored=True)
    await peer.subscribe("x")
    s.store.hang()
    await peer.send(Unsubscribe(3, ("x",)))
    await s.waits(peer, UnsubAck(3, (0,) if s.version == 5 else ()))


def to_a_stored_session(qos: int, *, connected: bool, publisher: bool = False) -> Scene:
    async def scene(s: Stage) -> None:
        subscriber = await s.peer("subscriber", stored=True)
        await subscriber.subscribe("x", 2)
        if not connected:
            await subscriber.drop()
        peer = await s.peer("publisher", stored=publisher)
        s.store.hang()
        await peer.send(Publish("x", b"x", qos, packet_id=5))
        await s.waits(peer, PubAck(5) if qos == 1 else PubRec(5))

    return scene


def retained(qos: int, payload: bytes) -> Scene:
    async def scene(s: Stage) -> None:
        peer = await s.peer("publisher", stored=False)
        await peer.publish("x", b"before", 1, retain=True)
        s.store.hang()
        await peer.send(Publish("x", payload, qos, True, packet_id=5))
        code = 0x10 if s.version == 5 else 0
        await s.waits(peer, PubAck(5, code) if qos == 1 else PubRec(5, code))

    return scene


async def pubrec_of_a_stored_publisher(s: Stage) -> None:
    peer = await s.peer("publisher", stored=True)
    s.store.hang()
    await peer.send(Publish("nobody", b"x", 2, packet_id=5))
    await s.waits(peer, PubRec)


async def pubcomp(s: Stage) -> None:
    peer = await s.peer("publisher", stored=True)
    await peer.send(Publish("nobody", b"x", 2, packet_id=5))
    await peer.expect(PubRec)
    s.store.hang()
    await peer.send(PubRel(5))
    await s.waits(peer, PubComp(5))


async def pubrel(s: Stage) -> None:
    peer = await s.peer("a", stored=True)
    await peer.subscribe("x", 2)
    await s.harness.broker.publish("x", b"x", qos=2)
    got = await peer.expect(Publish)
    s.store.hang()
    await peer.send(PubRec(got.packet_id))
    await s.waits(peer, PubRel(got.packet_id))


async def qos_2_to_a_stored_session(s: Stage) -> None:
    peer = await s.peer("a", stored=True)
    await peer.subscribe("x", 2)
    other = await s.peer("publisher", stored=False)
    s.store.hang()
    await other.send(Publish("x", b"x", 2, packet_id=5))
    await s.waits(peer, Publish("x", b"x", 2, packet_id=1))


async def qos_2_that_waited_for_the_window(s: Stage) -> None:
    """Its packet identifier must be stored before it leaves."""
    peer = await s.peer("a", stored=True, **({"receive_maximum": 1} if s.version == 5 else {}))
    await peer.subscribe("x", 2)
    s.harness.broker._core.sessions.by_id["a"].window = 1
    for payload in (b"1", b"2"):
        await s.harness.broker.publish("x", payload, qos=2)
    first = await peer.expect(Publish, payload=b"1")
    await peer.send(PubRec(first.packet_id))
    await peer.expect(PubRel)
    s.store.hang()
    await peer.send(PubComp(first.packet_id))
    await s.waits(peer, Publish("x", b"2", 2, packet_id=2))


async def a_program_publishes(s: Stage) -> None:
    peer = await s.peer("a", stored=True)
    await peer.subscribe("x", 1)
    s.store.hang()
    done = []

    async def publish() -> None:
        await s.harness.broker.publish("x", b"x", qos=1)
        done.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        await peer.message(b"x")
        await peer.nothing()
        assert not done
        s.store.go_on()


WAITING: dict[str, Scene] = {
    "CONNACK": connack,
    "CONNACK, resumed": connack_of_a_resumed_session,
    "CONNACK, ending a stored session": connack_that_ends_a_stored_session,
    "SUBACK": suback,
    "UNSUBACK": unsuback,
    "PUBACK, subscriber there": to_a_stored_session(1, connected=True),
    "PUBACK, subscriber away": to_a_stored_session(1, connected=False),
    "PUBREC, subscriber there": to_a_stored_session(2, connected=True),
    "PUBREC, subscriber away": to_a_stored_session(2, connected=False),
    "PUBACK to a stored publisher": to_a_stored_session(1, connected=False, publisher=True),
    "PUBACK, retained": retained(1, b"now"),
    "PUBREC, retained": retained(2, b"now"),
    "PUBACK, retained removed": retained(1, b""),
    "PUBREC, retained removed": retained(2, b""),
    "PUBREC to a stored publisher": pubrec_of_a_stored_publisher,
    "PUBCOMP": pubcomp,
    "PUBREL": pubrel,
    "PUBLISH at QoS 2": qos_2_to_a_stored_session,
    "PUBLISH at QoS 2 behind the window": qos_2_that_waited_for_the_window,
    "a program": a_program_publishes,
}


@VERSIONS
@pytest.mark.parametrize("scene", list(WAITING))
async def test_waits(scene: str, version: int) -> None:
    await run(WAITING[scene], version)


# -- what does not wait


async def connack_without_a_store(s: Stage) -> None:
    s.store.hang()
    peer = s.harness.peer("a", version=s.version)
    await peer.send(peer.connect_packet(**s.lasting(False)))
    await s.comes(peer, ConnAck)


async def subscribing_without_a_store(s: Stage) -> None:
    peer = await s.peer("a", stored=False)
    s.store.hang()
    await peer.subscribe("x", 2)
    await peer.unsubscribe("x")


def without_a_stored_target(qos: int) -> Scene:
    async def scene(s: Stage) -> None:
        subscriber = await s.peer("subscriber", stored=False)
        await subscriber.subscribe("x", 2)
        lasting = await s.peer("lasting", stored=True)
        await lasting.subscribe("x", 0)  # what is delivered at QoS 0 is not stored
        peer = await s.peer("publisher", stored=qos == 1)
        s.store.hang()
        await peer.publish("x", b"x", qos)
        await subscriber.message(b"x", qos=qos)
        await lasting.message(b"x", qos=0)

    return scene


async def qos_1_to_a_stored_session(s: Stage) -> None:
    peer = await s.peer("a", stored=True)
    await peer.subscribe("x", 1)
    other = await s.peer("publisher", stored=False)
    s.store.hang()
    for qos in (1, 2):
        await other.send(Publish("x", b"x", qos, packet_id=qos))
        await s.comes(peer, Publish("x", b"x", 1, packet_id=qos))
    await other.nothing()


async def retained_at_qos_0(s: Stage) -> None:
    subscriber = await s.peer("subscriber", stored=True)
    await subscriber.subscribe("x", 2)
    peer = await s.peer("publisher", stored=True)
    s.store.hang()
    await peer.publish("x", b"x", 0, retain=True)
    await peer.ping()
    await subscriber.message(b"x")
    assert len(s.harness.broker.retained()) == 1
    assert s.store.state.retained == {}


async def pings(s: Stage) -> None:
    peer = await s.peer("a", stored=True)
    s.store.hang()
    await peer.send(Subscribe(1, (SubscriptionRequest("x"),)), PingReq(), PingReq())
    await s.comes(peer, PingResp)
    await s.comes(peer, PingResp)
    await s.waits(peer, SubAck)


def a_subscribers_acknowledgement(qos: int) -> Scene:
    """It makes room in the window at once: the next message follows."""

    async def scene(s: Stage) -> None:
        peer = await s.peer("a", stored=True)
        await peer.subscribe("x", 2)
        s.harness.broker._core.sessions.by_id["a"].window = 1
        await s.harness.broker.publish("x", b"1", qos=qos)
        await s.harness.broker.publish("x", b"2", qos=1)
        first = await peer.expect(Publish, payload=b"1")
        if qos == 2:
            await peer.send(PubRec(first.packet_id))
            await peer.expect(PubRel)
        s.store.hang()
        await peer.send(PubAck(first.packet_id) if qos == 1 else PubComp(first.packet_id))
        await peer.expect(Publish, payload=b"2", qos=1)

    return scene


async def everything_of_a_session_that_is_not_stored(s: Stage) -> None:
    s.store.hang()
    peer = await s.peer("a", stored=False)
    await peer.subscribe("x", 2)
    for qos in (0, 1, 2):
        await peer.publish("x", b"x", qos)
        await peer.message(b"x", qos=qos)
    await peer.unsubscribe("x")
    await peer.disconnect()
    await s.harness.connect("b", version=s.version, will=Will("x", b"gone", 2))
    await trio.sleep(10)
    assert s.store.attempts == []  # the disk never hears of it


FREE: dict[str, Scene] = {
    "CONNACK": connack_without_a_store,
    "SUBACK and UNSUBACK": subscribing_without_a_store,
    "PUBLISH at QoS 0": without_a_stored_target(0),
    "PUBACK": without_a_stored_target(1),
    "PUBREC": without_a_stored_target(2),
    "QoS 1 to a stored session": qos_1_to_a_stored_session,
    "retained at QoS 0": retained_at_qos_0,
    "PINGRESP": pings,
    "a subscriber's PUBACK": a_subscribers_acknowledgement(1),
    "a subscriber's PUBCOMP": a_subscribers_acknowledgement(2),
    "a session that isn't stored": everything_of_a_session_that_is_not_stored,
}


@VERSIONS
@pytest.mark.parametrize("scene", list(FREE))
async def test_does_not_wait(scene: str, version: int) -> None:
    await run(FREE[scene], version)


@VERSIONS
@pytest.mark.parametrize("scene", [*WAITING, *FREE])
async def test_a_slow_store_is_only_slow(scene: str, version: int) -> None:
    """The same scenes with a store that takes its time for each commit."""
    store = FaultyStore(delay=0.3)
    store.hang = lambda: None  # type: ignore[method-assign]
    async with open_harness(store=store) as harness:
        stage = Stage(harness, store, version)

        async def only_comes(peer: Peer, wanted: Any) -> None:
            await stage.comes(peer, wanted)

        stage.waits = only_comes  # type: ignore[method-assign]
        if scene in WAITING and scene != "a program":
            await WAITING[scene](stage)
        await agree(harness, store)


# -- order and limits


async def test_acknowledgements_keep_their_order() -> None:
    """What has nothing to wait for waits for what was sent before it."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("stored", 2)
        await away.drop()
        peer = await harness.connect("peer")
        store.hang()
        await peer.send(
            Publish("stored", b"1", 1, packet_id=1),
            Publish("nobody", b"2", 1, packet_id=2),
            PingReq(),
            Publish("stored", b"3", 2, packet_id=3),
            Subscribe(4, (SubscriptionRequest("x"),)),
            Publish("nobody", b"5", 2, packet_id=5),
            PubRel(5),
            Publish("stored", b"6", 1, packet_id=6),
        )
        await peer.expect(PingResp)
        await peer.nothing()
        store.go_on()
        for wanted in (
            *(PubAck(1), PubAck(2, 0x10), PubRec(3), SubAck(4, (0,)), PubRec(5, 0x10)),
            *(PubComp(5), PubAck(6)),
        ):
            assert await peer.receive() == wanted
        await agree(harness, store)


async def test_each_batch_releases_its_own_acknowledgements() -> None:
    store = FaultyStore(delay=1.0)
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("stored", 2)
        await away.drop()
        await trio.sleep(5)
        peer = await harness.connect("peer")
        begin = trio.current_time()
        await peer.send(Publish("stored", b"1", 1, packet_id=1))
        await trio.sleep(0.5)  # the first commit is under way
        await peer.send(
            Publish("stored", b"2", 1, packet_id=2), Publish("stored", b"3", 1, packet_id=3)
        )
        for packet_id, after in ((1, 1.0), (2, 2.0), (3, 2.0)):
            await peer.expect(PubAck, packet_id=packet_id)
            assert trio.current_time() - begin == pytest.approx(after)
        await agree(harness, store)


async def test_commits_never_pause_reading() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("stored", 2)
        await away.drop()
        peer = await harness.connect("peer")
        store.hang()
        for number in range(1, 501):
            await peer.send(Publish("stored", b"x", 1, packet_id=number))
        await peer.ping()
        assert harness.broker.statistics().messages_received == 500
        store.go_on()
        for number in range(1, 501):
            await peer.expect(PubAck, packet_id=number)
        assert len(store.commits[-1]) + len(store.commits[-2]) >= 1000  # one or two for all
        await agree(harness, store)


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_waits_counts_against_the_receive_maximum(qos: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits={"receive_maximum": 3}) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("stored", 2)
        await away.drop()
        peer = await harness.connect("peer")
        store.hang()
        for number in (1, 2, 3):
            await peer.send(Publish("stored", b"x", qos, packet_id=number))
        await peer.nothing()
        await peer.send(Publish("stored", b"x", qos, packet_id=4))
        await peer.expect_closed(0x93)
        store.go_on()
        await agree(harness, store)


async def test_reading_pauses_when_too_much_waits_for_the_store() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits={"uncommitted_bytes": 10_000}) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("stored", 2)
        await away.drop()
        peer = await harness.connect("peer", keep_alive=1)
        other = await harness.connect("other")
        store.hang()
        for number in range(1, 21):
            await peer.send(Publish("stored", b"x" * 1000, 1, packet_id=number))
        await peer.send(PingReq())
        await peer.nothing()
        received = harness.broker.statistics().messages_received
        assert received < 15
        await other.ping()
        await other.publish("nobody", b"x", 1)
        await trio.sleep(20)  # it can't be blamed for what is not read: no keep alive timeout
        await peer.nothing()
        store.go_on()
        got = await peer.arrived()
        assert [p.packet_id for p in got if isinstance(p, PubAck)] == list(range(1, 21))
        assert sum(isinstance(packet, PingResp) for packet in got) == 1
        await agree(harness, store)


async def test_a_retained_message_at_qos_0_rides_with_the_next_batch() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        store.hang()
        await peer.publish("x", b"1", 0, retain=True)
        await peer.send(Publish("y", b"2", 1, True, packet_id=1))
        await peer.nothing()
        store.go_on()
        await peer.expect(PubAck, packet_id=1)
        (batch,) = [
            batch
            for batch in store.commits
            if any(isinstance(change, RetainedPut) and change.topic == "y" for change in batch)
        ]
        assert [change.topic for change in batch if isinstance(change, RetainedPut)] == ["x", "y"]


async def test_a_message_for_many_is_stored_once() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        for number in range(5):
            away = await harness.connect(f"away{number}", session_expiry_interval=1000)
            await away.subscribe("stored", 1 + number % 2, identifier=number + 1)
            await away.drop()
        before = len(store.commits)
        await harness.broker.publish("stored", b"x" * 1000, qos=2)
        changes = [change for commit in store.commits[before:] for change in commit]
        assert sum(isinstance(change, MessagePut) for change in changes) == 1
        assert sum(isinstance(change, QueuedPut) for change in changes) == 5
        await agree(harness, store)
        for number in range(5):
            again = harness.peer(f"away{number}")
            await again.connect(clean_start=False, session_expiry_interval=1000)
            await again.message(b"x" * 1000)
        await agree(harness, store)
        assert store.state.messages == {}


# -- time that the store takes


async def test_a_lifetime_is_counted_down_while_the_store_takes_its_time() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("x", 2)
        other = await harness.connect("other")
        store.hang()
        lifetime = PublishProperties(message_expiry_interval=10)
        await other.send(Publish("x", b"x", 2, packet_id=1, properties=lifetime))
        await trio.sleep(4)
        store.go_on()
        left = PublishProperties(message_expiry_interval=6)
        await peer.message(b"x", properties=left)
        await agree(harness, store)


async def test_what_expired_while_the_store_took_its_time_is_not_sent() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("x", 2)
        other = await harness.connect("other")
        store.hang()
        lifetime = PublishProperties(message_expiry_interval=10)
        await other.send(Publish("x", b"x", 2, packet_id=1, properties=lifetime))
        await trio.sleep(11)
        store.go_on()
        await other.expect(PubRec, reason_code=0)
        await peer.nothing()
        assert harness.broker.statistics().dropped == {"expired": 1}
        await harness.broker.publish("x", b"next", qos=2)
        await peer.message(b"next")
        await agree(harness, store)


async def test_a_keep_alive_begins_with_connack() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        store.hang()
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(session_expiry_interval=1000, keep_alive=4))
        await trio.sleep(60)
        store.go_on()
        await peer.let_in()
        await trio.sleep(5.9)
        await peer.ping()
        await peer.expect_closed(0x8D)


# -- a store that hangs


async def test_others_go_on_while_the_store_hangs() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        lasting = await harness.connect("lasting", session_expiry_interval=1000)
        await lasting.subscribe("#", 2)
        store.hang()
        stuck = await harness.connect("stuck")
        await stuck.send(Publish("x", b"1", 1, packet_id=1), Publish("x", b"2", 2, packet_id=2))
        for name in ("ann", "bob"):
            peer = await harness.connect(name)
            await peer.subscribe(name, 2)
            await peer.publish(name, b"x")
            await peer.message(b"x")
            await peer.ping()
            await peer.disconnect()
        await trio.sleep(3600)
        await stuck.nothing()
        await lasting.message(b"1", qos=1)
        assert [p.payload for p in await lasting.arrived() if isinstance(p, Publish)] == [
            *(b"x", b"x"),
        ]
        store.go_on()
        await stuck.expect(PubAck, packet_id=1)
        await stuck.expect(PubRec, packet_id=2)
        await lasting.message(b"2", qos=2)
        await agree(harness, store)


async def test_a_take_over_while_the_store_hangs() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        first = await harness.connect("peer", session_expiry_interval=1000)
        store.hang()
        await first.send(Subscribe(1, (SubscriptionRequest("x", 1),)))
        await first.nothing()
        second = harness.peer("peer")
        await second.send(second.connect_packet(clean_start=False, session_expiry_interval=1000))
        await first.expect_closed(0x8E)
        await second.nothing()
        store.go_on()
        await second.let_in(session_present=True)
        await harness.broker.publish("x", b"x", qos=1)
        await second.message(b"x")
        await agree(harness, store)


async def test_messages_follow_connack() -> None:
    """[MQTT-3.2.0-1]: nothing comes before it, however long it waits."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        first = await harness.connect("peer", session_expiry_interval=1000)
        await first.subscribe("x", 2)
        await first.drop()
        store.hang()
        second = harness.peer("peer")
        await second.send(
            second.connect_packet(clean_start=False, session_expiry_interval=1000), PingReq()
        )
        await harness.broker.publish("x", b"0", qos=0)
        other = await harness.connect("other")
        await other.send(Publish("x", b"1", 1, packet_id=1))
        await second.nothing()
        store.go_on()
        await second.let_in(session_present=True)
        await second.answer(PingResp)
        await second.message(b"1")
        await second.nothing()
        await agree(harness, store)
