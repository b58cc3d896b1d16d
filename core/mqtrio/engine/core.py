"""The broker without sockets: all state of one broker, and what every part of the engine shares."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from mqtrio.clock import Clock
from mqtrio.engine import handlers
from mqtrio.engine.background import Background
from mqtrio.engine.connection import STOPPING, Connection
from mqtrio.engine.delivery import Deliveries
from mqtrio.engine.doors import Doors
from mqtrio.engine.ended import EndedSessions
from mqtrio.engine.link import Link
from mqtrio.engine.mount import MountedConnection
from mqtrio.engine.observe import Observers
from mqtrio.engine.pages import Pages
from mqtrio.engine.pressure import Pressure
from mqtrio.engine.recorder import FirstCommit, Recorder
from mqtrio.engine.retention import Retention
from mqtrio.engine.router import Router
from mqtrio.engine.sessions import Sessions
from mqtrio.engine.statistics import Statistics
from mqtrio.engine.subscribe import Subscriptions
from mqtrio.engine.timers import Timers
from mqtrio.engine.wills import Wills
from mqtrio.errors import MqtrioError, ProtocolError
from mqtrio.hooks import combine
from mqtrio.hooks.answers import Deny
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import AcceptEvent
from mqtrio.hooks.manager import HookManager
from mqtrio.reasons import ALLOWED, CONNECT_RETURN_CODES, ReasonCode
from mqtrio.settings import Settings
from mqtrio.state.retained import RetainedMessages
from mqtrio.store.journal import Journal
from mqtrio.wire.decoder import TopicCache
from mqtrio.wire.packets import MQTT_3_1_1, MQTT_5, ConnAck

log = logging.getLogger("mqtrio.engine")

CONNACK: Final = 2

#: Outboxes written in one go; a longer list goes on in the next turns, behind fresh ones. A write
#: costs some 10 to 30 us, and whoever sends something meanwhile waits for all of them.
FLUSH: Final = 128

#: How many of those that earlier turns have left are written with them.
FLUSH_BEHIND: Final = 32

#: What the end of a connection costs of a turn's budget, in which a packet costs 16.
END_WORK: Final = 200


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
        self.leaving = False
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
        self.retention = Retention(self)
        self.sessions = Sessions(self)
        self.wills = Wills(self)
        self.pressure = Pressure(self)
        self.deliveries = Deliveries(self)
        self.pages = Pages(self)
        self.ended = EndedSessions(self)
        self.observers = Observers(self)
        self.subscriptions = Subscriptions(self)
        self.nursery: trio.Nursery | None = None
        self.background: Background | None = None
        #: What holds for clients by the listener that they came by.
        self.doors = Doors(hooks)
        #: Set by the network: has `flush` called soon, in a turn of its own.
        self.kick: Callable[[], None] = _nothing
        #: What has ended the broker; the first one is raised when it is over.
        self.failures: list[MqtrioError] = []
        #: Set where the broker is opened: ends it in good order.
        self.end: Callable[[], object] = _nothing
        #: Told of every internal error after it was logged: the test kit raises them again.
        self.on_crash: Callable[[Exception], object] = _ignore
        self._flushing = False
        self._waiting = 0
        self._idle = trio.Event()

    # -- turns

    def tick(self) -> None:
        """A turn begins: look at the clock once for all that happens in it."""
        self.now = self.clock.monotonic()
        self.work = 0

    def turn_took(self, seconds: float) -> None:
        """A turn is over, in which everybody else has waited."""
        if seconds > self.limits.hook_budget:
            self.hooks.turn_took(seconds)

    def turn(self, function: Callable[..., None], *arguments: Any) -> None:
        """Make one call from outside of the poller (a timer, a commit) a turn of its own.

        A hook may also call from inside of a turn, whose `work` then goes on counting.
        """
        self.now = self.clock.monotonic()
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - reported, with its traceback
            self.crashed(error)
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
            if self.pressure.congested:
                self.pressure.watch()
            while self.dirty:
                dirty, self.dirty = self.dirty, []
                if len(dirty) > FLUSH:
                    self.behind += dirty[FLUSH:]
                    del dirty[FLUSH:]
                self._write(dirty)
            if self.behind:
                part = self.behind[:FLUSH_BEHIND]
                del self.behind[:FLUSH_BEHIND]
                self._write(part)
                if self.behind:
                    self.kick()
        finally:
            self._flushing = False

    def _write(self, dirty: list[Dirty]) -> None:
        for outlet in dirty:
            try:
                outlet.link.flush()
            except Exception as error:  # noqa: BLE001 - reported, with its traceback
                self.blame(outlet, error)  # type: ignore[arg-type]

    def spawn(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> bool:
        """Start a task that ends with the broker; False if the broker takes no more."""
        if self.nursery is None or self.stopping:
            return False
        self._waiting += 1
        self.nursery.start_soon(self._task, function, *arguments)
        return True

    async def _task(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        try:
            await function(*arguments)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    # -- blame

    def guard(self, connection: Connection, function: Callable[..., object], *args: Any) -> None:
        """Call for a connection; whatever goes wrong ends that connection and nothing else."""
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001 - reported, with its traceback
            self.blame(connection, error)

    def blame(self, connection: Connection, error: Exception) -> None:
        """End a connection for what the peer did wrong (ProtocolError) or for what we did."""
        if isinstance(error, ProtocolError):
            try:
                connection.fail(error)
            except Exception as bug:  # noqa: BLE001 - reported, with its traceback
                self.crash(connection, bug)
        else:
            self.crash(connection, error)

    def attempt(self, function: Callable[..., object], *args: Any) -> None:
        """Call a step of a connection's end; what goes wrong must not keep the others from it."""
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001 - reported, with its traceback
            self.crashed(error)

    def waiter_crashed(self, waiter: object, error: Exception) -> None:
        """Something that waited for the store failed when it was told."""
        if isinstance(waiter, FirstCommit):
            waiter = self.sessions.holders.get(waiter.session.client_id)
        if isinstance(waiter, Connection):
            self.crash(waiter, error)
        else:
            self.crashed(error)

    def crash(self, connection: Connection, error: Exception) -> None:
        """Our mistake: the connection ends, the log has the traceback."""
        self.statistics.crashes += 1
        log.error("internal error, closing %s", connection.peer.address, exc_info=error)
        self.on_crash(error)
        if not connection.closed:
            connection.close(ReasonCode.UNSPECIFIED_ERROR, "internal error")

    def crashed(self, error: Exception) -> None:
        """Our mistake, and no connection to blame it on."""
        self.statistics.crashes += 1
        log.error("internal error", exc_info=error)
        self.on_crash(error)

    def fail(self, error: MqtrioError) -> None:
        """Something that the broker can't do without has failed: it ends, and raises `error`."""
        self.failures.append(error)
        self.end()

    # -- connections

    def accept(self, link: Link) -> Connection | None:
        """Let a link become a connection, unless a plugin says no before its first byte."""
        self.now = self.clock.monotonic()
        if self.stopping:
            return None
        self.statistics.sockets_accepted += 1
        client: ClientFacts | None = None
        if self.hooks.accept:
            client = ClientFacts.of(link.peer)
            answer = combine.accept(self.hooks, AcceptEvent(client))
            if isinstance(answer, Deny):
                self.statistics.refused[answer.reason_code.name.lower()] += 1
                log.info("refused %s: %s", link.peer, answer.why)
                self.observers.not_accepted(client, answer)
                return None
        mount = self.doors.of(link.peer.listener).mount
        if mount is not None:
            return MountedConnection(self, link, mount, client)
        return Connection(self, link, client)

    def refuse(
        self,
        connection: Connection,
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
        if not version and reason_code == ReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
            version = MQTT_3_1_1  # level 0: the form that most can read
        if version >= MQTT_5:
            answer = packet or ConnAck(
                reason_code=reason_code, reason_string=why, server_reference=server_reference
            )
            if reason_code in ALLOWED[CONNACK]:
                connection.decoder.version = MQTT_5
                connection.send(answer)
        elif version and reason_code in CONNECT_RETURN_CODES:
            connection.write(bytes((0x20, 2, 0, CONNECT_RETURN_CODES[reason_code])))
        connection.close(reason_code, why, say=False)

    def connection_closed(self, connection: Connection, reason_code: int, why: str) -> None:
        """Called once for each connection, when it has just been closed."""
        self.connections.discard(connection)
        self.work += END_WORK
        if connection.announced:
            self.statistics.connections_closed += 1
        self.memory -= connection.queued + connection.undecoded + connection.weight
        connection.queued = connection.undecoded = connection.weight = 0
        if connection.stalled is not None:
            self.pressure.release(connection)
        self.observers.disconnected(connection, reason_code, why)
        self.sessions.left(connection)

    # -- plugins

    def hooks_changed(self, names: frozenset[str]) -> None:
        """Plugins have come or gone: what was decided with the old ones is void."""
        if "authenticate" in names:
            self.doors.refresh()
        for connection in self.connections:
            connection.ask_again()
        if self.background is not None and "run" in names:
            self.background.refresh()
        if "compile_delivery" in names:
            for session in {*self.sessions.by_id.values(), *self.sessions.local}:
                self.subscriptions.compile_again(session, "reload")

    def reconfigure(self, settings: Settings) -> None:
        """Go by these settings from now on; what a connection was promised when it came stays."""
        self.settings = settings
        self.limits = settings.limits
        self.budget = settings.limits.turn_budget
        self.hooks.watch.budget = settings.limits.hook_budget
        self.recorder.journal.reconfigure(
            settings.limits.uncommitted_bytes, settings.limits.stop_grace
        )
        if self.background is not None:
            self.background.restarts = settings.limits.plugin_restarts

    # -- stopping

    def stop_reading(self) -> None:
        """Take no more input; what a hook thinks about may still finish."""
        for connection in self.connections:
            connection.hold |= STOPPING

    async def hooks_done(self) -> None:
        """Wait until no hook is awaited any more."""
        while self._waiting:
            self._idle = trio.Event()
            await self._idle.wait()

    async def watch_writers(self) -> None:
        """Close the connections that take no byte for `limits.write_timeout`."""
        stuck: dict[Connection, tuple[int, float]] = {}
        while True:
            await trio.sleep(self.limits.write_timeout / 4)
            self.tick()
            before, stuck = stuck, {}
            for connection in self.connections:
                if not connection.blocked:
                    continue
                progress, since = before.get(connection, (-1, 0.0))
                if progress != connection.progress:
                    since = self.now
                stuck[connection] = (connection.progress, since)
            for connection, (_, since) in stuck.items():
                if self.now - since >= self.limits.write_timeout:
                    self.guard(connection, connection.starve)
            self.flush()

    def goodbye(self) -> None:
        """Tell all clients that the broker stops; their wills follow the standard."""
        self.leaving = True
        for connection in list(self.connections):
            self.guard(connection, connection.say_goodbye)
        self.flush()


def _nothing() -> None:
    pass


def _ignore(error: Exception) -> None:
    pass


async def _next_turn() -> None:
    await trio.lowlevel.checkpoint()
