"""MQTT 5: QoS 2, in both directions."""

import trio

from mqtrio.wire.packets import (
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
)
from tests.conformance.peer import Peer, Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import back
from tests.conformance.timed import timed


async def _subscribed(p: Peer, name: str, qos: int) -> None:
    await p.connect(session_expiry_interval=60)
    await p.subscribe(name, qos)


# -- QoS 2, the server as receiver ------


@rule("MQTT-4.3.3-8", "MQTT-4.3.3-10")
async def test_qos_2_repeated_before_pubrel(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await _subscribed(p, name, 2)
        async with peer() as q:
            await q.connect(session_expiry_interval=60)
            await q.send(Publish(name, b"x", 2, packet_id=5))
            await q.expect(PubRec, packet_id=5, reason_code=0)
            await q.drop()
        for number in range(3):
            async with peer(client_id=q.client_id) as q:
                await back(q)
                await q.send(Publish(name, b"x", 2, dup=True, packet_id=5))
                pubrec = await q.expect(PubRec, packet_id=5)
                assert pubrec.reason_code == 0
                if number < 2:
                    await q.drop()
                    continue
                await q.send(PubRel(5))
                await q.expect(PubComp, packet_id=5, reason_code=0)
                await p.message(payload=b"x")
                await p.nothing(after=q)


@rule("MQTT-4.3.3-11", "MQTT-4.3.3-12")
async def test_identifier_is_free_after_pubcomp(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        for number in range(3):
            await q.send(Publish(name, bytes([number]), 2, dup=number > 0, packet_id=5))
            await q.expect(PubRec, packet_id=5)
            await q.send(PubRel(5))
            await q.expect(PubComp, packet_id=5)
        for number in range(3):
            await p.message(payload=bytes([number]), qos=2, dup=False)
        await p.nothing(after=q)


@rule("MQTT-4.3.3-9")
@needs("auth")
async def test_identifier_is_free_after_a_refusal(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.send(Publish(topic("forbidden"), b"no", 2, packet_id=5))
        await q.expect(PubRec, packet_id=5, reason_code=0x87)
        await q.send(Publish(name, b"new", 2, packet_id=5))
        await q.expect(PubRec, packet_id=5, reason_code=0)
        await q.send(PubRel(5))
        await q.expect(PubComp, packet_id=5, reason_code=0)
        await p.message(payload=b"new")


@rule("MQTT-4.3.3-13")
@timed
async def test_handshake_of_a_message_that_expired(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        properties = PublishProperties(message_expiry_interval=1)
        await p.send(Publish(topic(), b"x", 2, packet_id=5, properties=properties))
        await p.expect(PubRec, packet_id=5)
        await trio.sleep(2.5)
        await p.send(PubRel(5))
        await p.expect(PubComp, packet_id=5, reason_code=0)


# -- QoS 2, the server as sender ------


@rule("MQTT-4.3.3-2")
async def test_first_delivery_at_qos_2(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", 2)
        got = await p.message(payload=b"x", qos=2, dup=False)
        assert got.packet_id


@rule("MQTT-4.3.3-3", "MQTT-3.3.1-1")
async def test_qos_2_is_pending_until_pubrec(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", 2)
        first = await p.message(payload=b"x", acknowledge=False)
        await p.drop()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.message(payload=b"x", qos=2, dup=True, packet_id=first.packet_id)
        await p.nothing()


@rule("MQTT-4.3.3-4")
async def test_pubrec_is_answered_by_pubrel(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        for reason_code in (0x00, 0x10):
            await q.publish(name, b"x", 2)
            got = await p.message(payload=b"x", acknowledge=False)
            await p.send(PubRec(got.packet_id, reason_code))
            await p.expect(PubRel, packet_id=got.packet_id, reason_code=0)
            await p.send(PubComp(got.packet_id))
        await q.publish(name, b"y", 2)
        got = await p.message(payload=b"y", acknowledge=False)
        await p.send(PubRec(got.packet_id, 0x80))
        await p.nothing(after=q)


@rule("MQTT-4.3.3-5", "MQTT-4.3.3-6")
async def test_pubrel_is_pending_until_pubcomp(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", 2)
        got = await p.message(payload=b"x", acknowledge=False)
        await p.send(PubRec(got.packet_id))
        await p.expect(PubRel, packet_id=got.packet_id)
        await p.drop()
    for _ in range(2):
        async with peer(client_id=p.client_id) as p:
            await back(p)
            await p.expect(PubRel, packet_id=got.packet_id)
            await p.nothing()
            await p.drop()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.expect(PubRel, packet_id=got.packet_id)
        await p.send(PubComp(got.packet_id))
        await p.ping()
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.nothing()


@rule("MQTT-4.3.3-7")
@timed
async def test_qos_2_under_way_does_not_expire(peer: Peers) -> None:
    name = topic()
    properties = PublishProperties(message_expiry_interval=1)
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", 2, properties=properties)
        got = await p.message(payload=b"x", acknowledge=False)
        await trio.sleep(2.5)
        await p.send(PubRec(got.packet_id))
        await p.expect(PubRel, packet_id=got.packet_id, reason_code=0)
        await p.send(PubComp(got.packet_id))
        await p.nothing()


@rule("MQTT-3.10.4-3")
async def test_deliveries_under_way_are_finished_after_unsubscribing(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"two", 2)
        await q.publish(name, b"one", 1)
        two = await p.message(payload=b"two", acknowledge=False)
        one = await p.message(payload=b"one", acknowledge=False)
        await p.unsubscribe(name)
        await p.send(PubRec(two.packet_id))
        await p.expect(PubRel, packet_id=two.packet_id, reason_code=0)
        await p.drop()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        got = [await p.receive(), await p.receive()]
        assert {type(packet) for packet in got} == {Publish, PubRel}
        assert {getattr(packet, "packet_id", 0) for packet in got} == {one.packet_id, two.packet_id}
        await p.send(PubComp(two.packet_id), PubAck(one.packet_id))
        await p.nothing()
