"""MQTT 3.1 and 3.1.1: delivery at QoS 0, 1 and 2, packet identifiers, redelivery."""

import pytest
import trio

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
from tests.conformance.scripts3 import away, back, both
from tests.conformance.timed import timed


async def _subscribed(p: Peer, name: str, qos: int) -> None:
    await p.connect(clean_start=False)
    await p.subscribe(name, qos)


# -- packet identifiers ------


@rule("MQTT-2.3.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1")
@both
async def test_identifiers_of_unfinished_deliveries_differ(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        for number in range(8):
            await q.publish(name, bytes([number]), 1 + number % 2)
        seen = [await p.message(acknowledge=False, dup=False) for _ in range(8)]
        assert [message.payload[0] for message in seen] == list(range(8))
        identifiers = {message.packet_id for message in seen}
        assert len(identifiers) == 8
        assert 0 not in identifiers
        await p.send(PubAck(seen[0].packet_id))  # only this one is free again
        for number in range(8, 12):
            await q.publish(name, bytes([number]), 1)
            got = await p.message(payload=bytes([number]), acknowledge=False)
            assert got.packet_id not in identifiers - {seen[0].packet_id}


@rule("MQTT-2.3.1-6")
@both
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


@rule("MQTT-2.3.1-6")
@both
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
@both
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


@rule("X-3-PUBREL-1")
@both
async def test_pubrel_for_an_unknown_identifier(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(PubRel(77))
        await p.expect(PubComp, packet_id=77)
        await p.nothing()


@rule("MQTT-4.6.0-2", "MQTT-4.6.0-3")
@pytest.mark.parametrize("qos", [1, 2])
@both
async def test_acknowledgements_in_order_of_arrival(peer: Peers, qos: int) -> None:
    name = topic()
    numbers = [9, 3, 500, 4, 65_535, 1, 2, 8]
    async with peer() as p, peer() as q:
        await _subscribed(q, name, 2)  # some go to somebody, some to nobody
        await p.connect()
        await p.send(
            *(Publish((name, topic())[n % 2], b"x", qos, packet_id=n) for n in numbers), PingReq()
        )
        kind = PubAck if qos == 1 else PubRec
        assert [(await p.expect(kind)).packet_id for _ in numbers] == numbers
        await p.expect(PingResp)


# -- QoS 0 ------


@rule("MQTT-4.3.1-1", "MQTT-3.3.1-2")
@both
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


@rule("MQTT-3.3.1-2")
@both
async def test_downgraded_repetition_is_not_marked(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 0)
        await q.connect()
        for qos in (1, 2):
            await q.publish(name, b"x", qos, dup=True)
            await p.message(payload=b"x", qos=0, dup=False)


# -- QoS 1 ------


@rule("MQTT-3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
@both
async def test_dup_of_the_publisher_is_not_passed_on(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await q.publish(name, b"x", qos, dup=True)
        await p.message(payload=b"x", qos=qos, dup=False)


@rule("MQTT-4.3.2-1", "MQTT-3.3.1-1")
@both
async def test_qos_1_is_pending_until_puback(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 1)
        await q.connect()
        await q.publish(name, b"x", 1)
        first = await p.message(payload=b"x", qos=1, dup=False, acknowledge=False)
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


@rule("MQTT-4.3.2-2")
@both
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


# -- unsubscribing ------


@rule("MQTT-3.10.4-3")
@both
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
        await p.expect(PubRel, packet_id=two.packet_id)
        await p.drop()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        got = [await p.receive(), await p.receive()]
        assert {type(packet) for packet in got} == {Publish, PubRel}
        assert {getattr(packet, "packet_id", 0) for packet in got} == {one.packet_id, two.packet_id}
        await p.send(PubComp(two.packet_id), PubAck(one.packet_id))
        await p.nothing()


# -- redelivery ------


@rule("MQTT-4.4.0-1", "MQTT-4.6.0-1", "X-3-RETRY-1")
@both
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


@rule("MQTT-4.6.0-1", "MQTT-4.4.0-1")
@both
async def test_redelivery_comes_before_what_waited(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 1)
        await q.connect()
        for number in range(4):
            await q.publish(name, bytes([number]), 1)
        seen = [await p.message(payload=bytes([n]), acknowledge=False) for n in range(4)]
        await p.send(PubAck(seen[1].packet_id))  # out of order
        await p.ping()
        await p.drop()
        await q.ping()  # the server has noticed that, before it gets what follows
        for number in range(4, 8):
            await q.publish(name, bytes([number]), 1)
    async with peer(client_id=p.client_id) as p:
        await back(p)
        for number in (0, 2, 3):
            await p.message(payload=bytes([number]), dup=True, packet_id=seen[number].packet_id)
        for number in range(4, 8):
            await p.message(payload=bytes([number]), dup=False)
        await p.nothing()


@rule("X-3-RETRY-1")
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


@rule("X-3-RETRY-1")
@both
async def test_acknowledgements_of_nothing(peer: Peers) -> None:
    """They may come late, after another connection has done with the message."""
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 2)
        await q.connect()
        await p.send(PubAck(999), PubComp(998))
        await q.publish(name, b"x", 1)
        got = await p.message(payload=b"x")
        await p.send(PubAck(got.packet_id))
        await p.nothing(after=q)


# -- the QoS of deliveries ------


@rule("MQTT-3.8.4-6", "X-3-DOWNGRADE-1")
@pytest.mark.parametrize("granted", [0, 1, 2])
@both
async def test_qos_of_a_delivery_is_the_lower_one(peer: Peers, granted: int) -> None:
    name = topic()
    client_id = await away(peer, name, qos=granted)
    async with peer() as p, peer() as q:
        await _subscribed(p, name, granted)
        await q.connect()
        for published in (0, 1, 2):
            await q.publish(name, bytes([published]), published)
            await p.message(payload=bytes([published]), qos=min(granted, published))
    async with peer(client_id=client_id) as p:
        await back(p)
        for published in (1, 2) if granted else ():
            got = await p.message()
            if got.qos == 0 and not peer.strict:  # QoS 0 may have been queued
                got = await p.message()
            assert (got.payload[0], got.qos) == (published, min(granted, published))


@rule("MQTT-3.3.4-1", "MQTT-4.3.2-2")
@both
async def test_puback_without_waiting_for_subscribers(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name, 1)
        await q.connect()
        await q.send(Publish(name, b"x", 1, packet_id=4), PingReq())
        await q.expect(PubAck, packet_id=4)  # though nobody has acknowledged it yet
        await q.expect(PingResp)
        await p.message(payload=b"x")
