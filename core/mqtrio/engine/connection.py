"""One client's connection: its input, what it waits for, what it is owed, and its end.

A connection knows no socket: a link (engine/link.py) brings bytes and takes them away. Everything
here is synchronous; what must be awaited is a step of a generator (engine/steps.py).
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mqtrio.engine import short_way, weights
from mqtrio.engine.link import Link, PeerFacts
from mqtrio.engine.output import OUTBOX, Output
from mqtrio.engine.short_way import PACKET_WORK
from mqtrio.engine.steps import StepRunner, Steps
from mqtrio.engine.timers import Timer
from mqtrio.errors import ProtocolError
from mqtrio.hooks.answers import ClientLimits, Permissions
from mqtrio.hooks.client import ClientFacts
from mqtrio.reasons import ReasonCode
from mqtrio.state.aliases import IncomingAliases
from mqtrio.wire.packets import Connect, Disconnect, Packet, Publish

if TYPE_CHECKING:
    from mqtrio.engine.authenticate import Exchange
    from mqtrio.engine.core import Core
    from mqtrio.engine.mount import MountPoint
    from mqtrio.engine.wills import PendingWill

# Why a connection does not go on with its input: bits of `hold`.
STALL: Final = 2  # a subscriber of its messages is behind
BUDGET: Final = 4  # it had its share of this turn
JOURNAL: Final = 8  # too much waits for the store
THROTTLE: Final = 32  # a plugin asked for a pause
STOPPING: Final = 64  # the broker takes no more input

#: Packets that are decoded in one go.
TAKE: Final = 256

#: Undecoded bytes that a connection may always hold, whatever the others hold: more than one read.
SMALL: Final = 128 * 1024

#: Topics whose permission a connection remembers.
REMEMBERED: Final = 1000

#: Longer topics are not remembered.
LONGEST_REMEMBERED: Final = 256

#: Never added to.
NO_PACKETS: Final[list[Packet]] = []

Handler = Callable[["Connection", Any], None]


class Connection(Output):
    """The server's end of one network connection (4.2)."""

    __slots__ = (
        "peer",
        "client",
        "timer",
        "pause",
        "undecoded",
        "weight",
        "packets",
        "at",
        "ended",
        "handlers",
        "steps",
        # who it is
        "connect",
        "client_id",
        "username",
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
        "shortly",
        "said_goodbye",
        "maximum_qos",
        "remembered",
        "rulings",
        # MQTT 5
        "incoming_aliases",
        "problem_information",
        "stalls",
    )

    def __init__(self, core: "Core", link: Link, client: ClientFacts | None = None) -> None:
        super().__init__(core, link)
        self.peer: PeerFacts = link.peer
        self.client = client or ClientFacts.of(link.peer)
        self.timer: Timer | None = None
        self.pause: Timer | None = None
        self.undecoded = 0
        self.packets: list[Packet] = []
        self.at = 0
        self.ended = False
        self.handlers: dict[type, Handler] = core.handlers.BEFORE_CONNECT
        self.steps: StepRunner | None = None

        self.connect: Connect | None = None
        self.client_id = ""
        self.username: str | None = None
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
        self.shortly = False
        self.said_goodbye = False
        self.maximum_qos: int = core.settings.session.maximum_qos
        self.remembered: set[str] | None = None
        self.rulings = 0

        self.incoming_aliases: IncomingAliases | None = None
        self.problem_information = True

        self.stalls = 0
        self.weight = 0
        self.weigh(weights.CONNECTION + link.weight)
        core.connections.add(self)
        self.watch(self.deadline)

    #: The prefix of all its topics, in connections that have one (engine/mount.py).
    mount: "MountPoint | None" = None

    def connected_handlers(self) -> "dict[type, Handler]":
        """What handles its packets once it is let in."""
        handlers: dict[type, Handler] = self.core.handlers.CONNECTED
        return handlers

    # -- input

    def receive(self, data: bytes) -> None:
        """Bytes from the peer. Raises ProtocolError for what the standard forbids."""
        if self.closed:
            return
        core = self.core
        core.statistics.bytes_received += len(data)
        decoder = self.decoder
        decoder.feed(data)
        if not self.hold:
            self.run()
        if (self.undecoded or self.hold or not decoder.idle) and not self.closed:
            self._hold_bytes(len(data))

    def introduce(self, peer: PeerFacts) -> None:
        """The handshakes of its layers are done: who the peer is."""
        self.peer = peer
        self.client.introduce(peer)

    def _hold_bytes(self, more: int) -> None:
        """Account for input that is not handled: an incomplete packet, or all while it waits."""
        core = self.core
        buffered = self.decoder.buffered
        held = self.undecoded + more if self.hold else buffered
        core.memory += held - self.undecoded
        self.undecoded = held
        if more and buffered > SMALL and core.memory > core.limits.memory:
            raise ProtocolError(ReasonCode.QUOTA_EXCEEDED, "the broker has no room for this packet")

    def run(self) -> None:
        """Handle what has been received until it is used up or something must be waited for."""
        core = self.core
        budget = core.budget
        decoder = self.decoder
        packets = self.packets
        at = self.at
        while True:
            if at >= len(packets):
                packets = self.packets = NO_PACKETS if decoder.idle else decoder.take(TAKE)
                at = self.at = 0
                if not packets:
                    break
                core.statistics.packets_received += len(packets)
                self.last_seen = core.now  # packets count, not bytes [MQTT-3.1.2-22]
            packet = packets[at]
            core.work += PACKET_WORK
            if packet.__class__ is Publish and self.shortly:
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
        if self.session is not None:
            self.core.deliveries.go_on(self.session)
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
        if self.undecoded and not self.closed:
            self._hold_bytes(0)
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

    # -- pressure

    def drained(self) -> None:
        """The link has sent everything: what waited for it may go on."""
        session = self.session
        if session is not None and session.outlet is self:
            self.core.deliveries.pump(session)  # which lets publishers go on when enough is gone
        if self.hold & OUTBOX:
            self.wake(OUTBOX)

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
        if self.pause is not None:
            timers.cancel(self.pause)
        self.pause = timers.call_at(self.core.now + seconds, lambda now: self.wake(THROTTLE))

    def await_room(self) -> None:
        """The store is behind: read no more until it has caught up."""
        if not self.hold & JOURNAL:
            self.hold |= JOURNAL
            self.core.recorder.journal.on_room(lambda: self.wake(JOURNAL))

    def weigh(self, more: int) -> None:
        """It keeps so much more, or less, as long as it lasts."""
        self.weight += more
        self.core.memory += more

    # -- what it means, and may

    def resolve_alias(self, packet: Publish) -> None:
        """Find the topic that a packet means, in it or by its alias, which it has no more then."""
        properties = packet.properties
        aliases = self.incoming_aliases
        if properties is None or aliases is None:
            return
        before = aliases.bytes
        packet.topic = aliases.resolve(packet.topic, properties.topic_alias)
        properties.topic_alias = None
        if aliases.bytes != before:
            self.weigh(aliases.bytes - before)

    @property
    def subscription_limit(self) -> int:
        """Subscriptions that its session may hold."""
        own = self.limits.subscriptions if self.limits is not None else None
        return self.core.limits.subscriptions_per_session if own is None else own

    def remembers(self, topic: str) -> bool:
        """Whether publishing to `topic` was allowed once and for all."""
        remembered = self.remembered
        return remembered is not None and topic in remembered

    def remember(self, topic: str, rulings: int) -> None:
        """Publishing to `topic` need not be asked about again.

        Unless `rulings`, as it stood when that was asked, is another one now: who would decide
        today has not been asked then.
        """
        if rulings != self.rulings or len(topic) > LONGEST_REMEMBERED:
            return
        if self.remembered is None or len(self.remembered) >= REMEMBERED:
            self.remembered = set()
        self.remembered.add(topic)

    def ask_again(self) -> None:
        """Plugins or permissions have changed: nothing is remembered."""
        self.remembered = None
        self.rulings += 1
        hooks = self.core.hooks
        self.asked = not hooks.publish_is_plain or self.permissions is not None
        # Who transforms a message, or is told of each receiver, gets it the long way.
        self.shortly = not (hooks.transform_publish or hooks.delivered or hooks.dropped)

    def forget_credentials(self) -> None:
        """Hold no longer what is large or secret in CONNECT, unless it may be asked for again."""
        packet = self.connect
        if packet is None or self.authentication is not None:
            return
        if packet.password is not None or packet.user_properties:
            weight = weights.of_connect(packet)
            packet.password = None
            packet.user_properties = ()
            self.weigh(weights.of_connect(packet) - weight)

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
                what = "CONNECT" if self.link.agreed else "handshake"
                self.close(ReasonCode.UNSPECIFIED_ERROR, f"no {what} in time", say=False)
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
        core = self.core
        if say and self.announced and self.version5:  # [MQTT-3.14.0-1]
            core.attempt(self.send, Disconnect(reason_code, reason_string=why))
        self.closed = True
        self.packets = []
        self.at = 0
        if self.timer is not None:
            self.core.timers.cancel(self.timer)
        if self.pause is not None:
            self.core.timers.cancel(self.pause)
        if self.steps is not None:
            self.steps.cancel()
            self.steps = None  # each would keep the other
        # Whatever goes wrong with what it leaves behind, its link is closed, and nobody else's.
        core.attempt(core.connection_closed, self, reason_code, why)
        self.link.close()

    def starve(self) -> None:
        """It takes no bytes: what waits for it is let go."""
        self.close(ReasonCode.UNSPECIFIED_ERROR, "it takes no bytes", say=False)
        self.link.abort()

    def say_goodbye(self) -> None:
        """The broker stops."""
        self.close(ReasonCode.SERVER_SHUTTING_DOWN, "the broker is stopping")

    def lost(self) -> None:
        """The link is gone without a word."""
        self.close(ReasonCode.UNSPECIFIED_ERROR, "connection lost", say=False)

    def fail(self, error: ProtocolError) -> None:
        """The peer broke the standard: tell it, in the form its version has, and close."""
        if not self.announced:
            self.core.refuse(self, error.reason_code, error.message)
        else:
            self.close(error.reason_code, error.message)

    def __repr__(self) -> str:
        return f"Connection({self.client_id!r}, {self.peer.address})"
