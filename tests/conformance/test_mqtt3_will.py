"""MQTT 3.1 and 3.1.1: wills."""

import pytest
import trio

from mqtrio.wire.packets import Disconnect, Publish, Will
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers, topic, unique
from tests.conformance.rules import needs, rule
from tests.conformance.scripts3 import (
    MALFORMED,
    away,
    both,
    connect,
    connect_refused,
    publish,
    subscribe,
)
from tests.conformance.timed import timed


async def _watch(watcher: Peer, name: str, qos: int = 0) -> None:
    await watcher.connect()
    await watcher.subscribe(name, qos)


# -- when it is published ------


@rule("MQTT-3.1.2-8")
@pytest.mark.parametrize("qos", [0, 1, 2])
@both
async def test_will_after_an_abrupt_close(peer: Peers, qos: int) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name, 2)
        await p.connect(will=Will(name, b"gone", qos))
        await watcher.nothing(after=p)  # not before
        await p.drop()
        await watcher.message(topic=name, payload=b"gone", qos=qos, retain=False, dup=False)


@rule("MQTT-3.1.2-8")
@both
async def test_will_with_an_empty_or_a_binary_payload(peer: Peers) -> None:
    name = topic()
    for payload in (b"", bytes(range(256)) * 200):
        async with peer() as watcher, peer() as p:
            await _watch(watcher, name)
            await p.connect(will=Will(name, payload))
            await p.drop()
            await watcher.message(topic=name, payload=payload)


@rule("MQTT-3.1.2-8")
@both
async def test_will_for_an_absent_client(peer: Peers) -> None:
    name = topic()
    client_id = await away(peer, name)
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", 1))
        await p.drop()
        await watcher.message(payload=b"gone")
        async with peer(client_id=client_id) as late:
            await late.connect(clean_start=False)
            await late.message(payload=b"gone", qos=1)


