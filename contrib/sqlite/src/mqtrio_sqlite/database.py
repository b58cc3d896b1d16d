"""The database file: opened, committed to and read by one thread at a time, without Trio."""

import contextlib
import sqlite3
from collections.abc import Collection, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import define

from mqtrio import StoreError, topic_matches
from mqtrio_sqlite.errors import explained
from mqtrio_sqlite.plan import Plan, Sessions
from mqtrio_sqlite.records import Record, Row
from mqtrio_sqlite.schema import migrate, version_of

PAGE_SIZE: Final = 4096

#: Kibibytes of pages that are held in memory.
_CACHE: Final = 32 * 1024

#: (sessions as `records.loaded_session` takes them, wills, references, highest message id, messages
#: that entries refer to and the bytes of their payloads)
LoadedRows: TypeAlias = tuple[list[Row], list[Row], list[tuple[int, int]], int, int, int]

#: Messages with more than one entry, and those with none.
_SHARED_MESSAGES: Final = "SELECT message, count(*) FROM queue GROUP BY message HAVING count(*) > 1"
_UNUSED_MESSAGES: Final = "SELECT id, 0 FROM messages WHERE id NOT IN (SELECT message FROM queue)"

#: The place of the payload in a row of `queued`.
_PAYLOAD: Final = 9

_SESSION: Final = (
    "client_id, username, version, expiry_interval, epoch, created_at, credentials_expire_at"
)


@define(frozen=True, kw_only=True)
class Options:
    """How a database is opened; see SqliteSettings."""

    path: Path
    synchronous: str = "full"
    busy_timeout: float = 5.0
    max_size: int | None = None
    checkpoint: int = 16 * 1024 * 1024


