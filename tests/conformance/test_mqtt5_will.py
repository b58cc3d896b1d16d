"""MQTT 5: wills."""

import pytest
import trio

from mqtrio.wire.packets import PublishProperties, Will
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic, unique
from tests.conformance.rules import needs, rule
from tests.conformance.scripts import MALFORMED, connect_refused
from tests.conformance.timed import timed


async def _watch(watcher: Peer, name: str, qos: int = 0) -> None:
    await watcher.connect()
    await watcher.subscribe(name, qos)


@rule("MQTT-3.1.2-7")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_will_after_an_abrupt_close(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name, 2)
        await p.connect(will=Will(name, b"gone", qos))
        await watcher.nothing(after=p)  # not before
        await p.drop()
        await watcher.message(topic=name, payload=b"gone", qos=qos, retain=False, dup=False)


@rule("MQTT-3.1.2-7")
async def test_will_with_an_empty_payload(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b""))
        await p.drop()
        await watcher.message(topic=name, payload=b"")


@rule("MQTT-3.1.2-8")
@timed
async def test_will_once_its_delay_is_over(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", delay_interval=2), session_expiry_interval=60)
        await p.drop()
        started = trio.current_time()
        await watcher.message(topic=name, payload=b"gone")
        assert 1.5 <= trio.current_time() - started <= 4.5


@rule("MQTT-3.1.3-9", "MQTT-3.1.2-8")
@timed
async def test_reconnecting_in_time_cancels_the_will(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer(client_id=p.client_id) as again:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", delay_interval=1), session_expiry_interval=60)
        await p.drop()
        await again.connect(clean_start=False, session_expiry_interval=60)
        await trio.sleep(3)
        await watcher.nothing(after=again)


@rule("MQTT-3.1.2-8", "MQTT-3.14.4-3")
async def test_normal_disconnect_throws_the_will_away(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await _watch(watcher, name)
        await q.connect()
        await p.connect(will=Will(name, b"gone"))
        await p.disconnect()
        await watcher.nothing(after=q)


@rule("MQTT-3.14.4-3")
@timed
async def test_normal_disconnect_throws_a_delayed_will_away(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await _watch(watcher, name)
        await q.connect()
        await p.connect(will=Will(name, b"gone", delay_interval=1), session_expiry_interval=1)
        await p.disconnect()
        await trio.sleep(3)
        await watcher.nothing(after=q)


@rule("MQTT-3.1.2-10")
async def test_will_is_forgotten_after_a_normal_disconnect(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await _watch(watcher, name)
        await q.connect()
        await p.connect(will=Will(name, b"gone"), session_expiry_interval=60)
        await p.disconnect()
        async with peer(client_id=p.client_id) as again:
            await again.connect(clean_start=False, session_expiry_interval=60)
            await again.disconnect(0x04)  # asks for a will, but has none
        await watcher.nothing(after=q)


@rule("MQTT-3.1.2-10")
async def test_will_is_published_once(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await _watch(watcher, name)
        await q.connect()
        await p.connect(will=Will(name, b"gone"), session_expiry_interval=60)
        await p.drop()
        await watcher.message(payload=b"gone")
        async with peer(client_id=p.client_id) as again:
            await again.connect(clean_start=False, session_expiry_interval=60)
            await again.disconnect(0x04)
        await watcher.nothing(after=q)


MISSING = {
    "everything": b"",
    "topic": b"\x00",
    "payload": b"\x00" + raw.text("a"),
    "properties": raw.text("a") + raw.binary(b"gone"),
}


@rule("MQTT-3.1.2-9")
@pytest.mark.parametrize("will", MISSING.values(), ids=MISSING)
async def test_fields_of_the_will_are_missing(peer: Peers, will: bytes) -> None:
    await connect_refused(peer, raw.connect(raw.text(unique()), will, flags=0x06), 0x81, 0x82)


@rule("MQTT-3.1.2-11")
@pytest.mark.parametrize("flags", [0x0A, 0x12, 0x1A])
async def test_will_qos_without_a_will(peer: Peers, flags: int) -> None:
    await connect_refused(peer, raw.connect(raw.text(unique()), flags=flags), 0x81, 0x82)


@rule("MQTT-3.1.2-12")
async def test_will_qos_3(peer: Peers) -> None:
    will = b"\x00" + raw.text("a") + raw.binary(b"gone")
    await connect_refused(peer, raw.connect(raw.text(unique()), will, flags=0x1E), 0x81)


@rule("MQTT-3.1.2-13")
async def test_will_retain_without_a_will(peer: Peers) -> None:
    await connect_refused(peer, raw.connect(raw.text(unique()), flags=0x22), 0x81, 0x82)


@rule("MQTT-3.1.2-14")
async def test_will_without_retain(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as late:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", 1))
        await p.drop()
        await watcher.message(payload=b"gone", retain=False)
        await late.connect()
        await late.subscribe(name, 1)
        await late.nothing()


@rule("MQTT-3.1.2-15")
async def test_retained_will(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as late:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", 1, retain=True))
        p.retained.add(name)
        await p.drop()
        await watcher.message(payload=b"gone", retain=False)
        await late.connect()
        await late.subscribe(name, 1)
        await late.message(payload=b"gone", retain=True, qos=1)


@rule("MQTT-3.1.3-10")
async def test_user_properties_of_a_will(peer: Peers) -> None:
    name = topic()
    pairs = (("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("ä", "日本"))
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(
            will=Will(name, b"gone", properties=PublishProperties(user_properties=pairs))
        )
        await p.drop()
        got = await watcher.message(payload=b"gone")
        assert got.properties is not None
        assert got.properties.user_properties == pairs


@rule("MQTT-3.2.2-12")
@needs("limited")
async def test_will_above_the_maximum_qos(peer: Peers) -> None:
    async with peer() as p, peer() as q:
        await p.send(p.connect_packet(will=Will(topic(), b"gone", 2)))
        await p.expect_closed(0x9B)
        await q.connect(will=Will(topic(), b"gone", 1))


@rule("MQTT-3.2.2-13")
@needs("limited")
async def test_retained_will_where_nothing_is_retained(peer: Peers) -> None:
    async with peer() as p:
        await p.send(p.connect_packet(will=Will(topic(), b"gone", 0, retain=True)))
        await p.expect_closed(0x9A)


@rule("X-5-TAKEOVER-2")
@pytest.mark.parametrize(
    ("clean_start", "delay", "seen"),
    [(False, 0, True), (True, 0, True), (True, 60, True), (False, 60, False)],
)
async def test_will_of_a_connection_taken_over(
    peer: Peers, clean_start: bool, delay: int, seen: bool
) -> None:
    name = topic()
    async with peer() as watcher, peer() as old, peer(client_id=old.client_id) as new:
        await _watch(watcher, name)
        await old.connect(
            will=Will(name, b"gone", delay_interval=delay), session_expiry_interval=90
        )
        await new.connect(clean_start=clean_start, session_expiry_interval=90)
        await old.expect_closed(0x8E)
        if seen:
            await watcher.message(payload=b"gone")
        await watcher.nothing(after=new)


@rule("X-5-WILL-1")
@timed
async def test_will_at_the_end_of_the_session(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", delay_interval=60), session_expiry_interval=2)
        await p.drop()
        started = trio.current_time()
        await watcher.message(payload=b"gone")
        assert 1.5 <= trio.current_time() - started <= 4.5


@rule("X-5-WILL-1")
async def test_delayed_will_of_a_session_that_ends_at_once(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", delay_interval=60))
        await p.drop()
        await watcher.message(payload=b"gone")


@rule("X-5-WILL-2")
@pytest.mark.parametrize("reason_code", [0x04, 0x80, 0x81, 0x93])
async def test_disconnect_that_still_publishes_the_will(peer: Peers, reason_code: int) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone"))
        await p.disconnect(reason_code)
        await watcher.message(payload=b"gone")


ERRORS = {
    "malformed": MALFORMED,
    "protocol error": raw.connect(raw.text("x")),
    "topic": raw.publish(b"a/#"),
    "DISCONNECT with a bad reason code": b"\xe0\x01\x01",
}


@rule("X-5-WILL-3")
@pytest.mark.parametrize("packet", ERRORS.values(), ids=ERRORS)
async def test_will_after_an_error(peer: Peers, packet: bytes) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone"))
        await p.send(packet)
        await p.expect_closed()
        await watcher.message(payload=b"gone")


@rule("X-5-WILL-4")
async def test_properties_of_a_will(peer: Peers) -> None:
    name = topic()
    properties = PublishProperties(
        payload_format_indicator=1,
        content_type="text/plain",
        response_topic="reply/to",
        correlation_data=b"\x00\xff",
        user_properties=(("a", "1"), ("a", "2")),
    )
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", properties=properties))
        await p.drop()
        await watcher.message(payload=b"gone", properties=properties)
    properties.message_expiry_interval = 100
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", properties=properties))
        await p.drop()
        got = await watcher.message(payload=b"gone")
        assert got.properties is not None
        assert got.properties.message_expiry_interval in (99, 100)
