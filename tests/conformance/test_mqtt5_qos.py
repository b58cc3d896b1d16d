"""MQTT 5: packet identifiers, QoS 0 and 1, redelivery."""

import pytest
import trio

from mqtrio.reasons import ALLOWED
from mqtrio.wire.packets import (
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
)
from tests.conformance.peer import Peer, Peers, topic
from tests.conformance.rules import rule
from tests.conformance.scripts import away, back
from tests.conformance.timed import timed


async def _subscribed(p: Peer, name: str, qos: int) -> None:
    await p.connect(session_expiry_interval=60)
    await p.subscribe(name, qos)


# -- packet identifiers ------


@rule("MQTT-2.2.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1")
async def test_identifiers_of_unfinished_deliveries_differ(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        for number in range(8):
            await q.publish(name, bytes([number]), 1 + number % 2)
        seen = [await p.message(acknowledge=False) for _ in range(8)]
        assert [message.payload[0] for message in seen] == list(range(8))
        identifiers = {message.packet_id for message in seen}
        assert len(identifiers) == 8
        assert 0 not in identifiers


@rule("MQTT-2.2.1-5")
async def test_identifier_is_repeated_in_every_step(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await _subscribed(p, name, 2)
        for packet_id in (1, 255, 256, 65_535):
            await p.send(Publish(topic(), b"x", 1, packet_id=packet_id))
            await p.expect(PubAck, packet_id=packet_id)
            await p.send(Publish(topic(), b"x", 2, packet_id=packet_id))
            await p.expect(PubRec, packet_id=packet_id)
            await p.send(PubRel(packet_id))
            await p.expect(PubComp, packet_id=packet_id)
        await p.publish(name, b"x", 2)
        got = await p.message(acknowledge=False)
        await p.send(PubRec(got.packet_id))
        await p.expect(PubRel, packet_id=got.packet_id)


@rule("X-5-IDSPACE-1")
async def test_both_sides_number_by_themselves(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"theirs", 2)
        got = await p.message(payload=b"theirs", acknowledge=False)
        same = got.packet_id
        await p.send(Publish(topic(), b"mine", 2, packet_id=same))
        await p.expect(PubRec, packet_id=same)
        await p.send(PubRec(same))
        await p.expect(PubRel, packet_id=same)
        await p.send(PubRel(same))
        await p.expect(PubComp, packet_id=same)
        await p.send(PubComp(same))
        await p.nothing()


# -- what answers a PUBLISH ------


@rule("MQTT-3.3.4-1")
async def test_answers_by_qos(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.send(Publish(name, b"x", 0))
        await p.nothing()
        await p.send(Publish(name, b"x", 1, packet_id=1))
        await p.expect(PubAck, packet_id=1)
        await p.nothing()
        await p.send(Publish(name, b"x", 2, packet_id=2))
        await p.expect(PubRec, packet_id=2)
        await p.nothing()
        await p.send(PubRel(2))
        await p.expect(PubComp, packet_id=2)
        await p.nothing()


@rule("MQTT-3.4.2-1", "MQTT-3.5.2-1")
async def test_reason_codes_of_puback_and_pubrec(peer: Peers) -> None:
    unheard, heard = topic(), topic()
    async with peer() as p, peer() as q:
        await _subscribed(q, heard, 0)
        await p.connect()
        for name, allowed in ((unheard, (0x00, 0x10)), (heard, (0x00,))):
            await p.send(Publish(name, b"x", 1, packet_id=1))
            puback = await p.expect(PubAck, packet_id=1)
            assert puback.reason_code in allowed
            assert puback.reason_code in ALLOWED[4]
            await p.send(Publish(name, b"x", 2, packet_id=2))
            pubrec = await p.expect(PubRec, packet_id=2)
            assert pubrec.reason_code in allowed
            assert pubrec.reason_code in ALLOWED[5]
            await p.send(PubRel(2))
            await p.expect(PubComp, packet_id=2, reason_code=0)


@rule("MQTT-3.6.2-1", "MQTT-3.7.2-1")
async def test_reason_codes_of_pubrel_and_pubcomp(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await _subscribed(p, name, 2)
        await p.publish(name, b"x", 2)
        got = await p.message(acknowledge=False)
        await p.send(PubRec(got.packet_id))
        await p.expect(PubRel, packet_id=got.packet_id, reason_code=0)
        await p.send(PubRel(999))
        pubcomp = await p.expect(PubComp, packet_id=999)
        assert pubcomp.reason_code in ALLOWED[7]
        await p.send(PubRec(998))
        pubrel = await p.expect(PubRel, packet_id=998)
        assert pubrel.reason_code in ALLOWED[6]


@rule("X-5-PUBREL-1")
async def test_pubrel_for_an_unknown_identifier(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(PubRel(77))
        pubcomp = await p.expect(PubComp, packet_id=77)
        assert pubcomp.reason_code in ((0x92,) if peer.strict else (0x92, 0x00))
        await p.nothing()


# -- QoS 0 ------


@rule("MQTT-4.3.1-1", "MQTT-3.3.1-2")
async def test_qos_0_goes_out_once(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", 0)
        await p.message(payload=b"x", qos=0, dup=False, packet_id=0)
        await p.nothing(after=q)
        await p.drop()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.nothing()


# -- QoS 1 ------


@rule("MQTT-4.3.2-2")
async def test_first_delivery_at_qos_1(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 1)
        await q.connect()
        await q.publish(name, b"x", 1)
        got = await p.message(payload=b"x", qos=1, dup=False)
        assert got.packet_id


@rule("MQTT-3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
async def test_dup_of_the_publisher_is_not_passed_on(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", qos, dup=True)
        await p.message(payload=b"x", qos=qos, dup=False)


@rule("MQTT-4.3.2-3", "MQTT-3.3.1-1")
async def test_qos_1_is_pending_until_puback(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 1)
        await q.connect()
        await q.publish(name, b"x", 1)
        first = await p.message(payload=b"x", acknowledge=False)
        await p.drop()
    for _ in range(2):
        async with peer(client_id=p.client_id) as p:
            await back(p)
            await p.message(payload=b"x", dup=True, packet_id=first.packet_id, acknowledge=False)
            await p.drop()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.message(payload=b"x", dup=True)
        await p.ping()
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.nothing()


@rule("MQTT-4.3.2-4", "MQTT-4.3.2-5")
async def test_identifier_is_free_after_puback(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 1)
        await q.connect()
        for number in range(3):
            await q.send(Publish(name, bytes([number]), 1, dup=number > 0, packet_id=5))
            await q.expect(PubAck, packet_id=5)
        for number in range(3):
            await p.message(payload=bytes([number]), dup=False)


@rule("X-5-DUP-1")
async def test_repeated_publish_of_a_client(peer: Peers) -> None:
    name = topic()
    one = Publish(name, b"one", 1, packet_id=5)
    two = Publish(name, b"two", 2, packet_id=6)
    async with peer() as p, peer() as q, peer(client_id=q.client_id) as again:
        await _subscribed(p, name, 2)
        await q.connect(session_expiry_interval=60)
        await q.send(two)
        await q.expect(PubRec, packet_id=6)
        await q.send(one)
        await q.expect(PubAck, packet_id=5)
        await q.drop()  # did not see the answers
        one.dup = two.dup = True
        await back(again)
        await again.send(two)
        await again.expect(PubRec, packet_id=6)
        await again.send(one)
        await again.expect(PubAck, packet_id=5)
        await again.send(PubRel(6))
        await again.expect(PubComp, packet_id=6)
        await again.publish(name, b"end", 2)
        payloads: list[bytes] = []
        while not payloads or payloads[-1] != b"end":
            payloads.append((await p.message()).payload)
        assert payloads.count(b"two") == 1
        assert payloads.count(b"one") in (1, 2)


# -- redelivery ------


@rule("MQTT-4.4.0-1", "X-5-RETRY-1")
async def test_redelivery_keeps_order_and_identifiers(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name, qos=2)
    async with peer() as q:
        await q.connect()
        for number in range(6):
            await q.publish(name, bytes([number]), 1 + number % 2)
    async with peer(client_id=client_id) as p:
        await back(p)
        first = [await p.message(acknowledge=False, dup=False) for _ in range(6)]
        assert [message.payload[0] for message in first] == list(range(6))
        await p.drop()
    async with peer(client_id=client_id) as p:
        await back(p)
        again = [await p.message(dup=True) for _ in range(6)]
    assert [(m.packet_id, m.payload, m.qos) for m in again] == [
        (m.packet_id, m.payload, m.qos) for m in first
    ]


@rule("MQTT-4.4.0-1", "X-5-RETRY-1")
@timed
async def test_no_redelivery_while_connected(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"one", 1)
        await q.publish(name, b"two", 2)
        await q.publish(name, b"three", 2)
        one = await p.message(payload=b"one", acknowledge=False)
        two = await p.message(payload=b"two", acknowledge=False)
        three = await p.message(payload=b"three", acknowledge=False)
        await p.send(PubRec(three.packet_id))
        await p.expect(PubRel, packet_id=three.packet_id)
        await trio.sleep(4)
        await p.nothing(after=q)
        await p.acknowledge(one)
        await p.acknowledge(two)
        await p.send(PubComp(three.packet_id))
        await p.nothing()


@rule("MQTT-4.4.0-2")
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refusal_settles_the_message(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", qos)
        got = await p.message(payload=b"x", acknowledge=False)
        await p.send((PubAck if qos == 1 else PubRec)(got.packet_id, 0x80))
        await p.nothing(after=q)
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.nothing()


# -- the QoS of deliveries ------


@rule("MQTT-3.8.4-8", "X-5-DOWNGRADE-1")
@pytest.mark.parametrize("granted", [0, 1, 2])
async def test_qos_of_a_delivery_is_the_lower_one(peer: Peers, granted: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, granted)
        await q.connect()
        for published in (0, 1, 2):
            await q.publish(name, bytes([published]), published)
            await p.message(payload=bytes([published]), qos=min(granted, published))


@rule("MQTT-4.3.2-4")
async def test_puback_without_waiting_for_subscribers(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 1)
        await q.connect()
        await q.send(Publish(name, b"x", 1, packet_id=4), PingReq())
        await q.expect(PubAck, packet_id=4)  # though nobody has acknowledged it yet
        await q.expect(PingResp)
        await p.message(payload=b"x")
