"""Retained messages whose commit has failed: they are in force, so they are still to be stored."""

import logging
from collections.abc import Iterable

from mqtrio.errors import StoreFull
from mqtrio.store.changes import Change, RetainedPut, RetainedRemoved
from mqtrio.store.protocol import Store

logger = logging.getLogger("mqtrio.store")


class Carried:
    """The last value of each such topic. They go with the next commit, or apart from it."""

    __slots__ = ("apart", "_changes", "_store")

    def __init__(self, store: Store) -> None:
        #: The store was full: they must not be what keeps others from being stored.
        self.apart = False
        self._changes: dict[str, RetainedPut | RetainedRemoved] = {}
        self._store = store

    def __bool__(self) -> bool:
        return bool(self._changes)

    def add(self, change: RetainedPut | RetainedRemoved) -> None:
        """Carry one change; an earlier one of its topic doesn't count any more."""
        self._changes[change.topic] = change

    def clear(self) -> None:
        """Let go of all of them."""
        self._changes.clear()

    def before(self, changes: list[Change]) -> list[Change]:
        """What is to be committed now: values of topics that are written anew come first."""
        return changes if self.apart or not self._changes else [*self._changes.values(), *changes]

    def settled(self, changes: Iterable[Change]) -> None:
        """These are in the store, or are let go."""
        if self._changes:
            for change in changes:
                if isinstance(change, (RetainedPut, RetainedRemoved)):
                    self._changes.pop(change.topic, None)

    async def commit(self) -> bool:
        """Commit them by themselves, after the store was full; False if that has to be tried again.

        Else one retained message that is too large for good would keep everything from being
        stored. What has no room even alone is let go: it was refused, or nobody was promised it.
        """
        self.apart = False
        return await self._commit(list(self._changes.values()))

    async def _commit(self, changes: list[RetainedPut | RetainedRemoved]) -> bool:
        if not changes:
            return True
        try:
            await self._store.commit(changes)
        except StoreFull as error:
            if len(changes) > 1:
                half = len(changes) // 2
                return await self._commit(changes[:half]) and await self._commit(changes[half:])
            logger.error("the retained message of %r is not stored: %s", changes[0].topic, error)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, it did not commit
            logger.error("%d retained messages are not stored yet: %s", len(changes), error)
            return False
        self.settled(changes)
        return True
