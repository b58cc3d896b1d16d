"""MQTT 3.1 and 3.1.1: the exchange of QoS 2."""

from mqtrio.wire.packets import PubComp, Publish, PubRec, PubRel
from tests.conformance.peer import Peer, Peers, topic
from tests.conformance.rules import rule
from tests.conformance.scripts3 import back, both


async def _subscribed(p: Peer, name: str) -> None:
    await p.connect(clean_start=False)
    await p.subscribe(name, 2)


# -- QoS 2, the server as receiver ------


@rule("MQTT-4.3.3-2")
@both
async def test_qos_2_repeated_before_pubrel(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name)
        await q.connect()
        for repeated in (False, True, True):
            await q.send(Publish(name, b"x", 2, dup=repeated, packet_id=5))
            await q.expect(PubRec, packet_id=5)
        await q.send(PubRel(5))
        await q.expect(PubComp, packet_id=5)
        await p.message(payload=b"x", dup=False)
        await p.nothing(after=q)


@rule("MQTT-4.3.3-2")
@both
async def test_qos_2_repeated_on_another_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await _subscribed(p, name)
        async with peer() as q:
            await q.connect(clean_start=False)
            await q.send(Publish(name, b"x", 2, packet_id=5))
            await q.expect(PubRec, packet_id=5)
            await q.drop()
        for number in range(3):
            async with peer(client_id=q.client_id) as q:
                await back(q)
                await q.send(Publish(name, b"x", 2, dup=True, packet_id=5))
                await q.expect(PubRec, packet_id=5)
                if number < 2:
                    await q.drop()
                    continue
                await q.send(PubRel(5))
                await q.expect(PubComp, packet_id=5)
                await p.message(payload=b"x")
                await p.nothing(after=q)


@rule("MQTT-4.3.3-2")
@both
async def test_pubrel_on_another_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q, peer(client_id=q.client_id) as again:
        await _subscribed(p, name)
        await q.connect(clean_start=False)
        await q.send(Publish(name, b"x", 2, packet_id=5))
        await q.expect(PubRec, packet_id=5)
        await q.drop()
        await back(again)
        for _ in range(2):  # the PUBCOMP may have been lost as well
            await again.send(PubRel(5))
            await again.expect(PubComp, packet_id=5)
        await again.publish(name, b"next", 2, packet_id=5)
        await p.message(payload=b"x")
        await p.message(payload=b"next")
        await p.nothing(after=again)


@rule("MQTT-4.3.3-2")
@both
async def test_identifier_is_free_after_pubcomp(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name)
        await q.connect()
        for number in range(3):
            await q.send(Publish(name, bytes([number]), 2, dup=number > 0, packet_id=5))
            await q.expect(PubRec, packet_id=5)
            await q.send(PubRel(5))
            await q.expect(PubComp, packet_id=5)
        for number in range(3):
            await p.message(payload=bytes([number]), qos=2, dup=False)
        await p.nothing(after=q)


# -- QoS 2, the server as sender ------


@rule("MQTT-4.3.3-1", "MQTT-3.3.1-1")
@both
async def test_qos_2_is_pending_until_pubrec(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name)
        await q.connect()
        await q.publish(name, b"x", 2)
        first = await p.message(payload=b"x", qos=2, dup=False, acknowledge=False)
        await p.drop()
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.message(payload=b"x", qos=2, dup=True, packet_id=first.packet_id)
        await p.nothing()


@rule("MQTT-4.3.3-1", "MQTT-4.4.0-1")
@both
async def test_pubrel_is_pending_until_pubcomp(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name)
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
            await p.nothing()  # no PUBLISH any more
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


@rule("MQTT-4.3.3-1")
@both
async def test_repeated_pubrec_is_answered(peer: Peers) -> None:
    """The PUBREL may have been lost with a connection; the receiver repeats what it last sent."""
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name)
        await q.connect()
        await q.publish(name, b"x", 2)
        got = await p.message(payload=b"x", acknowledge=False)
        for _ in range(2):
            await p.send(PubRec(got.packet_id))
            await p.expect(PubRel, packet_id=got.packet_id)
        await p.send(PubComp(got.packet_id))
        await p.nothing(after=q)


@rule("MQTT-4.6.0-4")
@both
async def test_pubrels_in_order_of_pubrecs(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _subscribed(p, name)
        await q.connect()
        for number in range(6):
            await q.publish(name, bytes([number]), 2)
        seen = [(await p.message(acknowledge=False)).packet_id for _ in range(6)]
        shuffled = [seen[n] for n in (4, 0, 5, 2, 1, 3)]
        await p.send(*(PubRec(packet_id) for packet_id in shuffled))
        assert [(await p.expect(PubRel)).packet_id for _ in shuffled] == shuffled
        await p.send(*(PubComp(packet_id) for packet_id in shuffled))
        await p.nothing()
