"""MQTT 3.1 and 3.1.1: what PUBLISH carries, in which order it arrives, and other versions."""

import pytest
import trio

from mqtrio.wire.packets import (
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
)
from tests.conformance import raw
from tests.conformance.peer import Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts3 import away, back, both, publish, refused
from tests.conformance.timed import timed

# -- the topic ------


@rule("MQTT-3.3.2-1")
@pytest.mark.parametrize("bad", [b"\xff", b"a/\xed\xbf\xbf", b"\xc3"])
@both
async def test_topic_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, publish(bad, b"x"))
    await refused(peer, publish(bad, b"x", 1, 1))
    await refused(peer, publish(bad, b"x", first_byte=0x31))


@rule("MQTT-3.3.2-1")
@pytest.mark.parametrize(
    "packet",
    [
        raw.frame(0x30),
        raw.frame(0x30, b"\x00"),
        raw.frame(0x30, b"\x00\x05abc"),
        raw.frame(0x32, b"\x00\x01a"),
        raw.frame(0x34, b"\x00\x01a\x00"),
    ],
    ids=["nothing", "half a length", "short", "no identifier", "half an identifier"],
)
@both
async def test_publish_without_all_of_its_fields(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet)


@rule("MQTT-3.3.2-1")
@both
async def test_topic_and_payload_are_passed_on_as_they_are(peer: Peers) -> None:
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        for name in (topic("ä", "日本", "\U0001f600"), topic("", "", ""), topic(" ", "$x", "a b")):
            await p.subscribe(name, 2)
            for payload in (b"", b"\x00", bytes(range(256)), b"\xff" * 100_000):
                for qos in (0, 1, 2):
                    await q.publish(name, payload, qos)
                    got = await p.message(topic=name, payload=payload, qos=qos)
                    head = publish(name.encode(), payload, qos, got.packet_id)
                    assert p.last_frame == head or qos == 2  # of which PUBREL came last


@rule("MQTT-3.3.2-2", "MQTT-4.7.1-1")
@pytest.mark.parametrize("name", [b"a/+", b"#", b"a/#", b"+", b"a+b", b"a#", b"a/#/b"])
@both
async def test_wildcards_in_a_topic(peer: Peers, name: bytes) -> None:
    await refused(peer, publish(name, b"x"))
    await refused(peer, publish(name, b"x", first_byte=0x31))


