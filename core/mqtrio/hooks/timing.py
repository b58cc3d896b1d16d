"""How long the calls of one hook take: a histogram that costs next to nothing to add to."""

from typing import Final

#: Each power of two of nanoseconds is divided into so many buckets, so that a figure read from
#: them is at most a quarter too high.
PARTS: Final = 4

#: Buckets: up to 2 ** 43 ns, which are more than two hours.
BUCKETS: Final = 44 * PARTS

NANO: Final = 1_000_000_000


class Timing:
    """Times of calls. Each time stands for `weight` calls, if only one call in so many is timed."""

    __slots__ = ("seconds", "calls", "_buckets")

    def __init__(self) -> None:
        #: All calls together, as far as the timed ones tell.
        self.seconds = 0.0
        #: Calls for which the times stand.
        self.calls = 0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float, weight: int = 1) -> None:
        """Another call took so long."""
        self.seconds += seconds * weight
        self.calls += weight
        bucket = _bucket(int(seconds * NANO))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + weight

    def quantile(self, share: float) -> float:
        """The time in seconds within which this share (0 to 1) of the calls ended; 0.0 for none."""
        wanted = share * self.calls
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return _upper_end(bucket) / NANO
        return 0.0


def _bucket(nanoseconds: int) -> int:
    """The number of a time's bucket: the power of two, and the two binary digits behind it."""
    size = max(nanoseconds, PARTS).bit_length() - 1
    return min(size * PARTS + (max(nanoseconds, PARTS) >> size - 2) - PARTS, BUCKETS - 1)


def _upper_end(bucket: int) -> int:
    """Where a bucket ends, in nanoseconds."""
    size, part = divmod(bucket, PARTS)
    return (PARTS + part + 1) << size - 2
