"""A writer in a worker thread, for where a second process can't be."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from mqtrio import Change
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.records import records

Answer = TypeVar("Answer")


class ThreadWriter:
    """Does one thing at a time in a thread of Trio's; the poller gives way while it is at work."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._database: Database | None = None
        # Held by the thread itself: what was abandoned may still be at work.
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Open the database. Raises StoreError."""
        # Not abandoned: nobody would close what it opens.
        self._database = await trio.to_thread.run_sync(Database, self._options)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of Database. Raises StoreError."""
        return await self._run(lambda database: getattr(database, method)(*arguments))

    async def commit(self, changes: Sequence[Change]) -> None:
        """Commit changes. Raises StoreError; then nothing of it has happened."""
        await self._run(lambda database: database.commit(records(changes)))

    async def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            await self._run(lambda database: database.close())

    async def _run(self, work: Callable[[Database], Answer]) -> Answer:
        database = self._database
        assert database is not None

        def locked() -> Answer:
            with self._lock:
                return work(database)

        return await trio.to_thread.run_sync(locked, abandon_on_cancel=True)
