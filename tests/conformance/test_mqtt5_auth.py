"""MQTT 5: enhanced authentication and re-authentication."""

import pytest

from mqtrio.reasons import ALLOWED
from mqtrio.wire.packets import Auth, ConnAck, PubAck, Publish, Subscribe, SubscriptionRequest
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic, unique
from tests.conformance.plugins import ANSWER, METHOD, QUESTION, WELCOME
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import connect_refused, refused


async def _question(p: Peer) -> None:
    """CONNECT with the method that the plugin knows, up to its question."""
    await p.send(p.connect_packet(authentication_method=METHOD))
    await p.expect(
        Auth, reason_code=0x18, authentication_method=METHOD, authentication_data=QUESTION
    )


async def _let_in(p: Peer) -> None:
    await _question(p)
    await p.send(Auth(0x18, METHOD, ANSWER))
    await p.expect_connack()


@rule("MQTT-4.12.0-2", "MQTT-4.12.0-5", "X-5-AUTH-1")
@needs("auth")
async def test_enhanced_authentication(peer: Peers) -> None:
    async with peer() as p:
        await _question(p)
        await p.send(Auth(0x18, METHOD, ANSWER))
        connack = await p.expect_connack()
        assert connack.authentication_method == METHOD
        assert connack.authentication_data == WELCOME
        await p.nothing()


