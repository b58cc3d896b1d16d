r"""A scripted peer: one MQTT connection over any stream, of which a test says every step.

await peer.connect()                           # CONNECT, CONNACK 0x00
await peer.subscribe("a/+", qos=1)
await peer.send(b"\xc0\x00", PingReq())        # bytes as they are, or packets
await peer.expect(PingResp)                    # the next packet must be this one
await peer.nothing()                           # and no other comes
await peer.expect_closed(0x82)                 # DISCONNECT 0x82, then the end
"""

import itertools
import reprlib
from collections import deque
from typing import Any, Final, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from mqtrio.errors import ProtocolError
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

P = TypeVar("P", bound=Packet)

#: See `Peer.patience`.
PATIENCE: Final = 3600.0

#: The largest packet of the standard (2.1.4).
_LARGEST: Final = 268_435_460


class Closed(AssertionError):
    """The broker closed the connection where the test waited for a packet."""


class Peer:
    """The client's end of one connection; made by a Harness, or over a stream of one's own.

    What comes is decoded strictly: a packet that a server may not send fails the test. A wait
    takes `patience` seconds at most, an hour if nothing else is said, which in virtual time is no
    time. Don't wait for two things of one peer at once.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, version: int = MQTT_5, client_id: str = ""
    ) -> None:
        self.stream = stream
        self.version = version
        self.client_id = client_id
        self.patience = PATIENCE
        #: The CONNACK that let it in; None before.
        self.connack: ConnAck | None = None
        self._decoder = Decoder(_LARGEST, TopicCache(), version=version, from_client=False)
        self._inbox: deque[Packet] = deque()
        self._packet_ids = itertools.count(1)
        self._ended = False

    # -- packets and bytes

    async def send(self, *packets: Packet | bytes) -> None:
        """Send packets, or bytes as they are, in one write."""
        await self.stream.send_all(
            b"".join(
                item if isinstance(item, bytes) else encode(item, self.version) for item in packets
            )
        )

    async def receive(self) -> Packet:
        """The next packet. Raises Closed at the end of the connection."""
        if not self._inbox:
            with trio.move_on_after(self.patience):
                while not self._inbox and not self._ended:
                    await self._take_in()
        if self._inbox:
            return self._inbox.popleft()
        if self._ended:
            raise Closed(f"{self!r}: the broker has closed the connection")
        raise AssertionError(f"{self!r}: nothing came within {self.patience:g} seconds")

    async def _take_in(self) -> None:
        """Wait for bytes, or for the end."""
        try:
            data = await self.stream.receive_some(65536)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self._ended = True
            return
        self._decoder.feed(bytes(data))
        try:
            while packets := self._decoder.take(256):
                self._keep(packets)
        except ProtocolError as error:
            raise AssertionError(f"{self!r}: the broker sent what it may not: {error}") from error

    def _keep(self, packets: list[Packet]) -> None:
        """Keep what has come for `receive`."""
        self._inbox += packets

    async def settle(self) -> None:
        """Let happen all that can happen without time passing, and take in what has come."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        while not self._ended:
            await self._take_in()

    async def expect(self, wanted: type[P], **fields: object) -> P:
        """The next packet must be of the type `wanted`, with these fields; returns it."""
        try:
            packet = await self.receive()
        except Closed as closed:
            raise Closed(f"{closed}; expected {_wanted(wanted, fields)}") from None
        except AssertionError as error:
            raise AssertionError(f"{error}; expected {_wanted(wanted, fields)}") from error
        return _checked(packet, wanted, fields)

    async def answer(self, wanted: type[P], **fields: object) -> P:
        """The next packet that is no PUBLISH must be this one; those are kept for `expect`."""
        kept: list[Packet] = []
        while True:
            packet = await self.receive()
            if not isinstance(packet, Publish):
                self._inbox.extendleft(reversed(kept))
                return _checked(packet, wanted, fields)
            kept.append(packet)

    async def nothing(self) -> None:
        """Nothing has come, and nothing will unless time passes or somebody sends something."""
        await self.settle()
        if self._inbox:
            raise AssertionError(f"{self!r}: got {_shown(self._inbox[0])}, expected nothing")
        if self._ended:
            raise Closed(f"{self!r}: the broker has closed the connection")

    async def arrived(self) -> list[Packet]:
        """All packets that have come, or will without time passing; the end is not told."""
        await self.settle()
        packets = list(self._inbox)
        self._inbox.clear()
        return packets

    async def expect_closed(self, reason_code: int | None = None) -> ConnAck | Disconnect | None:
        """The broker must close the connection; returns what it has said before.

        With a reason code that must be one DISCONNECT with it, or one CONNACK if the peer has not
        been let in (in MQTT 3 a return code); without, nothing at all.
        """
        said: ConnAck | Disconnect | None = None
        if reason_code is not None:
            kind: type[ConnAck | Disconnect] = ConnAck if self.connack is None else Disconnect
            said = await self.expect(kind, reason_code=reason_code)
        try:
            packet = await self.receive()
        except Closed:
            if self._decoder.buffered:
                raise AssertionError(f"{self!r}: half a packet before the end") from None
            return said
        raise AssertionError(f"{self!r}: got {_shown(packet)}, expected the end of the connection")

    @property
    def ended(self) -> bool:
        """Whether the broker's end has been seen (by `receive`, `settle`, ...)."""
        return self._ended

    # -- whole exchanges

    def next_id(self) -> int:
        """A packet identifier that this peer has not used before."""
        return next(self._packet_ids)

    def connect_packet(self, **fields: Any) -> Connect:
        """CONNECT with this peer's client identifier, clean start and no keep alive."""
        values: dict[str, Any] = {"version": self.version, "client_id": self.client_id} | fields
        return Connect(**values)

    async def connect(self, *, session_present: bool | None = None, **fields: Any) -> ConnAck:
        """CONNECT with `fields`, and the CONNACK that lets the peer in."""
        await self.send(self.connect_packet(**fields))
        return await self.let_in(session_present=session_present)

    async def let_in(self, *, session_present: bool | None = None) -> ConnAck:
        """The CONNACK that lets the peer in must come next."""
        fields = {} if session_present is None else {"session_present": session_present}
        self.connack = await self.expect(ConnAck, reason_code=0, **fields)
        self.client_id = self.connack.assigned_client_identifier or self.client_id
        return self.connack

    async def subscribe(
        self, topic_filter: str, qos: int = 0, *, identifier: int = 0, **options: Any
    ) -> SubAck:
        """Subscribe to one filter and see it granted at `qos`; what is delivered is kept."""
        request = SubscriptionRequest(topic_filter, qos, **options)
        packet_id = self.next_id()
        await self.send(Subscribe(packet_id, (request,), identifier))
        return await self.answer(SubAck, packet_id=packet_id, reason_codes=(qos,))

    async def unsubscribe(self, topic_filter: str) -> UnsubAck:
        """Unsubscribe from one filter and see it answered."""
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
        properties: PublishProperties | None = None,
    ) -> None:
        """Publish and go through the acknowledgements of `qos`, all of which must be good ones."""
        packet_id = self.next_id() if qos else 0
        await self.send(Publish(topic, payload, qos, retain, False, packet_id, properties))
        if qos == 1:
            _succeeded(await self.answer(PubAck, packet_id=packet_id))
        elif qos == 2:
            _succeeded(await self.answer(PubRec, packet_id=packet_id))
            await self.send(PubRel(packet_id))
            _succeeded(await self.answer(PubComp, packet_id=packet_id))

    async def message(self, payload: bytes | None = None, **fields: object) -> Publish:
        """The next packet must be a PUBLISH with these fields; it is acknowledged by its QoS."""
        if payload is not None:
            fields["payload"] = payload
        got = await self.expect(Publish, **fields)
        if got.qos == 1:
            await self.send(PubAck(got.packet_id))
        elif got.qos == 2:
            await self.send(PubRec(got.packet_id))
            await self.answer(PubRel, packet_id=got.packet_id)
            await self.send(PubComp(got.packet_id))
        return got

    async def ping(self) -> None:
        """PINGREQ and its answer: the broker has handled all that was sent before."""
        await self.send(PingReq())
        await self.answer(PingResp)

    # -- the end

    async def disconnect(self, reason_code: int = 0, **fields: Any) -> None:
        """DISCONNECT, and see the broker close the connection."""
        await self.send(Disconnect(reason_code, **fields))
        await self._until_closed()

    async def drop(self) -> None:
        """Break the connection without a word, and let the broker notice."""
        await trio.aclose_forcefully(self.stream)
        self._ended = True
        await wait_all_tasks_blocked()

    async def _until_closed(self) -> None:
        with trio.fail_after(self.patience):
            while not self._ended:
                await self._take_in()

    def __repr__(self) -> str:
        return f"Peer({self.client_id!r}, version={self.version})"


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
