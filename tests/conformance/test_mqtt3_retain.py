"""MQTT 3.1 and 3.1.1: retained messages."""

import pytest

from mqtrio.wire.packets import Publish, PubRel, SubAck, Subscribe, SubscriptionRequest
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts3 import away, back, both, publish, refused


@rule("MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-8")
@both
async def test_message_and_qos_are_kept(peer: Peers) -> None:
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        for stored in (0, 1, 2):
            name = topic()
            payload = bytes(range(256)) * 10
            await q.publish(name, payload, stored, retain=True)
            await q.ping()
            for granted in (0, 1, 2):
                await p.subscribe(name, granted)
                await p.message(
                    topic=name, payload=payload, qos=min(stored, granted), retain=True, dup=False
                )
        await p.nothing()


@rule("MQTT-3.3.1-6")
@both
async def test_last_retained_message_of_each_matching_topic(peer: Peers) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        for payload in (b"old", b"new"):
            for level in ("a", "b", "b/c", "$d"):
                await q.publish(f"{name}/{level}", payload + level.encode(), 1, retain=True)
        await late.connect()
        await late.subscribe(name + "/+", 1)
        seen = {(await late.message(retain=True)).payload for _ in range(3)}
        assert seen == {b"newa", b"newb", b"new$d"}
        await late.nothing()
        await late.subscribe(name + "/#", 1)
        seen = {(await late.message(retain=True)).payload for _ in range(4)}
        assert seen == {b"newa", b"newb", b"newb/c", b"new$d"}
        await late.nothing()
        await late.subscribe(name + "/b", 1)
        await late.message(payload=b"newb", retain=True)
        await late.nothing()


@rule("MQTT-3.3.1-7")
@both
async def test_qos_0_ousts_the_earlier_retained_message(peer: Peers) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        await q.publish(name, b"old", 2, retain=True)
        await q.publish(name, b"new", 0, retain=True)
        await q.ping()
        await late.connect()
        await late.subscribe(name, 2)
        if peer.strict or isinstance(await late.peek(), Publish):  # keeping it is advised only
            await late.message(payload=b"new", qos=0, retain=True)
        await late.nothing()


@rule("MQTT-3.3.1-8", "X-3-RETAIN-1")
@both
async def test_retained_again_on_every_subscribe(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name + "/a", b"a", 1, retain=True)
        await q.publish(name + "/b", b"b", 1, retain=True)
        await p.connect()
        for qos in (1, 1, 0, 2):
            await p.subscribe(name + "/+", qos)
            seen = {(await p.message(retain=True, qos=min(qos, 1))).payload for _ in range(2)}
            assert seen == {b"a", b"b"}
            await p.nothing()


@rule("MQTT-3.3.1-8", "X-3-RETAIN-1")
@both
async def test_retained_after_the_suback_or_around_it(peer: Peers) -> None:
    """Not before the subscription is asked for, and not twice."""
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await p.connect()
        await p.nothing()
        await p.send(Subscribe(3, (SubscriptionRequest(name, 1),)))
        await p.answer(SubAck, packet_id=3)
        await p.message(payload=b"kept", retain=True)
        await p.nothing()


@rule("MQTT-3.3.1-9", "X-3-RETAIN-1")
@both
async def test_live_messages_lose_the_retain_flag(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(name, 2)
        for qos in (0, 1, 2):
            await q.publish(name, b"kept", qos, retain=True)
            await p.message(payload=b"kept", retain=False, qos=qos)
            await q.publish(name, b"live", qos, retain=False)
            await p.message(payload=b"live", retain=False, qos=qos)


@rule("MQTT-3.3.1-9")
@both
async def test_queued_messages_lose_the_retain_flag(peer: Peers) -> None:
    """They came by a subscription that was there, however late they arrive."""
    name = topic()
    client_id = await away(peer, name, qos=2)
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"1", 1, retain=True)
        await q.publish(name, b"2", 2, retain=True)
    async with peer(client_id=client_id) as p:
        await back(p)  # which is no new subscription
        await p.message(payload=b"1", retain=False)
        await p.message(payload=b"2", retain=False)
        await p.nothing()


