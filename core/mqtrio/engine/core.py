"""The broker without sockets: all state of one broker, and what every part of the engine shares."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from mqtrio.clock import Clock
from mqtrio.engine import handlers
from mqtrio.engine.delivery import Deliveries
from mqtrio.engine.link import Link
from mqtrio.engine.observe import Observers
from mqtrio.engine.pressure import Pressure
from mqtrio.engine.recorder import Recorder
from mqtrio.engine.router import Router
from mqtrio.engine.sessions import Sessions
from mqtrio.engine.statistics import Statistics
from mqtrio.engine.timers import Timers
from mqtrio.engine.wills import Wills
from mqtrio.errors import ProtocolError
from mqtrio.hooks.manager import HookManager
from mqtrio.reasons import CONNECT_RETURN_CODES, ReasonCode
from mqtrio.settings import Settings
from mqtrio.state.message import Message
from mqtrio.state.retained import RetainedMessages
from mqtrio.store.journal import Journal
from mqtrio.wire.decoder import TopicCache
from mqtrio.wire.packets import MQTT_5, ConnAck, Disconnect

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection

log = logging.getLogger("mqtrio.engine")

#: Outboxes written in one go; a longer list goes on in the next turns, behind fresh ones.
FLUSH: Final = 500


class Dirty(Protocol):
    """Something with bytes to write at the end of this turn."""

    link: Link


class Core:
    """Holds the state; the files of this folder hold what happens to it.

    `now` is the monotonic time of the current turn, `work` what the turn has cost so far, `dirty`
    the connections with bytes to write. `memory` counts the bytes held for all clients together.
    """

    def __init__(
        self, settings: Settings, hooks: HookManager, journal: Journal, clock: Clock
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.budget = settings.limits.turn_budget
        self.hooks = hooks
        self.clock = clock
        self.handlers = handlers
        self.now = clock.monotonic()
        self.work = 0
        self.memory = 0
        self.arrivals = 0
        self.stopping = False
        self.dirty: list[Dirty] = []
        self.behind: list[Dirty] = []
        self.connections: set[Connection] = set()
        self.topics = TopicCache()
        self.statistics = Statistics(self.now)
        self.timers = Timers(clock)
        self.recorder = Recorder(self, journal)
        self.router = Router(self)
        self.retained = RetainedMessages()
        self.sessions = Sessions(self)
        self.wills = Wills(self)
        self.pressure = Pressure(self)
        self.deliveries = Deliveries(self)
        self.observers = Observers(self)
        self.nursery: trio.Nursery | None = None
        self.kick: Callable[[], None] = _nothing
        self._flushing = False

    # -- turns

    def tick(self) -> None:
        """A turn begins: look at the clock once for all that happens in it."""
        self.now = self.clock.monotonic()
        self.work = 0

    def turn(self, function: Callable[..., None], *arguments: Any) -> None:
        """Make one call from outside of the poller (a timer, a commit) a turn of its own."""
        self.tick()
        try:
            function(*arguments)
        except Exception as error:
            self.statistics.crashes += 1
            log.exception("unexpected error: %r", error)
        finally:
            self.flush()

    def next_turn(self) -> Awaitable[None]:
        """Wait until all others had their turn."""
        self.flush()
        return _next_turn()

    def flush(self) -> None:
        """Write what this turn has produced, and a part of what earlier turns left."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self.dirty:
                dirty, self.dirty = self.dirty, []
                if len(dirty) > FLUSH:
                    self.behind += dirty[FLUSH:]
                    del dirty[FLUSH:]
                self._write(dirty)
            if self.behind:
                part = self.behind[:FLUSH]
                del self.behind[:FLUSH]
                self._write(part)
                if self.behind:
                    self.kick()
        finally:
            self._flushing = False

    def _write(self, dirty: list[Dirty]) -> None:
        for outlet in dirty:
            try:
                outlet.link.flush()
            except Exception as error:
                self.crash(outlet, error)  # type: ignore[arg-type]

    def spawn(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> bool:
        """Start a task that ends with the broker; False if the broker takes no more."""
        if self.nursery is None or self.stopping:
            return False
        self.nursery.start_soon(function, *arguments)
        return True

    # -- blame

    def guard(self, connection: "Connection", function: Callable[..., None], *arguments: Any) -> None:
        """Call for a connection; whatever goes wrong ends that connection and nothing else."""
        try:
            function(*arguments)
        except ProtocolError as error:
            connection.fail(error)
        except Exception as error:
            self.crash(connection, error)

    def crash(self, connection: "Connection", error: Exception) -> None:
        """Our mistake: the connection ends, the log has the traceback."""
        self.statistics.crashes += 1
        log.error(
            "internal error, closing %s", connection.peer.address, exc_info=error
        )
        if not connection.closed:
            connection.close(ReasonCode.UNSPECIFIED_ERROR, "internal error")

    # -- connections

    def refuse(
        self,
        connection: "Connection",
        reason_code: int,
        why: str,
        *,
        packet: ConnAck | None = None,
        server_reference: str | None = None,
    ) -> None:
        """End a connection that was not let in, with the CONNACK that its version has.

        [MQTT-3.1.4-1], [MQTT-3.1.4-2], [MQTT-3.2.2-6], [MQTT-3.2.2-7]
        """
        self.statistics.refused[ReasonCode(reason_code).name.lower()] += 1
        version = connection.decoder.version or connection.decoder.refused_level
        if version >= MQTT_5:
            answer = packet or ConnAck(
                reason_code=reason_code, reason_string=why, server_reference=server_reference
            )
            if reason_code in CONNACK_CODES:
                connection.decoder.version = MQTT_5
                connection.send(answer)
        elif version and reason_code in CONNECT_RETURN_CODES:
            connection.write(bytes((0x20, 2, 0, CONNECT_RETURN_CODES[reason_code])))
        connection.close(reason_code, why, say=False)

    def connection_closed(self, connection: "Connection", reason_code: int, why: str) -> None:
        """Called once for each connection, when it has just been closed."""
        self.connections.discard(connection)
        if connection.announced:
            self.statistics.connections_closed += 1
        self.memory -= connection.queued
        connection.queued = 0
        if connection.stalled is not None:
            self.pressure.release(connection)
        self.observers.disconnected(connection, reason_code, why)
        self.sessions.left(connection)

    # -- stopping

    def goodbye(self) -> None:
        """Tell all clients that the broker stops; their wills follow the standard."""
        for connection in list(self.connections):
            connection.close(ReasonCode.SERVER_SHUTTING_DOWN, "the broker is stopping")
        self.flush()


def _nothing() -> None:
    pass


async def _next_turn() -> None:
    await trio.lowlevel.checkpoint()