@rule("MQTT-4.7.1-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
@both
async def test_wildcards_in_a_topic_reach_nobody(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as q, peer() as r:
        await p.connect()
        await p.subscribe(name + "/#")
        await q.connect()
        await q.send(publish(f"{name}/+".encode(), b"x", qos, 1))
        await q.closed_silently()
        await r.connect()
        await p.nothing(after=r)


@rule("MQTT-3.3.2-3")
@both
async def test_topic_fits_the_subscription(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(f"{name}/+/c")
        await q.connect()
        for level in ("a", "b", "", "ä", "a/c"):
            await q.publish(f"{name}/{level}/c", b"x", 1)
        for level in ("a", "b", "", "ä"):
            await p.message(topic=f"{name}/{level}/c")
        await p.nothing(after=q)


# -- refusals ------


@rule("MQTT-3.3.5-2")
@needs("auth")
@both
async def test_forbidden_publish(peer: Peers) -> None:
    """Acknowledged like any other, as there is no code to say no, and then gone."""
    name = topic("forbidden")
    async with peer() as p, peer() as q, peer() as late:
        await p.connect()
        await p.subscribe(name.removesuffix("forbidden") + "+", 2)
        await q.connect()
        await q.publish(name, b"x", 0, retain=True)
        await q.publish(name, b"x", 1)
        await q.publish(name, b"x", 2)
        await q.publish(name, b"x", 1, retain=True)
        await p.nothing(after=q)
        await late.connect()
        await late.subscribe(name.removesuffix("forbidden") + "+", 2)
        await late.nothing()


# -- order ------


@rule("MQTT-4.6.0-5", "MQTT-4.6.0-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
@both
async def test_messages_of_a_publisher_keep_their_order(peer: Peers, qos: int) -> None:
    one, two = topic(), topic()
    count = 100
    async with peer() as p, peer() as q, peer() as r:
        await p.connect()
        await p.subscribe(one, qos)
        await p.subscribe(two, qos)
        for publisher, name in ((q, one), (r, two)):
            await publisher.connect()
            for start in range(1, count, 10):
                some = range(start, start + 10)
                await publisher.send(
                    *(Publish(name, bytes([n]), qos, packet_id=n if qos else 0) for n in some)
                )
                if qos == 1:
                    for n in some:
                        await publisher.expect(PubAck, packet_id=n)
                elif qos == 2:
                    for n in some:
                        await publisher.expect(PubRec, packet_id=n)
                    await publisher.send(*(PubRel(n) for n in some))
                    for n in some:
                        await publisher.expect(PubComp, packet_id=n)
        seen: dict[str, list[int]] = {one: [], two: []}
        for _ in range(2 * count):
            got = await p.message(qos=qos)
            seen[got.topic].append(got.payload[0])
        assert seen[one] == list(range(1, count + 1))
        assert seen[two] == list(range(1, count + 1))


@rule("MQTT-4.6.0-5", "MQTT-4.6.0-6")
@both
async def test_topics_keep_their_order_among_each_other(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name + "/#", 1)
        await q.connect()
        for number in range(60):
            await q.publish(f"{name}/{number % 7}", bytes([number]), 1)
        assert [(await p.message()).payload[0] for _ in range(60)] == list(range(60))


@rule("MQTT-4.6.0-6")
@both
async def test_queued_messages_keep_their_order(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name + "/#", qos=2)
    async with peer() as q:
        await q.connect()
        for number in range(60):
            await q.publish(f"{name}/{number % 3}", bytes([number]), 1 + number % 2)
    async with peer(client_id=client_id) as p:
        await back(p)
        seen = [(await p.message()).payload[0] for _ in range(60)]
        for remainder in range(6):
            mine = [number for number in seen if number % 6 == remainder]
            assert mine == sorted(mine)


# -- other versions ------

PROPERTIES = PublishProperties(
    payload_format_indicator=1,
    message_expiry_interval=60,
    content_type="text/plain",
    response_topic="reply",
    correlation_data=b"1",
    user_properties=(("a", "b"),),
)


@rule("X-3-MIX-1")
@both
async def test_message_of_an_mqtt_5_client(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name, qos=2)
    async with peer() as p, peer(v=5) as q:
        await p.connect()
        await p.subscribe(name, 2)
        await q.connect()
        for qos in (0, 1, 2):
            await q.publish(name, b"x", qos, retain=True, properties=PROPERTIES)
            got = await p.expect(Publish, topic=name, payload=b"x", qos=qos, retain=False)
            assert p.last_frame == publish(name.encode(), b"x", qos, got.packet_id)
            await p.acknowledge(got)
        async with peer(client_id=client_id) as r:
            await back(r)
            for qos in (1, 2):
                got = await r.expect(Publish)
                if got.qos == 0 and not peer.strict:  # QoS 0 may have been queued
                    got = await r.expect(Publish)
                assert r.last_frame == publish(name.encode(), b"x", qos, got.packet_id)
                await r.acknowledge(got)
        async with peer() as late:
            await late.connect()
            await late.subscribe(name)
            await late.expect(Publish)
            assert late.last_frame == publish(name.encode(), b"x", first_byte=0x31)


@rule("X-3-MIX-1")
@both
async def test_topic_aliases_of_an_mqtt_5_client(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer(v=5) as q:
        await p.connect()
        await p.subscribe(name)
        connack = await q.connect()
        if not connack.topic_alias_maximum:
            pytest.skip("the broker takes no topic aliases")
        for used in (name, "", ""):
            await q.publish(used, b"x", properties=PublishProperties(topic_alias=1))
            await p.message(topic=name)
            assert p.last_frame == publish(name.encode(), b"x")


@rule("X-3-MIX-1")
@timed
async def test_expired_messages_do_not_arrive(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer(v=5) as q:
        await q.connect()
        short = PublishProperties(message_expiry_interval=1)
        await q.publish(name, b"short", 1, retain=True, properties=short)
        await q.publish(name, b"long", 1, properties=PROPERTIES)
    await trio.sleep(2.5)
    async with peer(client_id=client_id) as p, peer() as late:
        await back(p)
        await p.message(payload=b"long")
        await p.nothing()
        await late.connect()
        await late.subscribe(name)
        await late.nothing()


@rule("X-3-MIX-1")
async def test_two_kinds_of_mqtt_3_and_mqtt_5_together(peer: Peers) -> None:
    name = topic()
    versions = (3, 4, 5)
    async with peer(v=3) as three, peer(v=4) as four, peer(v=5) as five:
        everybody = (three, four, five)
        for one in everybody:
            await one.connect()
            await one.subscribe(name, 2)
        for publisher, version in zip(everybody, versions, strict=True):
            for qos in (0, 1, 2):
                payload = bytes([version, qos])
                await publisher.publish(name, payload, qos)
                for one in everybody:
                    await one.message(topic=name, payload=payload, qos=qos, properties=None)