@rule("MQTT-3.3.1-10", "MQTT-3.3.1-11")
@pytest.mark.parametrize("qos", [0, 1, 2])
@both
async def test_empty_payload_erases_the_retained_message(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as late, peer() as q:
        await q.connect()
        await q.publish(name, b"old", 1, retain=True)
        await p.connect()
        await p.subscribe(name, 2)
        await p.message(payload=b"old", retain=True)
        await q.publish(name, b"", qos, retain=True)
        await p.message(payload=b"", retain=False, qos=qos)
        await late.connect()
        await late.subscribe(name)
        await late.nothing()


@rule("MQTT-3.3.1-11")
@both
async def test_empty_payload_is_not_kept(peer: Peers) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        for qos in (0, 1, 2):
            await q.publish(name, b"", qos, retain=True)
        await late.connect()
        await late.subscribe(name)
        await late.nothing()


@rule("MQTT-3.3.1-12")
@both
async def test_message_without_retain_leaves_the_retained_one(peer: Peers) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        for qos in (0, 1, 2):
            await q.publish(name, b"live", qos)
            await q.publish(name, b"", qos)
        await late.connect()
        await late.subscribe(name)
        await late.message(payload=b"kept", retain=True)
        await late.nothing()


@rule("MQTT-3.3.1-12")
@both
async def test_message_without_retain_is_not_kept(peer: Peers) -> None:
    name = topic()
    async with peer() as late, peer() as q:
        await q.connect()
        for qos in (0, 1, 2):
            await q.publish(name, b"live", qos)
        await late.connect()
        await late.subscribe(name, 2)
        await late.nothing()


@rule("MQTT-3.1.2-7")
@pytest.mark.parametrize("clean", [True, False])
@both
async def test_retained_messages_outlive_the_session(peer: Peers, clean: bool) -> None:
    name = topic()
    async with peer() as q:
        await q.connect(clean_start=clean)
        await q.subscribe(name, 1)
        await q.publish(name, b"kept", 1, retain=True)
        await q.message(payload=b"kept")
        await q.disconnect()
    async with peer(client_id=q.client_id) as q:
        await q.connect(clean_start=True)  # ends the session that was stored
        await q.disconnect()
    async with peer() as late:
        await late.connect()
        await late.subscribe(name)
        await late.message(payload=b"kept", retain=True)


@rule("X-3-RETAIN-1")
@both
async def test_retained_between_versions(peer: Peers) -> None:
    name = topic()
    async with peer() as q, peer(v=5) as late, peer() as p:
        await q.connect()
        await q.publish(name, b"kept", 1, retain=True)
        await late.connect()
        await late.subscribe(name, 1)
        await late.message(payload=b"kept", retain=True, qos=1)
        await late.publish(name, b"other", 2, retain=True)
        await late.message(payload=b"other", retain=False)
        await p.connect()
        await p.subscribe(name, 2)
        await p.message(payload=b"other", retain=True, qos=2)


@rule("MQTT-3.3.1-5")
@both
async def test_retained_message_is_kept_once_it_is_published(peer: Peers) -> None:
    """A QoS 2 message that is repeated before PUBREL does not oust what came after it."""
    name = topic()
    async with peer() as q, peer() as r, peer() as late, peer(client_id=q.client_id) as again:
        await r.connect()
        await q.connect(clean_start=False)
        first = publish(name.encode(), b"first", 2, 5, first_byte=0x35)
        q.retained.add(name)
        await q.send(first)
        await q.receive()  # PUBREC
        await q.drop()
        await back(again)
        await r.publish(name, b"second", 1, retain=True)
        await again.send(bytes([first[0] | 0x08]) + first[1:])
        await again.receive()
        await again.send(PubRel(5))
        await again.receive()
        await late.connect()
        await late.subscribe(name, 2)
        got = await late.message(retain=True)
        # Passing it on at PUBREL is the other method that the standard allows (figure 4.3).
        assert got.payload == b"second" if peer.strict else got.payload in (b"first", b"second")


@rule("X-3-RETAIN-1")
@needs("limited")
async def test_retain_where_nothing_is_retained(peer: Peers) -> None:
    """MQTT 3 can't be told so: it would go on believing in what it published."""
    await refused(peer, publish(topic().encode(), b"x", first_byte=0x31))
    await refused(peer, publish(topic().encode(), b"x", 1, 1, first_byte=0x33))
