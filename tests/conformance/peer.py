"""A scripted peer: one MQTT connection of which the test says every step, on a real TCP socket.

    async with peer() as p:                      # TCP connection, MQTT 5
        await p.connect(keep_alive=10)           # CONNECT, CONNACK 0x00
        await p.subscribe("a/+", qos=1)
        await p.send(raw.frame(0x36, ...))       # packets or any bytes
        await p.expect(PubAck, packet_id=7)      # the next packet must be this one
        await p.expect_closed(0x81)              # DISCONNECT 0x81 if anything, then end of file

Whatever comes is framed and decoded by itself; a packet that can't be decoded, or one larger than
the peer allowed, fails the test. `last_frame` holds the bytes of the packet received last.
"""

import itertools
import os
import reprlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import trio

from mqtrio.wire.decoder import Decoder, TopicCache
from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import (
    MQTT_5,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
)

#: See `Peer.patience`.
PATIENCE: Final = 5.0

P = TypeVar("P", bound=Packet)

_RUN: Final = os.urandom(3).hex()
_numbers: Final = itertools.count(1)


def unique(prefix: str = "c") -> str:
    """A name that no other test, run or client of the broker uses: 1 to 23 letters and digits."""
    return f"{prefix}{_RUN}n{next(_numbers)}"


def topic(*levels: str) -> str:
    """A topic of this test only, with `levels` below it."""
    return "/".join(("conformance", unique("t"), *levels))


class Closed(AssertionError):
    """The broker closed the connection where the test waited for a packet."""


