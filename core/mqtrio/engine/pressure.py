"""Slowing publishers for subscribers that are behind.

A subscriber whose outbox or queue passes its soft bound stalls the publishers that feed it, for as
long as it makes progress: takes bytes or acknowledges messages, at `stall_floor` bytes a second or
more. One that makes less for `stall_time` is slow and stalls nobody: QoS 0 is dropped for it and
counted, QoS 1 and 2 wait in its bounded queue.
"""

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from mqtrio.engine.core import Core


class Behind(Protocol):
    """A subscriber's outlet, as far as this file needs it."""

    slow: bool
    progress: int
    settled: int
    stalled: "list[Stalled] | None"


class Stalled(Protocol):
    """Somebody who publishes and can be made to wait."""

    stalls: int

    def stall(self) -> None:
        """Wait until `unstall`."""
        ...

    def unstall(self) -> None:
        """Go on."""
        ...


class Pressure:
    """Who is behind, and who waits for whom."""

    __slots__ = ("core", "congested", "enabled", "by_progress", "_watched")

    def __init__(self, core: "Core") -> None:
        self.core = core
        #: Outlets that passed a soft bound during the publish now in hand (an ordered set).
        self.congested: dict[Behind, None] = {}
        policy = core.limits.backpressure
        self.enabled = policy != "off"
        self.by_progress = policy == "progress"
        # Those that a task looks at: one task each, however often they fall behind.
        self._watched: set[Behind] = set()

    def stall(self, publisher: Stalled) -> None:
        """Let `publisher` wait for all that are congested now."""
        for outlet in self._congested():
            if id(outlet) != id(publisher):
                assert outlet.stalled is not None
                outlet.stalled.append(publisher)
                publisher.stalls += 1
        if publisher.stalls:
            publisher.stall()

    def watch(self) -> None:
        """What congests was published by nobody who could wait (a will, a replay).

        Whoever is congested by it must make progress all the same, or is slow.
        """
        for _ in self._congested():
            pass

    def _congested(self) -> list[Behind]:
        """Take those that are congested now, each watched from now on at the latest."""
        congested, self.congested = self.congested, {}
        if not self.enabled:
            return []
        found = []
        for outlet in congested:
            if outlet.slow:
                continue
            if outlet.stalled is None:
                if outlet not in self._watched and not self.core.spawn(self._watch, outlet):
                    continue
                self._watched.add(outlet)
                outlet.stalled = []
                self.core.statistics.stalls += 1
            found.append(outlet)
        return found

    async def _watch(self, outlet: Behind) -> None:
        """Let the waiting go when `outlet` makes too little progress."""
        limits = self.core.limits
        enough = max(1, limits.stall_floor * limits.stall_time)
        while outlet.stalled is not None:
            before = outlet.progress + outlet.settled
            await trio.sleep(limits.stall_time)
            made = outlet.progress + outlet.settled - before
            if self.by_progress and made >= enough:
                continue
            if self._give_up(outlet):
                self.core.flush()
        self._watched.discard(outlet)

    def _give_up(self, outlet: Behind) -> bool:
        """`outlet` is slow, if it did not catch up meanwhile."""
        if outlet.stalled is None:
            return False
        outlet.slow = True
        self.release(outlet)
        return True

    def relieved(self, outlet: Behind) -> None:
        """`outlet` has caught up."""
        outlet.slow = False
        if outlet.stalled is not None:
            self.release(outlet)

    def release(self, outlet: Behind) -> None:
        """Nobody waits for `outlet` any more."""
        waiting, outlet.stalled = outlet.stalled, None
        for publisher in waiting or ():
            publisher.stalls -= 1
            if not publisher.stalls:
                publisher.unstall()
