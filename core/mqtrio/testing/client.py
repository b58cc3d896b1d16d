"""A client that does by itself what every client does, so that a test says only what it is about.

ann = await harness.client("ann")
await ann.subscribe("a/+", qos=1)
assert await bob.try_publish("a/b", b"hello", qos=1) == 0     # the reason code, also of a refusal
(await ann.wait_for("a/b")).payload                           # acknowledged by its QoS already
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from mqtrio.reasons import ReasonCode
from mqtrio.state.topics import topic_matches
from mqtrio.testing.peer import Peer
from mqtrio.wire.packets import (
    Auth,
    ConnAck,
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
)

#: A keep alive is served after this part of it.
_PING_AFTER: Final = 0.75

#: What answers a challenge of an enhanced authentication: data to data.
Answer = Callable[[bytes | None], bytes | None]


class Client(Peer):
    """A Peer with a task of its own, made by `Harness.client`.

    The task acknowledges what is delivered, by its QoS, resolves topic aliases, and sends PINGREQ
    in time if CONNECT had a keep alive. All methods of Peer work; `message` and `expect(Publish)`
    take messages which have been acknowledged before.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        version: int,
        client_id: str,
        again: "Callable[[Client], Client]",
    ) -> None:
        super().__init__(stream, version=version, client_id=client_id)
        #: Every message that has come, taken by the test or not.
        self.messages: list[Publish] = []
        self._again = again
        self._arrived = trio.Event()
        self._aliases: dict[int, str] = {}
        self._half_done: set[int] = set()
        self._answers: list[Packet] = []
        self._pings = 0
        self._let_in = trio.Event()
        self._sending = trio.Lock()
        self._connect_fields: dict[str, Any] = {}

    # -- the task

    async def run(self) -> None:
        """Serve the connection until it ends; the Harness starts this."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_alive)
            while not self._ended:
                await super()._take_in()
                await self._say(*self._answers)
                self._answers.clear()
                self._arrived.set()
                self._arrived = trio.Event()
            nursery.cancel_scope.cancel()

    async def _take_in(self) -> None:
        """Wait until the task has taken something in."""
        await self._arrived.wait()

    def _keep(self, packets: list[Packet]) -> None:
        """Keep what is for the test, and prepare the answers to what is for the task."""
        for packet in packets:
            if isinstance(packet, Publish):
                self._take(packet)
            elif isinstance(packet, PubRel):
                self._half_done.discard(packet.packet_id)
                self._answers.append(PubComp(packet.packet_id))
            elif isinstance(packet, PingResp) and self._pings:
                self._pings -= 1
            else:
                self._inbox.append(packet)

    def _take(self, packet: Publish) -> None:
        self._resolve(packet)
        if packet.qos == 1:
            self._answers.append(PubAck(packet.packet_id))
        elif packet.qos == 2:
            self._answers.append(PubRec(packet.packet_id))
            if packet.packet_id in self._half_done:
                return  # a second copy of one that is under way (4.3.3)
            self._half_done.add(packet.packet_id)
        self._inbox.append(packet)
        self.messages.append(packet)

    def _resolve(self, packet: Publish) -> None:
        alias = packet.properties.topic_alias if packet.properties is not None else None
        if alias is not None:
            packet.topic = self._aliases[alias] = packet.topic or self._aliases[alias]

    async def _keep_alive(self) -> None:
        await self._let_in.wait()
        assert self.connack is not None
        seconds = self.connack.server_keep_alive or self._connect_fields.get("keep_alive", 0)
        while seconds:
            await trio.sleep(seconds * _PING_AFTER)
            self._pings += 1
            await self._say(PingReq())

    async def _say(self, *packets: Packet) -> None:
        """Send what the task has to say; that the connection is gone shows when it reads."""
        try:
            if packets:
                await self.send(*packets)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    # -- packets

    async def send(self, *packets: Packet | bytes) -> None:
        """Send packets, or bytes as they are, in one write."""
        async with self._sending:  # the task may be sending, too
            await super().send(*packets)

    async def message(self, payload: bytes | None = None, **fields: object) -> Publish:
        """The next packet must be a PUBLISH with these fields; it was acknowledged before."""
        if payload is not None:
            fields["payload"] = payload
        return await self.expect(Publish, **fields)

    async def wait_for(self, topic_filter: str = "#") -> Publish:
        """The next message whose topic matches; what comes before it is kept for later.

        Raises Closed if the connection ends, AssertionError if `patience` ends.
        """
        skipped: list[Packet] = []
        try:
            while True:
                packet = await self.receive()
                if isinstance(packet, Publish) and topic_matches(topic_filter, packet.topic):
                    return packet
                skipped.append(packet)
        except AssertionError as error:
            raise type(error)(f"{error}; expected a message to {topic_filter!r}") from None
        finally:
            self._inbox.extendleft(reversed(skipped))

    async def received(self, topic_filter: str = "#") -> list[Publish]:
        """Take all messages that match and have come, or will without time passing."""
        await self.settle()
        packets = list(self._inbox)
        found = [
            p for p in packets if isinstance(p, Publish) and topic_matches(topic_filter, p.topic)
        ]
        self._inbox.clear()
        self._inbox.extend(p for p in packets if not any(p is each for each in found))
        return found

    # -- exchanges that may be refused

    async def connect(self, *, session_present: bool | None = None, **fields: Any) -> ConnAck:
        """CONNECT with `fields`, and the CONNACK that lets the client in."""
        connack = await self.try_connect(**fields)
        said = f"{self!r} was refused: 0x{connack.reason_code:02X} {connack.reason_string or ''}"
        if connack.reason_code:
            raise AssertionError(said.rstrip())
        if session_present is not None and connack.session_present is not session_present:
            raise AssertionError(f"{self!r}: session_present is not {session_present}")
        return connack

    async def try_connect(self, *, answer: Answer | None = None, **fields: Any) -> ConnAck:
        """CONNECT with `fields`; the CONNACK, also that of a refusal.

        `answer` makes the data of the AUTH that follows a challenge, from the challenge's.
        """
        self._connect_fields = dict(fields)
        await self.send(self.connect_packet(**fields))
        method = fields.get("authentication_method")
        while True:
            packet = await self.receive()
            if isinstance(packet, Auth) and answer is not None:
                data = answer(packet.authentication_data)
                await self.send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, method, data))
                continue
            if not isinstance(packet, ConnAck):
                raise AssertionError(f"{self!r}: got {packet!r}, expected ConnAck()")
            if not packet.reason_code:
                self.connack = packet
                self.client_id = packet.assigned_client_identifier or self.client_id
                self._let_in.set()
            return packet

    async def try_publish(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        *,
        retain: bool = False,
        properties: PublishProperties | None = None,
    ) -> int:
        """Publish, finish what `qos` wants, and return the reason code, also of a refusal.

        What nobody acknowledges (QoS 0) and what has no reason code (MQTT 3) gives 0: look at who
        received it. Raises AssertionError if the broker ends the connection instead.
        """
        packet_id = self.next_id() if qos else 0
        await self.send(Publish(topic, payload, qos, retain, False, packet_id, properties))
        if qos == 0:
            await self.ping()  # so that a connection that is closed for it shows here
            return 0
        if qos == 1:
            return (await self.answer(PubAck, packet_id=packet_id)).reason_code
        received = await self.answer(PubRec, packet_id=packet_id)
        if received.reason_code >= ReasonCode.UNSPECIFIED_ERROR:
            return received.reason_code
        await self.send(PubRel(packet_id))
        await self.answer(PubComp, packet_id=packet_id)
        return received.reason_code

    async def try_subscribe(self, topic_filter: str, qos: int = 0, **options: Any) -> int:
        """Subscribe to one filter; its reason code: the granted QoS, or 0x80 and above."""
        packet_id = self.next_id()
        request = SubscriptionRequest(topic_filter, qos, **options)
        await self.send(Subscribe(packet_id, (request,)))
        return (await self.answer(SubAck, packet_id=packet_id)).reason_codes[0]

    # -- the end, and what follows

    async def drop(self) -> None:
        """Break the connection without a word, and let the broker notice."""
        await super().drop()
        self._arrived.set()

    async def reconnect(self, *, session_present: bool = True, **fields: Any) -> "Client":
        """Break the connection if it is there, and come again to the same session.

        The fields of CONNECT are those of before, with clean start off, unless `fields` say other.
        Returns the new Client; nothing of the old one is carried over but the identifier.
        """
        if not self._ended:
            await self.drop()
        client = self._again(self)
        again: Mapping[str, Any] = self._connect_fields | {"clean_start": False} | fields
        await client.connect(session_present=session_present, **again)
        return client

    def __repr__(self) -> str:
        return f"Client({self.client_id!r}, version={self.version})"
