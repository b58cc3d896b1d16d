"""MQTT 5: SUBSCRIBE, UNSUBSCRIBE and their answers."""

import pytest

from mqtrio.reasons import ALLOWED
from mqtrio.wire.packets import (
    PingReq,
    PingResp,
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
from tests.conformance.peer import Peer, Peers, topic
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import back, refused


def _unsubscribe(packet_id: int, *topic_filters: bytes) -> bytes:
    return raw.frame(
        raw.UNSUBSCRIBE, raw.uint16(packet_id), b"\x00", *(raw.binary(f) for f in topic_filters)
    )


def _identifiers(message: Publish) -> tuple[int, ...]:
    return message.properties.subscription_identifiers if message.properties else ()


# -- SUBSCRIBE and SUBACK ------


@rule("MQTT-2.2.1-6", "MQTT-3.8.4-1", "MQTT-3.8.4-2")
async def test_suback_repeats_the_identifier(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        for packet_id in (1, 65_535, 256, 1):
            await p.send(Subscribe(packet_id, (SubscriptionRequest(topic()),)))
            await p.expect(SubAck, packet_id=packet_id, reason_codes=(0,))
        await p.send(*(Subscribe(n, (SubscriptionRequest(topic()),)) for n in (5, 9, 7)))
        answers = [await p.expect(SubAck) for _ in range(3)]
        assert {answer.packet_id for answer in answers} == {5, 9, 7}


@rule("MQTT-3.10.4-4", "MQTT-2.2.1-6", "MQTT-3.10.4-5")
async def test_unsuback_repeats_the_identifier(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        await p.send(Unsubscribe(65_535, (name,)))
        await p.expect(UnsubAck, packet_id=65_535, reason_codes=(0,))
        await p.send(Unsubscribe(65_535, (name,)))
        await p.expect(UnsubAck, packet_id=65_535, reason_codes=(0x11,))


@rule("MQTT-3.8.4-6", "MQTT-3.9.3-1", "MQTT-3.8.4-7")
async def test_one_code_for_each_filter_in_order(peer: Peers) -> None:
    wanted = (2, 0, 1, 1, 0, 2, 2)
    async with peer() as p:
        await p.connect()
        await p.send(Subscribe(3, tuple(SubscriptionRequest(topic(), qos) for qos in wanted)))
        await p.expect(SubAck, packet_id=3, reason_codes=wanted)


@rule("MQTT-3.9.3-1", "MQTT-3.9.3-2")
@needs("auth")
async def test_a_refused_filter_among_others(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        names = (topic(), topic("forbidden"), topic())
        await p.send(Subscribe(3, tuple(SubscriptionRequest(name, 1) for name in names)))
        await p.expect(SubAck, packet_id=3, reason_codes=(1, 0x87, 1))
        await p.publish(names[1].removesuffix("/forbidden"))  # allowed; to nobody
        await p.publish(names[2], b"x")
        await p.message(topic=names[2])


@rule("MQTT-3.9.3-2")
async def test_reason_codes_of_suback(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        for topic_filter in ("#", "+", "+/+", "/", "a/+/#", "$SYS/#", topic()):
            await p.send(Subscribe(4, (SubscriptionRequest(topic_filter, 1),)))
            suback = await p.answer(SubAck, packet_id=4)
            assert set(suback.reason_codes) <= ALLOWED[9]
            await p.send(Unsubscribe(4, (topic_filter,)))
            unsuback = await p.answer(UnsubAck, packet_id=4)
            assert set(unsuback.reason_codes) <= ALLOWED[11]


@rule("MQTT-3.8.4-5")
async def test_several_filters_act_like_several_subscribes(peer: Peers) -> None:
    one, two, three = topic(), topic(), topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await q.publish(two, b"kept", 1, retain=True)
        requests = (
            SubscriptionRequest(one, 0),
            SubscriptionRequest(two, 1),
            SubscriptionRequest(three, 2),
            SubscriptionRequest(one, 1),  # replaces the first
        )
        await p.send(Subscribe(5, requests))
        await p.answer(SubAck, packet_id=5, reason_codes=(0, 1, 2, 1))
        await p.message(topic=two, payload=b"kept", retain=True)
        await p.nothing()
        for name, granted in ((one, 1), (two, 1), (three, 2)):
            await q.publish(name, b"x", 2)
            await p.message(topic=name, qos=granted)
        await p.nothing(after=q)


@rule("MQTT-3.8.4-3")
async def test_the_same_filter_again_replaces_the_subscription(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        for qos, retain_as_published, identifier in ((2, False, 1), (0, True, 2), (1, False, 0)):
            await p.subscribe(
                name,
                qos,
                identifier=identifier,
                retain_as_published=retain_as_published,
                retain_handling=2,
            )
            await q.publish(name, b"x", 2, retain=True)
            got = await p.message(qos=qos, retain=retain_as_published)
            assert _identifiers(got) == ((identifier,) if identifier else ())
            await p.nothing(after=q)
        await p.unsubscribe(name)
        await q.publish(name, b"x", 1)
        await p.nothing(after=q)


@rule("MQTT-3.2.2-10")
@needs("limited")
async def test_subscriptions_above_the_maximum_qos(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(Subscribe(1, tuple(SubscriptionRequest(topic(), qos) for qos in (0, 1, 2))))
        suback = await p.expect(SubAck, packet_id=1)
        assert suback.reason_codes[:2] == (0, 1)
        assert suback.reason_codes[2] in (1, 2)


# -- malformed and forbidden ones ------


@rule("MQTT-3.8.3-1")
@pytest.mark.parametrize("bad", [b"\xff", b"a/\xed\xa0\x80", b"\xc3"])
async def test_filter_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, raw.subscribe(1, [(b"ok", 0), (bad, 0)]))


@rule("MQTT-3.10.3-1")
@pytest.mark.parametrize("bad", [b"\xff", b"a/\xed\xa0\x80", b"\xc3"])
async def test_filter_to_unsubscribe_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, _unsubscribe(1, b"ok", bad))


@rule("MQTT-3.8.3-2", "MQTT-3.10.3-2")
@pytest.mark.parametrize(
    "packet", [raw.subscribe(1, []), _unsubscribe(1)], ids=["SUBSCRIBE", "UNSUBSCRIBE"]
)
async def test_no_filter_at_all(peer: Peers, packet: bytes) -> None:
    await refused(peer, packet, codes=(0x81, 0x82))


@rule("X-5-SUBOPT-1")
@pytest.mark.parametrize("options", [0x03, 0x30, 0x33])
async def test_qos_3_and_retain_handling_3(peer: Peers, options: int) -> None:
    await refused(peer, raw.subscribe(1, [(b"a", options)]), codes=(0x81, 0x82))


@rule("X-5-SUBID-1")
@pytest.mark.parametrize(
    ("identifier", "codes"),
    [
        (b"\x0b\x00", (0x82,)),
        (b"\x0b\x01\x0b\x02", (0x82,)),
        (b"\x0b\xff\xff\xff\xff\x01", (0x81, 0x82)),
    ],
    ids=["0", "two", "too big"],
)
async def test_bad_subscription_identifier(
    peer: Peers, identifier: bytes, codes: tuple[int, ...]
) -> None:
    packet = raw.subscribe(1, [(b"a", 0)], property_list=raw.properties(identifier))
    await refused(peer, packet, codes=codes)


async def _filter_refused(peer: Peers, topic_filter: bytes) -> None:
    """Answered by a failure code for this filter, or the connection is closed."""
    async with peer() as p:
        await p.connect()
        await p.send(raw.subscribe(1, [(topic_filter, 0)]))
        if isinstance(await p.peek(), SubAck):
            await p.expect(SubAck, packet_id=1, reason_codes=(0x8F,))
            await p.nothing()
        else:
            await p.expect_closed(0x8F, 0x81, 0x82)
    async with peer() as p:
        await p.connect()
        await p.send(_unsubscribe(1, topic_filter))
        if isinstance(await p.peek(), UnsubAck):
            unsuback = await p.expect(UnsubAck, packet_id=1)
            assert unsuback.reason_codes in ((0x8F,), (0x11,))
        else:
            await p.expect_closed(0x8F, 0x81, 0x82)


@rule("MQTT-4.7.1-1")
@pytest.mark.parametrize("topic_filter", [b"a#", b"a/#/b", b"#/", b"##", b"a/b#", b"#a"])
async def test_misplaced_multi_level_wildcard(peer: Peers, topic_filter: bytes) -> None:
    await _filter_refused(peer, topic_filter)


@rule("MQTT-4.7.1-2")
@pytest.mark.parametrize("topic_filter", [b"a+", b"a/b+", b"+a", b"++", b"a/+b/c"])
async def test_misplaced_single_level_wildcard(peer: Peers, topic_filter: bytes) -> None:
    await _filter_refused(peer, topic_filter)


@rule("MQTT-4.7.3-1")
async def test_empty_filter(peer: Peers) -> None:
    await _filter_refused(peer, b"")


@rule("MQTT-4.7.3-1")
async def test_topics_of_one_character(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.subscribe("/")
        await p.publish("/", b"x")
        await p.message(topic="/")


# -- UNSUBSCRIBE and UNSUBACK ------


@rule("MQTT-3.10.4-1")
async def test_only_the_same_text_is_unsubscribed(peer: Peers) -> None:
    name = topic()
    filters = (f"{name}/+", f"{name}/#", f"{name}/a")
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        for identifier, topic_filter in enumerate(filters, 1):
            await p.subscribe(topic_filter, identifier=identifier)
        for other in ("#", "+/+", f"{name}/b", f"{name.upper()}/+", f"{name}/+/#"):
            await p.send(Unsubscribe(9, (other,)))
            await p.expect(UnsubAck, packet_id=9, reason_codes=(0x11,))
        assert await _seen_identifiers(p, q, f"{name}/a") == {1, 2, 3}
        await p.unsubscribe(filters[1])
        assert await _seen_identifiers(p, q, f"{name}/a") == {1, 3}


async def _seen_identifiers(p: Peer, q: Peer, name: str) -> set[int]:
    """The subscription identifiers of all copies of one message."""
    seen: set[int] = set()
    for copy in await _copies(p, q, name, 0):
        seen.update(_identifiers(copy))
    return seen


async def _copies(p: Peer, q: Peer, name: str, qos: int) -> list[Publish]:
    """Publish once; all copies that come, up to a marker to a topic of `p` alone."""
    marker = topic("end")
    await p.subscribe(marker)
    await q.publish(name, b"x", qos)
    await q.publish(marker, b"end", 0)
    copies: list[Publish] = []
    while True:
        got = await p.message()
        if got.topic == marker:
            await p.unsubscribe(marker)
            return copies
        assert got.topic == name
        copies.append(got)


@rule("MQTT-3.10.4-2")
async def test_nothing_new_after_unsubscribing(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(session_expiry_interval=60)
        await q.connect()
        await p.subscribe(name, 1)
        await q.publish(name, b"1", 1)
        await p.message(payload=b"1")
        await p.unsubscribe(name)
        await q.publish(name, b"2", 1)
        await p.nothing(after=q)
        await p.disconnect()
        await q.publish(name, b"3", 1)
    async with peer(client_id=p.client_id) as p:
        await back(p)
        await p.nothing()


@rule("MQTT-3.10.4-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_subscribing_and_unsubscribing_in_one_write(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.send(
            Publish(name, b"before", qos, packet_id=1 if qos else 0),
            Subscribe(9, (SubscriptionRequest(name, 0),)),
            Publish(name, b"during", qos, packet_id=2 if qos else 0),
            Publish(name, b"during", 0),
            Unsubscribe(8, (name,)),
            Publish(name, b"after", qos, packet_id=3 if qos else 0),
            Publish(name, b"after", 0),
            PingReq(),
        )
        seen = []
        while not isinstance(packet := await p.receive(), PingResp):
            if isinstance(packet, Publish):
                seen.append(packet.payload)
            elif isinstance(packet, PubRec):
                await p.send(PubRel(packet.packet_id))
        if qos == 2:  # a server may wait for PUBREL before it passes a message on
            while not isinstance(packet, PubComp) or packet.packet_id != 3:
                packet = await p.receive()
                if isinstance(packet, Publish):
                    seen.append(packet.payload)
        assert seen.count(b"during") in ((2,) if qos < 2 else (1, 2))
        assert seen.count(b"during") == len(seen)


@rule("MQTT-3.10.4-6", "MQTT-3.11.3-1", "MQTT-3.11.3-2")
async def test_several_filters_act_like_several_unsubscribes(peer: Peers) -> None:
    one, two, never = topic(), topic(), topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(one)
        await p.subscribe(two)
        await p.send(Unsubscribe(7, (never, one, one, two)))
        unsuback = await p.expect(UnsubAck, packet_id=7)
        assert unsuback.reason_codes == (0x11, 0x00, 0x11, 0x00)
        await q.publish(one, b"x")
        await q.publish(two, b"x")
        await p.nothing(after=q)


@rule("X-5-UNSUB-1")
async def test_codes_of_unsuback(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.subscribe(name + "/#")
        for topic_filter, code in ((name, 0x11), (name + "/#", 0x00), (name + "/#", 0x11)):
            await p.send(Unsubscribe(8, (topic_filter,)))
            await p.expect(UnsubAck, packet_id=8, reason_codes=(code,))


# -- overlapping subscriptions ------


@rule("MQTT-3.3.4-2", "X-5-OVERLAP-1")
async def test_overlapping_subscriptions_deliver_at_the_highest_qos(peer: Peers) -> None:
    name = topic("a", "b")
    parent = name.removesuffix("a/b")
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(parent + "#", 0)
        await p.subscribe(parent + "a/+", 2)
        await p.subscribe(name, 1)
        for published in (2, 1, 0):
            copies = await _copies(p, q, name, published)
            assert 1 <= len(copies) <= 3
            assert max(copy.qos for copy in copies) == published


@rule("MQTT-3.3.4-3", "MQTT-3.3.4-4", "MQTT-3.3.4-5")
async def test_identifiers_of_overlapping_subscriptions(peer: Peers) -> None:
    name = topic("a")
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(name, 1, identifier=11)
        await p.subscribe(name.removesuffix("a") + "+", 1, identifier=12)
        await p.subscribe(name.removesuffix("a") + "#", 1)  # without one
        await p.subscribe(topic(), 1, identifier=14)  # doesn't match
        copies = await _copies(p, q, name, 1)
        listed = [_identifiers(copy) for copy in copies]
        assert {number for numbers in listed for number in numbers} == {11, 12}
        if len(copies) > 1:  # one for each subscription: each names its own only
            assert sorted(listed) == [(), (11,), (12,)]


@rule("X-5-SUBID-2")
async def test_subscription_identifier_is_replaced(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await p.connect(session_expiry_interval=60)
        for identifier in (5, 6, 0, 7):
            await p.subscribe(name, 1, identifier=identifier)
            expected = {identifier} if identifier else set()
            assert await _seen_identifiers(p, q, name) == expected
        await p.disconnect()
        await q.publish(name, b"queued", 1)
        async with peer(client_id=p.client_id) as p:
            await back(p)
            assert _identifiers(await p.message(payload=b"queued")) == (7,)
            assert await _seen_identifiers(p, q, name) == {7}


# -- no local ------


@rule("MQTT-3.8.3-3", "X-5-NOLOCAL-1")
async def test_no_local(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(session_expiry_interval=60)
        await q.connect()
        await p.subscribe(name, 1, no_local=True)
        await q.subscribe(name, 1)
        await p.publish(name, b"mine", 1)
        await q.message(payload=b"mine")
        await p.nothing(after=p)
        await q.publish(name, b"theirs", 1)
        await p.message(payload=b"theirs")
        await p.disconnect()
        async with peer(client_id=p.client_id) as p:  # by client identifier, not by connection
            await back(p)
            await p.publish(name, b"mine", 1)
            await p.nothing(after=p)