@rule("MQTT-4.12.0-5", "X-5-AUTH-1")
@needs("auth")
async def test_enhanced_authentication_without_a_question(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect(authentication_method=METHOD, authentication_data=ANSWER)
        assert connack.authentication_method == METHOD
        assert connack.authentication_data == WELCOME


@rule("MQTT-3.1.2-30")
@needs("auth")
@pytest.mark.parametrize(
    "packet",
    [
        Publish("a", b"x"),
        Subscribe(1, (SubscriptionRequest("a"),)),
        b"\xc0\x00",
    ],
    ids=["PUBLISH", "SUBSCRIBE", "PINGREQ"],
)
async def test_other_packets_before_connack(
    peer: Peers, packet: Publish | Subscribe | bytes
) -> None:
    async with peer() as p:
        await _question(p)
        await p.send(packet)
        await p.expect_closed(0x82)


@rule("MQTT-3.1.2-30")
@needs("auth")
async def test_publish_before_connack_reaches_nobody(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.subscribe(name)
        await _question(p)
        await p.send(Publish(name, b"x"), Auth(0x18, METHOD, ANSWER))
        await p.expect_closed(0x82)
        await q.nothing(after=q)


@rule("MQTT-3.15.2-1")
@needs("auth")
async def test_reason_codes_of_auth(peer: Peers) -> None:
    async with peer() as p:
        await p.send(p.connect_packet(authentication_method=METHOD))
        first = await p.expect(Auth)
        await p.send(Auth(0x18, METHOD, ANSWER))
        await p.expect_connack()
        await p.send(Auth(0x19, METHOD))
        second = await p.expect(Auth)
        await p.send(Auth(0x18, METHOD, ANSWER))
        third = await p.expect(Auth)
        codes = [auth.reason_code for auth in (first, second, third)]
        assert codes == [0x18, 0x18, 0x00]
        assert set(codes) <= ALLOWED[15]


@rule("MQTT-3.15.2-1")
@needs("auth")
@pytest.mark.parametrize("reason_code", [0x01, 0x17, 0x80, 0xFF])
async def test_bad_reason_codes_in_auth(peer: Peers, reason_code: int) -> None:
    method = raw.properties(b"\x15" + raw.text(METHOD))
    async with peer() as p:
        await _let_in(p)
        await p.send(raw.frame(raw.AUTH, bytes([reason_code]), method))
        await p.expect_closed(0x81, 0x82)


@rule("MQTT-4.12.0-1")
async def test_unknown_method(peer: Peers) -> None:
    async with peer() as p:
        await p.send(p.connect_packet(authentication_method=unique("METHOD")))
        await p.expect_closed(0x8C, 0x87)


@rule("MQTT-4.12.0-1")
@needs("auth")
async def test_unknown_method_where_another_is_known(peer: Peers) -> None:
    async with peer() as p:
        await p.send(p.connect_packet(authentication_method="test", authentication_data=ANSWER))
        await p.expect_closed(0x8C, 0x87)


@rule("MQTT-4.12.0-3")
@needs("auth")
@pytest.mark.parametrize("reason_code", [0x00, 0x19])
async def test_answer_with_another_code(peer: Peers, reason_code: int) -> None:
    async with peer() as p:
        await _question(p)
        await p.send(Auth(reason_code, METHOD, ANSWER))
        await p.expect_closed(0x82)


@rule("MQTT-4.12.0-3")
@needs("auth")
async def test_answer_with_another_code_in_reauthentication(peer: Peers) -> None:
    async with peer() as p:
        await _let_in(p)
        await p.send(Auth(0x19, METHOD))
        await p.expect(Auth, reason_code=0x18, authentication_method=METHOD)
        await p.send(Auth(0x00, METHOD, ANSWER))
        await p.expect_closed(0x82)


@rule("MQTT-4.12.0-4")
@needs("auth")
@pytest.mark.parametrize("asked", [True, False])
async def test_authentication_fails(peer: Peers, asked: bool) -> None:
    async with peer() as p:
        if asked:
            await _question(p)
            await p.send(Auth(0x18, METHOD, b"wrong"))
        else:
            wrong = p.connect_packet(authentication_method=METHOD, authentication_data=b"wrong")
            await p.send(wrong)
        await p.expect_closed(0x87)


@rule("MQTT-4.12.0-5")
@needs("auth")
async def test_another_method_in_the_answer(peer: Peers) -> None:
    async with peer() as p:
        await _question(p)
        await p.send(Auth(0x18, "OTHER", ANSWER))
        await p.expect_closed(0x82, 0x8C)


@rule("MQTT-4.12.0-6")
async def test_no_method_no_auth(peer: Peers) -> None:
    async with peer() as p:
        await p.send(p.connect_packet())
        connack = await p.expect(ConnAck, reason_code=0)
        assert connack.authentication_method is None
        assert connack.authentication_data is None
        await p.nothing()


@rule("MQTT-4.12.0-7")
@pytest.mark.parametrize(
    "packet",
    [
        Auth(0x19, METHOD),
        Auth(0x18, METHOD, ANSWER),
        b"\xf0\x00",
    ],
    ids=["0x19", "0x18", "0x00"],
)
async def test_auth_without_a_method_in_connect(peer: Peers, packet: Auth | bytes) -> None:
    await refused(peer, packet, codes=(0x82,))


@rule("MQTT-4.12.1-1")
@needs("auth")
async def test_reauthentication_by_another_method(peer: Peers) -> None:
    async with peer() as p:
        await _let_in(p)
        await p.send(Auth(0x19, "OTHER", ANSWER))
        await p.expect_closed(0x82, 0x8C)


@rule("MQTT-4.12.1-2")
@needs("auth")
@pytest.mark.parametrize("asked", [True, False])
async def test_reauthentication_fails(peer: Peers, asked: bool) -> None:
    async with peer() as p:
        await _let_in(p)
        if asked:
            await p.send(Auth(0x19, METHOD))
            await p.expect(Auth, reason_code=0x18)
        await p.send(Auth(0x18 if asked else 0x19, METHOD, b"wrong"))
        await p.expect_closed(0x87)


@rule("X-5-AUTH-2")
@needs("auth")
async def test_reauthentication_beside_other_traffic(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await _let_in(p)
        await p.subscribe(name, 1)
        await q.connect()
        for _ in range(2):
            await p.send(Auth(0x19, METHOD))
            await p.expect(Auth, reason_code=0x18, authentication_method=METHOD)
            await p.send(Publish(topic(), b"x", 1, packet_id=9))
            await p.expect(PubAck, packet_id=9)
            await q.publish(name, b"meanwhile", 1)
            await p.message(payload=b"meanwhile")
            await p.send(Auth(0x18, METHOD, ANSWER))
            await p.expect(
                Auth, reason_code=0x00, authentication_method=METHOD, authentication_data=WELCOME
            )
        await q.publish(name, b"after", 1)
        await p.message(payload=b"after")


@rule("X-5-AUTH-3")
@pytest.mark.parametrize(
    "properties",
    [
        b"\x16" + raw.binary(b"data"),
        (b"\x15" + raw.text(METHOD)) * 2,
        b"\x15" + raw.text(METHOD) + (b"\x16" + raw.binary(b"data")) * 2,
    ],
    ids=["data without method", "two methods", "data twice"],
)
async def test_bad_authentication_properties(peer: Peers, properties: bytes) -> None:
    packet = raw.connect(raw.text(unique()), property_list=raw.properties(properties))
    await connect_refused(peer, packet, 0x82)
