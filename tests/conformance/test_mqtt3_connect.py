"""MQTT 3.1 and 3.1.1: CONNECT and CONNACK."""

import string

import pytest

from mqtrio.wire.packets import (
    ConnAck,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
)
from tests.conformance import raw
from tests.conformance.peer import Peers, topic, unique
from tests.conformance.rules import needs, rule
from tests.conformance.scripts3 import (
    PROTOCOLS,
    away,
    back,
    both,
    connect,
    connect_refused,
    publish,
    subscribe,
)

#: CONNACK bytes by return code.
REFUSED = {code: bytes([0x20, 0x02, 0x00, code]) for code in range(1, 6)}

# -- what comes first ------


FIRST = {
    "PUBLISH": publish(b"a", b"x"),
    "SUBSCRIBE": subscribe(1, (b"a", 0)),
    "PINGREQ": b"\xc0\x00",
    "DISCONNECT": b"\xe0\x00",
    "PUBREL": raw.frame(0x62, b"\x00\x01"),
}


@rule("MQTT-3.1.0-1")
@pytest.mark.parametrize("packet", FIRST.values(), ids=FIRST)
@both
async def test_another_packet_before_connect(peer: Peers, packet: bytes) -> None:
    async with peer() as p:
        await p.send(packet)
        await p.try_send(p.connect_packet())  # too late
        await p.closed_silently()


