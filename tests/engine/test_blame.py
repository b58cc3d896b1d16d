"""Whose fault it is: a bug ends the connection that it belongs to, a broken packet its sender's."""

import logging
from typing import Any

import pytest
import trio
import trio.testing

from mqtrio import Allow, Challenge
from mqtrio.engine import handlers, short_way
from mqtrio.testing import FaultyStore, Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.decoder import Decoder
from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import (
    MQTT_5,
    Auth,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])


class Boom(Exception):
    """A bug."""


def boom(*arguments: Any, **more: Any) -> Any:
    raise Boom("a bug")


class Bystander:
    """A client that must not notice anything; and who watches over wills."""

    def __init__(self, harness: Harness, peer: Peer) -> None:
        self.harness = harness
        self.peer = peer

    @classmethod
    async def arrive(cls, harness: Harness) -> "Bystander":
        peer = await harness.connect("bystander", session_expiry_interval=100)
        for name in ("bystander", "wills"):
            await peer.subscribe(name, 2)
        return cls(harness, peer)

    async def is_fine(self) -> None:
        """Everything works for it as if nothing had happened, and for who comes now."""
        for qos in (0, 1, 2):
            await self.peer.publish("bystander", b"x", qos)
            await self.peer.message(b"x", qos=qos)
        await self.peer.ping()
        await self.peer.nothing()
        another = await self.harness.connect("another")
        await another.publish("bystander", b"hello", 1)
        await self.peer.message(b"hello")
        await another.disconnect()


