"""MQTT 3.1 and 3.1.1: a connection's time limits, PINGREQ, and DISCONNECT."""

import trio

from mqtrio.wire.packets import (
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.conformance import raw
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts3 import PROTOCOLS, both, connect, publish, refused
from tests.conformance.timed import timed

# -- the beginning ------


@rule("X-3-CONNECT-1")
@both
async def test_packets_pipelined_behind_connect(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.send(
            p.connect_packet(),
            Subscribe(1, (SubscriptionRequest(name, 1),)),
            Publish(name, b"early", 1, packet_id=2),
            PingReq(),
        )
        await p.expect_connack()
        await p.expect(SubAck, packet_id=1, reason_codes=(1,))
        await p.answer(PubAck, packet_id=2)
        await p.answer(PingResp)
        await p.message(payload=b"early")


@rule("X-3-CONNECT-1")
@needs("limited")
@timed
async def test_no_connect_in_time(peer: Peers) -> None:
    async with peer() as idle, peer() as slow:
        started = trio.current_time()
        await slow.send(connect(raw.text(slow.client_id))[:10])
        await idle.closed_silently()
        assert 0.9 <= trio.current_time() - started <= 2.5
        await slow.closed_silently()


# -- keep alive ------


@rule("MQTT-3.12.4-1")
@both
async def test_pingreq_is_answered(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        for _ in range(3):
            await p.send(PingReq())
            await p.expect(PingResp)
            assert p.last_frame == b"\xd0\x00"
        await p.send(PingReq(), PingReq())
        await p.expect(PingResp)
        await p.expect(PingResp)


@rule("MQTT-3.1.2-24", "X-3-KEEPALIVE-1")
@timed
async def test_silent_client_is_cut_off(peer: Peers) -> None:
    async with trio.open_nursery() as nursery:
        for version in PROTOCOLS:
            nursery.start_soon(_cut_off, peer, version)


async def _cut_off(peer: Peers, version: int) -> None:
    name = topic()
    async with peer(v=version) as watcher, peer(v=version) as p:
        await watcher.connect()
        await watcher.subscribe(name)
        await p.connect(keep_alive=2, will=Will(name, b"silent"))
        started = trio.current_time()
        p.patience = watcher.patience = 15  # no limit is set to how late a server may notice
        await p.closed_silently()
        assert 2.9 <= trio.current_time() - started <= (4.6 if peer.strict else 15)
        await watcher.message(topic=name, payload=b"silent")


@rule("X-3-KEEPALIVE-1")
@timed
async def test_any_packet_restarts_the_keep_alive(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q, peer() as still:
        await still.connect(keep_alive=0)
        await q.connect()
        await q.subscribe(name, 0)
        await p.connect(keep_alive=1)
        await p.subscribe(name, 1)
        for number in range(4):  # PUBLISH at QoS 0 is enough
            await trio.sleep(0.8)
            await p.publish(name, bytes([number]))
        for number in range(4):
            await p.message(payload=bytes([number]), qos=0)
            await q.message(payload=bytes([number]))
        await q.publish(name, b"ack me", 1)
        await trio.sleep(0.8)
        await p.message(payload=b"ack me")  # so is PUBACK
        await trio.sleep(0.8)
        await p.ping()
        await still.nothing()  # keep alive 0: nothing for four seconds and more


# -- DISCONNECT ------


@rule("MQTT-3.14.4-2")
@both
async def test_what_follows_disconnect_has_no_effect(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q, peer() as late:
        await q.connect()
        await q.subscribe(name)
        await p.connect()
        await p.send(
            Disconnect(),
            Publish(name, b"no"),
            Publish(name, b"no", retain=True),
            Publish(name, b"no", 1, packet_id=1),
            PingReq(),
        )
        await p.closed_silently()
        await q.nothing(after=q)
        await late.connect()
        await late.subscribe(name)
        await late.nothing()


@rule("MQTT-3.14.4-2")
async def test_a_mistake_ends_the_connection_for_good(peer: Peers) -> None:
    name = topic()
    async with peer() as q:
        await q.connect()
        await q.subscribe(name)
        await refused(peer, Disconnect(), publish(name.encode(), b"no"), PingReq())
        await q.nothing(after=q)
