"""MQTT 5: what PUBLISH carries, and what arrives of it."""

import pytest
import trio

from mqtrio.wire.packets import PubAck, PubComp, Publish, PublishProperties, PubRec, PubRel
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import away, back, refused
from tests.conformance.timed import timed


async def _passed_on(peer: Peers, properties: PublishProperties) -> PublishProperties:
    """The properties with which a message arrives: live, from a queue, and as retained message."""
    name = topic()
    client_id = await away(peer, name)
    async with peer() as p, peer() as q, peer(client_id=client_id) as r, peer() as late:
        await p.connect()
        await p.subscribe(name)
        await q.connect()
        await q.publish(name, b"payload", 1, retain=True, properties=properties)
        live = (await p.message(payload=b"payload")).properties
        await back(r)
        queued = (await r.message(payload=b"payload")).properties
        await late.connect()
        await late.subscribe(name)
        retained = (await late.message(payload=b"payload")).properties
    assert live == queued == retained
    return live or PublishProperties()


# -- the topic ------


@rule("MQTT-3.3.2-1")
@pytest.mark.parametrize("bad", [b"\xff", b"a/\xed\xbf\xbf", b"\xc3"])
async def test_topic_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, raw.publish(bad, b"x"))
    await refused(peer, raw.publish(bad, b"x", 1, 1))


@rule("MQTT-3.3.2-1")
@pytest.mark.parametrize(
    "packet",
    [raw.frame(0x30), raw.frame(0x30, b"\x00"), raw.frame(0x30, b"\x00\x05abc")],
    ids=["nothing", "half a length", "short"],
)
async def test_publish_without_a_topic(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet, codes=(0x81,))


@rule("MQTT-3.3.2-2", "MQTT-4.7.0-1")
@pytest.mark.parametrize("name", [b"a/+", b"#", b"a/#", b"+", b"a+b", b"a#", b"a/#/b"])
async def test_wildcards_in_a_topic(peer: Peers, name: bytes) -> None:
    await refused(peer, raw.publish(name, b"x"), codes=(0x81, 0x82, 0x90))


