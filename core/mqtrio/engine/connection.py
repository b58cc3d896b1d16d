"""One client's connection: its input, what it waits for, what it is owed, and its end.

A connection knows no socket: a link (engine/link.py) brings bytes and takes them away. Everything
here is synchronous; what must be awaited is a step of a generator (engine/steps.py).
"""

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mqtrio.engine import short_way
from mqtrio.engine.link import Link, PeerFacts
from mqtrio.engine.short_way import PACKET_IDS, PACKET_WORK
from mqtrio.engine.steps import StepRunner, Steps
from mqtrio.engine.timers import Timer
from mqtrio.errors import ProtocolError
from mqtrio.hooks.answers import ClientLimits, Permissions
from mqtrio.hooks.client import ClientFacts
from mqtrio.reasons import ReasonCode
from mqtrio.state.aliases import IncomingAliases, OutgoingAliases
from mqtrio.state.message import Message
from mqtrio.state.session import WIRE_3, Delivery, Session
from mqtrio.store.batch import Batch, BatchState
from mqtrio.wire.decoder import Decoder
from mqtrio.wire.encoder import acknowledgement, encode_within, publish_parts
from mqtrio.wire.packets import MQTT_5, Connect, Disconnect, Packet, Publish

if TYPE_CHECKING:
    from mqtrio.engine.connect import Exchange
    from mqtrio.engine.core import Core
    from mqtrio.engine.wills import PendingWill

# Why a connection does not go on with its input: bits of `hold`.
HOOK: Final = 1  # a hook thinks
STALL: Final = 2  # a subscriber of its messages is behind
BUDGET: Final = 4  # it had its share of this turn
JOURNAL: Final = 8  # too much waits for the store
OUTBOX: Final = 16  # it does not take its own answers
THROTTLE: Final = 32  # a plugin asked for a pause
STOPPING: Final = 64  # the broker takes no more input

#: Packets that are decoded in one go.
TAKE: Final = 256

#: Undecoded bytes that a connection may always hold, whatever the others hold.
SMALL: Final = 64 * 1024

#: Topics whose permission a connection remembers.
REMEMBERED: Final = 1000

#: The largest packet that the standard knows, in bytes (2.1.4).
LARGEST: Final = 268_435_460

PUBREL: Final = 6
PUBACK_BYTE: Final = 0x40

#: Told whether what was promised has been stored.
Settled = Callable[[bool], None]

Handler = Callable[["Connection", Any], None]


