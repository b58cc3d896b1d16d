"""MQTT 5: receive maximum and maximum packet size."""

import pytest

from mqtrio.wire.packets import (
    Auth,
    ConnAck,
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
)
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic, unique
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import MALFORMED, back, connect_refused

#: A maximum packet size into which the packets fit, but no reason string of server.py's plugin.
SMALL = 40

# -- the client's receive maximum ------


async def _filled(peer: Peer, q: Peer, name: str, maximum: int, count: int) -> list[Publish]:
    """A subscriber with as many unacknowledged messages as its receive maximum allows."""
    await peer.connect(receive_maximum=maximum, session_expiry_interval=60)
    await peer.subscribe(name, 2)
    await q.connect()
    for number in range(count):
        await q.publish(name, bytes([number]), 1 + number % 2)
    return [
        await peer.message(payload=bytes([number]), acknowledge=False)
        for number in range(min(count, maximum))
    ]


@rule("MQTT-3.3.4-9", "MQTT-4.9.0-1", "MQTT-4.9.0-2")
@pytest.mark.parametrize("maximum", [1, 3, 10])
async def test_deliveries_stop_at_the_receive_maximum(peer: Peers, maximum: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _filled(p, q, name, maximum, 14)
        await p.nothing(after=q)


@rule("MQTT-3.3.4-9")
@pytest.mark.parametrize("qos", [1, 2])
async def test_deliveries_stop_at_the_receive_maximum_in_one_go(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(receive_maximum=3)
        await p.subscribe(name, qos)
        await q.connect()
        await q.send(*(Publish(name, bytes([n]), qos, packet_id=n) for n in range(1, 11)))
        if qos == 2:
            await q.send(*(PubRel(n) for n in range(1, 11)))
        for _ in range(qos * 10):
            assert isinstance(await q.receive(), PubAck | PubRec | PubComp)
        first = [await p.message(payload=bytes([n]), acknowledge=False) for n in (1, 2, 3)]
        await p.nothing(after=q)
        for message in first:
            await p.acknowledge(message)
        for number in range(4, 11):
            await p.message(payload=bytes([number]))
        await p.nothing(after=q)


@rule("X-5-FLOW-3", "MQTT-4.9.0-2")
async def test_each_completion_lets_one_more_through(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        first, second = await _filled(p, q, name, 2, 6)  # QoS 1, 2, 1, 2, 1, 2
        await p.send(PubAck(first.packet_id))
        third = await p.message(payload=b"\x02", acknowledge=False)
        await p.nothing()
        await p.send(PubRec(second.packet_id))
        await p.expect(PubRel, packet_id=second.packet_id)
        await p.nothing()  # PUBREC alone completes nothing
        await p.send(PubComp(second.packet_id))
        fourth = await p.message(payload=b"\x03", acknowledge=False)
        await p.nothing()
        await p.send(PubAck(third.packet_id, 0x80))
        fifth = await p.message(payload=b"\x04", acknowledge=False)
        await p.nothing()
        await p.send(PubRec(fourth.packet_id, 0x80))  # this completes it
        sixth = await p.message(payload=b"\x05", acknowledge=False)
        await p.acknowledge(fifth)
        await p.acknowledge(sixth)
        await p.nothing()


@rule("MQTT-3.3.4-10", "MQTT-4.9.0-3")
async def test_other_packets_while_the_window_is_full(peer: Peers) -> None:
    name, another = topic(), topic()
    async with peer() as p, peer() as q:
        await _filled(p, q, name, 1, 3)
        await p.send(PingReq())
        await p.expect(PingResp)
        await p.send(Subscribe(1, (SubscriptionRequest(another),)))
        await p.expect(SubAck, packet_id=1)
        await p.send(Unsubscribe(2, (another,)))
        await p.expect(UnsubAck, packet_id=2)
        await p.send(Publish(topic(), b"x", 1, packet_id=3))
        await p.expect(PubAck, packet_id=3)
        await p.send(Publish(topic(), b"x", 2, packet_id=4))
        await p.expect(PubRec, packet_id=4)
        await p.send(PubRel(4))
        await p.expect(PubComp, packet_id=4)


@rule("X-5-FLOW-4")
async def test_qos_0_does_not_count(peer: Peers) -> None:
    name, zero = topic(), topic()
    async with peer() as p, peer() as q:
        await _filled(p, q, name, 1, 3)
        await p.subscribe(zero, 0)
        for number in range(5):
            await q.publish(zero, bytes([number]), 2)
            await p.message(topic=zero, qos=0, payload=bytes([number]))


@rule("X-5-FLOW-4")
async def test_window_starts_afresh_with_a_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _filled(p, q, name, 2, 6)
        await p.drop()
    for maximum in (4, 1):
        async with peer(client_id=p.client_id) as p:
            await back(p, receive_maximum=maximum)
            for number in range(maximum):
                await p.message(payload=bytes([number]), acknowledge=False)
            await p.nothing()
            await p.drop()


@rule("X-5-FLOW-1")
async def test_receive_maximum_0_or_twice(peer: Peers) -> None:
    for value in (b"\x21\x00\x00", b"\x21\x00\x05" * 2):
        packet = raw.connect(raw.text(unique()), property_list=raw.properties(value))
        await connect_refused(peer, packet, 0x82)


@rule("X-5-FLOW-1")
async def test_no_receive_maximum_means_many(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name, 1)
        await q.connect()
        for number in range(16):
            await q.publish(name, bytes([number]), 1)
        for number in range(16):
            await p.message(payload=bytes([number]), acknowledge=False)


# -- the server's receive maximum ------


async def _receive_maximum(p: Peer) -> int:
    connack = await p.connect()
    maximum = connack.receive_maximum or 65_535
    if maximum > 10_000:
        pytest.skip("the broker's receive maximum is too high to reach")
    return maximum


@rule("MQTT-3.3.4-7", "X-5-FLOW-2")
async def test_more_than_the_receive_maximum_of_the_server(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        maximum = await _receive_maximum(p)
        for number in range(1, maximum + 1):
            await p.send(Publish(name, b"x", 2, packet_id=number))
            await p.expect(PubRec, packet_id=number)
        await p.nothing()
        await p.send(PubRel(1))
        await p.expect(PubComp, packet_id=1)
        await p.send(Publish(name, b"x", 2, packet_id=maximum + 1))  # in the place of the first
        await p.expect(PubRec, packet_id=maximum + 1)
        await p.send(Publish(name, b"x", 2, packet_id=maximum + 2))
        await p.expect_closed(0x93)


@rule("X-5-FLOW-2")
async def test_repeated_messages_count_as_well(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        maximum = await _receive_maximum(p)
        for number in range(1, maximum + 1):
            await p.send(Publish(name, b"x", 2, dup=True, packet_id=number))
            await p.expect(PubRec, packet_id=number)
        await p.send(Publish(name, b"x", 2, dup=True, packet_id=maximum + 1))
        await p.expect_closed(0x93)


@rule("X-5-FLOW-2")
async def test_completed_messages_do_not_count(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        maximum = min(await _receive_maximum(p), 100)
        for _ in range(2 * maximum):
            await p.publish(name, b"x", 1, packet_id=1)
        for _ in range(2 * maximum):
            await p.publish(name, b"x", 2, packet_id=2)
        await p.nothing()


# -- the client's maximum packet size ------


@rule("MQTT-3.1.2-24")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_packets_up_to_the_maximum_packet_size(peer: Peers, qos: int) -> None:
    name = topic()
    fits = 100 - len(name) - (7 if qos else 5)  # header 2, topic length 2, properties 1, id 2
    async with peer() as p, peer() as q:
        await p.connect(maximum_packet_size=100)
        await p.subscribe(name, qos)
        await q.connect()
        await q.publish(name, bytes(fits), qos)
        await p.message(payload=bytes(fits), acknowledge=False)
        assert len(p.last_frame) == 100
        await q.publish(name, bytes(fits + 1), qos)
        await p.nothing(after=q)


@rule("MQTT-3.1.2-25", "X-5-SIZE-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_message_too_big_for_a_subscriber(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p, peer() as other, peer() as q:
        await p.connect(maximum_packet_size=100, receive_maximum=1, session_expiry_interval=60)
        await p.subscribe(name, qos)
        await other.connect()
        await other.subscribe(name, qos)
        await q.connect()
        for _ in range(3):  # more than its window: they don't count
            await q.publish(name, bytes(150), qos)
            await other.message(payload=bytes(150))
        await q.publish(name, b"small", qos)
        await p.message(payload=b"small")
        await p.nothing(after=q)
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:  # delivered, as far as the session is concerned
        await back(p)
        await p.nothing()


@rule("MQTT-3.1.2-24")
async def test_retained_and_queued_messages_too_big_for_a_subscriber(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(session_expiry_interval=60)
        await p.subscribe(name + "/queued", 1)
        await p.disconnect()
        await q.connect()
        await q.publish(name + "/queued", bytes(200), 1)
        await q.publish(name + "/queued", b"small", 1)
        await q.publish(name + "/kept", bytes(200), 1, retain=True)
    async with peer(client_id=p.client_id) as p:
        await back(p, maximum_packet_size=100)
        await p.message(payload=b"small")
        await p.subscribe(name + "/kept", 1)
        await p.nothing()


@rule("MQTT-3.2.2-19", "MQTT-3.2.2-20")
@needs("auth")
@pytest.mark.parametrize("maximum", [400, 300, 60])
async def test_connack_within_the_limit(peer: Peers, maximum: int) -> None:
    async with peer() as p:
        connack = await p.connect(username="verbose", maximum_packet_size=maximum)
        assert not (connack.reason_string and connack.user_properties)
    async with peer() as p:
        connack = await p.connect(username="verbose")
        assert connack.reason_string
        assert connack.user_properties


async def _small(p: Peer) -> str:
    """Connect with a small maximum packet size; a topic that is refused on the auth broker."""
    await p.connect(maximum_packet_size=SMALL)
    return topic("forbidden")


@rule("MQTT-3.4.2-2", "MQTT-3.4.2-3")
@needs("auth")
async def test_puback_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await p.send(Publish(await _small(p), b"x", 1, packet_id=1))
        await p.expect(PubAck, packet_id=1, reason_code=0x87, reason_string=None)


@rule("MQTT-3.5.2-2", "MQTT-3.5.2-3")
@needs("auth")
async def test_pubrec_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await p.send(Publish(await _small(p), b"x", 2, packet_id=1))
        await p.expect(PubRec, packet_id=1, reason_code=0x87, reason_string=None)


@rule("MQTT-3.4.2-2", "MQTT-3.5.2-2")
async def test_acknowledgements_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        name = await _small(p)
        await p.send(Publish(name, b"x", 1, packet_id=1))
        await p.expect(PubAck, packet_id=1)
        await p.send(Publish(name, b"x", 2, packet_id=2))
        await p.expect(PubRec, packet_id=2)


@rule("MQTT-3.6.2-2", "MQTT-3.6.2-3")
async def test_pubrel_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await _small(p)
        await p.send(PubRec(4))
        await p.expect(PubRel, packet_id=4)
        await p.subscribe("c/" + p.client_id, 2)
        await p.publish("c/" + p.client_id, b"x", 2)
        got = await p.message(acknowledge=False)
        await p.send(PubRec(got.packet_id))
        await p.expect(PubRel, packet_id=got.packet_id)


@rule("MQTT-3.7.2-2", "MQTT-3.7.2-3")
async def test_pubcomp_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await _small(p)
        await p.send(PubRel(4))
        await p.expect(PubComp, packet_id=4)
        await p.publish(topic(), b"x", 2)


@rule("MQTT-3.9.2-1", "MQTT-3.9.2-2")
@needs("auth")
async def test_suback_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await p.send(Subscribe(1, (SubscriptionRequest(await _small(p)),)))
        await p.expect(SubAck, packet_id=1, reason_codes=(0x87,), reason_string=None)


@rule("MQTT-3.9.2-1", "MQTT-3.9.2-2")
async def test_suback_of_many_filters_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await _small(p)
        await p.send(Subscribe(1, tuple(SubscriptionRequest(topic()) for _ in range(SMALL - 5))))
        await p.expect(SubAck, packet_id=1, reason_codes=(0,) * (SMALL - 5))


@rule("MQTT-3.11.2-1", "MQTT-3.11.2-2")
async def test_unsuback_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await _small(p)
        await p.send(Unsubscribe(1, tuple(topic() for _ in range(SMALL - 5))))
        await p.expect(UnsubAck, packet_id=1, reason_codes=(0x11,) * (SMALL - 5))


@rule("MQTT-3.14.2-3", "MQTT-3.14.2-4")
@pytest.mark.parametrize(
    "packet",
    [MALFORMED, raw.publish(b"a/+"), Connect(client_id="x"), raw.subscribe(1, [])],
    ids=["malformed", "topic", "CONNECT", "SUBSCRIBE"],
)
async def test_disconnect_within_the_limit(peer: Peers, packet: bytes | Connect) -> None:
    async with peer() as p:
        await _small(p)
        await p.send(packet)
        await p.expect_closed()


@rule("MQTT-3.15.2-2", "MQTT-3.15.2-3")
@needs("auth")
async def test_auth_within_the_limit(peer: Peers) -> None:
    async with peer() as p:
        await p.send(p.connect_packet(authentication_method="TEST", maximum_packet_size=SMALL))
        await p.expect(Auth, reason_code=0x18)
        await p.send(Auth(0x18, "TEST", b"answer"))
        await p.expect_connack()
        await p.send(Auth(0x19, "TEST", b"answer"))
        await p.expect(Auth, reason_code=0)


# -- the server's maximum packet size ------


@rule("MQTT-3.2.2-15", "X-5-SIZE-2")
async def test_packet_above_the_maximum_of_the_server(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect()
        maximum = connack.maximum_packet_size
        if maximum is None or maximum >= 2**28:
            pytest.skip("the broker sets no maximum packet size")
        await p.send(b"\x30" + raw.integer(maximum) + b"\x00\x01a")  # its header is enough
        await p.expect_closed(0x95)


@rule("MQTT-3.2.2-15")
@needs("limited")
async def test_packet_at_the_maximum_of_the_server(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name)
        connack = await q.connect()
        assert connack.maximum_packet_size == 2048
        payload = bytes(2048 - 3 - 2 - len(name) - 1)
        await q.publish(name, payload)
        await p.message(payload=payload)
        await q.send(Publish(name, payload + b"x"))
        await q.expect_closed(0x95)


@rule("X-5-SIZE-2")
async def test_maximum_packet_size_0(peer: Peers) -> None:
    properties = raw.properties(b"\x27" + raw.uint32(0))
    async with peer() as p:
        await p.send(raw.connect(raw.text(p.client_id), property_list=properties))
        refused = await p.expect_closed(0x82)
        assert refused is None or isinstance(refused, ConnAck)
