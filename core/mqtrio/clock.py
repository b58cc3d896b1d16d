"""One clock for a broker: monotonic inside a run, wall-clock across restarts.

Everything in memory counts in monotonic seconds. What is stored has to mean something after a
restart, so it counts in wall-clock seconds since 1970. The wall clock is read once, at start;
every later wall time is that anchor plus monotonic time, so a clock that is set while the broker
runs expires nothing and delays nothing.
"""

import time

import trio


class Clock:
    """The time of one broker. Made inside `trio.run`, so tests get virtual time from MockClock.

    `wall` is the wall-clock time of this moment, in seconds since 1970; default: the system's.
    """

    __slots__ = ("_offset",)

    def __init__(self, wall: float | None = None) -> None:
        self._offset = (time.time() if wall is None else wall) - trio.current_time()

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""
        return trio.current_time()

    def wall(self) -> float:
        """Seconds since 1970, as the anchor taken at start and monotonic time have it."""
        return trio.current_time() + self._offset

    def to_wall(self, monotonic: float) -> float:
        """The wall-clock time of a moment given in monotonic seconds (infinity stays infinity)."""
        return monotonic + self._offset

    def to_monotonic(self, wall: float) -> float:
        """The monotonic time of a moment given in seconds since 1970."""
        return wall - self._offset
