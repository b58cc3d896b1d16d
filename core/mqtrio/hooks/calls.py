"""One hook of one plugin, bound and counted."""

import inspect
import logging
import math
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import trio
from attrs import define

from mqtrio.hooks.events import FailureKind, PluginFailedEvent
from mqtrio.hooks.timing import Timing

logger: Final = logging.getLogger("mqtrio.hooks")

#: The bound calls of one hook, in order.
Calls = tuple["Call", ...]

#: Failures in a row after which an observer is called no more.
FAILURES_IN_A_ROW: Final = 10

#: Hooks that are called for each message: of these calls only one in SAMPLING is timed.
FREQUENT: Final = frozenset(
    {"authorize_publish", "transform_publish", "delivery_filter", "published", "delivered"}
    | {"acknowledged", "dropped", "retained_changed"}
)
SAMPLING: Final = 64

#: Seconds in which one hook of one plugin writes at most one failure to the log.
LOG_INTERVAL: Final = 1.0


class NonsenseAnswer(Exception):
    """A hook answered with what its contract doesn't know; the text names types, never values."""


@define(frozen=True)
class CallStatistics:
    """What one hook of one plugin has done so far.

    Times are in seconds: `seconds` for all calls together, `p50` and `p99` those within which half
    of the calls and 99 of 100 ended, read from a histogram and so up to a quarter too high. An
    answer that is awaited counts until it is there. Of hooks that are called for each message only
    one call in `SAMPLING` is timed, and stands for the others.
    """

    plugin: str
    hook: str
    calls: int
    failures: int
    timeouts: int
    switched_off: bool
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0


class Watch:
    """What all calls of one broker share: how long one may block everybody unnoticed."""

    __slots__ = ("budget", "named")

    def __init__(self, budget: float = math.inf) -> None:
        #: Seconds that a hook may take without a word in the log.
        self.budget = budget
        #: Calls that have taken longer.
        self.named = 0


class Call:
    """A hook implementation of one plugin, with its counters.

    The combiners call `function` themselves and count in `calls`: that is the cheapest way.
    Observers, which are always told together, are counted once for all of them, in `told` of the
    first. A timeout counts as a failure too.
    """

    __slots__ = (
        "plugin",
        "origin",
        "hook",
        "function",
        "calls",
        "failures",
        "timeouts",
        "in_a_row",
        "switched_off",
        "told",
        "awaited",
        "due",
        "interval",
        "timing",
        "_timed",
        "_watch",
        "_idle",
        "_first",
        "_last_failure",
        "_report",
        "_quiet_until",
        "_unlogged",
    )

    def __init__(
        self,
        plugin: str,
        hook: str,
        function: Callable[[Any], Any],
        report: "Callable[[Call, PluginFailedEvent], None]",
        watch: Watch | None = None,
    ) -> None:
        self.plugin = plugin
        #: The distribution and version that its plugin has come with; "" where none is known.
        self.origin = ""
        self.hook = hook
        self.function = function
        self.calls = 0
        self.failures = 0
        self.timeouts = 0
        self.in_a_row = 0
        self.switched_off = False
        self.told = 0
        self.awaited = 0
        #: The next call that is timed, by its number, and how many lie between two of them.
        self.due = 0
        self._timed = 0
        self.interval = SAMPLING if hook in FREQUENT else 1
        self.timing = Timing()
        self._watch = watch or Watch()
        self._idle: trio.Event | None = None
        self._first: Call | None = None
        self._last_failure = -1
        self._report = report
        self._quiet_until = 0.0
        self._unlogged = 0

    def __call__(self, event: Any) -> Any:
        """Call the plugin, counted; its exceptions pass through."""
        self.calls += 1
        return self.function(event) if self.calls < self.due else self.timed(event, self.calls)

    def timed(self, event: Any, number: int) -> Any:
        """Call the plugin for the `number`th time, and time it; its exceptions pass through."""
        begin = perf_counter()
        waits = False
        try:
            answer = self.function(event)
            waits = hasattr(answer, "__await__")
            return answer
        finally:
            self.took(perf_counter() - begin, number, waits)

    def sample(self, event: Any) -> Any:
        """Call the plugin and time it, where it is counted afterwards."""
        return self.timed(event, self.calls + 1)

    def took(self, seconds: float, number: int, waits: bool = False) -> None:
        """The `number`th call was timed and has returned; if it `waits`, `waited` says how long."""
        self.due = number + self.interval
        # It stands for those since the last one that was timed.
        weight = number - self._timed if 0 < self._timed < number else 1
        self._timed = number
        if not waits:
            self.timing.add(seconds, weight)
        if seconds > self._watch.budget:
            self._watch.named += 1
            logger.warning(
                "plugin %s: %s blocked everybody for %.3f s",
                self.plugin,
                self.hook,
                seconds,
                extra={"plugin": self.plugin, "hook": self.hook},
            )

    def waited(self, seconds: float) -> None:
        """What it has answered with was awaited for so long."""
        self.timing.add(seconds)

    def answering(self, answer: object) -> "Call":
        """A call to stand in the place of this one, with the answer that it has given already."""
        return Call(self.plugin, self.hook, lambda event: answer, self._report)

    @property
    def name(self) -> str:
        """Plugin and hook, as they stand in logs and in the `why` of answers."""
        return f"{self.plugin}.{self.hook}"

    @property
    def title(self) -> str:
        """How messages to people name its plugin."""
        return f"plugin {self.plugin!r}" + (f" (of {self.origin})" if self.origin else "")

    @property
    def total(self) -> int:
        """How often it was called so far."""
        return self.calls if self._first is None else self.calls + self._first.told

    def settle(self) -> None:
        """Keep what was counted so far as its own, and be counted with nobody else."""
        self.calls = self.total
        self._first = None
        self.due = self._timed = 0  # by which count it goes on is not known here

    def follow(self, first: "Call") -> None:
        """Be counted with this one (which may be itself) from now on."""
        self._first = first

    def retire(self) -> None:
        """Be called no more: from now on it has no opinion, whoever still has it before them."""
        self.settle()
        self.function = nobody

    def begin(self) -> None:
        """Something that it has answered with is being awaited."""
        self.awaited += 1

    def end(self) -> None:
        """That was awaited, or given up."""
        self.awaited -= 1
        if not self.awaited and self._idle is not None:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until nothing that it has answered with is awaited any more."""
        while self.awaited:
            if self._idle is None or self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    def fails_in_a_row(self) -> int:
        """Failures without a success between them, the one included that is being reported."""
        total = self.total
        self.in_a_row = self.in_a_row + 1 if self._last_failure == total - 1 else 1
        self._last_failure = total
        return self.in_a_row

    def failed(self, error: Exception) -> None:
        """Count a failure, log it and tell the manager."""
        self.failures += 1
        kind, why = failure(error)
        if kind == "timeout":
            self.timeouts += 1
        self._log(error, kind, why)
        self._report(
            self,
            PluginFailedEvent(
                self.plugin,
                self.hook,
                kind,
                why,
                None if kind == "answer" else error,
                self.switched_off,
            ),
        )

    def statistics(self) -> CallStatistics:
        """The counters as they are now."""
        timing = self.timing
        return CallStatistics(
            self.plugin,
            self.hook,
            self.total,
            self.failures,
            self.timeouts,
            self.switched_off,
            timing.seconds,
            timing.quantile(0.5),
            timing.quantile(0.99),
        )

    def _log(self, error: Exception, kind: FailureKind, why: str) -> None:
        """Write one record, with a traceback for what was raised; a flood is only counted."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._unlogged += 1
            return
        more = f" (and {self._unlogged} times more since the last record)" if self._unlogged else ""
        self._unlogged = 0
        self._quiet_until = now + LOG_INTERVAL
        logger.error(
            "plugin %s: %s %s%s",
            self.plugin,
            self.hook,
            why,
            more,
            exc_info=error if kind == "raised" else None,
            extra={"plugin": self.plugin, "hook": self.hook, "kind": kind},
        )

    def __repr__(self) -> str:
        return f"Call({self.name}, calls={self.total}, failures={self.failures})"