class Peer:
    """One connection. Made by a `Peers` factory; the methods above in the order of a script."""

    def __init__(
        self, stream: trio.SocketStream, version: int, client_id: str, strict: bool
    ) -> None:
        self.version = version
        self.client_id = client_id
        #: The CONNACK that let this peer in; None before.
        self.connack: ConnAck | None = None
        #: The bytes of the packet received last.
        self.last_frame = b""
        #: Topics to which this peer published something retained, and sessions it may have left.
        self.retained: set[str] = set()
        self.connects: list[Connect] = []
        #: Seconds that anything awaited may take: it decides about failures, never about success.
        self.patience = PATIENCE
        self._strict = strict
        self._stream = stream
        self._input = bytearray()
        self._maximum_packet_size: int | None = None
        self._decoder = Decoder(2**28 + 5, TopicCache(), version=version, from_client=False)
        self._inbox: deque[Packet] = deque()
        self._packet_ids = itertools.count(1)
        self._open = True

    # -- bytes and packets ---------------------------------------------------------------------

    async def send(self, *packets: Packet | bytes) -> None:
        """Send packets, or bytes as they are, in one write."""
        data = b"".join(
            item if isinstance(item, bytes) else encode(item, self.version) for item in packets
        )
        for item in packets:
            if isinstance(item, Publish) and item.retain and item.payload:
                self.retained.add(item.topic)
            elif isinstance(item, Connect):
                self.connects.append(item)
                self._maximum_packet_size = item.maximum_packet_size
        await self._stream.send_all(data)

    async def try_send(self, *packets: Packet | bytes) -> None:
        """Like `send`, where the broker may have closed the connection already."""
        try:
            await self.send(*packets)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def receive(self) -> Packet:
        """The next packet; raises `Closed` at the end of the connection."""
        if self._inbox:
            return self._inbox.popleft()
        return await self._from_socket()

    async def peek(self) -> Packet | None:
        """The packet that `receive` gives next; None at the end of the connection."""
        try:
            self._inbox.appendleft(await self.receive())
        except Closed:
            return None
        return self._inbox[0]

    async def _from_socket(self) -> Packet:
        with trio.move_on_after(self.patience):
            self.last_frame = await self._frame()
            limit = self._maximum_packet_size
            assert limit is None or len(self.last_frame) <= limit, (
                f"{len(self.last_frame)} bytes came where {limit} are allowed [MQTT-3.1.2-24]"
            )
            self._decoder.feed(self.last_frame)
            (packet,) = self._decoder.take(1)
            return packet
        raise AssertionError(f"nothing came within {self.patience} seconds")

    async def _frame(self) -> bytes:
        """One whole packet: its length tells how far it goes (2.1.4)."""
        length, shift, position = 0, 0, 1
        while True:
            await self._have(position + 1)
            byte = self._input[position]
            length |= (byte & 0x7F) << shift
            position += 1
            if not byte & 0x80:
                break
            shift += 7
            assert shift < 28, "a remaining length of more than four bytes [MQTT-1.5.5]"
        assert position == 2 or byte, "a remaining length not in its shortest form [MQTT-1.5.5-1]"
        await self._have(position + length)
        frame = bytes(self._input[: position + length])
        del self._input[: position + length]
        return frame

    async def _have(self, size: int) -> None:
        while len(self._input) < size:
            try:
                data = await self._stream.receive_some(65536)
            except trio.BrokenResourceError:  # a reset closes the connection as well
                data = b""
            if not data:
                self._open = False
                held = f" within a packet ({bytes(self._input[:8]).hex()}…)" if self._input else ""
                raise Closed(f"the broker closed the connection{held}")
            self._input += data

    async def expect(self, wanted: type[P], **fields: object) -> P:
        """The next packet must be of type `wanted`, with the fields given."""
        try:
            packet = await self.receive()
        except Closed as closed:
            raise Closed(f"{closed}; expected {_wanted(wanted, fields)}") from None
        except AssertionError as wrong:
            raise AssertionError(f"{wrong}; expected {_wanted(wanted, fields)}") from None
        return _checked(packet, wanted, fields)

    async def expect_packet(self, wanted: P) -> P:
        """The next packet must be equal to `wanted`."""
        packet = await self.receive()
        assert packet == wanted, f"got {_shown(packet)}, expected {_shown(wanted)}"
        return wanted

    async def expect_closed(
        self, *codes: int, told: bool | None = None
    ) -> ConnAck | Disconnect | None:
        """The broker must close the connection; returns what it sent before, if anything.

        Before the end may stand one DISCONNECT, or one CONNACK if the peer wasn't let in yet, with
        a failure code. `told` True: that packet must come; False: it must not. Else, as the
        MQTT 5 only recommends both, it is of our broker alone that a packet is asked for wherever
        `codes` are given, and that its code is one of them. MQTT 3 does demand its return codes.
        """
        if told is None:
            told = True if self._strict and codes and self.version == MQTT_5 else None
        goodbye: type[ConnAck] | type[Disconnect] = Disconnect if self.connack else ConnAck
        last: ConnAck | Disconnect | None = None
        try:
            packet = await self.receive()
            assert told is not False, f"got {_shown(packet)} before the end of the connection"
            last = _checked(packet, goodbye, {})
            code = last.reason_code
            lowest = 0x80 if self.version == MQTT_5 else 1
            if codes and (self._strict or self.version < MQTT_5):
                allowed = " or ".join(f"0x{c:02X}" for c in codes)
                assert code in codes, f"got {_shown(last)}, expected {allowed}"
            assert code >= lowest, f"got {_shown(last)}, expected a failure code"
            another = await self.receive()
            raise AssertionError(f"got {_shown(another)} after {_shown(last)}")
        except Closed:
            assert not self._input, f"half a packet before the end: {bytes(self._input).hex()}"
            assert last is not None or not told, "closed without a reason code"
            return last

    async def answer(self, wanted: type[P], **fields: object) -> P:
        """The next packet that isn't a PUBLISH must be this; those are kept for `expect`."""
        kept: deque[Packet] = deque()
        while True:
            try:
                packet = await self._from_socket()
            except AssertionError as wrong:
                raise type(wrong)(f"{wrong}; expected {wanted.__name__}") from None
            if not isinstance(packet, Publish):
                self._inbox += kept
                return _checked(packet, wanted, fields)
            kept.append(packet)

    async def nothing(self, after: "Peer | None" = None) -> None:
        """Nothing more has been sent to this peer: the answer to a PINGREQ comes next.

        With `after`, the peer whose publishing must have had no effect here, that one publishes a
        marker too, which takes the same way as the message that must not come: it comes next.
        """
        if after is not None:
            marker = topic("marker")
            packet_id = self.next_id()
            await self.send(Subscribe(packet_id, (SubscriptionRequest(marker),)))
            await self.expect(SubAck, packet_id=packet_id)
            await after.send(Publish(marker, b"marker"))
            await self.expect(Publish, topic=marker)
            await self.send(Unsubscribe(packet_id, (marker,)))
            await self.expect(UnsubAck, packet_id=packet_id)
        await self.send(PingReq())
        await self.expect(PingResp)

    async def rest(self) -> bytes:
        """All bytes until the broker closes the connection, undecoded."""
        with trio.move_on_after(self.patience):
            while True:
                try:
                    await self._have(len(self._input) + 1)
                except Closed:
                    return bytes(self._input)
        raise AssertionError(f"not closed within {self.patience} seconds")

    async def closed_silently(self) -> None:
        """The broker must close the connection without a packet."""
        await self.expect_closed(told=False)

    # -- whole exchanges -----------------------------------------------------------------------

    def next_id(self) -> int:
        """A packet identifier not used by this peer before."""
        return next(self._packet_ids)

    def connect_packet(self, **fields: Any) -> Connect:
        """CONNECT with this peer's client identifier, clean start 1 and keep alive 60."""
        values: dict[str, Any] = {
            "version": self.version,
            "client_id": self.client_id,
            "clean_start": True,
            "keep_alive": 60,
        }
        return Connect(**values | fields)

    async def connect(self, *, session_present: bool | None = None, **fields: Any) -> ConnAck:
        """CONNECT with `fields`, and the CONNACK that lets the peer in."""
        await self.send(self.connect_packet(**fields))
        return await self.expect_connack(session_present=session_present)

    async def expect_connack(self, session_present: bool | None = None) -> ConnAck:
        """The CONNACK that lets the peer in."""
        self.connack = await self.expect(ConnAck, reason_code=0)
        if session_present is not None:
            assert self.connack.session_present is session_present, (
                f"Session Present {self.connack.session_present}, expected {session_present}"
            )
        if self.connack.assigned_client_identifier is not None:
            self.client_id = self.connack.assigned_client_identifier
        return self.connack

    async def subscribe(
        self, topic_filter: str, qos: int = 0, *, identifier: int = 0, **options: Any
    ) -> SubAck:
        """Subscribe to one filter and see it granted at `qos`; deliveries wait in their order."""
        request = SubscriptionRequest(topic_filter, qos, **options)
        packet_id = self.next_id()
        await self.send(Subscribe(packet_id, (request,), identifier))
        answer = await self.answer(SubAck, packet_id=packet_id)
        assert answer.reason_codes == (qos,), f"got {_shown(answer)} for QoS {qos}"
        return answer

    async def unsubscribe(self, topic_filter: str) -> UnsubAck:
        """Unsubscribe from one filter; deliveries that come before UNSUBACK wait in their order."""
        packet_id = self.next_id()
        await self.send(Unsubscribe(packet_id, (topic_filter,)))
        return await self.answer(UnsubAck, packet_id=packet_id)

    async def publish(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        *,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        properties: PublishProperties | None = None,
    ) -> None:
        """Publish and go through the acknowledgements of `qos`, all of which must be good ones."""
        if qos and not packet_id:
            packet_id = self.next_id()
        await self.send(Publish(topic, payload, qos, retain, dup, packet_id, properties))
        if qos == 1:
            _succeeded(await self.answer(PubAck, packet_id=packet_id))
        elif qos == 2:
            _succeeded(await self.answer(PubRec, packet_id=packet_id))
            await self.send(PubRel(packet_id))
            _succeeded(await self.answer(PubComp, packet_id=packet_id))

    async def message(self, *, acknowledge: bool = True, **fields: object) -> Publish:
        """The next packet must be a PUBLISH with `fields`; it is acknowledged by its QoS."""
        got = await self.expect(Publish, **fields)
        if acknowledge:
            await self.acknowledge(got)
        return got

    async def acknowledge(self, message: Publish) -> None:
        """Go through the receiver's part of `message`'s QoS."""
        if message.qos == 1:
            await self.send(PubAck(message.packet_id))
        elif message.qos == 2:
            await self.send(PubRec(message.packet_id))
            await self.answer(PubRel, packet_id=message.packet_id)
            await self.send(PubComp(message.packet_id))

    async def ping(self) -> None:
        """PINGREQ and its answer: the broker has handled all that was sent before."""
        await self.send(PingReq())
        await self.answer(PingResp)

    # -- the end -------------------------------------------------------------------------------

    async def disconnect(self, reason_code: int = 0, **fields: Any) -> None:
        """DISCONNECT, then wait until the broker has seen it (it closes the connection too)."""
        await self.send(Disconnect(reason_code, **fields))
        with trio.move_on_after(self.patience / 2):
            try:
                while True:
                    await self._frame()
            except Closed:
                pass
        await self.drop()

    async def drop(self) -> None:
        """Close the TCP connection without DISCONNECT, as a network failure does."""
        self._open = False
        await self._stream.aclose()

    async def leave(self) -> None:
        """End the script politely, whatever its state."""
        with trio.move_on_after(self.patience, shield=True):
            if self._open and self.connack is not None:
                await self.try_send(Disconnect())
            await self.drop()


