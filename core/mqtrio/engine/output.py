"""What one client is sent: its outbox, and the answers that wait for the store."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mqtrio.engine.link import Link
from mqtrio.engine.short_way import PACKET_IDS
from mqtrio.reasons import ReasonCode
from mqtrio.state.aliases import OutgoingAliases
from mqtrio.state.message import Message
from mqtrio.state.session import Delivery, NotTaken, Session
from mqtrio.store.batch import Batch, BatchState
from mqtrio.wire.decoder import Decoder
from mqtrio.wire.encoder import acknowledgement, encode_within, publish_parts
from mqtrio.wire.packets import MQTT_5, Packet

if TYPE_CHECKING:
    from mqtrio.engine.core import Core

#: The bit of `hold` that says: the client does not take its own answers.
OUTBOX: Final = 16

#: The bit of `hold` that says: too many answers wait for the store.
OWED: Final = 128

#: Answers that may wait for the store before reading pauses, beside those to announced PUBLISH.
MOST_OWED: Final = 2048

#: The largest packet that the standard knows, in bytes (2.1.4).
LARGEST: Final = 268_435_460

PUBACK: Final = 4
PUBREL: Final = 6
PUBACK_BYTE: Final = 0x40
PUBREC_BYTE: Final = 0x50

#: Told whether what was promised has been stored.
Settled = Callable[[bool], None]

#: What an answer waits for, the answer (or many PUBACKs), the one to give if it fails, who is told.
Owed = tuple[Batch, bytes | list[bytes], bytes | None, Settled | None]


class Output:
    """The half of a connection that writes (the other one is connection.py).

    `out` are the frames for the link, `extra_parts` more of them than packets; while it is
    `blocked`, `queued` counts the bytes that the client has not taken. `owed` are answers whose
    promise is not stored yet, in MQTT's order: `owing` in all, of which `owed_pubacks` are PUBACKs,
    many of them together where they can be. `progress` counts the bytes taken, `settled` those of
    acknowledged messages; `slow`: there was too little of both for too long. `stalled` are the
    publishers that wait for this client.
    """

    __slots__ = (
        "core",
        "link",
        "decoder",
        "session",
        "version5",
        "hold",
        "closed",
        "out",
        "extra_parts",
        "blocked",
        "queued",
        "owed",
        "owed_pubacks",
        "owing",
        "slow",
        "progress",
        "settled",
        "stalled",
        "outgoing_aliases",
        "maximum_packet_size",
        "receive_maximum",
    )

    def __init__(self, core: "Core", link: Link) -> None:
        self.core = core
        self.link = link
        self.decoder = Decoder(
            min(core.limits.connect_packet_size, core.limits.maximum_packet_size), core.topics
        )
        self.session: Session | None = None
        self.version5 = False
        self.hold = 0
        self.closed = False
        self.out: list[bytes] = []
        self.extra_parts = 0
        self.blocked = False
        self.queued = 0
        self.owed: deque[Owed] | None = None
        self.owed_pubacks = 0
        self.owing = 0
        self.slow = False
        self.progress = 0
        self.settled = 0
        self.stalled: list[Any] | None = None
        self.outgoing_aliases: OutgoingAliases | None = None
        self.maximum_packet_size = LARGEST
        self.receive_maximum = 0

    def close(self, reason_code: int, why: str, *, say: bool = True) -> None:
        """End the connection; see connection.py."""
        raise NotImplementedError

    def await_room(self) -> None:
        """Read no more until the store has caught up; see connection.py."""
        raise NotImplementedError

    def wake(self, bit: int) -> None:
        """One reason to read nothing is gone; see connection.py."""
        raise NotImplementedError

    # -- packets

    def write(self, data: bytes) -> None:
        """Add bytes to what goes out at the end of this turn; nothing follows the goodbye."""
        if self.closed:
            return
        out = self.out
        if not out:
            self.core.dirty.append(self)
        out.append(data)
        if self.blocked:
            self._account(len(data))
            if self.queued > self.core.limits.outbox_hard:
                self.hold |= OUTBOX

    def reply(
        self,
        data: bytes,
        batch: Batch,
        failed: bytes | None = None,
        settled: "Settled | None" = None,
    ) -> None:
        """Answer in MQTT's order, once what the answer promises is stored.

        `failed` goes out instead when it could not be stored; without it, or in MQTT 3, the
        connection is closed. `settled` is told which of both has happened.
        """
        owed = self.owed
        if not owed and batch.state is BatchState.DONE:
            self.write(data)
            if settled is not None:
                settled(True)
            return
        if owed is None:
            owed = self.owed = deque()
        owed.append((batch, data, failed, settled))
        self.owing += 1
        if data[0] == PUBACK_BYTE:
            self.owed_pubacks += 1
        if batch.state is BatchState.OPEN:
            batch.waiters[self] = None
            if self.core.recorder.full:
                self.await_room()
        elif len(owed) == 1:
            self.released(batch)
        if self.owing > MOST_OWED + self.receive_maximum:
            self.hold |= OWED

    def owe(self, puback: bytes, batch: Batch) -> None:
        """`reply` with the PUBACK of a message whose batch is open; those of a batch go together.

        If it fails, an MQTT 5 client gets a PUBACK that says so.
        """
        owed = self.owed
        if owed is None:
            owed = self.owed = deque()
        if owed and owed[-1][0] is batch and owed[-1][1].__class__ is list:
            owed[-1][1].append(puback)
        else:
            owed.append((batch, [puback], None, None))
            batch.waiters[self] = None
        self.owing += 1
        self.owed_pubacks += 1
        if self.core.recorder.journal.full:
            self.await_room()
        if self.owing > MOST_OWED + self.receive_maximum:
            self.hold |= OWED

    def released(self, batch: Batch) -> None:
        """A batch has been committed, or has failed: pay what is owed, in order."""
        owed = self.owed
        while owed and owed[0][0].state is not BatchState.OPEN and not self.closed:
            done, data, failed, settled = owed.popleft()
            if isinstance(data, list):
                self._pay(data, done)
                continue
            self.owing -= 1
            if data[0] == PUBACK_BYTE:
                self.owed_pubacks -= 1
            if done.state is BatchState.DONE:
                self.write(data)
                if settled is not None:
                    settled(True)
                continue
            if settled is not None:
                settled(False)
            if failed is not None and self.version5:
                of_publish = failed[0] in (PUBACK_BYTE, PUBREC_BYTE)
                self.write(self._no_room(failed) if done.full and of_publish else failed)
            else:
                self.close(ReasonCode.UNSPECIFIED_ERROR, "the store failed")
        if self.hold & OWED and self.owing <= MOST_OWED // 2:
            self.wake(OWED)

    def _no_room(self, answer: bytes) -> bytes:
        """The PUBACK or PUBREC of a message for which the store was too full."""
        packet_id = int.from_bytes(answer[2:4], "big")
        code = ReasonCode.QUOTA_EXCEEDED
        return acknowledgement(answer[0] >> 4, packet_id, code, self.decoder.version)

    def _pay(self, pubacks: list[bytes], batch: Batch) -> None:
        self.owing -= len(pubacks)
        self.owed_pubacks -= len(pubacks)
        if batch.state is BatchState.DONE:
            self.write(b"".join(pubacks))
            self.extra_parts -= len(pubacks) - 1
        elif self.version5:
            for puback in pubacks:
                if batch.full:
                    self.write(self._no_room(puback))
                    continue
                packet_id = int.from_bytes(puback[2:4], "big")
                code = ReasonCode.UNSPECIFIED_ERROR
                self.write(acknowledgement(PUBACK, packet_id, code, self.decoder.version))
        else:
            self.close(ReasonCode.UNSPECIFIED_ERROR, "the store failed")

    def send(self, packet: Packet) -> bool:
        """Write a packet within the client's maximum packet size; False if it can't be."""
        version = self.decoder.version or MQTT_5
        data = encode_within(packet, version, self.maximum_packet_size)
        if data is None:
            return False
        self.write(data)
        return True

    # -- messages

    def _account(self, size: int) -> None:
        self.queued += size
        self.core.memory += size

    def room(self, size: int) -> bool:
        """Whether a QoS 0 frame may be added to an outbox that is already waiting [DESIGN 5].

        One that is not slow gets it in any case: its publisher waits afterwards.
        """
        pressure = self.core.pressure
        limits = self.core.limits
        waits = pressure.enabled and not self.slow
        if self.closed or (self.queued + size > limits.outbox_hard and not waits):
            return False
        self._account(size)
        if self.queued > limits.outbox_soft and waits:
            pressure.congested[self] = None
        return True

    def pass_on(
        self, message: Message, retain: bool, identifiers: tuple[int, ...]
    ) -> NotTaken | None:
        """Write a message at QoS 0."""
        frame = self._frame(message, 0, retain, identifiers, False)
        if frame is None:
            return "packet_too_large"  # [MQTT-3.1.2-25]
        head = frame[0]
        if self.blocked and not self.room(len(head)):
            if self.outgoing_aliases is not None:
                self.outgoing_aliases.forget(message.topic)  # this packet may have brought it
            return "outbox_full"
        out = self.out
        if not out:
            self.core.dirty.append(self)
        out.append(head)
        return None

    def transmit(self, delivery: Delivery) -> NotTaken | None:
        """Write a message at QoS 1 or 2 and open its flight; returns why that can never be."""
        session = self.session
        assert session is not None
        frame = self._frame(
            delivery.message, delivery.qos, delivery.retain, delivery.identifiers, delivery.sent
        )
        if frame is None:
            return "packet_too_large"  # [MQTT-3.1.2-25]
        head, tail = frame
        packet_id = session.open_flight(delivery)
        if not delivery.sent:
            delivery.sent = True
            if session.stored and delivery.qos == 1:
                self.core.recorder.sent(session, delivery)
        out = self.out
        if not out:
            self.core.dirty.append(self)
        out += (head, PACKET_IDS[packet_id], tail)
        self.extra_parts += 2
        return None

    def _frame(
        self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...], dup: bool
    ) -> tuple[bytes, bytes] | None:
        session = self.session
        assert session is not None
        aliases = self.outgoing_aliases
        if aliases is not None:
            alias, first = aliases.use(message.topic)
            if alias:
                remaining = -1
                if message.expires_at >= 0:
                    remaining = max(0, int(message.expires_at - self.core.now + 0.999))
                frame = publish_parts(
                    message.topic if first else "",
                    message.payload,
                    qos,
                    retain,
                    message.properties,
                    MQTT_5,
                    identifiers,
                    alias,
                    dup,
                    remaining,
                )
                if self._fits(frame, qos):
                    return frame
                aliases.forget(message.topic)  # without one it may be shorter
        frame = message.parts(self.version5, qos, retain, identifiers, self.core.now)
        if not self._fits(frame, qos):
            return None
        if dup:  # [MQTT-3.3.1-1]
            head = frame[0]
            frame = (bytes((head[0] | 8,)) + head[1:], frame[1])
        return frame

    def _fits(self, frame: tuple[bytes, bytes], qos: int) -> bool:
        size = len(frame[0]) + len(frame[1]) + (2 if qos else 0)
        return size <= self.maximum_packet_size

    def release(self, packet_id: int) -> None:
        """Write PUBREL."""
        self.write(acknowledgement(PUBREL, packet_id, 0, self.decoder.version))
