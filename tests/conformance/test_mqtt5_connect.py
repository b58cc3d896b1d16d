"""MQTT 5: CONNECT and CONNACK."""

import string

import pytest

from mqtrio.reasons import ALLOWED
from mqtrio.wire.packets import (
    ConnAck,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
)
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic, unique
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import connect_refused

# -- what comes first ------


FIRST = {
    "PUBLISH": raw.publish(b"a", b"x"),
    "SUBSCRIBE": raw.subscribe(1, [(b"a", 0)]),
    "PINGREQ": b"\xc0\x00",
    "DISCONNECT": b"\xe0\x00",
    "AUTH": raw.frame(0xF0, b"\x18", raw.properties(b"\x15" + raw.text("method"))),
}


@rule("MQTT-3.1.0-1")
@pytest.mark.parametrize("packet", FIRST.values(), ids=FIRST)
async def test_another_packet_before_connect(peer: Peers, packet: bytes) -> None:
    async with peer() as p:
        await p.send(packet)
        await p.try_send(p.connect_packet())  # too late
        await p.expect_closed()


@rule("MQTT-3.1.0-2")
async def test_second_connect(peer: Peers) -> None:
    async with peer() as p:
        await p.connect()
        await p.send(p.connect_packet())
        await p.expect_closed(0x82)


@rule("MQTT-3.1.2-1")
@pytest.mark.parametrize("name", ["mqtt", "MQTX", "MQIsdp", "MQTT5", ""])
async def test_another_protocol_name(peer: Peers, name: str) -> None:
    async with peer() as p:
        await p.send(raw.connect(raw.text(p.client_id), name=name))
        await _version_refused(p)