@rule("MQTT-3.1.0-2")
@both
async def test_second_connect(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(p.connect_packet())
        await p.closed_silently()


@rule("MQTT-3.2.0-1")
@both
async def test_connack_comes_first(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer() as q:
        await q.connect()
        await q.publish(name, b"queued", 1)
    async with peer(client_id=client_id) as p:
        await p.send(
            p.connect_packet(clean_start=False),
            Publish(name, b"own", 1, packet_id=1),
            Subscribe(2, (SubscriptionRequest(name, 1),)),
            PingReq(),
        )
        await p.expect(ConnAck, reason_code=0)
        await p.answer(PubAck, packet_id=1)
        await p.answer(SubAck, packet_id=2)
        await p.answer(PingResp)


# -- protocol name and level ------


@rule("MQTT-3.1.2-1")
@pytest.mark.parametrize("name", ["mqtt", "MQTX", "MQTT4", "MQIsdq", ""])
async def test_another_protocol_name(peer: Peers, name: str) -> None:
    async with peer() as p:
        await p.send(
            raw.connect(raw.text(p.client_id), name=name, level=4, property_list=None),
            PingReq(),
        )
        assert await p.rest() in (b"", REFUSED[1])


@rule("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [0, 1, 2])
async def test_protocol_level_below_all_that_exist(peer: Peers, level: int) -> None:
    async with peer() as p:
        await p.send(raw.connect(raw.text(p.client_id), level=level, property_list=None))
        assert await p.rest() == REFUSED[1]


@rule("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [6, 9, 127, 255])
async def test_protocol_level_above_all_that_exist(peer: Peers, level: int) -> None:
    """MQTT 5 has a form of its own for this answer, and a later client may know that one only."""
    async with peer() as p:
        await p.send(raw.connect(raw.text(p.client_id), level=level, property_list=None))
        data = await p.rest()
        assert data == REFUSED[1] or (data[0], data[2:4]) == (0x20, b"\x00\x84"), data.hex()


@rule("X-3-NAME-1")
@both
async def test_names_that_belong_to_their_levels(peer: Peers, speaks: int) -> None:
    async with peer() as p:
        await p.send(connect(raw.text(p.client_id), version=speaks))
        await p.expect_connack()
        await p.nothing()


@rule("X-3-NAME-1")
@pytest.mark.parametrize(("name", "level"), [("MQIsdp", 4), ("MQTT", 3), ("MQIsdp", 5)])
async def test_mixtures_of_names_and_levels(peer: Peers, name: str, level: int) -> None:
    async with peer() as p:
        await p.send(raw.connect(raw.text(p.client_id), name=name, level=level, property_list=None))
        data = await p.rest()
        assert data in (b"", REFUSED[1]) or (data[0], data[2:4]) == (0x20, b"\x00\x84"), data.hex()


# -- the fields of CONNECT ------


@rule("MQTT-3.1.2-3")
async def test_reserved_connect_flag(peer: Peers) -> None:
    await connect_refused(peer, connect(raw.text(unique()), flags=0x03))


@rule("MQTT-3.1.2-18", "MQTT-3.1.2-20")
@both
async def test_fields_that_the_flags_do_not_announce(peer: Peers, speaks: int) -> None:
    fields = [raw.text(unique()), raw.text("user")]
    await connect_refused(peer, connect(*fields, version=speaks, flags=0x02))
    fields.append(raw.text("secret"))
    await connect_refused(peer, connect(*fields, version=speaks, flags=0x82))


@rule("MQTT-3.1.2-19", "MQTT-3.1.2-21")
async def test_fields_that_the_flags_announce_are_missing(peer: Peers) -> None:
    await connect_refused(peer, connect(raw.text(unique()), flags=0x82))
    await connect_refused(peer, connect(raw.text(unique()), raw.text("user"), flags=0xC2))


@rule("MQTT-3.1.2-22")
async def test_password_without_user_name(peer: Peers) -> None:
    await connect_refused(peer, connect(raw.text(unique()), raw.text("secret"), flags=0x42))


@rule("MQTT-3.1.3-1")
async def test_payload_in_another_order(peer: Peers) -> None:
    """No field says what it is: but one of them can't be a text."""
    client_id, user, will_topic = raw.text(unique()), raw.text("user"), raw.text(topic())
    payload = raw.binary(b"\xff")
    will_first = (will_topic, payload, client_id)
    await connect_refused(peer, connect(*will_first, flags=0x06))
    user_before_will = (client_id, user, will_topic, payload)
    await connect_refused(peer, connect(*user_before_will, flags=0x86))
    password_before_user = (client_id, payload, user)
    await connect_refused(peer, connect(*password_before_user, flags=0xC2))


@rule("MQTT-3.1.3-3")
@both
async def test_no_client_identifier(peer: Peers, speaks: int) -> None:
    await connect_refused(peer, connect(version=speaks))


MALFORMED_CONNECT = {
    "short text": connect(raw.binary(b"abc")[:-1]),
    "half a length": connect(b"\x00"),
    "surplus": connect(raw.text("abc"), b"surplus"),
    "reserved flag": connect(raw.text("abc"), flags=0x03),
    "will QoS 3": connect(raw.text("abc"), raw.text("a"), raw.text("b"), flags=0x1E),
    "no flags": raw.frame(0x10, raw.text("MQTT"), b"\x04"),
    "no keep alive": raw.frame(0x10, raw.text("MQTT"), b"\x04\x02\x00"),
}


@rule("MQTT-3.1.4-1")
@pytest.mark.parametrize("packet", MALFORMED_CONNECT.values(), ids=MALFORMED_CONNECT)
async def test_malformed_connect_is_not_answered(peer: Peers, packet: bytes) -> None:
    await connect_refused(peer, packet, silently=True)


@rule("MQTT-3.2.2-6")
@pytest.mark.parametrize("will_topic", ["", "a/+", "#"])
async def test_mistake_without_a_return_code(peer: Peers, will_topic: str) -> None:
    fields = (raw.text(unique()), raw.text(will_topic), raw.text("gone"))
    await connect_refused(peer, connect(*fields, flags=0x06), silently=True)


# -- client identifiers ------


@rule("MQTT-3.1.3-5", "X-3-CLIENTID-1")
@both
async def test_client_identifiers_that_must_do(peer: Peers) -> None:
    letters = string.digits + string.ascii_uppercase + string.ascii_lowercase
    for client_id in ("Z", letters[:23], letters[23:46], letters[-23:]):
        async with peer(client_id=client_id) as p:
            await p.connect()


@rule("MQTT-3.1.3-6")
async def test_empty_client_identifier(peer: Peers) -> None:
    async with peer(client_id="") as p, peer(client_id="") as q, peer(client_id="") as r:
        for one in (p, q, r):
            await one.connect(session_present=False)
            await one.subscribe(topic())
        for one in (p, q, r):
            await one.nothing()  # no one was taken over


@rule("MQTT-3.1.3-7", "MQTT-3.1.3-8")
async def test_empty_client_identifier_without_clean_session(peer: Peers) -> None:
    async with peer() as p:
        await p.send(connect(raw.text(""), flags=0x00))
        assert await p.rest() == REFUSED[2]


@rule("X-3-CLIENTID-1")
@pytest.mark.parametrize("flags", [0x00, 0x02])
async def test_empty_client_identifier_in_mqtt_3_1(peer: Peers, flags: int) -> None:
    async with peer(v=3) as p:
        await p.send(connect(raw.text(""), version=3, flags=flags))
        assert await p.rest() == REFUSED[2]


@rule("X-3-CLIENTID-1", "X-3-CLIENTID-2")
@pytest.mark.parametrize("end", ["x" * 30, "x" * 500, "-_.:", " ä/+#$日本"])
@both
async def test_other_client_identifiers(peer: Peers, end: str) -> None:
    """Taken, or refused with the code for it."""
    async with peer(client_id=unique() + end) as p:
        await p.send(p.connect_packet(clean_start=False))
        connack = await p.expect(ConnAck)
        assert connack.reason_code in ((0,) if peer.strict else (0, 2))
        if connack.reason_code:
            await p.expect_closed()
            return
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:  # and then all of it counts
        await back(p)
    async with peer(client_id=p.client_id[:-1]) as p:
        await p.connect(clean_start=False, session_present=False)


@rule("MQTT-3.1.3-9")
@needs("auth")
@both
async def test_refused_client_identifier(peer: Peers) -> None:
    async with peer(client_id=unique("refused")) as p:
        await p.send(p.connect_packet())
        assert await p.rest() == REFUSED[2]


# -- being let in, or not ------


@rule("MQTT-3.1.4-4")
@pytest.mark.parametrize("clean", [True, False])
@both
async def test_connack_that_lets_in(peer: Peers, clean: bool) -> None:
    async with peer() as p:
        await p.connect(clean_start=clean)
        assert p.last_frame == b"\x20\x02\x00\x00"
        await p.nothing()  # it comes once


@rule("X-3-CONNACK-1")
async def test_connack_of_mqtt_3_1_has_no_session_present(peer: Peers) -> None:
    async with peer(v=3) as p:
        await p.connect(clean_start=False)
        await p.disconnect()
    async with peer(v=3, client_id=p.client_id) as p:
        await p.connect(clean_start=False)
        assert p.last_frame == b"\x20\x02\x00\x00"


@rule("X-3-CODE-1")
@needs("auth")
@pytest.mark.parametrize(
    ("username", "password", "code"),
    [("alice", b"wrong", 4), ("alice", None, 4), ("banned", b"secret", 5)],
)
@both
async def test_failed_authentication(
    peer: Peers, username: str, password: bytes | None, code: int
) -> None:
    async with peer() as p:
        await p.send(p.connect_packet(username=username, password=password))
        assert await p.rest() == REFUSED[code]
    async with peer() as p:
        await p.connect(username="alice", password=b"secret")


@rule("MQTT-3.2.2-4", "MQTT-3.2.2-5")
async def test_connack_that_refuses_a_client_with_a_session(peer: Peers) -> None:
    client_id = await away(peer)
    async with peer() as p:
        await p.send(
            raw.connect(raw.text(client_id), level=2, flags=0x00, property_list=None), PingReq()
        )
        assert await p.rest() == REFUSED[1]  # and then the end
    async with peer(client_id=client_id) as p:
        await back(p)


@rule("MQTT-3.2.2-4", "MQTT-3.2.2-5")
@needs("auth")
@both
async def test_connack_that_refuses_a_user_with_a_session(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(clean_start=False, username="alice", password=b"secret")
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await p.send(
            p.connect_packet(clean_start=False, username="alice", password=b"wrong"), PingReq()
        )
        assert await p.rest() == REFUSED[4]
    async with peer(client_id=p.client_id) as p:
        await back(p, username="alice", password=b"secret")


@rule("MQTT-3.1.4-5")
@both
async def test_packets_behind_a_refused_connect(peer: Peers, speaks: int) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.subscribe(name)
        await p.send(
            raw.connect(
                raw.text(p.client_id), name=PROTOCOLS[speaks][0], level=2, property_list=None
            ),
            Publish(name, b"no"),
            Publish(name, b"no", retain=True),
            Publish(name, b"no", 1, packet_id=1),
        )
        assert await p.rest() == REFUSED[1]
        await q.nothing(after=q)


@rule("MQTT-3.1.4-5")
@needs("auth")
@both
async def test_packets_behind_a_failed_authentication(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.subscribe(name)
        await p.send(
            p.connect_packet(username="alice", password=b"wrong"),
            Publish(name, b"no"),
            Publish(name, b"no", retain=True),
            Publish(name, b"no", 1, packet_id=1),
        )
        assert await p.rest() == REFUSED[4]
        await q.nothing(after=q)