@rule("MQTT-4.7.0-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_wildcards_in_a_topic_reach_nobody(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as q, peer() as r:
        await p.connect()
        await p.subscribe(name + "/#")
        await q.connect()
        await q.send(raw.publish(f"{name}/+".encode(), b"x", qos, 1))
        await q.expect_closed(0x81, 0x82, 0x90)
        await r.connect()
        await p.nothing(after=r)


@rule("MQTT-3.3.2-3")
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


# -- properties that are passed on ------


@rule("MQTT-3.3.2-4")
@pytest.mark.parametrize("indicator", [0, 1])
async def test_payload_format_indicator(peer: Peers, indicator: int) -> None:
    got = await _passed_on(peer, PublishProperties(payload_format_indicator=indicator))
    if peer.strict or indicator:
        assert got.payload_format_indicator == indicator
    else:
        assert got.payload_format_indicator in (None, 0)  # which say the same
    got = await _passed_on(peer, PublishProperties())
    assert got.payload_format_indicator in (None, 0)


@rule("MQTT-3.3.2-15", "MQTT-3.3.2-16")
async def test_response_topic_and_correlation_data(peer: Peers) -> None:
    for correlation in (b"\x00\xff" + bytes(300), b"id", b""):
        sent = PublishProperties(response_topic="reply/to/ä", correlation_data=correlation)
        assert await _passed_on(peer, sent) == sent


@rule("MQTT-3.3.2-17", "MQTT-3.3.2-18")
async def test_user_properties(peer: Peers) -> None:
    pairs = (
        ("b", "1"),
        ("a", "2"),
        ("b", "1"),
        ("", ""),
        ("ä", "日本"),
        *(("n", str(n)) for n in range(50)),
    )
    sent = PublishProperties(user_properties=pairs)
    assert (await _passed_on(peer, sent)).user_properties == pairs


@rule("MQTT-3.3.2-20")
async def test_content_type(peer: Peers) -> None:
    sent = PublishProperties(content_type="application/json; charset=ü")
    assert await _passed_on(peer, sent) == sent


@rule("MQTT-3.3.2-13")
@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80", b"a\0"])
async def test_response_topic_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    properties = raw.properties(b"\x08" + raw.binary(bad))
    await refused(peer, raw.publish(b"a", b"x", property_list=properties))


@rule("MQTT-3.3.2-14")
@pytest.mark.parametrize("response_topic", ["a/+", "#", "a/#"])
async def test_response_topic_with_wildcards(peer: Peers, response_topic: str) -> None:
    properties = raw.properties(b"\x08" + raw.text(response_topic))
    packet = raw.publish(b"a", b"x", property_list=properties)
    await refused(peer, packet, codes=(0x81, 0x82, 0x90))


@rule("MQTT-3.3.2-19")
@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80", b"\0"])
async def test_content_type_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    properties = raw.properties(b"\x03" + raw.binary(bad))
    await refused(peer, raw.publish(b"a", b"x", property_list=properties))


@rule("MQTT-3.3.4-6")
async def test_subscription_identifier_from_a_client(peer: Peers) -> None:
    await refused(peer, raw.publish(b"a", property_list=b"\x02\x0b\x01"), codes=(0x82,))


# -- message expiry ------


@rule("MQTT-3.3.2-5", "X-5-EXPIRY-2")
@timed
async def test_expired_messages_do_not_arrive(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer() as q:
        await q.connect()
        await q.publish(
            name, b"short", 1, retain=True, properties=PublishProperties(message_expiry_interval=1)
        )
        await q.publish(name, b"long", 1, properties=PublishProperties(message_expiry_interval=60))
    await trio.sleep(2.5)
    async with peer(client_id=client_id) as p, peer() as late:
        await back(p)
        await p.message(payload=b"long")
        await p.nothing()
        await late.connect()
        await late.subscribe(name)
        await late.nothing()


@rule("MQTT-3.3.2-5")
@timed
async def test_messages_that_expire_behind_a_full_window(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(receive_maximum=1)
        await p.subscribe(name, 1)
        await q.connect()
        await q.publish(name, b"first", 1)
        first = await p.message(payload=b"first", acknowledge=False)
        await q.publish(name, b"short", 1, properties=PublishProperties(message_expiry_interval=1))
        await q.publish(name, b"long", 1, properties=PublishProperties(message_expiry_interval=60))
        await trio.sleep(2.5)
        await p.acknowledge(first)
        await q.publish(name, b"next", 1)
        got = {(await p.message()).payload for _ in range(2)}
        assert got == {b"long", b"next"}
        await p.nothing(after=q)


@rule("MQTT-4.6.0-5", "X-5-ORDER-1")
@timed
async def test_order_though_a_message_between_expired(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(receive_maximum=1)
        await p.subscribe(name, 1)
        await q.connect()
        await q.publish(name, b"1", 1)
        first = await p.message(payload=b"1", acknowledge=False)
        await q.publish(name, b"short", 1, properties=PublishProperties(message_expiry_interval=1))
        await q.publish(name, b"2", 1)
        await trio.sleep(2.5)
        await p.acknowledge(first)
        await q.publish(name, b"3", 1)
        await p.message(payload=b"2")
        await p.message(payload=b"3")


@rule("MQTT-3.3.2-6", "X-5-EXPIRY-1")
@timed
async def test_remaining_lifetime_is_forwarded(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    properties = PublishProperties(message_expiry_interval=60)
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name)
        await q.connect()
        await q.publish(name, b"x", 1, retain=True, properties=properties)
        assert await _lifetime(p) in (59, 60)
        await trio.sleep(3)
        async with peer(client_id=client_id) as r, peer() as late:
            await back(r)
            assert await _lifetime(r) in (55, 56, 57)
            await late.connect()
            await late.subscribe(name)
            assert await _lifetime(late) in (55, 56, 57)


async def _lifetime(p: Peer) -> int | None:
    got = await p.message()
    return got.properties.message_expiry_interval if got.properties else None


@rule("X-5-EXPIRY-3")
@timed
async def test_no_lifetime_is_added(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name)
        await q.connect()
        await q.publish(name, b"x", 1)
        assert await _lifetime(p) is None
    await trio.sleep(1.5)
    async with peer(client_id=client_id) as p:
        await back(p)
        assert await _lifetime(p) is None


# -- order ------


@rule("MQTT-4.6.0-5", "MQTT-4.6.0-6", "X-5-ORDER-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_of_a_publisher_keep_their_order(peer: Peers, qos: int) -> None:
    one, two = topic(), topic()
    count = 100
    async with peer() as p, peer() as q, peer() as r:
        await p.connect()
        await p.subscribe(one, qos)
        await p.subscribe(two, qos)
        for publisher, name in ((q, one), (r, two)):
            await publisher.connect()
            for start in range(1, count, 10):  # a few at a time: no receive maximum is as small
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


@rule("MQTT-4.6.0-6")
async def test_queued_messages_keep_their_order(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name + "/#")
    async with peer() as q:
        await q.connect()
        for number in range(60):
            await q.publish(f"{name}/{number % 3}", bytes([number]), 1)
    async with peer(client_id=client_id) as p:
        await back(p, receive_maximum=5)
        seen = [(await p.message()).payload[0] for _ in range(60)]
        for remainder in range(3):
            mine = [number for number in seen if number % 3 == remainder]
            assert mine == sorted(mine)


# -- refusals and other versions ------


@rule("X-5-ACK-1")
async def test_no_subscribers(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(Publish(topic(), b"x", 1, packet_id=1))
        puback = await p.expect(PubAck, packet_id=1)
        assert puback.reason_code in (0x00, 0x10)
        await p.send(Publish(topic(), b"x", 2, packet_id=2))
        pubrec = await p.expect(PubRec, packet_id=2)
        assert pubrec.reason_code in (0x00, 0x10)


@rule("X-5-ACK-1")
@needs("auth")
async def test_refused_publish(peer: Peers) -> None:
    name = topic("forbidden")
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name.removesuffix("forbidden") + "+", 2)
        await q.connect()
        await q.send(Publish(name, b"x", 1, packet_id=1))
        await q.expect(PubAck, packet_id=1, reason_code=0x87)
        await q.send(Publish(name, b"x", 2, packet_id=2))
        await q.expect(PubRec, packet_id=2, reason_code=0x87)
        await q.send(Publish(name, b"x", 0))
        await q.send(Publish(name, b"x", 0, retain=True))
        await p.nothing(after=q)


@rule("X-5-ACK-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_payload_that_is_not_of_its_format(peer: Peers, qos: int) -> None:
    name = topic()
    properties = PublishProperties(payload_format_indicator=1)
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name, qos)
        await q.connect()
        answer = PubAck if qos == 1 else PubRec
        await q.send(Publish(name, b"\xff", qos, packet_id=1, properties=properties))
        got = await q.expect(answer, packet_id=1)
        assert got.reason_code in ((0x99,) if peer.strict else (0x00, 0x99)), got
        if got.reason_code == 0x99:
            await p.nothing(after=q)
        await q.send(Publish(name, "é".encode(), qos, packet_id=2, properties=properties))
        await q.expect(answer, packet_id=2, reason_code=0)


@rule("MQTT-3.2.2-11")
@needs("limited")
async def test_publish_above_the_maximum_qos(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.publish(topic(), b"x", 1)
        await p.send(Publish(topic(), b"x", 2, packet_id=1))
        await p.expect_closed(0x9B)


@rule("MQTT-3.2.2-11")
@needs("limited-qos-0")
async def test_publish_above_maximum_qos_0(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.publish(topic(), b"x", 0)
        await p.send(Publish(topic(), b"x", 1, packet_id=1))
        await p.expect_closed(0x9B)


@rule("X-5-MIX-1")
@pytest.mark.parametrize("version", [3, 4])
async def test_message_for_an_mqtt_3_client_loses_its_properties_only(
    peer: Peers, version: int
) -> None:
    name = topic()
    properties = PublishProperties(
        payload_format_indicator=1,
        message_expiry_interval=60,
        content_type="text/plain",
        response_topic="reply",
        correlation_data=b"1",
        user_properties=(("a", "b"),),
    )
    async with peer(v=version) as p, peer() as q:
        await p.connect()
        await p.subscribe(name, 2)
        await q.connect()
        for qos in (0, 1, 2):
            await q.publish(name, b"x", qos, properties=properties)
            await p.message(topic=name, payload=b"x", qos=qos, retain=False, dup=False)


@rule("X-5-MIX-1")
@pytest.mark.parametrize("version", [3, 4])
async def test_message_of_an_mqtt_3_client_has_no_properties(peer: Peers, version: int) -> None:
    name = topic()
    async with peer() as p, peer(v=version) as q:
        await p.connect()
        await p.subscribe(name, 2)
        await q.connect()
        for qos in (0, 1, 2):
            await q.publish(name, b"x", qos)
            got = await p.message(topic=name, payload=b"x", qos=qos)
            assert got.properties is None or got.properties == PublishProperties()