@rule("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [0, 6, 127])
async def test_another_protocol_version(peer: Peers, level: int) -> None:
    async with peer() as p:
        await p.send(raw.connect(raw.text(p.client_id), level=level))
        await _version_refused(p)


async def _version_refused(p: Peer) -> None:
    """Closed, after a CONNACK 0x84 or without one; MQTT 3's form of it serves such a client too."""
    data = await p.rest()
    if data and data != b"\x20\x02\x00\x01":
        assert data[0] == 0x20, data.hex()
        assert data[2:4] == b"\x00\x84", data.hex()


@rule("MQTT-3.1.2-3")
async def test_reserved_connect_flag(peer: Peers) -> None:
    await connect_refused(peer, raw.connect(raw.text(unique()), flags=0x03), 0x81)


# -- the payload of CONNECT ------


@rule("MQTT-3.1.2-16", "MQTT-3.1.2-18")
async def test_fields_that_the_flags_do_not_announce(peer: Peers) -> None:
    surplus = raw.connect(raw.text(unique()), raw.text("user"), flags=0x02)
    await connect_refused(peer, surplus, 0x81, 0x82)
    surplus = raw.connect(raw.text(unique()), raw.text("user"), raw.text("secret"), flags=0x82)
    await connect_refused(peer, surplus, 0x81, 0x82)


@rule("MQTT-3.1.2-17", "MQTT-3.1.2-19")
async def test_fields_that_the_flags_announce_are_missing(peer: Peers) -> None:
    await connect_refused(peer, raw.connect(raw.text(unique()), flags=0x82), 0x81)
    await connect_refused(peer, raw.connect(raw.text(unique()), flags=0x42), 0x81)
    await connect_refused(peer, raw.connect(raw.text(unique()), raw.text("u"), flags=0xC2), 0x81)


@rule("MQTT-3.1.2-19")
async def test_password_without_user_name(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(password=b"token")


@rule("MQTT-3.1.3-1")
async def test_payload_in_another_order(peer: Peers) -> None:
    will = b"\x00" + raw.text("a/b") + raw.binary(b"gone")
    wrong = raw.connect(raw.text(unique()), raw.text("user"), will, flags=0x86)
    await connect_refused(peer, wrong, 0x81, 0x82)
    wrong = raw.connect(will, raw.text(unique()), flags=0x06)
    await connect_refused(peer, wrong, 0x81, 0x82, 0x85)


@rule("MQTT-3.1.3-3")
async def test_no_client_identifier(peer: Peers) -> None:
    await connect_refused(peer, raw.connect(), 0x81)


@rule("MQTT-3.1.4-1")
@pytest.mark.parametrize(
    "packet",
    [
        raw.connect(raw.binary(b"abc")[:-1]),
        raw.connect(raw.text(""), property_list=b"\x7f"),
        raw.connect(raw.text(""), property_list=raw.properties(b"\x11\x00")),
        raw.connect(raw.text(""), property_list=raw.properties(b"\x19\x02")),
        raw.connect(raw.text(""), b"surplus"),
        raw.frame(0x10, raw.text("MQTT"), b"\x05"),
    ],
    ids=["short text", "property length", "short property", "no boolean", "surplus", "cut off"],
)
async def test_mistake_in_the_format_of_connect(peer: Peers, packet: bytes) -> None:
    await connect_refused(peer, packet, 0x81, 0x82)


@rule("MQTT-3.1.3-5")
async def test_client_identifiers_that_must_do(peer: Peers) -> None:
    letters = string.digits + string.ascii_uppercase + string.ascii_lowercase
    for client_id in ("Z", letters[:23], letters[23:46], letters[-23:]):
        async with peer(client_id=client_id) as p:
            connack = await p.connect()
            assert connack.assigned_client_identifier is None


# -- assigned client identifiers ------


@rule("MQTT-3.1.3-6", "MQTT-3.2.2-16")
async def test_assigned_client_identifiers_differ(peer: Peers) -> None:
    seen = set()
    async with peer(client_id="") as p, peer(client_id="") as q, peer(client_id="") as r:
        for one in (p, q, r):
            connack = await one.connect()
            assert connack.assigned_client_identifier
            seen.add(connack.assigned_client_identifier)
        for one in (p, q, r):
            await one.nothing()  # no one was taken over
    assert len(seen) == 3


@rule("MQTT-3.1.3-7", "X-5-CLIENTID-1")
@pytest.mark.parametrize("clean_start", [True, False])
async def test_assigned_client_identifier_is_a_real_one(peer: Peers, clean_start: bool) -> None:
    name = topic()
    async with peer(client_id="") as p:
        connack = await p.connect(
            clean_start=clean_start, session_expiry_interval=60, session_present=False
        )
        assert connack.assigned_client_identifier
        await p.subscribe(name)
        await p.disconnect()
    async with peer(client_id=connack.assigned_client_identifier) as p:
        again = await p.connect(clean_start=False, session_present=True, session_expiry_interval=60)
        assert again.assigned_client_identifier is None
        await p.publish(name, b"x")
        await p.message(topic=name)


@rule("MQTT-3.1.3-8")
@needs("auth")
async def test_refused_client_identifier(peer: Peers) -> None:
    async with peer(client_id=unique("refused")) as p:
        await p.send(p.connect_packet())
        await p.expect_closed(0x85)


# -- being let in, or not ------


@rule("MQTT-3.1.4-2")
@needs("auth")
@pytest.mark.parametrize(
    ("username", "password", "code"),
    [("alice", b"wrong", 0x86), ("alice", None, 0x86), ("banned", b"secret", 0x8A)],
)
async def test_failed_authentication(
    peer: Peers, username: str, password: bytes | None, code: int
) -> None:
    async with peer() as p:
        await p.send(p.connect_packet(username=username, password=password))
        await p.expect_closed(code)
    async with peer() as p:
        await p.connect(username="alice", password=b"secret")


@rule("MQTT-3.1.4-5", "MQTT-3.2.0-2")
async def test_one_connack(peer: Peers) -> None:
    async with peer() as p:
        await p.send(p.connect_packet())
        await p.expect(ConnAck, reason_code=0)
        await p.nothing()
        await p.subscribe(topic())
        await p.nothing()


@rule("MQTT-3.1.4-6")
async def test_packets_behind_a_refused_connect(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await q.connect()
        await q.subscribe(name)
        refused = raw.connect(raw.text(p.client_id), flags=0x03)
        await p.send(
            refused + raw.publish(name.encode(), b"no") + raw.publish(name.encode(), b"no")
        )
        await p.expect_closed(0x81)
        await q.nothing(after=q)


@rule("MQTT-3.1.4-6")
@needs("auth")
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
        await p.expect_closed(0x86)
        await q.nothing(after=q)


@rule("MQTT-3.2.0-1")
async def test_connack_comes_first(peer: Peers) -> None:
    name = topic()
    async with peer() as p, peer() as q:
        await p.connect(session_expiry_interval=60)
        await p.subscribe(name, 1)
        await p.disconnect()
        await q.connect()
        await q.publish(name, b"queued", 1)
    async with peer(client_id=p.client_id) as p:
        await p.send(
            p.connect_packet(clean_start=False),
            Publish(name, b"own", 1, packet_id=1),
            Subscribe(2, (SubscriptionRequest(name, 1),)),
            PingReq(),
        )
        await p.expect(ConnAck, reason_code=0, session_present=True)
        await p.answer(PubAck, packet_id=1)
        await p.answer(SubAck, packet_id=2)
        await p.answer(PingResp)


@rule("MQTT-3.2.2-6", "MQTT-3.2.2-7", "MQTT-3.2.2-8")
async def test_connack_that_refuses(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(session_expiry_interval=60)
        await p.disconnect()
    bad = {
        "receive maximum 0": raw.connect(
            raw.text(p.client_id), flags=0, property_list=raw.properties(b"\x21\x00\x00")
        ),
        "reserved flag": raw.connect(raw.text(p.client_id), flags=1),
        "surplus": raw.connect(raw.text(p.client_id), b"surplus", flags=0),
    }
    for packet in bad.values():
        async with peer() as q:
            await q.send(packet)
            connack = await q.expect_closed()
            if connack is not None:
                assert isinstance(connack, ConnAck)
                assert not connack.session_present
                assert connack.reason_code in ALLOWED[2]
    async with peer(client_id=p.client_id) as p:  # and the session is still there
        await p.connect(clean_start=False, session_present=True)


@rule("MQTT-3.2.2-6", "MQTT-3.2.2-8")
@needs("auth")
async def test_connack_that_refuses_a_user_with_a_session(peer: Peers) -> None:
    async with peer() as p:
        await p.connect(session_expiry_interval=60, username="alice", password=b"secret")
        await p.disconnect()
    async with peer(client_id=p.client_id) as p:
        await p.send(p.connect_packet(clean_start=False, username="alice", password=b"wrong"))
        connack = await p.expect_closed(0x86)
        assert isinstance(connack, ConnAck)
        assert not connack.session_present


@rule("MQTT-3.14.0-1")
@pytest.mark.parametrize(
    "packet",
    [
        raw.connect(raw.text("x"), flags=0x03),
        raw.connect(raw.text("x"), property_list=raw.properties(b"\x21\x00\x00")),
    ],
    ids=["malformed", "protocol error"],
)
async def test_a_refused_client_gets_no_disconnect(peer: Peers, packet: bytes) -> None:
    async with peer() as p:
        await p.send(packet)
        goodbye = await p.expect_closed()
        assert not isinstance(goodbye, Disconnect)


# -- what CONNACK says ------


@rule("MQTT-3.1.2-28")
async def test_no_response_information_unless_asked_for(peer: Peers) -> None:
    for packet in (
        raw.connect(raw.text(unique())),
        raw.connect(raw.text(unique()), property_list=raw.properties(b"\x19\x00")),
    ):
        async with peer() as p:
            await p.send(packet)
            await p.expect(ConnAck, reason_code=0, response_information=None)


@rule("MQTT-3.1.2-28")
@needs("auth")
@pytest.mark.parametrize("asked", [True, False])
async def test_response_information_is_sent_when_asked_for(peer: Peers, asked: bool) -> None:
    async with peer() as p:
        connack = await p.connect(username="verbose", request_response_information=asked)
        assert connack.response_information == ("answers/" if asked else None)


@rule("X-5-CONNACK-1")
async def test_capabilities_not_denied_are_there(peer: Peers) -> None:
    name = topic()
    async with peer() as p:
        connack = await p.connect()
        if connack.maximum_qos is None:
            await p.subscribe(name, 2)
            await p.publish(name, b"two", 2)
            await p.message(qos=2, payload=b"two")
            await p.unsubscribe(name)
        if connack.retain_available is not False:
            await p.publish(name, b"kept", 1, retain=True)
            await p.subscribe(name)
            await p.message(retain=True, payload=b"kept")
            await p.unsubscribe(name)
        if connack.wildcard_subscription_available is not False:
            await p.subscribe(name + "/+")
            await p.publish(name + "/x")
            await p.message(topic=name + "/x")
        if connack.subscription_identifiers_available is not False:
            await p.subscribe(name + "/y", identifier=5)
        if connack.shared_subscription_available is not False:
            await p.subscribe(f"$share/{unique('g')}/{name}/z")


@rule("MQTT-3.2.2-9")
@needs("limited")
async def test_lower_maximum_qos_is_announced(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect()
        assert connack.maximum_qos == 1


@rule("MQTT-3.2.2-9")
@needs("limited-qos-0")
async def test_maximum_qos_0_is_announced(peer: Peers) -> None:
    async with peer() as p:
        connack = await p.connect()
        assert connack.maximum_qos == 0
