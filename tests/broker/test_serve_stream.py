"""Clients over streams that the program brings, in virtual time."""

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

import mqtrio
from mqtrio import (
    AcceptEvent,
    Allow,
    AuthenticateEvent,
    BrokerStopped,
    Deny,
    ReasonCode,
    hookimpl,
)
from mqtrio.testing import Closed, Harness, Peer, open_harness
from mqtrio.wire.packets import MQTT_3_1, MQTT_3_1_1, MQTT_5, Publish, PubRec, Will


@pytest.mark.parametrize("version", [MQTT_3_1, MQTT_3_1_1, MQTT_5])
async def test_it_returns_when_the_client_has_gone(autojump_clock: MockClock, version: int) -> None:
    async with mqtrio.open_broker([]) as broker, trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        returned = trio.Event()

        async def serve() -> None:
            await broker.serve_stream(theirs, address="somewhere", listener="tunnel")
            returned.set()

        nursery.start_soon(serve)
        peer = Peer(ours, client_id="ann", version=version)
        await peer.connect()
        (client,) = broker.clients()
        assert client.listener == "tunnel"
        assert "somewhere" in client.address
        assert client.protocol_version == version
        await peer.subscribe("a", qos=2)
        await broker.publish("a", b"x", qos=2)
        await peer.message(b"x", qos=2)
        await peer.publish("a", b"y", qos=1)
        await peer.message(b"y", qos=1)
        await peer.disconnect()
        assert not returned.is_set()  # the peer has not closed its end yet
        await peer.drop()
        with trio.fail_after(0.1):
            await returned.wait()
        assert broker.clients() == []
        with pytest.raises(trio.ClosedResourceError):
            await theirs.send_all(b"x")


async def test_the_way_out_of_a_client_that_breaks_the_rules(
    harness: Harness, autojump_clock: MockClock
) -> None:
    peer = await harness.connect("ann")
    await peer.send(b"\xf3\x00")
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)
    await harness.connect("ann")


async def test_keep_alive(harness: Harness, autojump_clock: MockClock) -> None:
    """One and a half times the keep alive without a packet [MQTT-3.1.2-22]."""
    watcher = await harness.connect("watcher")
    await watcher.subscribe("w")
    peer = await harness.connect("ann", keep_alive=60, will=Will("w", b"gone"))
    for _ in range(3):
        await trio.sleep(80)
        await peer.ping()
    began = trio.current_time()
    await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)
    assert 90 <= trio.current_time() - began < 100
    await watcher.message(b"gone")


async def test_who_does_not_connect_is_cut_off(harness: Harness, autojump_clock: MockClock) -> None:
    peer = harness.peer()
    began = trio.current_time()
    await peer.expect_closed()
    assert trio.current_time() - began == pytest.approx(10, abs=2)
    assert harness.broker.statistics().clients == 0


async def test_cancelling_is_a_lost_connection(autojump_clock: MockClock) -> None:
    """As if a cable was cut: the will is published."""
    async with mqtrio.open_broker([]) as broker:
        async with broker.subscribe("w") as wills:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    ours, theirs = memory_stream_pair()
                    nursery.start_soon(broker.serve_stream, theirs)
                    peer = Peer(ours, client_id="ann")
                    await peer.connect(will=Will("w", b"gone"))
                    scope.cancel()
            assert (await wills.receive()).payload == b"gone"
        assert broker.clients() == []
        with pytest.raises(Closed):
            await peer.receive()


async def test_a_stream_that_breaks(harness: Harness, autojump_clock: MockClock) -> None:
    async with harness.broker.subscribe("w") as wills:
        peer = await harness.connect("ann", will=Will("w", b"gone"))
        await peer.drop()
        assert (await wills.receive()).payload == b"gone"
    assert harness.broker.statistics().crashes == 0


class Broken(trio.abc.Stream):
    """A stream whose other end sends a CONNECT, and which fails at whatever comes next."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.data:
            data, self.data = self.data, b""
            return data
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def test_a_stream_that_was_broken_from_the_start(autojump_clock: MockClock) -> None:
    connect = bytes.fromhex("10 0c 0004 4d515454 04 02 003c 0000")
    for data in (b"", connect[:5], connect):
        stream = Broken(data)
        async with mqtrio.open_broker([]) as broker:
            await broker.serve_stream(stream)
            assert broker.statistics().crashes == 0
            assert broker.sessions() == []
        assert stream.closed


class Doors:
    """Refuses streams of one address, and asks others for a password."""

    @hookimpl
    def accept(self, event: AcceptEvent) -> Allow | Deny:
        return Deny() if event.address.startswith("192.0.2.66") else Allow()

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Allow | None:
        assert event.listener == "stream"
        return Allow() if event.password == b"sesame" else None


async def test_plugins_decide_about_streams_too(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[Doors()]) as harness:
        peer = harness.peer("eve", address="192.0.2.66")
        await peer.expect_closed()
        peer = harness.peer("eve")
        await peer.send(peer.connect_packet())
        await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)
        peer = harness.peer("ann")
        await peer.connect(username="ann", password=b"sesame")


async def test_sessions_and_wills_in_time(harness: Harness, autojump_clock: MockClock) -> None:
    """What takes minutes takes none: expiry of sessions and messages, delays of wills."""
    broker = harness.broker
    async with broker.subscribe("w") as wills:
        ann = await harness.connect(
            "ann", session_expiry_interval=600, will=Will("w", b"gone", delay_interval=300)
        )
        await ann.subscribe("a", qos=1)
        await ann.drop()
        began = trio.current_time()
        await broker.publish("a", b"short", qos=1, message_expiry_interval=60)
        await broker.publish("a", b"long", qos=1, message_expiry_interval=500)
        assert (await wills.receive()).payload == b"gone"
        assert trio.current_time() - began == pytest.approx(300, abs=1)
        ann = await harness.connect("ann", clean_start=False, session_expiry_interval=600)
        message = await ann.message(b"long")
        assert message.properties is not None
        assert message.properties.message_expiry_interval in (199, 200)
        await ann.drop()
        await trio.sleep(601)
        again = await harness.connect("ann", clean_start=False)
        assert again.connack is not None
        assert not again.connack.session_present
    assert broker.statistics().dropped == {"expired": 1}


async def test_takeover_between_streams(harness: Harness, autojump_clock: MockClock) -> None:
    old = await harness.connect("ann", session_expiry_interval=100)
    await old.subscribe("a", qos=2)
    await harness.broker.publish("a", b"x", qos=2)
    message = await old.expect(Publish, payload=b"x")
    await old.send(PubRec(message.packet_id))
    await old.settle()
    new = await harness.connect("ann", clean_start=False, session_expiry_interval=100)
    await old.arrived()
    assert old.ended
    assert new.connack is not None
    assert new.connack.session_present


async def test_a_hundred_streams(autojump_clock: MockClock) -> None:
    async with open_harness() as harness:
        peers = [await harness.connect(f"c{number}") for number in range(100)]
        for peer in peers:
            await peer.subscribe("a")
        await peers[0].publish("a", b"x" * 10_000)
        for peer in peers:
            await peer.message(b"x" * 10_000)
        assert harness.broker.statistics().clients == 100


async def test_after_the_end(autojump_clock: MockClock) -> None:
    async with mqtrio.open_broker([]) as broker:
        pass
    _, theirs = memory_stream_pair()
    with pytest.raises(BrokerStopped):
        await broker.serve_stream(theirs)