class PermissionCall(Call):
    """The permissions of one client in the row of authorizers, counted in `tally` with all others.

    Made for each question that a client with permissions gives rise to, so it has nothing of its
    own but the function.
    """

    __slots__ = ("tally",)

    def __init__(self, tally: Call, function: Callable[[Any], Any]) -> None:
        self.tally = tally
        self.function = function

    @property
    def calls(self) -> int:
        """Counted in the tally."""
        return self.tally.calls

    @calls.setter
    def calls(self, calls: int) -> None:
        self.tally.calls = calls

    @property
    def name(self) -> str:
        """The name of the tally."""
        return self.tally.name

    @property
    def due(self) -> int:
        """Timed in the tally."""
        return self.tally.due

    @due.setter
    def due(self, due: int) -> None:
        self.tally.due = due

    def took(self, seconds: float, number: int, waits: bool = False) -> None:
        """Timed in the tally."""
        self.tally.took(seconds, number, waits)

    def waited(self, seconds: float) -> None:
        """Timed in the tally."""
        self.tally.waited(seconds)

    def begin(self) -> None:
        """Counted in the tally."""
        self.tally.begin()

    def end(self) -> None:
        """Counted in the tally."""
        self.tally.end()

    def failed(self, error: Exception) -> None:
        """Count, log and tell it as a failure of permissions."""
        self.tally.failed(error)

    def answering(self, answer: object) -> Call:
        """A call to stand in the place of this one, with the answer that it has given already."""
        return self.tally.answering(answer)


def nobody(event: object) -> None:
    """Stand in for a function that is called no more: no opinion."""


_WHY: Final[dict[FailureKind, str]] = {"raised": "raised an exception", "timeout": "took too long"}


def failure(error: Exception) -> tuple[FailureKind, str]:
    """How a hook has failed, and the words for it, which tell nothing of what it was asked."""
    if isinstance(error, NonsenseAnswer):
        return "answer", str(error)
    kind: FailureKind = "raised"
    if isinstance(error, trio.TooSlowError | TimeoutError):
        kind = "timeout"
    return kind, _WHY[kind]


def nonsense(answer: object, wanted: str) -> NonsenseAnswer:
    """The error for an answer that isn't `wanted`; a coroutine is closed, as nobody awaits it."""
    if inspect.iscoroutine(answer):
        answer.close()
    return NonsenseAnswer(f"answered with {type(answer).__name__}, not with {wanted}")