def the_log(caplog: pytest.LogCaptureFixture, kind: type[Exception] = Boom) -> None:
    """The log has the traceback, once."""
    (record,) = [record for record in caplog.records if record.name == "mqtrio.engine"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is kind
    assert "Traceback" in caplog.text
    caplog.clear()


#: Everything that a client may send once it is let in.
PACKETS: dict[str, Packet] = {
    "PUBLISH at QoS 0": Publish("x", b"x"),
    "PUBLISH at QoS 1": Publish("x", b"x", 1, packet_id=1),
    "PUBLISH at QoS 2": Publish("x", b"x", 2, packet_id=1),
    "PUBACK": PubAck(1),
    "PUBREC": PubRec(1),
    "PUBREL": PubRel(1),
    "PUBCOMP": PubComp(1),
    "SUBSCRIBE": Subscribe(1, (SubscriptionRequest("x"),)),
    "UNSUBSCRIBE": Unsubscribe(1, ("x",)),
    "PINGREQ": PingReq(),
    "DISCONNECT": Disconnect(),
    "AUTH": Auth(0x19, "M"),
}


@VERSIONS
@pytest.mark.parametrize("name", list(PACKETS))
async def test_a_bug_in_a_handler(
    name: str,
    version: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    packet = PACKETS[name]
    if version < MQTT_5 and isinstance(packet, Auth):
        return
    async with open_harness() as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer", version=version, will=Will("wills", b"gone"))
        with monkeypatch.context() as patch:
            patch.setitem(handlers.CONNECTED, type(packet), boom)
            patch.setattr(short_way, "take", boom)
            await peer.send(packet, PingReq())  # what follows is not handled
            await peer.expect_closed(0x80 if version == MQTT_5 else None)
        assert isinstance(harness.crashed_with(Boom), Boom)
        assert harness.broker.statistics().crashes == 1
        assert [client.client_id for client in harness.broker.clients()] == ["bystander"]
        await bystander.peer.message(b"gone")
        await bystander.is_fine()
    the_log(caplog)


@VERSIONS
@pytest.mark.parametrize("phase", ["before CONNECT", "authenticating"])
async def test_a_bug_before_the_client_is_let_in(
    phase: str, version: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = HookRecorder(
        answers={"authenticate": lambda e: Challenge(b"?") if e.method else Allow()}
    )
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        peer = harness.peer("bystander" if phase == "before CONNECT" else "peer", version=version)
        with monkeypatch.context() as patch:
            will = Will("wills", b"gone")
            if phase == "before CONNECT":
                patch.setitem(handlers.BEFORE_CONNECT, Connect, boom)
                await peer.send(peer.connect_packet(will=will))
            elif version == MQTT_5:
                patch.setitem(handlers.AUTHENTICATING, Auth, boom)
                await peer.send(peer.connect_packet(will=will, authentication_method="M"))
                await peer.expect(Auth)
                await peer.send(Auth(0x18, "M", b"!"))
            else:
                return
            await peer.expect_closed()
        harness.crashed_with(Boom)
        await bystander.is_fine()
    the_log(caplog)


#: Places inside of the broker that a client's packet leads to -> the packet.
INSIDE: dict[str, Packet] = {
    "mqtrio.engine.router.Router.deliver": Publish("bystander", b"x", 1, True, packet_id=1),
    "mqtrio.engine.router.Router.route": Publish("bystander", b"x", 1, packet_id=1),
    "mqtrio.engine.publish.message_of": Publish("bystander", b"x", 1, True, packet_id=1),
    "mqtrio.engine.subscribe.Subscriptions.request": PACKETS["SUBSCRIBE"],
    "mqtrio.engine.sessions.Sessions.change_expiry": Disconnect(session_expiry_interval=5),
    "mqtrio.wire.decoder.Decoder.take": PingReq(),
    "mqtrio.wire.decoder.Decoder.feed": PingReq(),
}


@pytest.mark.parametrize("place", list(INSIDE))
async def test_a_bug_deeper_down(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_harness() as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer", session_expiry_interval=100)
        data = _encoded(peer, INSIDE[place])
        with monkeypatch.context() as patch:
            patch.setattr(place, boom)
            await peer.stream.send_all(data)
            await trio.testing.wait_all_tasks_blocked()
        await peer.expect_closed(0x80)
        harness.crashed_with(Boom)
        await bystander.is_fine()
    the_log(caplog)


def _encoded(peer: Peer, packet: Packet) -> bytes:
    return encode(packet, peer.version)


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(
    ("packet", "place"),
    [
        (Publish("x", b"x", 1, packet_id=1), "mqtrio.engine.router.Router.route"),
        (PACKETS["SUBSCRIBE"], "mqtrio.engine.router.Router.add"),
    ],
)
async def test_a_bug_after_a_hook_was_awaited(
    packet: Packet,
    place: str,
    colour: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def later(event: Any) -> Allow:
        await trio.sleep(1)
        return Allow()

    answer: Any = later if colour == "async" else Allow()
    recorder = HookRecorder(answers={"authorize_publish": answer, "authorize_subscribe": answer})
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer")
        with monkeypatch.context() as patch:
            patch.setattr(place, boom)
            await peer.send(packet)
            await peer.expect_closed(0x80)
        harness.crashed_with(Boom)
        await bystander.is_fine()
    the_log(caplog)


async def test_a_bug_in_a_will_of_a_connection_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_harness() as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer", will=Will("wills", b"gone"))
        with monkeypatch.context() as patch:
            patch.setattr("mqtrio.engine.publish.submit_unasked", boom)
            await peer.drop()
        harness.crashed_with(Boom)
        assert [client.client_id for client in harness.broker.clients()] == ["bystander"]
        await bystander.is_fine()
    the_log(caplog)


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_a_bug_while_a_client_authenticates_again(
    colour: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on beside the connection's input, and is its own all the same."""

    async def later(event: Any) -> Allow:
        await trio.sleep(1)
        return Allow()

    recorder = HookRecorder(
        answers={"authenticate": later if colour == "async" else Allow()},
    )
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer", authentication_method="M")
        with monkeypatch.context() as patch:
            patch.setattr("mqtrio.engine.subscribe.Subscriptions.compile_again", boom)
            await peer.send(Auth(0x19, "M"))
            await peer.expect_closed(0x80)
        harness.crashed_with(Boom)
        await bystander.is_fine()
    the_log(caplog)


async def test_a_bug_in_a_will_that_a_hook_has_thought_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def later(event: Any) -> Allow:
        if event.origin == "will":
            await trio.sleep(1)
        return Allow()

    recorder = HookRecorder(answers={"authorize_publish": later})
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer", will=Will("wills", b"gone"))
        with monkeypatch.context() as patch:
            patch.setattr("mqtrio.engine.router.Router.route", boom)
            await peer.drop()
            await trio.sleep(2)
        harness.crashed_with(Boom)
        await bystander.is_fine()
    the_log(caplog)


@pytest.mark.parametrize("how", ["a broken packet", "the end", "a take over", "a bug"])
async def test_a_bug_while_a_connection_is_closed(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its stream ends all the same, and nobody else's."""
    async with open_harness() as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer")
        other: Peer | None = None
        with monkeypatch.context() as patch:
            patch.setattr("mqtrio.engine.sessions.Sessions.left", boom)
            if how == "a broken packet":
                await peer.send(b"\x00\x00")
            elif how == "a take over":
                other = harness.peer("peer")
                await other.send(other.connect_packet())
            elif how == "a bug":
                patch.setitem(handlers.CONNECTED, PingReq, boom)
                await peer.send(PingReq())
            else:
                await peer.send(Disconnect())
            await peer.settle()
            await trio.sleep(10)
            await peer.settle()
            assert peer.ended
        assert {type(error) for error in harness.crashes} == {Boom}
        harness.crashes.clear()
        await bystander.is_fine()
    caplog.clear()


async def test_a_bug_while_bytes_are_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_harness() as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer")
        await peer.subscribe("x")
        (victim,) = [c for c in harness.broker._core.connections if c.client_id == "peer"]
        original = type(victim.link).flush

        def broken(link: Any) -> Any:
            return boom() if link is victim.link else original(link)

        with monkeypatch.context() as patch:
            patch.setattr(type(victim.link), "flush", broken)
            await bystander.peer.publish("x", b"x")
            await bystander.peer.ping()
            await trio.sleep(10)
        assert {type(error) for error in harness.crashes} == {Boom}
        harness.crashes.clear()
        assert [client.client_id for client in harness.broker.clients()] == ["bystander"]
        await bystander.is_fine()
    caplog.clear()


async def test_a_bug_when_the_store_has_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a commit releases belongs to a connection, too."""
    store = FaultyStore(delay=1.0)
    async with open_harness(store=store) as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer", session_expiry_interval=100)
        with monkeypatch.context() as patch:
            await peer.send(PACKETS["SUBSCRIBE"])
            await peer.settle()
            (victim,) = [c for c in harness.broker._core.connections if c.client_id == "peer"]
            original = type(victim).released

            def broken(connection: Any, batch: Any) -> None:
                if connection is victim:
                    boom()
                original(connection, batch)

            patch.setattr(type(victim), "released", broken)
            await trio.sleep(5)
        await peer.expect_closed(0x80)
        harness.crashed_with(Boom)
        await bystander.is_fine()
    the_log(caplog)


async def test_a_bug_in_a_timer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_harness() as harness:
        bystander = await Bystander.arrive(harness)
        core = harness.broker._core
        core.timers.call_at(trio.current_time() + 5, boom)
        fine: list[float] = []
        core.timers.call_at(trio.current_time() + 6, fine.append)
        await trio.sleep(10)
        assert fine == [6]
        harness.crashed_with(Boom)
        await bystander.is_fine()
    the_log(caplog)


async def test_a_bug_of_a_plugin_is_the_plugins(caplog: pytest.LogCaptureFixture) -> None:
    """It decides as its failure rule says; no connection ends, no crash is counted."""
    recorder = HookRecorder(
        answers=dict.fromkeys(("published", "subscribed", "client_connected"), boom)
    )
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        await bystander.is_fine()
        assert harness.broker.statistics().crashes == 0
    assert {record.name for record in caplog.records if record.levelno >= logging.ERROR} == {
        "mqtrio.hooks"
    }
    caplog.clear()


# -- theirs: what the standard forbids, at every phase


def text(value: str) -> bytes:
    return len(value).to_bytes(2, "big") + value.encode()


#: Bytes that nobody may send, in any phase -> reason code of MQTT 5, return code of CONNACK in 3.
FORBIDDEN: dict[str, tuple[bytes, int]] = {
    "packet type 0": (b"\x00\x00", 0x81),
    "a length of five bytes": (b"\xc0\xff\xff\xff\xff\x01", 0x81),
    "flags of PINGREQ": (b"\xc1\x00", 0x81),
    "a body in PINGREQ": (b"\xc0\x01\x00", 0x81),
    "CONNACK from a client": (b"\x20\x02\x00\x00", 0x82),
    "SUBACK from a client": (b"\x90\x03\x00\x01\x00", 0x82),
    "SUBSCRIBE without a filter": (b"\x82\x02\x00\x01", 0x82),
    "PUBLISH with QoS 3": (b"\x36\x05" + text("x") + b"\0\1", 0x81),
    "PUBLISH with packet identifier 0": (b"\x32\x05" + text("x") + b"\0\0", 0x82),
    "a topic with a wildcard": (b"\x30\x05" + text("x/#"), 0x90),
    "a topic with NUL": (b"\x30\x05" + text("x\0y"), 0x81),
    "a topic that is no UTF-8": (b"\x30\x04\x00\x02\xff\xfe", 0x81),
    "a packet that is too large": (b"\x30\xff\xff\xff\x7f", 0x95),
}


async def _in_phase(harness: Harness, phase: str, version: int) -> Peer:
    peer = harness.peer("peer", version=version)
    if phase == "authenticating":
        await peer.send(peer.connect_packet(authentication_method="M"))
        await peer.expect(Auth)
    elif phase == "connected":
        await peer.connect(will=Will("wills", b"gone"))
    elif phase == "while a hook thinks":
        await peer.connect(will=Will("wills", b"gone"))
        await peer.send(Publish("slow", b"x"))
    return peer


PHASES = ("before CONNECT", "authenticating", "connected", "while a hook thinks")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", list(FORBIDDEN))
@pytest.mark.parametrize("split", [False, True])
async def test_what_nobody_may_send(name: str, phase: str, version: int, split: bool) -> None:
    if phase == "authenticating" and version < MQTT_5:
        return
    data, code = FORBIDDEN[name]
    if version == MQTT_5 and data[0] >> 4 == 3 and data[1] < 0x80:
        data = data[:1] + bytes([data[1] + 1]) + data[2:] + b"\0"  # no properties
    if version == MQTT_5 and data[0] == 0x82:
        data = b"\x82\x03\x00\x01\x00"

    async def slow(event: Any) -> Allow:
        if event.topic == "slow":
            await trio.sleep(3)
        return Allow()

    def authenticate(event: Any) -> Allow | Challenge:
        return Challenge(b"?") if event.method else Allow()

    recorder = HookRecorder(answers={"authorize_publish": slow, "authenticate": authenticate})
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        memory = harness.broker.statistics().memory
        peer = await _in_phase(harness, phase, version)
        for part in [data[i : i + 1] for i in range(len(data))] if split else [data]:
            try:
                await peer.send(part)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            await peer.settle()
        told = version == MQTT_5 and phase != "before CONNECT"
        await peer.expect_closed(code if told else None)
        if phase in ("connected", "while a hook thinks"):
            await bystander.peer.message(b"gone")
        await bystander.is_fine()
        assert harness.broker.statistics().memory <= memory
        assert harness.broker.statistics().crashes == 0


@pytest.mark.parametrize("name", list(PACKETS))
@VERSIONS
async def test_what_may_not_come_before_connect(name: str, version: int) -> None:
    """[MQTT-3.1.0-1]: and of the packets behind it nothing is handled."""
    recorder = HookRecorder("published", "subscribed", "connection_refused")
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer", version=version)
        if version < MQTT_5 and name == "AUTH":
            return
        await peer.send(PACKETS[name], peer.connect_packet())
        await peer.expect_closed()
        assert harness.broker.sessions() == []
    assert recorder.hooks == ["connection_refused"]


async def test_an_error_in_the_middle_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before it is handled, what comes behind it isn't."""
    async with open_harness() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("a", 1)
        peer = await harness.connect("peer")
        await peer.send(
            Publish("a", b"1", 1, packet_id=1),
            Publish("a", b"2"),
            b"\x00\x00",
            Publish("a", b"3"),
        )
        await peer.expect(PubAck, packet_id=1)
        await peer.expect_closed(0x81)
        await watcher.message(b"1")
        await watcher.message(b"2")
        await watcher.nothing()


async def test_a_protocol_error_of_a_step_that_waited() -> None:
    """The blame holds in a task, too: here the session of somebody else, after `admit`."""

    async def slow(event: Any) -> Allow:
        await trio.sleep(1)
        return Allow()

    recorder = HookRecorder(
        answers={"authenticate": lambda e: Allow(username=e.username), "admit": slow}
    )
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("x", username="ann")
        eve = harness.peer("x")
        await eve.send(eve.connect_packet(username="eve"))
        await eve.expect_closed(0x85)
        await ann.ping()
        assert harness.broker.statistics().crashes == 0


async def test_theirs_is_never_raised_by_the_kit() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer")
        await peer.send(b"\x00\x00")
        await peer.expect_closed(0x81)
        assert harness.crashes == []


async def test_ours_is_raised_by_the_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "take", boom)

    async def script() -> None:
        async with open_harness() as harness:
            peer = harness.peer("peer")
            await peer.send(PingReq())
            await peer.settle()

    with pytest.raises(ExceptionGroup) as caught:
        await script()
    assert [type(error) for error in caught.value.exceptions] == [Boom]