def _checked(packet: Packet, wanted: type[P], fields: dict[str, Any]) -> P:
    assert isinstance(packet, wanted), f"got {_shown(packet)}, expected {_wanted(wanted, fields)}"
    for name, value in fields.items():
        got = getattr(packet, name)
        assert got == value, (
            f"{name} is {reprlib.repr(got)}, expected {reprlib.repr(value)}, in {_shown(packet)}"
        )
    return packet


def _succeeded(packet: PubAck | PubRec | PubComp) -> None:
    assert packet.reason_code < 0x80, f"got {_shown(packet)}"


def _wanted(wanted: type[Packet], fields: dict[str, Any]) -> str:
    values = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in fields.items())
    return f"{wanted.__name__}({values})"


def _shown(packet: Packet) -> str:
    reason = getattr(packet, "reason_string", None)
    return f"{packet!r} ({reason})" if reason else repr(packet)


class Peers:
    """Makes the peers of one test, towards one broker."""

    def __init__(self, host: str, port: int, *, strict: bool, version: int = MQTT_5) -> None:
        self.host = host
        self.port = port
        #: What a peer speaks of which nothing else is said.
        self.version = version
        #: Our own broker: what the standard recommends is asked of it, not only what it demands.
        self.strict = strict
        self._made: list[Peer] = []

    @asynccontextmanager
    async def __call__(
        self, *, v: int | None = None, client_id: str | None = None
    ) -> AsyncIterator[Peer]:
        """A new TCP connection, without a CONNECT yet; at the end it is closed in order."""
        stream = await trio.open_tcp_stream(self.host, self.port)
        version = self.version if v is None else v
        peer = Peer(stream, version, unique() if client_id is None else client_id, self.strict)
        self._made.append(peer)
        try:
            yield peer
        finally:
            await peer.leave()

    async def tidy(self) -> None:
        """Take away what the test left on the broker: sessions that last, retained messages."""
        retained = {topic for peer in self._made for topic in peer.retained}
        lasting = {
            (
                connect.client_id or peer.client_id,
                connect.username,
                connect.password,
                connect.version,
            )
            for peer in self._made
            for connect in peer.connects
            if connect.session_expiry_interval
            or (connect.version < MQTT_5 and not connect.clean_start)
        }
        for client_id, username, password, version in lasting:
            async with self(v=version, client_id=client_id) as peer:
                await peer.send(peer.connect_packet(username=username, password=password))
                await peer.receive()
                await peer.try_send(Disconnect())
        if retained:
            async with self() as peer:
                connack = await peer.connect()
                for name in retained if connack.retain_available is not False else ():
                    await peer.send(Publish(name, b"", retain=True))
                await peer.ping()
