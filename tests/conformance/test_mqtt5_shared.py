"""MQTT 5: shared subscriptions."""

from contextlib import AsyncExitStack

import pytest

from mqtrio.wire.packets import (
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
from tests.conformance.rules import rule
from tests.conformance.scripts import back, refused


def _shared(name: str) -> str:
    return f"$share/{unique('g')}/{name}"


async def _gathered(members: list[Peer], q: Peer) -> list[list[Publish]]:
    """What each member got, up to a marker that `q` sends to all; nothing is acknowledged."""
    marker = topic("end")
    for member in members:
        await member.subscribe(marker)
    await q.publish(marker, b"end")
    gathered = []
    for member in members:
        mine: list[Publish] = []
        while (got := await member.message(acknowledge=False)).topic != marker:
            mine.append(got)
        await member.unsubscribe(marker)
        gathered.append(mine)
    return gathered


@rule("MQTT-3.8.3-4")
async def test_no_local_on_a_shared_subscription(peer: Peers) -> None:
    await refused(peer, raw.subscribe(1, [(b"$share/group/a", 0x04)]), codes=(0x82,))


async def _filter_refused(peer: Peers, topic_filter: str) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(Subscribe(1, (SubscriptionRequest(topic_filter),)))
        if isinstance(await p.peek(), SubAck):
            await p.expect(SubAck, packet_id=1, reason_codes=(0x8F,))
            await p.nothing()
        else:
            await p.expect_closed(0x8F, 0x81, 0x82)


@rule("MQTT-4.8.2-1")
@pytest.mark.parametrize("topic_filter", ["$share//a", "$share//", "$share///"])
async def test_share_without_a_name(peer: Peers, topic_filter: str) -> None:
    await _filter_refused(peer, topic_filter)


@rule("MQTT-4.8.2-2")
@pytest.mark.parametrize(
    "topic_filter",
    ["$share/name", "$share/name/", "$share/na+me/a", "$share/#/a", "$share/+/a", "$share/na#/a"],
)
async def test_share_with_a_bad_name_or_no_filter(peer: Peers, topic_filter: str) -> None:
    await _filter_refused(peer, topic_filter)


@rule("MQTT-4.8.2-3")
async def test_each_member_has_its_own_qos(peer: Peers) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as zero, peer() as one, peer() as two, peer() as q:
        members = [zero, one, two]
        for granted, member in enumerate(members):
            await member.connect()
            await member.subscribe(group, granted)
        await q.connect()
        for _ in range(12):
            await q.publish(name, b"x", 2)
        gathered = await _gathered(members, q)
        assert sum(map(len, gathered)) == 12
        for granted, mine in enumerate(gathered):
            assert {message.qos for message in mine} <= {granted}


@rule("MQTT-4.8.2-4")
@pytest.mark.parametrize("answered", [False, True])
async def test_qos_2_is_finished_with_the_same_member(peer: Peers, answered: bool) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as p, peer() as other, peer() as q:
        await p.connect(session_expiry_interval=60)
        await p.subscribe(group, 2)
        await q.connect()
        await q.publish(name, b"x", 2)
        got = await p.message(payload=b"x", acknowledge=False)
        await other.connect()
        await other.subscribe(group, 2)
        if answered:
            await p.send(PubRec(got.packet_id))
            await p.expect(PubRel, packet_id=got.packet_id)
        await p.drop()
        await other.nothing(after=q)
        async with peer(client_id=p.client_id) as p:
            await back(p)
            if not answered:
                again = await p.message(payload=b"x", packet_id=got.packet_id, acknowledge=False)
                await p.send(PubRec(again.packet_id))
            await p.expect(PubRel, packet_id=got.packet_id)
            await p.send(PubComp(got.packet_id))
            await p.nothing()
        await other.nothing(after=q)


@rule("MQTT-4.8.2-5")
@pytest.mark.parametrize("answered", [False, True])
async def test_qos_2_of_a_lost_session_goes_to_nobody_else(peer: Peers, answered: bool) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as p, peer(client_id=p.client_id) as again, peer() as other, peer() as q:
        await p.connect(session_expiry_interval=60)
        await p.subscribe(group, 2)
        await other.connect()
        await q.connect()
        await q.publish(name, b"x", 2)
        got = await p.message(payload=b"x", acknowledge=False)
        await other.subscribe(group, 2)
        if answered:
            await p.send(PubRec(got.packet_id))
            await p.expect(PubRel, packet_id=got.packet_id)
        await again.connect(clean_start=True)  # ends the session
        await p.expect_closed(0x8E)
        await again.nothing()
        await other.nothing(after=q)


@rule("MQTT-4.8.2-6")
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refused_message_goes_to_nobody_else(peer: Peers, qos: int) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as p, peer() as other, peer() as q:
        await p.connect()
        await p.subscribe(group, 2)
        await other.connect()
        await q.connect()
        await q.publish(name, b"x", qos)
        got = await p.message(payload=b"x", acknowledge=False)
        await other.subscribe(group, 2)
        await p.send((PubAck if qos == 1 else PubRec)(got.packet_id, 0x87))
        await p.nothing()
        await other.nothing(after=q)
        await p.nothing()


@rule("X-5-SHARED-1")
async def test_one_member_of_each_group_gets_the_message(peer: Peers) -> None:
    name = topic()
    one, two = _shared(name), _shared(name.replace("conformance", "+"))
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(peer()) for _ in range(5)]
        q = await stack.enter_async_context(peer())
        for member, topic_filter in zip(members, (one, one, two, two, name), strict=True):
            await member.connect()
            await member.subscribe(topic_filter, 1)
        await q.connect()
        for number in range(20):
            await q.publish(name, bytes([number]), number % 2)
        a, b, c, d, plain = (
            [message.payload[0] for message in mine] for mine in await _gathered(members, q)
        )
    assert sorted(a + b) == list(range(20))
    assert sorted(c + d) == list(range(20))
    assert sorted(plain) == list(range(20))


