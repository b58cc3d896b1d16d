"""The store: mqtrio's protocol on top of a writer."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from mqtrio import Change, Loaded, QueuedRow, RetainedPut
from mqtrio_sqlite.records import loaded_session, queued_row, retained_put, will_put


class Writer(Protocol):
    """Does what a Database does, without blocking the broker."""

    async def open(self) -> None:
        """Open the database. Raises StoreError."""
        ...

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of Database. Raises StoreError."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Commit changes. Raises StoreError; then nothing of it has happened."""
        ...

    async def close(self) -> None:
        """Close the database and end."""
        ...


class SqliteStore:
    """Keeps everything in one SQLite file. Made by `SqlitePlugin`, or over a writer of one's own.

    `await store.open()` comes first; after it the file belongs to this store until `close`.
    """

    durable = True

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def open(self) -> None:
        """Open the database. Raises StoreError with the path and what to do."""
        await self._writer.open()

    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        """See mqtrio.Store."""
        chosen = None if client_ids is None else list(client_ids)
        sessions, wills, references, *counters = await self._writer.call("load", chosen)
        loaded = [loaded_session(row) for row in sessions]
        puts = [will_put(row) for row in wills]
        return Loaded(
            {each.session.client_id: each for each in loaded},
            {put.client_id: put for put in puts},
            dict(references),
            *counters,
        )

    async def commit(self, changes: Sequence[Change]) -> None:
        """See mqtrio.Store."""
        await self._writer.commit(changes)

    async def queued(
        self, client_id: str, after: int, limit: int, size: int | None = None
    ) -> list[QueuedRow]:
        """See mqtrio.Store."""
        rows = await self._writer.call("queued", client_id, after, limit, size)
        return [queued_row(row) for row in rows]

    async def retained(
        self, topic_filter: str | None, after: str | None, limit: int
    ) -> list[RetainedPut]:
        """See mqtrio.Store."""
        rows = await self._writer.call("retained", topic_filter, after, limit)
        return [retained_put(row) for row in rows]

    async def close(self) -> None:
        """See mqtrio.Store."""
        await self._writer.close()
