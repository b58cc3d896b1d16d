"""MQTT 5: topic aliases, in both directions."""

import pytest

from mqtrio.wire.packets import ConnAck, PubAck, PublishProperties
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic
from tests.conformance.rules import needs, rule


def _publish(name: str, alias: int | None, payload: bytes, qos: int = 0) -> bytes:
    properties = b"" if alias is None else b"\x23" + raw.uint16(alias)
    return raw.publish(name.encode(), payload, qos, 1, raw.properties(properties))


async def _maximum(p: Peer) -> int:
    """Connect; the highest alias that the server takes."""
    connack: ConnAck = await p.connect()
    return connack.topic_alias_maximum or 0


async def _maximum_above_0(p: Peer) -> int:
    maximum = await _maximum(p)
    if not maximum:
        pytest.skip("the broker takes no topic aliases")
    return maximum


# -- towards the server ------


@rule("MQTT-3.3.2-12")
async def test_every_alias_up_to_the_maximum(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(name + "/#")
        maximum = await _maximum_above_0(q)
        for alias in (1, maximum):
            await q.send(_publish(f"{name}/{alias}", alias, b"first"))
        for alias in (maximum, 1):
            await q.send(_publish("", alias, b"again"))
        for alias, payload in (
            (1, b"first"),
            (maximum, b"first"),
            (maximum, b"again"),
            (1, b"again"),
        ):
            await p.message(topic=f"{name}/{alias}", payload=payload)


@rule("X-5-ALIAS-4")
async def test_alias_with_another_topic(peer: Peers) -> None:
    one, two = topic(), topic()
    async with peer() as p, peer() as q:
        await p.connect()
        await p.subscribe(one)
        await p.subscribe(two)
        await _maximum_above_0(q)
        await q.send(_publish(one, 1, b"1"), _publish("", 1, b"2"))
        await q.send(_publish(two, 1, b"3"), _publish("", 1, b"4"))
        for name, payload in ((one, b"1"), (one, b"2"), (two, b"3"), (two, b"4")):
            got = await p.message(topic=name, payload=payload)
            assert got.properties is None or got.properties.topic_alias is None


@rule("X-5-ALIAS-4")
async def test_the_directions_have_tables_of_their_own(peer: Peers) -> None:
    mine, theirs = topic(), topic()
    async with peer() as p, peer() as q:
        connack = await p.connect(topic_alias_maximum=5)
        if not connack.topic_alias_maximum:
            pytest.skip("the broker takes no topic aliases")
        await p.subscribe(theirs)
        await q.connect()
        await q.subscribe(mine)
        for number in range(3):
            await p.send(_publish("" if number else mine, 1, b"mine"))
            await q.message(topic=mine)
            await q.publish(theirs, b"theirs")
            got = await p.message(payload=b"theirs")
            assert got.topic in (theirs, "")


@rule("MQTT-3.3.2-7")
async def test_aliases_last_one_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer(client_id=p.client_id) as again:
        await _maximum_above_0(p)
        await p.send(_publish(name, 1, b"x", 1))
        await p.expect(PubAck, packet_id=1)
        await p.drop()
        await again.connect(clean_start=False)
        await again.send(_publish("", 1, b"x"))
        await again.expect_closed(0x82)


@rule("MQTT-3.3.2-8", "X-5-ALIAS-2")
async def test_alias_0(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(_publish(topic(), 0, b"x"))
        await p.expect_closed(0x94)


@rule("MQTT-3.2.2-17", "MQTT-3.3.2-9", "X-5-ALIAS-2")
async def test_alias_above_the_maximum(peer: Peers) -> None:
    for beyond in (1, 1000):
        async with peer() as p:
            maximum = await _maximum_above_0(p)
            await p.send(_publish(topic(), maximum + beyond, b"x"))
            await p.expect_closed(0x94)


@rule("MQTT-3.2.2-18")
@needs("no-aliases")
async def test_alias_where_none_is_taken(peer: Peers) -> None:
    async with peer() as p:
        assert await _maximum(p) == 0
        await p.send(_publish(topic(), 1, b"x"))
        await p.expect_closed(0x94)


@rule("X-5-ALIAS-3")
@pytest.mark.parametrize("alias", [None, 1])
@pytest.mark.parametrize("qos", [0, 1])
async def test_no_topic_and_no_mapping(peer: Peers, alias: int | None, qos: int) -> None:
    async with peer() as p:
        await _maximum_above_0(p)
        await p.send(_publish("", alias, b"x", qos))
        await p.expect_closed(0x82)


# -- from the server ------


@rule("MQTT-3.1.2-27")
@pytest.mark.parametrize("maximum", [None, 0])
async def test_no_aliases_unless_asked_for(peer: Peers, maximum: int | None) -> None:
    name = topic()
    properties = b"\x00" if maximum is None else raw.properties(b"\x22\x00\x00")
    async with peer() as p, peer() as q:
        await p.send(raw.connect(raw.text(p.client_id), property_list=properties))
        await p.expect_connack()
        await p.subscribe(name)
        await q.connect()
        for number in range(10):
            await q.publish(name, bytes([number]))
            await p.message(topic=name, properties=None)


@rule("MQTT-3.1.2-26", "MQTT-3.3.2-11", "X-5-ALIAS-1")
@pytest.mark.parametrize("maximum", [1, 3, 65_535])
async def test_aliases_of_the_server(peer: Peers, maximum: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(topic_alias_maximum=maximum)
        await p.subscribe(name + "/#", 1)
        await q.connect()
        aliases: dict[int, str] = {}
        for turn in range(4):
            for number in range(6):
                await q.publish(f"{name}/{number}", b"x", turn % 2)
                got = await p.message()
                alias = got.properties.topic_alias if got.properties else None
                if alias is not None:
                    assert 1 <= alias <= maximum
                    assert got.topic or alias in aliases, "an empty topic before a mapping"
                    if got.topic:
                        aliases[alias] = got.topic
                assert (got.topic or aliases[alias or 0]) == f"{name}/{number}"
        assert aliases or not peer.strict  # ours does use them


@rule("MQTT-3.3.2-7")
async def test_aliases_of_the_server_last_one_connection(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer(client_id=p.client_id) as again, peer() as q:
        await p.connect(topic_alias_maximum=5, session_expiry_interval=60)
        await p.subscribe(name)
        await q.connect()
        for _ in range(3):
            await q.publish(name, b"x")
            await p.message()
        await p.drop()
        await again.connect(
            topic_alias_maximum=5,
            clean_start=False,
            session_present=True,
            session_expiry_interval=60,
        )
        await q.publish(name, b"x")
        await again.message(topic=name)  # spelled out


@rule("MQTT-3.1.2-27")
async def test_redelivery_without_aliases(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer(client_id=p.client_id) as again, peer() as q:
        await p.connect(topic_alias_maximum=5, session_expiry_interval=60)
        await p.subscribe(name, 1)
        await q.connect()
        for _ in range(3):
            await q.publish(name, b"x", 1)
            await p.message(acknowledge=False)
        await p.drop()
        await again.connect(clean_start=False, session_present=True, session_expiry_interval=60)
        for _ in range(3):
            got = await again.message(topic=name, dup=True)
            assert got.properties in (None, PublishProperties())
