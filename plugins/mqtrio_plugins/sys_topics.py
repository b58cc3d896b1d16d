"""The broker tells of itself in retained messages below $SYS, by the names that Mosquitto uses."""

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import trio
from attrs import define

import mqtrio
from mqtrio import (
    Broker,
    BrokerStatistics,
    BrokerStopped,
    CallStatistics,
    ClientConnectedEvent,
    ClientDisconnectedEvent,
    Plugin,
    ReconfigureEvent,
    RefusedError,
    RunEvent,
    SessionEndedEvent,
    hookimpl,
    setting,
)

_ROOT: Final = "$SYS/broker"

#: What is the same as a counter or a size of the broker.
_VALUES: Final[Mapping[str, Callable[[BrokerStatistics], object]]] = {
    "uptime": lambda now: f"{int(now.uptime)} seconds",
    "bytes/received": lambda now: now.bytes_received,
    "bytes/sent": lambda now: now.bytes_sent,
    "clients/connected": lambda now: now.clients,
    "clients/active": lambda now: now.clients,
    "clients/disconnected": lambda now: now.sessions - now.clients,
    "clients/inactive": lambda now: now.sessions - now.clients,
    "clients/total": lambda now: now.sessions,
    "messages/received": lambda now: now.packets_received,
    "messages/sent": lambda now: now.packets_sent,
    "messages/stored": lambda now: now.messages_held,
    "publish/messages/received": lambda now: now.messages_received,
    "publish/messages/sent": lambda now: now.messages_sent,
    "publish/messages/dropped": lambda now: sum(now.dropped.values()),
    "retained messages/count": lambda now: now.retained,
    "shared_subscriptions/count": lambda now: now.shared_subscriptions,
    "store/messages/count": lambda now: now.messages_held,
    "store/messages/bytes": lambda now: now.payload_bytes_held,
    "subscriptions/count": lambda now: now.subscriptions - now.shared_subscriptions,
    # Ours:
    "crashes": lambda now: now.crashes,
    "stalls": lambda now: now.stalls,
    "memory": lambda now: now.memory,
}

#: What moving averages are made of: name below load/ -> a counter.
_COUNTERS: Final[Mapping[str, Callable[[BrokerStatistics], int]]] = {
    "bytes/received": lambda now: now.bytes_received,
    "bytes/sent": lambda now: now.bytes_sent,
    "connections": lambda now: now.connections_opened,
    "messages/received": lambda now: now.packets_received,
    "messages/sent": lambda now: now.packets_sent,
    "publish/received": lambda now: now.messages_received,
    "publish/sent": lambda now: now.messages_sent,
    "publish/dropped": lambda now: sum(now.dropped.values()),
    "sockets": lambda now: now.sockets_accepted,
}

#: Name of an average -> the seconds after which what was before counts for 1/e.
_SPANS: Final[Mapping[str, float]] = {"1min": 60.0, "5min": 300.0, "15min": 900.0}


@define(frozen=True, kw_only=True)
class SysTopicsSettings:
    """How often, and how much."""

    interval: float = setting(
        10.0, "time between two rounds of messages", minimum=1, unit="seconds"
    )
    plugins: bool = setting(True, "tell of calls, failures and times of plugins, too")


class SysTopics(Plugin[SysTopicsSettings]):
    """Publishes what has changed, every `interval` seconds."""

    api = 1

    def __init__(self, settings: SysTopicsSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.log = logging.getLogger(f"mqtrio.plugins.{name}")
        self._connected = 0
        self._most = 0
        self._expired = 0

    @hookimpl
    def reconfigure(self, event: ReconfigureEvent) -> Callable[[], None]:
        """Take the new settings for the next round."""

        def put_in_force() -> None:
            self.settings = event.settings

        return put_in_force

    # -- what the broker doesn't count

    @hookimpl
    def client_connected(self, event: ClientConnectedEvent) -> None:
        """There may be more than ever before, for less than an interval."""
        self._connected += 1
        self._most = max(self._most, self._connected)

    @hookimpl
    def client_disconnected(self, event: ClientDisconnectedEvent) -> None:
        """One less."""
        self._connected -= 1

    @hookimpl
    def session_ended(self, event: SessionEndedEvent) -> None:
        """Count those whose time was over."""
        self._expired += event.reason == "expired"

    # -- the messages

    @hookimpl
    async def run(self, event: RunEvent) -> None:
        """Publish, for as long as the broker runs."""
        broker: Broker = event.broker
        # A store may have kept what an earlier run has said; what isn't true any more goes away.
        said = {
            message.topic: message.payload.decode(errors="replace")
            for message in broker.retained(f"{_ROOT}/#")
        }
        averages = _Averages()
        refused: set[str] = set()
        while True:
            now = broker.statistics()
            self._connected = now.clients
            self._most = max(self._most, now.clients)
            values = {f"{_ROOT}/{name}": str(value) for name, value in self._values(now, averages)}
            for topic in {**said, **values}:
                value = values.get(topic, "")  # an empty one takes a retained message away
                if said.get(topic, "") == value:
                    continue
                try:
                    await broker.publish(topic, value, retain=True, origin="system")
                except BrokerStopped:
                    return
                except RefusedError as error:
                    if topic not in refused:
                        refused.add(topic)
                        self.log.warning("%s can't be published: %s", topic, error)
                else:
                    said[topic] = value
            said = {topic: value for topic, value in said.items() if value}
            await trio.sleep(self.settings.interval)

    def _values(self, now: BrokerStatistics, averages: "_Averages") -> Iterator[tuple[str, object]]:
        yield "version", f"mqtrio version {mqtrio.__version__}"
        yield "clients/maximum", self._most
        yield "clients/expired", self._expired
        for name, value in _VALUES.items():
            yield name, value(now)
        for reason, count in now.refused.items():
            yield f"refused/{reason}", count
        for reason, count in now.dropped.items():
            yield f"dropped/{reason}", count
        yield from averages.after(now)
        if self.settings.plugins:
            yield from _of_plugins(now.plugins)


class _Averages:
    """Moving averages of counters, each by minute, as Mosquitto computes them."""

    def __init__(self) -> None:
        self._before: BrokerStatistics | None = None
        self._averages: dict[str, float] = {}

    def after(self, now: BrokerStatistics) -> Iterator[tuple[str, str]]:
        """The averages at a moment, from what has happened since the last one."""
        before, self._before = self._before, now
        seconds = now.uptime - (before.uptime if before else 0.0)
        for name, counter in _COUNTERS.items():
            happened = counter(now) - (counter(before) if before else 0)
            rate = happened * 60 / seconds if seconds else 0.0
            for span, length in _SPANS.items():
                key = f"load/{name}/{span}"
                kept = math.exp(-seconds / length)
                average = rate + kept * (self._averages.get(key, 0.0) - rate)
                self._averages[key] = average
                yield key, f"{average:.2f}"


def _of_plugins(plugins: Iterable[CallStatistics]) -> Iterator[tuple[str, object]]:
    for call in plugins:
        if not call.calls:
            continue
        # The name of an instance is anything; a level of a topic isn't.
        start = f"plugins/{re.sub('[/+#]', '_', call.plugin)}/{call.hook}"
        yield f"{start}/calls", call.calls
        yield f"{start}/failures", call.failures
        yield f"{start}/timeouts", call.timeouts
        for name, seconds in (("seconds", call.seconds), ("p50", call.p50), ("p99", call.p99)):
            yield f"{start}/{name}", f"{seconds:.9f}"
