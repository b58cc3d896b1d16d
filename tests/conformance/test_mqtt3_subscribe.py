"""MQTT 3.1 and 3.1.1: SUBSCRIBE, UNSUBSCRIBE, their answers, and which topics match."""

import pytest

from mqtrio.wire.packets import (
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
)
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic, unique
from tests.conformance.rules import needs, rule
from tests.conformance.scripts3 import (
    back,
    both,
    publish,
    refused,
    subscribe,
    unsubscribe,
)


def _subscribe(packet_id: int, *requests: tuple[str, int]) -> Subscribe:
    return Subscribe(packet_id, tuple(SubscriptionRequest(*request) for request in requests))


# -- SUBSCRIBE and SUBACK ------


@rule("MQTT-2.3.1-7", "MQTT-3.8.4-1", "MQTT-3.8.4-2")
@both
async def test_suback_repeats_the_identifier(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        for packet_id in (1, 65_535, 256, 1):
            await p.send(_subscribe(packet_id, (topic(), 0)))
            await p.expect(SubAck, packet_id=packet_id, reason_codes=(0,))
        await p.send(*(_subscribe(number, (topic(), 1)) for number in (5, 9, 7)))
        answers = [await p.expect(SubAck) for _ in range(3)]
        assert {answer.packet_id for answer in answers} == {5, 9, 7}


@rule("MQTT-3.8.4-5", "MQTT-3.9.3-1")
@both
async def test_one_code_for_each_filter_in_order(peer: Peers) -> None:
    wanted = (2, 0, 1, 1, 0, 2, 2)
    async with peer() as p:
        await p.connect()
        await p.send(_subscribe(3, *((topic(), qos) for qos in wanted)))
        await p.expect(SubAck, packet_id=3, reason_codes=wanted)
        assert p.last_frame == raw.frame(0x90, raw.uint16(3), bytes(wanted))


@rule("MQTT-3.8.4-5", "MQTT-3.9.3-1")
async def test_many_filters_in_one_subscribe(peer: Peers) -> None:
    name = topic()
    wanted = [number % 3 for number in range(1000)]
    async with peer() as p:
        await p.connect()
        await p.send(_subscribe(3, *((f"{name}/{n}", qos) for n, qos in enumerate(wanted))))
        await p.expect(SubAck, packet_id=3, reason_codes=tuple(wanted))
        await p.publish(f"{name}/998", b"x", 2)
        await p.message(topic=f"{name}/998", qos=998 % 3)


@rule("MQTT-3.9.3-2")
@both
async def test_return_codes_of_suback(peer: Peers) -> None:
    filters = ("#", "+", "+/+", "/", "a/+/#", "$SYS/#", "$SYS", topic())
    async with peer() as p:
        await p.connect()
        for topic_filter in filters:
            for qos in (0, 1, 2):
                await p.send(_subscribe(4, (topic_filter, qos)))
                suback = await p.answer(SubAck, packet_id=4)
                assert set(suback.reason_codes) <= {0, 1, 2, 0x80}
            await p.unsubscribe(topic_filter)


@rule("X-3-SUBFAIL-1", "MQTT-3.9.3-1", "MQTT-3.9.3-2")
@needs("auth")
async def test_a_refused_filter_among_others(peer: Peers) -> None:
    names = (topic(), topic("forbidden"), topic())
    async with peer() as p:
        await p.connect()
        await p.send(_subscribe(3, (names[0], 2), (names[1], 1), (names[2], 1)))
        await p.expect(SubAck, packet_id=3, reason_codes=(2, 0x80, 1))
        for name, qos in ((names[0], 2), (names[2], 1)):
            await p.publish(name, b"x", 2)
            await p.message(topic=name, qos=qos)
        await p.nothing(after=p)


@rule("X-3-SUBACK-1")
@needs("auth")
async def test_a_refused_filter_in_mqtt_3_1(peer: Peers) -> None:
    """There is no code for it: it looks granted, and brings nothing."""
    names = (topic(), topic("forbidden"))
    async with peer(v=3) as p, peer(v=5) as q:
        await p.connect()
        await p.send(_subscribe(3, (names[0], 2), (names[1], 1)))
        suback = await p.expect(SubAck, packet_id=3)
        assert suback.reason_codes[0] == 2
        assert suback.reason_codes[1] in (0, 1)
        await q.connect()
        await q.send(Publish(names[1], b"no"))
        await p.nothing(after=q)
        await q.publish(names[0], b"x", 2)
        await p.message(topic=names[0], qos=2)


@rule("X-3-SUBACK-1")
@pytest.mark.parametrize("topic_filter", [b"a#", b"a/b+"])
async def test_a_bad_filter_in_mqtt_3_1(peer: Peers, topic_filter: bytes) -> None:
    """Closed, or answered as if granted; 0x80 isn't known there."""
    async with peer(v=3) as p:
        await p.connect()
        await p.send(subscribe(1, (topic_filter, 1)))
        if isinstance(await p.peek(), SubAck):
            suback = await p.expect(SubAck, packet_id=1)
            assert suback.reason_codes in ((0,), (1,))
        else:
            await p.closed_silently()


@rule("MQTT-3.8.4-4")
@both
async def test_several_filters_act_like_several_subscribes(peer: Peers) -> None:
    one, two, three = topic(), topic(), topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await q.publish(two, b"kept", 1, retain=True)
        await p.send(_subscribe(5, (one, 0), (two, 1), (three, 2), (one, 1)))
        await p.answer(SubAck, packet_id=5, reason_codes=(0, 1, 2, 1))
        await p.message(topic=two, payload=b"kept", retain=True)
        await p.nothing()
        for name, granted in ((one, 1), (two, 1), (three, 2)):
            await q.publish(name, b"x", 2)
            await p.message(topic=name, qos=granted)
        await p.nothing(after=q)


@rule("MQTT-3.8.4-3")
@both
async def test_the_same_filter_again_replaces_the_subscription(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await q.publish(name, b"kept", 2, retain=True)
        for qos in (2, 0, 1):
            await p.subscribe(name, qos)
            await p.message(payload=b"kept", qos=qos, retain=True)
            await q.publish(name, b"live", 2)
            await p.message(payload=b"live", qos=qos, retain=False)
            await p.nothing(after=q)
        await p.unsubscribe(name)
        await q.publish(name, b"x", 1)
        await p.nothing(after=q)


@rule("MQTT-3.8.4-3")
@both
async def test_replacing_a_subscription_loses_nothing(peer: Peers) -> None:
    name = topic()
    count = 60
    async with peer() as p, peer() as q:
        await q.connect()
        await q.publish(name + "/kept", b"kept", 1, retain=True)
        await p.connect()
        await p.subscribe(name + "/#", 1)
        await p.message(payload=b"kept")
        for start in range(0, count, 10):  # while messages arrive, the subscription is replaced
            for number in range(start, start + 10):
                await q.send(Publish(name, bytes([number])))
            await p.send(_subscribe(7, (name + "/#", 0)))
        await q.ping()
        for _ in range(count // 10):
            await p.answer(SubAck, packet_id=7)
        live: list[int] = []
        kept = 0
        while len(live) < count or kept < count // 10:
            got = await p.message()
            if got.payload == b"kept":
                kept += 1
            else:
                live.append(got.payload[0])
        assert live == list(range(count))
        await p.nothing(after=q)


# -- malformed and forbidden ones ------


@rule("MQTT-3.8.3-1")
@pytest.mark.parametrize("bad", [b"\xff", b"a/\xed\xa0\x80", b"\xc3"])
@both
async def test_filter_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, subscribe(1, (b"ok", 0), (bad, 0)))


@rule("MQTT-3.10.3-1")
@pytest.mark.parametrize("bad", [b"\xff", b"a/\xed\xa0\x80", b"\xc3"])
@both
async def test_filter_to_unsubscribe_that_is_not_utf_8(peer: Peers, bad: bytes) -> None:
    await refused(peer, unsubscribe(1, b"ok", bad))


@rule("MQTT-3.10.3-1")
@both
async def test_filters_to_unsubscribe_one_straight_after_another(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(unsubscribe(1, b"a", b"/", b"b/c"))
        await p.expect(UnsubAck, packet_id=1)
    await refused(peer, raw.frame(0xA2, b"\x00\x01", raw.text("a"), b"\x00"))
    await refused(peer, raw.frame(0xA2, b"\x00\x01", raw.text("a"), b"\x00\x02b"))


@rule("MQTT-3.8.3-3")
async def test_subscribe_without_a_filter_or_its_qos(peer: Peers) -> None:
    await refused(peer, subscribe(1))
    await refused(peer, raw.frame(0x82, b"\x00\x01", raw.text("a")))
    await refused(peer, raw.frame(0x82, b"\x00\x01", raw.text("a"), b"\x00", raw.text("b")))


@rule("MQTT-3.10.3-2")
async def test_unsubscribe_without_a_filter(peer: Peers) -> None:
    await refused(peer, unsubscribe(1))


async def _filter_refused(peer: Peers, topic_filter: bytes) -> None:
    """Answered by 0x80 for this filter, or the connection is closed."""
    async with peer() as p:
        await p.connect()
        await p.send(subscribe(1, (topic_filter, 1)))
        if isinstance(await p.peek(), SubAck):
            await p.expect(SubAck, packet_id=1, reason_codes=(0x80,))
            await p.nothing()
        else:
            await p.closed_silently()
    async with peer() as p:
        await p.connect()
        await p.send(unsubscribe(1, topic_filter))
        if isinstance(await p.peek(), UnsubAck):
            await p.expect(UnsubAck, packet_id=1)
        else:
            await p.closed_silently()


@rule("MQTT-4.7.1-2")
@pytest.mark.parametrize("topic_filter", [b"a#", b"a/#/b", b"#/", b"##", b"a/b#", b"#a"])
async def test_misplaced_multi_level_wildcard(peer: Peers, topic_filter: bytes) -> None:
    await _filter_refused(peer, topic_filter)


@rule("MQTT-4.7.1-3")
@pytest.mark.parametrize("topic_filter", [b"a+", b"a/b+", b"+a", b"++", b"a/+b/c"])
async def test_misplaced_single_level_wildcard(peer: Peers, topic_filter: bytes) -> None:
    await _filter_refused(peer, topic_filter)


@rule("MQTT-4.7.3-1")
async def test_empty_filter(peer: Peers) -> None:
    await _filter_refused(peer, b"")


@rule("MQTT-4.7.3-1")
@both
async def test_empty_topic(peer: Peers) -> None:
    await refused(peer, publish(b"", b"x"))
    await refused(peer, publish(b"", b"x", 1, 1))


@rule("MQTT-4.7.3-1")
@both
async def test_topics_of_one_character(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.subscribe("/")
        await p.publish("/", b"x")
        await p.message(topic="/")


# -- UNSUBSCRIBE and UNSUBACK ------


@rule("MQTT-2.3.1-7", "MQTT-3.10.4-4", "MQTT-3.10.4-5")
@both
async def test_unsuback_repeats_the_identifier(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        await p.connect()
        await p.subscribe(name)
        for packet_id in (65_535, 1, 256):  # the second one removes nothing
            await p.send(Unsubscribe(packet_id, (name,)))
            await p.expect(UnsubAck, packet_id=packet_id)
            assert p.last_frame == raw.frame(0xB0, raw.uint16(packet_id))


@rule("MQTT-3.10.4-1")
@both
async def test_only_the_same_text_is_unsubscribed(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(f"{name}/+")
        await p.subscribe(f"{name}/b")
        others = ("#", "+/+", f"{name}/#", f"{name}/a", f"{name.upper()}/+", f"{name}/+/#")
        for other in others:
            await p.unsubscribe(other)
            await q.publish(f"{name}/a", b"x")
            await p.message(topic=f"{name}/a")
        await p.unsubscribe(f"{name}/+")
        await q.publish(f"{name}/a", b"x")
        await q.publish(f"{name}/b", b"x")
        await p.message(topic=f"{name}/b")
        await p.nothing(after=q)


@rule("MQTT-3.10.4-2")
@both
async def test_nothing_new_after_unsubscribing(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(clean_start=False)
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


@rule("MQTT-3.10.4-6")
@both
async def test_several_filters_act_like_several_unsubscribes(peer: Peers) -> None:
    one, two, never = topic(), topic(), topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(one)
        await p.subscribe(two)
        await p.send(Unsubscribe(7, (never, one, one, two)))
        await p.expect(UnsubAck, packet_id=7)
        await q.publish(one, b"x")
        await q.publish(two, b"x")
        await p.nothing(after=q)


# -- overlapping and shared subscriptions ------


@rule("MQTT-3.3.5-1", "X-3-OVERLAP-1")
@both
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
        await p.unsubscribe(parent + "a/+")
        copies = await _copies(p, q, name, 2)
        assert 1 <= len(copies) <= 2
        assert max(copy.qos for copy in copies) == 1


async def _copies(p: Peer, q: Peer, name: str, qos: int) -> list[Publish]:
    """Publish once; all copies that come, up to a marker to a topic of `p` alone."""
    marker = topic("end")
    await p.subscribe(marker)
    await q.publish(name, b"x", qos)
    await q.publish(marker, b"end", 0)
    copies: list[Publish] = []
    while (got := await p.message()).topic != marker:
        assert got.topic == name
        copies.append(got)
    await p.unsubscribe(marker)
    return copies


@rule("X-3-SHARE-1")
@both
async def test_shared_subscription(peer: Peers) -> None:
    """Not of these versions; but where it is granted, each message goes to one of the members."""
    name = topic()
    shared = f"$share/{unique('g')}/{name}"
    async with peer() as one, peer() as two, peer() as q:
        for member in (one, two):
            await member.connect()
            await member.subscribe(shared, 1)
        await q.connect()
        sent = [bytes([number]) for number in range(20)]
        for payload in sent:
            await q.publish(name, payload, 1)
        seen: list[bytes] = []
        for member in (one, two):
            marker = topic("end")
            await member.subscribe(marker)
            await q.publish(marker, b"end")
            while (got := await member.message()).topic != marker:
                seen.append(got.payload)
        assert sorted(seen) == sent


# -- matching ------


async def _matches(peer: Peers, topic_filter: str, matching: list[str], others: list[str]) -> None:
    """Of all these topics exactly the `matching` ones arrive."""
    async with peer() as p, peer() as q:
        await p.connect()
        await q.connect()
        await p.subscribe(topic_filter)
        for name in others + matching + others:
            await q.publish(name, b"x", 1)
        for name in matching:
            await p.message(topic=name)
        await p.nothing(after=q)


@rule("X-3-TOPIC-1")
@both
async def test_what_wildcards_match(peer: Peers) -> None:
    t = topic()
    await _matches(
        peer, f"{t}/a/#", [f"{t}/a", f"{t}/a/", f"{t}/a/b/c"], [f"{t}/ab", t, f"{t}/A/b"]
    )
    await _matches(peer, f"{t}/a/+", [f"{t}/a/", f"{t}/a/b"], [f"{t}/a", f"{t}/a/b/c", f"{t}/a//"])
    await _matches(peer, f"{t}/+/c", [f"{t}//c", f"{t}/b/c"], [f"{t}/c", f"{t}/b/c/", f"{t}/b/C"])
    await _matches(peer, f"{t}/+/#", [f"{t}/", f"{t}/a", f"{t}/a/b"], [t])
    await _matches(peer, f"{t}//", [f"{t}//"], [t, f"{t}/", f"{t}///"])
    await _matches(peer, f"+/{t}", [f"/{t}", f"x/{t}"], [t])


@rule("MQTT-4.7.3-4")
@both
async def test_topics_are_compared_as_they_are(peer: Peers) -> None:
    t = topic()
    await _matches(peer, f"{t}/é", [f"{t}/é"], [f"{t}/e\u0301", f"{t}/É", f"{t}/e", f"{t}/é "])
    await _matches(
        peer, f"{t}/a b", [f"{t}/a b"], [f"{t}/a%20b", f"{t}/ab", f"{t}/a B", f"{t}/ a b"]
    )
    await _matches(peer, f"{t}/e\u0301", [f"{t}/e\u0301"], [f"{t}/é"])


@rule("MQTT-4.7.2-1", "X-3-TOPIC-1")
@both
async def test_leading_wildcards_do_not_match_dollar_topics(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        for topic_filter in ("#", "+/#", "+/+", "+/broker/#"):
            await p.subscribe(topic_filter)
        name = topic()
        await p.publish(name, b"marker", 1)
        while (got := await p.message()).topic != name:
            assert not got.topic.startswith("$")


@rule("MQTT-4.7.2-1", "X-3-TOPIC-1")
@needs("auth")
@both
async def test_dollar_topics_of_clients(peer: Peers) -> None:
    """On a broker that lets clients publish to topics that begin with $."""
    name = "$" + topic()
    async with peer() as p, peer() as named, peer() as q:
        await p.connect()
        await named.connect()
        await q.connect()
        for topic_filter in ("#", "+/#", "+/+/+", "+/+/+/x"):
            await p.subscribe(topic_filter)
        await named.subscribe(name.partition("/")[0] + "/#")
        await q.publish(name + "/x", b"x", 1, retain=True)
        await named.message(topic=name + "/x")
        marker = topic()
        await q.publish(marker, b"marker", 1)
        while (got := await p.message()).topic != marker:
            assert not got.topic.startswith("$")
        await p.subscribe("+/+/+/x")  # the retained one neither
        await p.nothing(after=q)
