"""What is measured, and what it must come to beside mosquitto in the same run."""

from collections.abc import Callable, Mapping
from typing import Literal

from attrs import define

Transport = Literal["tcp", "websocket", "tls"]
Column = Literal["rate", "cpu", "p50", "p99", "memory", "lost"]


@define(frozen=True, kw_only=True)
class Scenario:
    """One load: the driver's arguments, and which of them shrink with `--scale`."""

    what: str
    arguments: tuple[str, ...] = ()
    counts: Mapping[str, int] = {}
    transport: Transport = "tcp"
    clients: int = 0  # ping-pong, which has a driver of its own
    seconds: float = 0.0

    def command(self, scale: float) -> tuple[str, ...]:
        """The arguments of mqload, with the counts times `scale`."""
        counts = [(f"--{name}", str(max(1, int(n * scale)))) for name, n in self.counts.items()]
        return (*self.arguments, *(word for pair in counts for word in pair))


def _mqload(what: str, arguments: str, transport: Transport = "tcp", **counts: int) -> Scenario:
    words = ("--scenario", *arguments.split())
    return Scenario(what=what, arguments=words, counts=counts, transport=transport)


# 110,000 filters, one in eleven with a wildcard: 100,000 exact ones and 10,000 with + or #.
_MANY = "--filters 110000 --wild 11"

SCENARIOS: Mapping[str, Scenario] = {
    "pipe0": _mqload("one pair, QoS 0, pipelined", "pipe --qos 0", count=300_000),
    "pipe1": _mqload("one pair, QoS 1, window 1000", "pipe --qos 1", count=100_000),
    "pipe2": _mqload("one pair, QoS 2, window 1000", "pipe --qos 2", count=50_000),
    "fanout": _mqload("1 to 100, QoS 0", "fanout --subs 100", count=4000),
    "fanin": _mqload("100 to 1, QoS 0", "fanin --pubs 100", count=3000),
    "pingpong": Scenario(what="500 clients, each waits for its own", clients=500, seconds=2.0),
    "rate1000": _mqload("1,000 clients, 1 message/s each", "rate --pubs 1000 --rate 1", duration=4),
    "idle": _mqload("5,000 connections that do nothing", "idle --hold 1", conns=5000),
    "ws0": _mqload(
        "one pair over WebSocket, QoS 0, pipelined, a frame for each packet",
        "pipe --qos 0 --ws",
        "websocket",
        count=200_000,
    ),
    "subs10": _mqload("10 filters", "subs --filters 10 --wild 11", count=100_000),
    "subs": _mqload(
        "110,000 filters, the same 10 topics", f"subs {_MANY} --topics 10", count=100_000
    ),
    "subs-all": _mqload("110,000 filters, 110,000 topics", f"subs {_MANY}", count=110_000),
    "tls-pipe0": _mqload("one pair over TLS, QoS 0", "pipe --qos 0 --tls", "tls", count=300_000),
    "tls-pipe1": _mqload("one pair over TLS, QoS 1", "pipe --qos 1 --tls", "tls", count=50_000),
    "tls-idle": _mqload("1,000 connections over TLS", "idle --hold 1 --tls", "tls", conns=1000),
}

Rows = Mapping[tuple[str, str], Mapping[Column, float]]


@define(frozen=True)
class Goal:
    """A figure that must not be missed: `value(rows)` compared with `bound` by `at_least`."""

    what: str
    needs: tuple[tuple[str, str], ...]  # (scenario, broker) rows that it reads
    value: Callable[[Rows], float]
    bound: float
    at_least: bool = False

    def met(self, rows: Rows) -> bool:
        """Whether the measured rows keep to the goal."""
        value = self.value(rows)
        return value >= self.bound if self.at_least else value <= self.bound


def _faster(scenario: str, bound: float) -> Goal:
    ours, theirs = (scenario, "ours"), (scenario, "mosquitto")
    return Goal(
        f"{scenario}: messages/s, times mosquitto's",
        (ours, theirs),
        lambda rows: rows[ours]["rate"] / rows[theirs]["rate"],
        bound,
        at_least=True,
    )


def _own(scenario: str, column: Column, what: str, bound: float) -> Goal:
    ours = (scenario, "ours")
    return Goal(f"{scenario}: {what}", (ours,), lambda rows: rows[ours][column], bound)


def _share(scenario: str, column: Column, other: tuple[str, str], what: str, bound: float) -> Goal:
    ours = (scenario, "ours")
    return Goal(what, (ours, other), lambda rows: rows[ours][column] / rows[other][column], bound)


GOALS = (
    _faster("pipe0", 6.0),
    _faster("fanout", 30.0),
    _faster("fanin", 4.0),
    _faster("pingpong", 1.0),
    _faster("pipe1", 3.0),
    _faster("pipe2", 4.0),
    _faster("ws0", 1.5),
    _share("rate1000", "p50", ("rate1000", "mosquitto"), "rate1000: p50, times mosquitto's", 1.5),
    _own("idle", "cpu", "CPU of a connect, us", 100.0),
    _own("idle", "memory", "bytes of an idle connection", 3072.0),
    _faster("tls-pipe0", 3.0),
    _own("tls-idle", "memory", "bytes of an idle connection over TLS", 30 * 1024.0),
    _share("subs", "cpu", ("subs10", "ours"), "subs: CPU of a publish, times that with 10", 1.5),
    *(_own(name, "lost", "messages lost, doubled or out of order", 0.0) for name in SCENARIOS),
)
