"""A second CONNECT with the client identifier of a connected client (3.1.4)."""

from typing import Any

import pytest
import trio

from mqtrio.testing import FaultyStore, Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Will,
)

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
CLEAN = pytest.mark.parametrize("clean_start", [True, False])
STORES = pytest.mark.parametrize("durable", [False, True])


def store(durable: bool) -> FaultyStore | None:
    return FaultyStore() if durable else None


def lasting(version: int, stays: bool) -> dict[str, Any]:
    """The fields of CONNECT of a session that outlives its connection, or doesn't."""
    if version == 5:
        return {"session_expiry_interval": 100 if stays else 0}
    return {"clean_start": not stays}


async def watcher_of(harness: Harness) -> Peer:
    watcher = await harness.connect("watcher")
    await watcher.subscribe("wills")
    return watcher


@STORES
@CLEAN
@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize(("old", "new"), [(5, 5), (4, 4), (3, 3), (4, 5), (5, 4)])
async def test_the_new_one_stays(
    old: int, new: int, stays: bool, clean_start: bool, durable: bool
) -> None:
    recorder = HookRecorder("session_opened", "session_ended", "client_disconnected")
    async with open_harness(store=store(durable), plugins=[recorder]) as harness:
        first = harness.peer("peer", version=old)
        await first.connect(**lasting(old, stays))
        await first.subscribe("a", 1)
        recorder.clear()
        second = harness.peer("peer", version=new)
        present = stays and not clean_start
        connack = await second.connect(
            **lasting(new, stays=True) | {"clean_start": clean_start},
        )
        assert connack.session_present is (present and new != 3)
        await first.expect_closed(0x8E if old == 5 else None)
        await harness.broker.publish("a", "x", qos=1)
        if present:
            await second.message(b"x", qos=1)
        await second.nothing()
        assert [client.client_id for client in harness.broker.clients()] == ["peer"]
    gone = recorder.of("client_disconnected")[0]
    assert gone.reason_code == 0x8E
    assert recorder.of("session_opened")[0].resumed is present
    reasons = [event.reason for event in recorder.of("session_ended")][:1]
    if not stays:
        assert reasons == ["disconnected"]
    elif clean_start:
        assert reasons == ["clean_start"]


#: Will delay, whether the old session outlives its connection, clean start of the new CONNECT ->
#: whether the will is published, at once (3.1.3.2.2, and without a delay in any case).
WILLS = {
    (0, True, False): True,
    (0, True, True): True,
    (0, False, False): True,
    (0, False, True): True,
    (50, True, False): False,  # [MQTT-3.1.3-9]: the session goes on in time
    (50, True, True): True,  # the session has ended
    (50, False, False): True,  # it ended with its connection
    (50, False, True): True,
}


@STORES
@pytest.mark.parametrize("case", list(WILLS), ids=str)
async def test_the_will_of_who_was_taken_over(case: tuple[int, bool, bool], durable: bool) -> None:
    delay, stays, clean_start = case
    async with open_harness(store=store(durable)) as harness:
        watcher = await watcher_of(harness)
        first = harness.peer("peer")
        will = Will("wills", b"first", delay_interval=delay)
        await first.connect(**lasting(5, stays), will=will)
        second = harness.peer("peer")
        await second.connect(
            clean_start=clean_start,
            session_expiry_interval=100,
            will=Will("wills", b"second", delay_interval=5),
        )
        await first.expect_closed(0x8E)
        if WILLS[case]:
            await watcher.message(b"first")
        await trio.sleep(200)
        await watcher.nothing()
        begin = trio.current_time()
        await second.drop()
        await watcher.message(b"second")  # the new one has its own
        assert trio.current_time() - begin == 5
        await trio.sleep(200)
        await watcher.nothing()


@pytest.mark.parametrize("version", [3, 4])
@CLEAN
async def test_the_will_in_mqtt_3(version: int, clean_start: bool) -> None:
    async with open_harness() as harness:
        watcher = await watcher_of(harness)
        first = harness.peer("peer", version=version)
        await first.connect(clean_start=clean_start, will=Will("wills", b"first"))
        second = harness.peer("peer", version=version)
        await second.connect(clean_start=clean_start)
        await first.expect_closed()
        await watcher.message(b"first")
        await second.disconnect()
        await watcher.nothing()


@STORES
@pytest.mark.parametrize("version", [4, 5])
async def test_exchanges_go_on_with_the_new_connection(version: int, durable: bool) -> None:
    async with open_harness(store=store(durable)) as harness:
        first = harness.peer("peer", version=version)
        await first.connect(**lasting(version, True))
        await first.subscribe("a", 2)
        for qos, payload in ((1, b"one"), (2, b"two"), (2, b"released")):
            await harness.broker.publish("a", payload, qos=qos)
        sent = {packet.payload: packet.packet_id for packet in await first.arrived()}  # type: ignore[attr-defined]
        await first.send(PubRec(sent[b"released"]))
        await first.expect(PubRel)
        await first.send(Publish("b", b"mine", 2, packet_id=9))
        await first.expect(PubRec)

        second = harness.peer("peer", version=version)
        await second.connect(**lasting(version, True) | {"clean_start": False})
        got = await second.arrived()
        assert PubRel(sent[b"released"]) in got
        assert [(p.payload, p.dup, p.packet_id) for p in got if isinstance(p, Publish)] == [
            (b"one", True, sent[b"one"]),
            (b"two", True, sent[b"two"]),
        ]
        await second.send(
            PubComp(sent[b"released"]), PubAck(sent[b"one"]), PubRec(sent[b"two"]), PubRel(9)
        )
        got = await second.arrived()
        assert {type(packet) for packet in got} == {PubRel, PubComp}
        await second.send(PubComp(sent[b"two"]))
        await second.ping()
        assert harness.broker.sessions()[0].inflight == 0


async def test_what_the_old_connection_sends_afterwards_is_nobodys() -> None:
    async with open_harness() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("a")
        first = await harness.connect("peer")
        second = harness.peer("peer")
        await second.send(second.connect_packet())
        await first.send(Publish("a", b"late"), PingReq())
        await second.let_in()
        await first.settle()
        got = await watcher.arrived()
        assert len(got) <= 1  # before or after, as it happened to be read
        await first.send(Publish("a", b"much too late"))
        await watcher.nothing()


async def test_many_in_a_row() -> None:
    async with open_harness() as harness:
        watcher = await watcher_of(harness)
        peers = []
        for number in range(20):
            peer = harness.peer("peer")
            await peer.connect(
                clean_start=False, session_expiry_interval=100, will=Will("wills", b"%d" % number)
            )
            peers.append(peer)
        for peer in peers[:-1]:
            await peer.expect_closed(0x8E)
        for number in range(19):
            await watcher.message(b"%d" % number)
        await watcher.nothing()
        assert harness.broker.statistics().clients == 2


async def test_all_at_once() -> None:
    """Whoever sent CONNECT last has the session."""
    async with open_harness() as harness:
        peers = [harness.peer("peer") for _ in range(10)]
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(peer.send, peer.connect_packet())
        for peer in peers:
            await peer.settle()
        alive = [peer for peer in peers if not peer.ended]
        assert len(alive) == 1
        assert [client.client_id for client in harness.broker.clients()] == ["peer"]
