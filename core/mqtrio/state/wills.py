"""Wills that wait for their will delay interval, or for the end of their session (3.1.3.2.2).

A client has one such will at most: a connection that comes in time cancels it [MQTT-3.1.3-9].
"""

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

W = TypeVar("W")


class WillRegistry(Generic[W]):
    """Pending wills by client identifier; `W` is whatever the caller publishes.

    Times are seconds of any one clock that never goes back. The heap holds the order; what is
    cancelled or scheduled anew stays in it until its time comes, or until half of it is such waste.
    """

    __slots__ = ("_heap", "_pending", "_serial")

    def __init__(self) -> None:
        self._pending: dict[str, tuple[float, int, W]] = {}
        # (due, serial, client identifier); the serial says whether the item is still the valid one,
        # and keeps those with the same time in the order of their coming.
        self._heap: list[tuple[float, int, str]] = []
        self._serial = 0

    def __len__(self) -> int:
        """The number of pending wills."""
        return len(self._pending)

    def schedule(self, client_id: str, will: W, due: float) -> W | None:
        """Publish `will` at `due`; return the client's pending will that it replaces, if any."""
        replaced = self.cancel(client_id)
        self._serial += 1
        self._pending[client_id] = (due, self._serial, will)
        heappush(self._heap, (due, self._serial, client_id))
        return replaced

    def cancel(self, client_id: str) -> W | None:
        """Forget a client's pending will; return it."""
        pending = self._pending.pop(client_id, None)
        if pending is None:
            return None
        if len(self._heap) > 2 * len(self._pending) + 16:
            self._heap = [
                (due, serial, client) for client, (due, serial, _) in self._pending.items()
            ]
            heapify(self._heap)
        return pending[2]

    def due(self, now: float) -> list[tuple[str, W]]:
        """Take out the wills whose time has come: (client identifier, will), the earliest first."""
        result: list[tuple[str, W]] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, serial, client_id = heappop(heap)
            pending = self._pending.get(client_id)
            if pending is not None and pending[1] == serial:
                del self._pending[client_id]
                result.append((client_id, pending[2]))
        return result
