"""MQTT 5: an open connection: problem information, keep alive, pings, and its end."""

import pytest
import trio

from mqtrio.reasons import ALLOWED
from mqtrio.wire.packets import (
    Auth,
    Connect,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    Will,
)
from tests.conformance import raw
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import MALFORMED
from tests.conformance.timed import timed

# -- request problem information ------


@rule("MQTT-3.1.2-29", "X-5-PROBLEM-1")
async def test_no_problem_information_on_acknowledgements(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(request_problem_information=False)
        quiet: dict[str, object] = {"reason_string": None, "user_properties": ()}
        await p.send(Unsubscribe(1, (topic(),)))
        await p.expect(UnsubAck, packet_id=1, **quiet)
        await p.send(PubRel(2))
        await p.expect(PubComp, packet_id=2, **quiet)
        await p.send(Publish(topic(), b"x", 1, packet_id=3))
        await p.expect(PubAck, packet_id=3, **quiet)
        await p.send(Publish(topic(), b"x", 2, packet_id=4))
        await p.expect(PubRec, packet_id=4, **quiet)
        await p.send(Subscribe(5, (SubscriptionRequest(topic()),)))
        await p.expect(SubAck, packet_id=5, **quiet)


@rule("MQTT-3.1.2-29", "X-5-PROBLEM-1")
@needs("auth")
async def test_problem_information_of_refusals(peer: Peers) -> None:
    name = topic("forbidden")
    for wanted in (True, False):
        async with peer() as p:
            await p.connect(request_problem_information=wanted)
            await p.send(Publish(name, b"x", 1, packet_id=1))
            puback = await p.expect(PubAck, packet_id=1, reason_code=0x87)
            assert (puback.reason_string is not None) is wanted
            await p.send(Publish(name, b"x", 2, packet_id=2))
            pubrec = await p.expect(PubRec, packet_id=2, reason_code=0x87)
            assert (pubrec.reason_string is not None) is wanted
            await p.send(Subscribe(3, (SubscriptionRequest(name),)))
            suback = await p.expect(SubAck, packet_id=3, reason_codes=(0x87,))
            assert wanted or suback.reason_string is None
    async with peer() as p:
        await p.send(
            p.connect_packet(request_problem_information=False, authentication_method="TEST")
        )
        await p.expect(Auth, reason_code=0x18, reason_string=None, user_properties=())


# -- keep alive ------


@rule("MQTT-3.12.4-1")
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


@rule("MQTT-3.1.2-22", "MQTT-3.2.2-22")
@timed
async def test_silent_client_is_cut_off(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await watcher.connect()
        await watcher.subscribe(name)
        await p.connect(keep_alive=2, will=Will(name, b"silent"))
        if p.connack is not None and p.connack.server_keep_alive is not None:
            pytest.skip("the broker imposes a keep alive of its own")
        started = trio.current_time()
        p.patience = 15  # the standard sets no limit to how late a server may notice
        await p.expect_closed(0x8D)
        assert 2.9 <= trio.current_time() - started <= (4.6 if peer.strict else 15)
        await watcher.message(topic=name, payload=b"silent")


@rule("X-5-KEEPALIVE-1")
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
            got = await p.message(payload=bytes([number]), acknowledge=False)
            assert got.qos == 0
            await q.message(payload=bytes([number]))
        await q.publish(name, b"ack me", 1)
        await trio.sleep(0.8)
        await p.message(payload=b"ack me")  # so is PUBACK
        await trio.sleep(0.8)
        await p.ping()
        await still.nothing()  # keep alive 0: nothing for four seconds and more


@rule("MQTT-3.1.2-21", "MQTT-3.2.2-21", "X-5-KEEPALIVE-2")
@needs("limited")
@timed
async def test_keep_alive_of_the_server_counts(peer: Peers) -> None:
    async with trio.open_nursery() as nursery:
        for asked in (0, 60):
            nursery.start_soon(_closed_by_server_keep_alive, peer, asked)


async def _closed_by_server_keep_alive(peer: Peers, asked: int) -> None:
    async with peer() as p:
        connack = await p.connect(keep_alive=asked)
        assert connack.server_keep_alive == 2
        started = trio.current_time()
        await p.expect_closed(0x8D)
        assert 2.9 <= trio.current_time() - started <= 4.6


@rule("MQTT-3.2.2-22")
@needs("limited")
async def test_keep_alive_within_the_maximum_is_left_alone(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect(keep_alive=1)
        assert connack.server_keep_alive is None


@rule("X-5-CONNECT-1")
@needs("limited")
@timed
async def test_no_connect_in_time(peer: Peers) -> None:
    async with peer() as idle, peer() as slow:
        started = trio.current_time()
        await slow.send(raw.connect(raw.text(slow.client_id))[:10])
        await idle.expect_closed()
        assert 0.9 <= trio.current_time() - started <= 2.5
        await slow.expect_closed()


@rule("X-5-CONNECT-1")
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


# -- DISCONNECT from the server ------


@rule("MQTT-3.14.2-1")
@pytest.mark.parametrize(
    "packet",
    [
        Connect(client_id="x"),
        MALFORMED,
        raw.publish(b"", b""),
        raw.publish(b"a/#", b""),
        raw.subscribe(1, []),
        b"\xf0\x00",
        raw.publish(b"a", property_list=raw.properties(b"\x23\xff\xff")),
    ],
    ids=["CONNECT", "malformed", "topic", "wildcard", "empty", "AUTH", "alias"],
)
async def test_reason_codes_of_disconnect(peer: Peers, packet: Connect | bytes) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(packet)
        goodbye = await p.expect_closed()
        if goodbye is not None:
            assert goodbye.reason_code in ALLOWED[14]
            assert goodbye.reason_code not in (0x00, 0x04)


@rule("MQTT-3.14.4-1", "MQTT-3.14.4-2")
async def test_nothing_follows_disconnect(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.subscribe(name, 1)
        await p.send(
            MALFORMED,
            PingReq(),
            Subscribe(9, (SubscriptionRequest(name),)),
            Publish(name, b"x", 1, packet_id=8),
        )
        await p.expect_closed(0x81)
