"""Things that happen at a moment: one heap and one task for a whole broker."""

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Final

import trio

from mqtrio.clock import Clock

#: Things done before other tasks get their turn.
AT_ONCE: Final = 16


class Timer:
    """Something that will happen; `function` is None once it has happened or was cancelled."""

    __slots__ = ("when", "number", "function")

    def __init__(self, when: float, number: int, function: Callable[[float], None]) -> None:
        self.when = when
        self.number = number
        self.function: Callable[[float], None] | None = function

    def __lt__(self, other: "Timer") -> bool:
        return (self.when, self.number) < (other.when, other.number)


class Timers:
    """Calls functions when their time has come, in order."""

    __slots__ = ("_clock", "_heap", "_numbers", "_cancelled", "_wake")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[Timer] = []
        self._numbers = count()
        self._cancelled = 0
        self._wake = trio.Event()

    def call_at(self, when: float, function: Callable[[float], None]) -> Timer:
        """Call `function(now)` at `when` (monotonic seconds) or soon after."""
        timer = Timer(when, next(self._numbers), function)
        if not self._heap or when < self._heap[0].when:
            self._wake.set()
        heapq.heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Let it not happen, and let go at once of what it would have called."""
        if timer.function is None:
            return
        timer.function = None
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap[:] = [timer for timer in self._heap if timer.function is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def run(self, turn: Callable[[Callable[[float], None], float], None]) -> None:
        """Serve for ever; each call is made through `turn`, which guards and flushes."""
        heap = self._heap
        while True:
            delay = heap[0].when - self._clock.monotonic() if heap else math.inf
            if delay > 0:
                with trio.move_on_after(delay):
                    await self._wake.wait()
                self._wake = trio.Event()
                continue
            for _ in range(AT_ONCE):
                now = self._clock.monotonic()
                if not heap or heap[0].when > now:
                    break
                timer = heapq.heappop(heap)
                function, timer.function = timer.function, None
                if function is None:
                    self._cancelled -= 1
                else:
                    turn(function, now)
            await trio.lowlevel.checkpoint()