@rule("X-5-SHARED-1")
async def test_a_client_in_a_group_and_with_a_subscription_of_its_own(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(_shared(name), 1, identifier=1)
        await p.subscribe(name, 1, identifier=2)
        await q.connect()
        await q.publish(name, b"x", 1)
        (copies,) = await _gathered([p], q)
        identifiers = sorted(
            copy.properties.subscription_identifiers for copy in copies if copy.properties
        )
        assert identifiers == [(1,), (2,)]


@rule("X-5-SHARED-2")
async def test_offline_members_belong_to_the_group(peer: Peers) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as p, peer() as online, peer() as q:
        await p.connect(session_expiry_interval=60)
        await p.subscribe(group, 1)
        await p.disconnect()
        await q.connect()
        await q.publish(name, b"\xff", 1)  # nobody else is there
        await online.connect()
        await online.subscribe(group, 1)
        for number in range(12):
            await q.publish(name, bytes([number]), 1)
        (mine,) = await _gathered([online], q)
        seen = [message.payload[0] for message in mine]
        async with peer(client_id=p.client_id) as p:
            await back(p)
            (theirs,) = await _gathered([p], q)
            seen += [message.payload[0] for message in theirs]
        assert sorted(seen) == [*range(12), 0xFF]


@rule("X-5-SHARED-3")
async def test_qos_1_of_a_lost_member_moves(peer: Peers) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as p, peer(client_id=p.client_id) as again, peer() as other, peer() as q:
        await p.connect(session_expiry_interval=60)
        await p.subscribe(group, 1)
        await other.connect()
        await q.connect()
        await q.publish(name, b"x", 1)
        await p.message(payload=b"x", acknowledge=False)
        await other.subscribe(group, 1)
        await again.connect(clean_start=True)  # the session ends
        await p.expect_closed(0x8E)
        (moved,) = await _gathered([other], q)
        assert len(moved) == 1 if peer.strict else len(moved) <= 1  # it is only advised
        assert all(message.payload == b"x" for message in moved)


@rule("X-5-SHARED-4")
async def test_joining_twice_and_leaving(peer: Peers) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as p, peer() as other, peer() as q:
        await p.connect()
        await p.subscribe(group, 0)
        await p.subscribe(group, 1)
        await other.connect()
        await other.subscribe(group, 1)
        await q.connect()
        for number in range(8):
            await q.publish(name, bytes([number]), 1)
        mine, theirs = await _gathered([p, other], q)
        assert len(mine) + len(theirs) == 8
        assert {message.qos for message in mine} <= {1}
        await p.send(Unsubscribe(9, (name, "$share/" + unique("g") + "/" + name)))
        await p.expect(UnsubAck, packet_id=9, reason_codes=(0x11, 0x11))
        await p.send(Unsubscribe(9, (group,)))
        await p.expect(UnsubAck, packet_id=9, reason_codes=(0x00,))
        for number in range(4):
            await q.publish(name, bytes([number]), 1)
        mine, theirs = await _gathered([p, other], q)
        assert (len(mine), len(theirs)) == (0, 4)
        await other.unsubscribe(group)
        await q.publish(name, b"x", 1)
        assert await _gathered([p, other], q) == [[], []]


@rule("X-5-SIZE-3")
async def test_message_too_big_for_some_members(peer: Peers) -> None:
    name = topic()
    group = _shared(name)
    async with peer() as small, peer() as able, peer() as q:
        await small.connect(maximum_packet_size=150)
        await small.subscribe(group, 1)
        await able.connect()
        await able.subscribe(group, 1)
        await q.connect()
        for _ in range(6):
            await q.publish(name, bytes(200), 1)
        mine, theirs = await _gathered([small, able], q)
        assert mine == []
        assert len(theirs) <= 6
