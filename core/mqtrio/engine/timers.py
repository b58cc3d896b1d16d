"""Things that happen at a moment: one heap and one task for a whole broker."""

import heapq
import math
from collections.abc import Callable
from itertools import count

import trio

from mqtrio.clock import Clock


class Timers:
    """Calls functions when their time has come. Nothing is cancelled: what is called looks whether
    it still has something to do.
    """

    __slots__ = ("_clock", "_heap", "_numbers", "_wake")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()
        self._wake = trio.Event()

    def call_at(self, when: float, function: Callable[[float], None]) -> None:
        """Call `function(now)` at `when` (monotonic seconds) or soon after."""
        heap = self._heap
        if not heap or when < heap[0][0]:
            self._wake.set()
        heapq.heappush(heap, (when, next(self._numbers), function))

    async def run(self, turn: Callable[[Callable[[float], None], float], None]) -> None:
        """Serve for ever; each call is made through `turn`, which guards and flushes."""
        heap = self._heap
        while True:
            delay = heap[0][0] - self._clock.monotonic() if heap else math.inf
            if delay > 0:
                with trio.move_on_after(delay):
                    await self._wake.wait()
                self._wake = trio.Event()
                continue
            for _ in range(100):
                now = self._clock.monotonic()
                if not heap or heap[0][0] > now:
                    break
                turn(heapq.heappop(heap)[2], now)
            await trio.lowlevel.checkpoint()