@rule("MQTT-3.1.2-12")
@both
async def test_no_will(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await q.connect()
        await _watch(watcher, name)
        async with peer(client_id=p.client_id) as earlier:  # had one
            await earlier.connect(will=Will(name, b"gone"), clean_start=False)
            await earlier.disconnect()
        await p.connect(clean_start=False)
        await p.send(MALFORMED)
        await p.closed_silently()
        await watcher.nothing(after=q)


@rule("MQTT-3.14.4-3", "MQTT-3.1.2-10")
@both
async def test_disconnect_throws_the_will_away(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await _watch(watcher, name)
        await q.connect()
        await p.connect(will=Will(name, b"gone"), clean_start=False)
        await p.disconnect()
        await watcher.nothing(after=q)
        async with peer(client_id=p.client_id) as again:  # for good
            await again.connect(clean_start=False)
            await again.drop()
        async with peer(client_id=p.client_id) as again:
            await again.connect(clean_start=False)
            await watcher.nothing(after=again)


@rule("MQTT-3.1.2-10")
@both
async def test_will_is_published_once(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await _watch(watcher, name)
        await q.connect()
        await p.connect(will=Will(name, b"gone"), clean_start=False)
        await p.drop()
        await watcher.message(payload=b"gone")
        async with peer(client_id=p.client_id) as again:
            await again.connect(clean_start=False)
            await again.send(MALFORMED)
            await again.closed_silently()
        await watcher.nothing(after=q)


@rule("MQTT-3.1.2-10", "X-3-WILL-1")
@both
async def test_each_connection_has_a_will_of_its_own(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"first"), clean_start=False)
        await p.drop()
        await watcher.message(payload=b"first")
        async with peer(client_id=p.client_id) as again:
            await again.connect(will=Will(name, b"second"), clean_start=False)
            await watcher.nothing(after=again)
            await again.drop()
            await watcher.message(payload=b"second")


ENDS = {
    "malformed": MALFORMED,
    "second CONNECT": connect(raw.text("x")),
    "topic": publish(b"a/#"),
    "QoS 3 asked for": subscribe(1, (b"a", 3)),
    "packet of a server": b"\xd0\x00",
    "AUTH": b"\xf0\x00",
}


@rule("X-3-WILL-1")
@pytest.mark.parametrize("packet", ENDS.values(), ids=ENDS)
@both
async def test_will_after_a_violation(peer: Peers, packet: bytes) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone"))
        await p.send(packet)
        await p.closed_silently()
        await watcher.message(payload=b"gone")


@rule("MQTT-3.14.1-1", "X-3-WILL-1")
@pytest.mark.parametrize("packet", [b"\xe1\x00", b"\xe0\x01\x00"], ids=["flags", "a body"])
async def test_will_after_a_disconnect_that_is_none(peer: Peers, packet: bytes) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone"))
        await p.send(packet)
        await p.closed_silently()
        await watcher.message(payload=b"gone")


@rule("X-3-WILL-1")
@both
async def test_will_after_half_a_packet(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone"))
        await p.send(publish(name.encode(), b"not all of it")[:-3])
        await p.drop()
        await watcher.message(payload=b"gone")


@rule("X-3-WILL-1")
@both
async def test_what_was_sent_before_comes_before_the_will(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone"))
        await p.send(*(Publish(name, bytes([number])) for number in range(20)))
        await p.drop()
        for number in range(20):
            await watcher.message(payload=bytes([number]))
        await watcher.message(payload=b"gone")


@rule("X-3-WILL-1", "MQTT-3.14.4-3")
@both
async def test_disconnect_right_before_the_close(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer(client_id=p.client_id) as again:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone"))
        await p.send(Publish(name, b"bye"), Disconnect())
        await p.drop()
        await watcher.message(payload=b"bye")
        await again.connect()
        await watcher.nothing(after=again)


@rule("X-3-WILL-1")
@timed
async def test_will_of_a_silent_client(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p:
        await _watch(watcher, name, 2)
        await p.connect(keep_alive=1, will=Will(name, b"silent", 2))
        started = trio.current_time()
        watcher.patience = 15
        await watcher.message(topic=name, payload=b"silent", qos=2)
        assert trio.current_time() - started >= 1.4


# -- its fields ------

MISSING = {
    "everything": [],
    "topic": [b"\x00"],
    "payload": [raw.text("a")],
    "the end of the payload": [raw.text("a"), raw.binary(b"gone")[:-1]],
}


@rule("MQTT-3.1.2-9")
@pytest.mark.parametrize("will", MISSING.values(), ids=MISSING)
@both
async def test_fields_of_the_will_are_missing(peer: Peers, speaks: int, will: list[bytes]) -> None:
    packet = connect(raw.text(unique()), *will, version=speaks, flags=0x06)
    await connect_refused(peer, packet)


@rule("MQTT-3.1.2-9")
@both
async def test_qos_and_retain_of_a_will_are_used(peer: Peers, speaks: int) -> None:
    for qos, retain in ((0, True), (1, False), (2, True)):
        name = topic()
        fields = (raw.text(unique()), raw.text(name), raw.binary(b"gone"))
        flags = 0x06 | qos << 3 | retain << 5
        async with peer() as watcher, peer() as late, peer() as p:
            await _watch(watcher, name, 2)
            await p.send(connect(*fields, version=speaks, flags=flags))
            await p.expect_connack()
            if retain:
                p.retained.add(name)
            await p.drop()
            await watcher.message(payload=b"gone", qos=qos, retain=False)
            await _watch(late, name, 2)
            if retain:
                await late.message(payload=b"gone", qos=qos, retain=True)
            await late.nothing()


@rule("MQTT-3.1.2-11", "MQTT-3.1.2-13")
@pytest.mark.parametrize("flags", [0x0A, 0x12, 0x1A])
async def test_will_qos_without_a_will(peer: Peers, flags: int) -> None:
    await connect_refused(peer, connect(raw.text(unique()), flags=flags))


@rule("MQTT-3.1.2-11")
@both
async def test_will_fields_without_a_will(peer: Peers, speaks: int) -> None:
    fields = (raw.text(unique()), raw.text("a"), raw.binary(b"gone"))
    await connect_refused(peer, connect(*fields, version=speaks, flags=0x02))


@rule("MQTT-3.1.2-14")
@both
async def test_will_qos_3(peer: Peers, speaks: int) -> None:
    fields = (raw.text(unique()), raw.text("a"), raw.binary(b"gone"))
    await connect_refused(peer, connect(*fields, version=speaks, flags=0x1E))


@rule("MQTT-3.1.2-11", "MQTT-3.1.2-15")
async def test_will_retain_without_a_will(peer: Peers) -> None:
    await connect_refused(peer, connect(raw.text(unique()), flags=0x22))


@rule("MQTT-3.1.2-16")
@both
async def test_will_without_retain(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as late:
        await _watch(watcher, name)
        await watcher.publish(name, b"kept", 1, retain=True)
        await watcher.message(payload=b"kept")
        await p.connect(will=Will(name, b"gone", 1))
        await p.drop()
        await watcher.message(payload=b"gone", retain=False)
        await _watch(late, name, 1)
        await late.message(payload=b"kept", retain=True)
        await late.nothing()


@rule("MQTT-3.1.2-17")
@both
async def test_retained_will(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as late:
        await _watch(watcher, name)
        await p.connect(will=Will(name, b"gone", 1, retain=True))
        p.retained.add(name)
        await p.drop()
        await watcher.message(payload=b"gone", retain=False)
        await _watch(late, name, 1)
        await late.message(payload=b"gone", retain=True, qos=1)


@rule("X-3-WILL-1")
@needs("auth")
@both
async def test_will_to_a_forbidden_topic(peer: Peers) -> None:
    name = topic()
    async with peer() as watcher, peer() as p, peer() as q:
        await q.connect()
        await _watch(watcher, name + "/#")
        await p.connect(will=Will(name + "/forbidden", b"gone", retain=True))
        await p.drop()
        async with peer(client_id=p.client_id) as again:  # the broker has seen the end
            await again.connect()
        await watcher.nothing(after=q)