class Database:
    """A database that nobody else may write to. Raises StoreErrors that name the file."""

    def __init__(self, options: Options) -> None:
        self.path = options.path
        self.commits = 0
        self._sessions: Sessions = {}
        with explained(self.path):
            self._owner = _take(options)
            try:
                self.connection = self._open(options)
                (self.commits,) = self.connection.execute("SELECT commits FROM meta").fetchone()
            except BaseException:
                self._owner.close()
                raise

    def _open(self, options: Options) -> sqlite3.Connection:
        connection = sqlite3.connect(
            options.path,
            timeout=options.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            version_of(connection)  # before anything is written to it
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise StoreError("its file system has no room for a write-ahead log")
            connection.execute(f"PRAGMA synchronous = {options.synchronous}")
            connection.execute("PRAGMA secure_delete = OFF")
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            pages = max(1, options.checkpoint // PAGE_SIZE)
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            connection.execute(f"PRAGMA journal_size_limit = {4 * options.checkpoint}")
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            most = 0xFFFFFFFE if options.max_size is None else options.max_size // size
            connection.execute(f"PRAGMA max_page_count = {most}")
            migrate(connection)
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    # -- writing

    def commit(self, records: Sequence[Record]) -> int:
        """Apply all changes, or none; returns the number of the commit, which is durable."""
        return self.commit_all([records])

    def commit_all(self, batches: Iterable[Sequence[Record]]) -> int:
        """Apply all changes of all batches as one commit."""
        with explained(self.path):
            self._transaction(batches)
        self.commits += 1
        return self.commits

    def _transaction(self, batches: Iterable[Sequence[Record]]) -> None:
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            plan = Plan(connection, self._sessions)
            for records in batches:
                plan.take(records)
                plan.flush()
            connection.execute("UPDATE meta SET commits = ?", (self.commits + 1,))
            connection.execute("COMMIT")
        except BaseException:
            self._sessions.clear()
            self._forget(connection)
            raise

    def _forget(self, connection: sqlite3.Connection) -> None:
        """Roll back, also what stands in the log already.

        When the disk fails after the last page of a transaction was written, a broker that starts
        after a crash would find it there. So something harmless is written over it.
        """
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("UPDATE meta SET refused = refused + 1")

    # -- reading

    def load(self, client_ids: Collection[str] | None = None) -> LoadedRows:
        """Give the rows of `Store.load`; loading everything drops messages that nobody needs."""
        with explained(self.path):
            if client_ids is None:
                self.connection.execute(
                    "DELETE FROM messages WHERE id NOT IN (SELECT message FROM queue)"
                )
                references = self._rows(_SHARED_MESSAGES)
                sessions = self._all_sessions()
                return (sessions, self._wills(), references, self._highest(), *self._queued())
            sessions = []
            wills: list[Row] = []
            for client_id in client_ids:
                sessions += self._all_sessions("WHERE client_id = ?", (client_id,))
                wills += self._rows("SELECT * FROM wills WHERE client_id = ?", (client_id,))
            references = self._rows(f"{_SHARED_MESSAGES} UNION ALL {_UNUSED_MESSAGES}")
            queued = self._queued("WHERE id IN (SELECT message FROM queue)")
            return (sessions, wills, references, self._highest(), *queued)

    def _all_sessions(self, where: str = "", values: Row = ()) -> list[Row]:
        chosen = f"(SELECT id FROM sessions {where})"
        subscriptions = self._grouped(
            "SELECT session, topic_filter, qos, no_local, retain_as_published, retain_handling, "
            f"identifier, sent FROM subscriptions WHERE session IN {chosen}",
            values,
        )
        received = self._grouped(
            f"SELECT session, packet_id FROM received WHERE session IN {chosen}", values
        )
        queues = self._grouped(
            "SELECT session, count(*), sum(length(payload) + length(topic)), max(sequence), "
            "min(expires_at) FROM queue JOIN messages ON messages.id = message "
            f"WHERE session IN {chosen} GROUP BY session",
            values,
        )
        return [
            (
                row[2:],
                row[1],
                subscriptions.get(row[0], []),
                [packet_id for (packet_id,) in received.get(row[0], [])],
                *queues.get(row[0], [(0, 0, 0, None)])[0],
            )
            for row in self._rows(f"SELECT id, closed_at, {_SESSION} FROM sessions {where}", values)
        ]

    def _grouped(self, query: str, values: Row) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for session, *row in self.connection.execute(query, values):
            found.setdefault(session, []).append(tuple(row))
        return found

    def _wills(self) -> list[Row]:
        return self._rows("SELECT * FROM wills")

    def _highest(self) -> int:
        (highest,) = self.connection.execute("SELECT ifnull(max(id), 0) FROM messages").fetchone()
        return int(highest)

    def _queued(self, where: str = "") -> tuple[int, int]:
        ((count, size),) = self._rows(
            f"SELECT count(*), ifnull(sum(length(payload)), 0) FROM messages {where}"
        )
        return count, size

    def queued(self, client_id: str, after: int, limit: int, size: int | None = None) -> list[Row]:
        """Give a page of a queue, as rows for `records.queued_row`."""
        found: list[Row] = []
        with explained(self.path):
            cursor = self.connection.execute(
                "SELECT sequence, queue.qos, queue.retain, identifiers, packet_id, shared, "
                "released, messages.* FROM queue JOIN messages ON messages.id = message "
                "WHERE session = (SELECT id FROM sessions WHERE client_id = ?) AND sequence > ? "
                "ORDER BY sequence LIMIT ?",
                (client_id, after, limit),
            )
            with contextlib.closing(cursor):
                for row in cursor:
                    found.append(row)
                    if size is not None:
                        size -= len(row[_PAYLOAD])
                        if size <= 0:
                            break
        return found

    def retained(self, topic_filter: str | None, after: str | None, limit: int) -> list[Row]:
        """Give a page of the retained messages, as rows for `records.retained_put`."""
        found: list[Row] = []
        if limit > 0:
            with explained(self.path), contextlib.closing(self._range(topic_filter, after)) as rows:
                for row in rows:
                    if topic_filter is None or topic_matches(topic_filter, row[0]):
                        found.append(tuple(row))
                        if len(found) == limit:
                            break
        return found

    def _range(self, topic_filter: str | None, after: str | None) -> Generator[Any, None, None]:
        """Go through the retained messages that a filter may match, in the order of topics."""
        begin, end = _bounds(topic_filter)
        query = "SELECT * FROM retained WHERE topic >= ? AND topic > ?"
        values = [begin, after or ""]
        if end is not None:
            query += " AND topic < ?"
            values.append(end)
        cursor = self.connection.execute(f"{query} ORDER BY topic", values)
        try:
            yield from cursor
        finally:
            cursor.close()

    def _rows(self, query: str, values: Row = ()) -> list[Any]:
        return self.connection.execute(query, values).fetchall()

    # -- the end

    def close(self) -> None:
        """Move the write-ahead log into the database, and let go of it."""
        try:
            with explained(self.path):
                self.connection.close()
        finally:
            self._owner.close()


def _take(options: Options) -> sqlite3.Connection:
    """Take possession of a database; the system gives it back when this process ends, however.

    Without this two brokers could take turns at one database, each with half of the truth in
    memory. The lock is SQLite's own, on a file beside, so that others may still read the database.
    """
    path = options.path.with_name(f"{options.path.name}.lock")
    owner = sqlite3.connect(
        path, timeout=options.busy_timeout, isolation_level=None, check_same_thread=False
    )
    try:
        owner.execute("PRAGMA journal_mode = MEMORY")
        owner.execute("BEGIN EXCLUSIVE")
    except BaseException:
        owner.close()
        raise
    return owner


def _bounds(topic_filter: str | None) -> tuple[str, str | None]:
    """Give the topics between which all that match a filter stand: at least, and below."""
    if topic_filter is None:
        return "", None
    fixed: list[str] = []
    for level in topic_filter.split("/"):
        if level in ("+", "#"):
            begin = "/".join(fixed)
            return begin, _above(begin)
        fixed.append(level)
    return topic_filter, topic_filter + "\0"


def _above(begin: str) -> str | None:
    """Give what is above all texts that begin so, if there is something."""
    last = ord(begin[-1]) + 1 if begin else 0x110000
    if last == 0xD800:  # no text has surrogates
        last = 0xE000
    return begin[:-1] + chr(last) if last < 0x110000 else None