class Connection:
    """The server's end of one network connection (4.2)."""

    __slots__ = (
        "core",
        "link",
        "peer",
        "client",
        "timer",
        "decoder",
        "undecoded",
        "packets",
        "at",
        "hold",
        "ended",
        "closed",
        "handlers",
        "steps",
        # output
        "out",
        "blocked",
        "queued",
        "slow",
        "progress",
        "watched",
        "owed",
        "owed_pubacks",
        # who it is
        "connect",
        "version5",
        "client_id",
        "username",
        "session",
        "arrival",
        "will",
        "keep_alive",
        "last_seen",
        "deadline",
        "permissions",
        "limits",
        "credentials_expire_at",
        "authentication",
        "announced",
        "asked",
        "receive_maximum",
        "said_goodbye",
        "maximum_qos",
        "remembered",
        # MQTT 5
        "incoming_aliases",
        "outgoing_aliases",
        "maximum_packet_size",
        "problem_information",
        # backpressure
        "stalls",
        "stalled",
    )

    def __init__(self, core: "Core", link: Link) -> None:
        self.core = core
        self.link = link
        self.peer: PeerFacts = link.peer
        self.client = ClientFacts(
            address=link.peer.address, listener=link.peer.listener, tls=link.peer.tls
        )
        self.timer: Timer | None = None
        self.decoder = Decoder(
            min(core.limits.connect_packet_size, core.limits.maximum_packet_size), core.topics
        )
        self.undecoded = 0
        self.packets: list[Packet] = []
        self.at = 0
        self.hold = 0
        self.ended = False
        self.closed = False
        self.handlers: dict[type, Handler] = core.handlers.BEFORE_CONNECT
        self.steps: StepRunner | None = None

        self.out: list[bytes] = []
        self.blocked = False
        self.queued = 0
        self.slow = False
        self.progress = 0
        self.watched = 0
        self.owed: deque[tuple[Batch, bytes, bytes | None, Settled | None]] | None = None
        self.owed_pubacks = 0

        self.connect: Connect | None = None
        self.version5 = False
        self.client_id = ""
        self.username: str | None = None
        self.session: Session | None = None
        self.arrival = 0
        self.will: PendingWill | None = None
        self.keep_alive = 0.0
        self.last_seen = core.now
        self.deadline = core.now + core.limits.connect_timeout
        self.permissions: Permissions | None = None
        self.limits: ClientLimits | None = None
        self.credentials_expire_at = -1.0
        self.authentication: Exchange | None = None
        self.announced = False
        self.asked = True
        self.receive_maximum = 0
        self.said_goodbye = False
        self.maximum_qos: int = core.settings.session.maximum_qos
        self.remembered: set[str] | None = None

        self.incoming_aliases: IncomingAliases | None = None
        self.outgoing_aliases: OutgoingAliases | None = None
        self.maximum_packet_size = LARGEST
        self.problem_information = True

        self.stalls = 0
        self.stalled: list[Any] | None = None
        core.connections.add(self)
        self.watch(self.deadline)

    # -- input

    def receive(self, data: bytes) -> None:
        """Bytes from the peer. Raises ProtocolError for what the standard forbids."""
        if self.closed:
            return
        core = self.core
        self.last_seen = core.now
        core.statistics.bytes_received += len(data)
        decoder = self.decoder
        decoder.feed(data)
        if not self.hold:
            self.run()
        if (self.undecoded or not decoder.idle) and not self.closed:
            self._hold_bytes(decoder.buffered)

    def _hold_bytes(self, held: int) -> None:
        """Account for what the decoder keeps: a packet that is still incomplete, or a backlog."""
        core = self.core
        core.memory += held - self.undecoded
        grows = held > self.undecoded
        self.undecoded = held
        if grows and held > SMALL and core.memory > core.limits.memory:
            raise ProtocolError(ReasonCode.QUOTA_EXCEEDED, "the broker has no room for this packet")

    def run(self) -> None:
        """Handle what has been received until it is used up or something must be waited for."""
        core = self.core
        budget = core.budget
        decoder = self.decoder
        while True:
            packets = self.packets
            at = self.at
            count = len(packets)
            while at < count:
                packet = packets[at]
                core.work += PACKET_WORK
                if packet.__class__ is Publish and not self.asked:
                    # Set before: what is handled may end the connection or make it wait.
                    self.at = at + 1
                    at = self.at = short_way.take(self, packets, at)
                else:
                    at += 1
                    self.at = at
                    self.handlers[packet.__class__](self, packet)
                if self.hold or self.closed:
                    return
                if core.work >= budget:
                    self.hold = BUDGET
                    self.link.again()
                    return
            if decoder.idle:
                break
            packets = decoder.take(TAKE)
            if not packets:
                break
            core.statistics.packets_received += len(packets)
            self.packets = packets
            self.at = 0
        self.packets = []
        self.at = 0
        if self.ended:
            self.close(ReasonCode.UNSPECIFIED_ERROR, "connection lost", say=False)

    def end_of_input(self) -> None:
        """The peer will send no more; what it sent before is handled first."""
        if self.closed:
            return
        self.ended = True
        if not self.hold:
            self.close(ReasonCode.UNSPECIFIED_ERROR, "connection lost", say=False)

    def proceed(self) -> None:
        """Its turn has come again: go on where it stopped."""
        if self.session is not None and self.session.replays:
            self.core.deliveries.replay(self.session)
        self.unhold(BUDGET)

    def unhold(self, bit: int) -> None:
        """One reason to wait is gone; with the last one the input goes on."""
        if not self.hold & bit:
            return
        self.hold &= ~bit
        if self.hold or self.closed:
            return
        self.last_seen = self.core.now
        self.core.guard(self, self.run)
        if self._listening():
            self.link.resume()

    def _listening(self) -> bool:
        return not self.hold and not self.closed

    def wake(self, bit: int) -> None:
        """Like `unhold`, but in this connection's own turn, never inside of another's."""
        if not self.hold & bit or self.closed:
            return
        queued = self.hold & BUDGET
        self.hold = self.hold & ~bit | BUDGET
        if not queued:
            self.link.again()

    def start(self, steps: Steps) -> None:
        """Run a handler that may have to wait; its connection pauses while it does."""
        runner = self.steps
        if runner is None:
            runner = self.steps = StepRunner(self)
        runner.start(steps)

    # -- output

    def write(self, data: bytes) -> None:
        """Add bytes to what goes out at the end of this turn."""
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
        if data[0] == PUBACK_BYTE:
            self.owed_pubacks += 1
        if batch.state is BatchState.OPEN:
            batch.waiters[self] = None
        elif len(owed) == 1:
            self.released(batch)

    def released(self, batch: Batch) -> None:
        """A batch has been committed, or has failed: pay what is owed, in order."""
        owed = self.owed
        while owed and owed[0][0].state is not BatchState.OPEN and not self.closed:
            done, data, failed, settled = owed.popleft()
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
                self.write(failed)
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

    def _account(self, size: int) -> None:
        self.queued += size
        self.core.memory += size

    def room(self, size: int) -> bool:
        """Whether a QoS 0 frame may be added to an outbox that is already waiting [DESIGN 5]."""
        limits = self.core.limits
        if self.queued + size > limits.outbox_hard or self.closed:
            return False
        self._account(size)
        if self.queued > limits.outbox_soft and not self.slow:
            self.core.pressure.congested[self] = None
        return True

    def pass_on(self, message: Message, retain: bool, identifiers: tuple[int, ...]) -> bool:
        """Write a message at QoS 0."""
        frame = self._frame(message, 0, retain, identifiers, False)
        if frame is None:
            return True  # too large for this client: as if delivered [MQTT-3.1.2-25]
        head = frame[0]
        if self.blocked and not self.room(len(head)):
            return False
        out = self.out
        if not out:
            self.core.dirty.append(self)
        out.append(head)
        return True

    def transmit(self, delivery: Delivery) -> bool:
        """Write a message at QoS 1 or 2 and open its flight."""
        session = self.session
        assert session is not None
        frame = self._frame(
            delivery.message, delivery.qos, delivery.retain, delivery.identifiers, delivery.sent
        )
        if frame is None:
            return False
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
        return True

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
                if first:
                    aliases.forget(message.topic)
                return None
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

    def drained(self) -> None:
        """The link has sent everything: what waited for it may go on."""
        session = self.session
        if session is not None and not self.closed:
            self.core.deliveries.pump(session)
        if self.stalled is not None or self.slow:
            self.core.pressure.relieved(self)
        if self.hold & OUTBOX:
            self.wake(OUTBOX)

    # -- pressure

    def again(self) -> None:
        """Have a turn of its own soon."""
        self.link.again()

    def stall(self) -> None:
        """Publish no more for now: a subscriber is behind."""
        self.hold |= STALL

    def unstall(self) -> None:
        """The subscribers have caught up, or are given up."""
        self.wake(STALL)

    def throttle(self, seconds: float) -> None:
        """A plugin wants nothing more to be read for so long."""
        self.hold |= THROTTLE
        timers = self.core.timers
        timers.call_at(self.core.now + seconds, lambda now: self.wake(THROTTLE))

    def await_room(self) -> None:
        """The store is behind: read no more until it has caught up."""
        if not self.hold & JOURNAL:
            self.hold |= JOURNAL
            self.core.recorder.journal.on_room(lambda: self.wake(JOURNAL))

    # -- what it may

    @property
    def subscription_limit(self) -> int:
        """Subscriptions that its session may hold."""
        own = self.limits.subscriptions if self.limits is not None else None
        return self.core.limits.subscriptions_per_session if own is None else own

    def remembers(self, topic: str) -> bool:
        """Whether publishing to `topic` was allowed once and for all."""
        remembered = self.remembered
        return remembered is not None and topic in remembered

    def remember(self, topic: str) -> None:
        """Publishing to `topic` need not be asked about again."""
        if self.remembered is None or len(self.remembered) >= REMEMBERED:
            self.remembered = set()
        self.remembered.add(topic)

    def ask_again(self) -> None:
        """Plugins or permissions have changed: nothing is remembered."""
        self.remembered = None
        self.asked = not self.core.hooks.publish_is_plain or self.permissions is not None

    def forget_will(self) -> None:
        """The will is not to be published [MQTT-3.14.4-3]."""
        if self.will is not None:
            self.core.recorder.will_gone(self.client_id)
            self.will = None

    # -- time

    def watch(self, due: float) -> None:
        """Look at the deadlines again at `due`, or earlier if that was arranged already."""
        if self.timer is not None:
            if self.timer.function is not None and self.timer.when <= due:
                return
            self.core.timers.cancel(self.timer)
        self.timer = self.core.timers.call_at(due, self._check)

    def _check(self, now: float) -> None:
        if self.closed:
            return
        if not self.announced:
            if self.session is not None:
                pass  # it is let in: what CONNACK waits for is the store
            elif now < self.deadline:
                self.watch(self.deadline)
            elif self.connect is None:
                self.close(ReasonCode.UNSPECIFIED_ERROR, "no CONNECT in time", say=False)
            else:
                self.core.refuse(self, ReasonCode.NOT_AUTHORIZED, "authentication took too long")
            return
        due = math.inf
        if self.keep_alive:
            if self.hold:
                self.last_seen = now  # it may have spoken: we did not listen
            due = self.last_seen + 1.5 * self.keep_alive
            if due <= now:  # [MQTT-3.1.2-22]
                self.close(ReasonCode.KEEP_ALIVE_TIMEOUT, "keep alive timeout")
                return
        if self.credentials_expire_at >= 0:
            if self.credentials_expire_at <= now:
                self.close(ReasonCode.NOT_AUTHORIZED, "the credentials have expired")
                return
            due = min(due, self.credentials_expire_at)
        if self.authentication is not None and self.authentication.running:
            if self.deadline <= now:
                self.close(ReasonCode.NOT_AUTHORIZED, "authentication took too long")
                return
            due = min(due, self.deadline)
        if due < math.inf:
            self.watch(due)

    # -- the end

    def disconnect(self, reason_code: int, why: str, server_reference: str | None = None) -> None:
        """Say DISCONNECT where the version has it, then close."""
        if not self.closed and self.announced and self.version5:
            self.send(Disconnect(reason_code, reason_string=why, server_reference=server_reference))
        self.close(reason_code, why, say=False)

    def close(self, reason_code: int, why: str, *, say: bool = True) -> None:
        """End this connection; `why` goes to the log and into a DISCONNECT, where there is one.

        [MQTT-4.13.1-1], [MQTT-3.14.4-2]
        """
        if self.closed:
            return
        if say and self.announced and self.version5:
            self.send(Disconnect(reason_code, reason_string=why))  # [MQTT-3.14.0-1]
        self.closed = True
        self.packets = []
        self.at = 0
        if self.timer is not None:
            self.core.timers.cancel(self.timer)
        if self.steps is not None:
            self.steps.cancel()
        self.core.connection_closed(self, reason_code, why)
        self.link.close()

    def lost(self) -> None:
        """The link is gone without a word."""
        self.close(ReasonCode.UNSPECIFIED_ERROR, "connection lost", say=False)

    def fail(self, error: ProtocolError) -> None:
        """The peer broke the standard: tell it, in the form its version has, and close."""
        if not self.announced:
            self.core.refuse(self, error.reason_code, error.message)
        else:
            self.close(error.reason_code, error.message)

    @property
    def profile(self) -> int:
        """How messages must be written for this connection."""
        return WIRE_3 if self.session is None else self.session.profile

    def __repr__(self) -> str:
        return f"Connection({self.client_id!r}, {self.peer.address})"
