"""Slowing publishers for subscribers that are behind.

A subscriber whose outbox or queue passes its soft bound stalls the publishers that feed it, for as
long as it makes progress (takes bytes, acknowledges). One that makes none for `stall_time` is slow
and stalls nobody: QoS 0 is dropped for it and counted, QoS 1 and 2 wait in its bounded queue.
"""

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from mqtrio.engine.core import Core


class Behind(Protocol):
    """A subscriber's outlet, as far as this file needs it."""

    slow: bool
    progress: int
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

    __slots__ = ("core", "congested", "enabled", "by_progress")

    def __init__(self, core: "Core") -> None:
        self.core = core
        #: Outlets that passed a soft bound during the publish now in hand (an ordered set).
        self.congested: dict[Behind, None] = {}
        policy = core.limits.backpressure
        self.enabled = policy != "off"
        self.by_progress = policy == "progress"

    def stall(self, publisher: Stalled) -> None:
        """Let `publisher` wait for all that are congested now."""
        congested, self.congested = self.congested, {}
        if not self.enabled:
            return
        for outlet in congested:
            if outlet.slow or id(outlet) == id(publisher):
                continue
            if outlet.stalled is None:
                outlet.stalled = []
                if not self.core.spawn(self._watch, outlet):
                    outlet.stalled = None
                    continue
                self.core.statistics.stalls += 1
            outlet.stalled.append(publisher)
            publisher.stalls += 1
        if publisher.stalls:
            publisher.stall()

    async def _watch(self, outlet: Behind) -> None:
        """Let the waiting go when `outlet` makes no progress."""
        while outlet.stalled is not None:
            before = outlet.progress
            await trio.sleep(self.core.limits.stall_time)
            if outlet.progress == before or not self.by_progress:
                outlet.slow = True
                self.release(outlet)
                self.core.flush()
                return

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
