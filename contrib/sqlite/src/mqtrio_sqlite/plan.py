"""What a batch comes to: changes that undo each other inside of it never reach the tables.

A subscriber that is there acknowledges most messages within the batch that brought them; then the
message, its place in the queue and what became of it are nothing at all. What is left is written
with a few `executemany`, whatever the order of the changes was. Where order could matter the plan
is written out first (`flush`).

Whether a change fits what is stored is seen here or by the constraints of the tables; either way
the batch is refused as a whole.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from mqtrio import (
    Change,
    MessagePut,
    MessageRemoved,
    QueuedPut,
    QueuedReleased,
    QueuedRemoved,
    QueuedSent,
    ReceivedPut,
    ReceivedRemoved,
    RetainedPut,
    RetainedRemoved,
    SessionClosed,
    SessionPut,
    SessionRemoved,
    SessionSetAside,
    StoreError,
    SubscriptionPut,
    SubscriptionRemoved,
    WillPut,
    WillRemoved,
)
from mqtrio_sqlite.records import KINDS, Record, Row, list_column, property_columns

#: A session's row and an entry's sequence, or a packet identifier.
Key = tuple[int, int]

#: Client identifier -> its session's row, and a sequence that none in its queue is above.
Sessions = dict[str, list[int]]

# Places in a row of the queue.
_PACKET_ID: Final = 6
_RELEASED: Final = 8


class Plan:
    """Takes changes in their order and writes what they come to.

    `sessions` is kept from one plan to the next; it must be emptied when a batch was rolled back.
    """

    def __init__(self, connection: sqlite3.Connection, sessions: Sessions) -> None:
        self.connection = connection
        self.sessions = sessions
        self._begin()
        one_by_one: dict[type[Change], Callable[[Row], None]] = {
            SessionPut: self._session_put,
            SessionRemoved: self._session_removed,
            SessionSetAside: self._session_set_aside,
            SessionClosed: self._session_closed,
            SubscriptionPut: self._subscription_put,
            SubscriptionRemoved: self._subscription_removed,
            MessageRemoved: self._message_removed,
            QueuedSent: self._queued_sent,
            QueuedReleased: self._queued_released,
            QueuedRemoved: self._queued_removed,
            ReceivedPut: self._received_put,
            ReceivedRemoved: self._received_removed,
            RetainedPut: self._retained_put,
            RetainedRemoved: self._retained_removed,
            WillPut: self._will_put,
            WillRemoved: self._will_removed,
        }
        # These two are most of what comes.
        together: dict[type[Change], Callable[[list[Row]], None]] = {
            MessagePut: self._messages_put,
            QueuedPut: self._queued_put,
        }
        self._handlers = tuple(
            together.get(kind) or partial(self._each, one_by_one[kind]) for kind in KINDS
        )

    def _begin(self) -> None:
        # What is new in this batch, and what becomes of what was there before.
        self._messages: dict[int, Row] = {}
        self._references: dict[int, int] = {}
        self._queued: dict[Key, list[Any]] = {}
        self._sent: dict[Key, int] = {}
        self._released: dict[Key, None] = {}
        self._finished: dict[Key, None] = {}
        self._dropped: dict[int, None] = {}
        self._received: dict[Key, None] = {}
        self._freed: dict[Key, None] = {}
        self._retained: dict[str, Row | None] = {}
        self._wills: dict[str, Row | None] = {}

    def take(self, records: Sequence[Record]) -> None:
        """Take changes. Raises StoreError, or an error of SQLite, if one of them doesn't fit."""
        handlers = self._handlers
        for number, rows in records:
            handlers[number](rows)

    @staticmethod
    def _each(handler: Callable[[Row], None], rows: list[Row]) -> None:
        for row in rows:
            handler(row)

    # -- sessions and subscriptions: few, so they are written at once

    def _session(self, client_id: str) -> list[int]:
        known = self.sessions.get(client_id)
        if known is None:
            found = self.connection.execute(
                "SELECT id, (SELECT ifnull(max(sequence), 0) FROM queue WHERE session = id) "
                "FROM sessions WHERE client_id = ?",
                (client_id,),
            ).fetchone()
            if found is None:
                raise StoreError(f"a change is for session {client_id!r}, which isn't there")
            known = self.sessions[client_id] = list(found)
        return known

    def _session_put(self, row: Row) -> None:
        self.connection.execute(
            "INSERT INTO sessions (client_id, username, version, expiry_interval, epoch, "
            "created_at, credentials_expire_at) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (client_id) DO UPDATE SET username = excluded.username, "
            "version = excluded.version, expiry_interval = excluded.expiry_interval, "
            "epoch = excluded.epoch, created_at = excluded.created_at, "
            "credentials_expire_at = excluded.credentials_expire_at, closed_at = NULL",
            row,
        )

    def _session_removed(self, row: Row) -> None:
        (client_id,) = row
        session = self._session(client_id)[0]
        self.flush()
        self.connection.execute("DELETE FROM sessions WHERE id = ?", (session,))
        del self.sessions[client_id]

    def _session_set_aside(self, row: Row) -> None:
        client_id, name = row
        known = self._session(client_id)
        self.flush()
        for table in ("subscriptions", "received"):
            self.connection.execute(f"DELETE FROM {table} WHERE session = ?", known[:1])
        self.connection.execute("UPDATE sessions SET client_id = ? WHERE id = ?", (name, known[0]))
        self.sessions[name] = self.sessions.pop(client_id)

    def _session_closed(self, row: Row) -> None:
        client_id, closed_at = row
        self.connection.execute(
            "UPDATE sessions SET closed_at = ? WHERE id = ?",
            (closed_at, self._session(client_id)[0]),
        )

    def _subscription_put(self, row: Row) -> None:
        client_id, *columns = row
        self.connection.execute(
            "INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self._session(client_id)[0], *columns),
        )

    def _subscription_removed(self, row: Row) -> None:
        client_id, topic_filter = row
        cursor = self.connection.execute(
            "DELETE FROM subscriptions WHERE session = ? AND topic_filter = ?",
            (self._session(client_id)[0], topic_filter),
        )
        _expect(cursor.rowcount, 1, "a subscription")

    # -- messages and queues

    def _messages_put(self, rows: list[Row]) -> None:
        put = {row[0]: row for row in rows}
        if not self._dropped.keys().isdisjoint(put):
            self.flush()
        messages = self._messages
        count = len(messages) + len(rows)
        messages |= put
        if len(messages) != count:
            raise StoreError("a message is put twice")

    def _message_removed(self, row: Row) -> None:
        (message_id,) = row
        if message_id in self._messages:
            if self._references.get(message_id):
                raise StoreError(f"message {message_id} is still in a queue")
            del self._messages[message_id]
        elif message_id in self._dropped:
            raise StoreError(f"message {message_id} is removed twice")
        else:
            self._dropped[message_id] = None

    def _queued_put(self, rows: list[Row]) -> None:
        messages, references, queued = self._messages, self._references, self._queued
        of, session = None, [0, 0]
        for client_id, sequence, message_id, qos, retain, identifiers, packet_id, shared in rows:
            if client_id != of:
                of, session = client_id, self._session(client_id)
            number, highest = session
            if sequence <= highest:
                self._check_order(client_id, sequence)
                session = self._session(client_id)
                messages, references, queued = self._messages, self._references, self._queued
            session[1] = sequence
            if message_id in messages:
                references[message_id] = references.get(message_id, 0) + 1
            elif message_id in self._dropped:
                raise StoreError(f"message {message_id} is gone")
            queued[number, sequence] = [
                *(number, sequence, message_id, qos, retain),
                *(list_column(identifiers) if identifiers else None, packet_id, shared, False),
            ]

    def _check_order(self, client_id: str, sequence: int) -> None:
        """Look whether a sequence that seems out of order is so in what is stored."""
        self.flush()
        del self.sessions[client_id]
        if sequence <= self._session(client_id)[1]:
            raise StoreError(f"entry {sequence} of session {client_id!r} is out of order")

    def _key(self, row: Row) -> Key:
        key = (self._session(row[0])[0], row[1])
        if key in self._finished:
            raise StoreError(f"entry {row[1]} of session {row[0]!r} is finished")
        return key

    def _queued_sent(self, row: Row) -> None:
        packet_id = row[2]
        key = self._key(row)
        entry = self._queued.get(key)
        before = self._sent.get(key, 0) if entry is None else entry[_PACKET_ID]
        if before not in (0, packet_id):
            raise StoreError(f"entry {row[1]} of session {row[0]!r} was sent otherwise before")
        if entry is None:
            self._sent[key] = packet_id
        else:
            entry[_PACKET_ID] = packet_id

    def _queued_released(self, row: Row) -> None:
        key = self._key(row)
        entry = self._queued.get(key)
        if entry is None:
            self._released[key] = None
        elif entry[3] == 2 and entry[_PACKET_ID]:
            entry[_RELEASED] = True
        else:
            raise StoreError(f"entry {row[1]} of session {row[0]!r} was not sent by QoS 2")

    def _queued_removed(self, row: Row) -> None:
        key = self._key(row)
        entry = self._queued.pop(key, None)
        if entry is None:
            self._finished[key] = None
            if key not in self._released:  # whose condition is seen when it is written
                self._sent.pop(key, None)
        elif entry[2] in self._messages:
            self._references[entry[2]] -= 1

    # -- received packet identifiers: what was freed may be taken again in the same batch

    def _received_put(self, row: Row) -> None:
        key = (self._session(row[0])[0], row[1])
        if key in self._received:
            raise StoreError(f"packet identifier {row[1]} of session {row[0]!r} is in use")
        self._received[key] = None

    def _received_removed(self, row: Row) -> None:
        key = (self._session(row[0])[0], row[1])
        if key in self._received:
            del self._received[key]
        elif key in self._freed:
            raise StoreError(f"packet identifier {row[1]} of session {row[0]!r} is not in use")
        else:
            self._freed[key] = None

    # -- retained messages and wills: the last one wins

    def _retained_put(self, row: Row) -> None:
        self._retained[row[0]] = (*row[:3], *property_columns(row[3]), *row[4:])

    def _retained_removed(self, row: Row) -> None:
        self._retained[row[0]] = None

    def _will_put(self, row: Row) -> None:
        self._wills[row[0]] = (*row[:8], *property_columns(row[8]), *row[9:])

    def _will_removed(self, row: Row) -> None:
        (client_id,) = row
        if client_id in self._wills:
            there = self._wills[client_id] is not None
        else:
            query = "SELECT 1 FROM wills WHERE client_id = ?"
            there = self.connection.execute(query, row).fetchone() is not None
        if not there:
            raise StoreError(f"client {client_id!r} has no will")
        self._wills[client_id] = None

    # -- writing

    def flush(self) -> None:
        """Write what the changes come to so far, and begin anew."""
        many = self._many
        many(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*row[:5], *property_columns(row[5]), *row[6:])
                for row in self._messages.values()
                if row[5] is not None
            ],
        )
        many(
            "INSERT INTO messages (id, topic, payload, qos, retain, publisher, username, "
            "expires_at, origin, node) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(*row[:5], *row[6:]) for row in self._messages.values() if row[5] is None],
        )
        many("INSERT INTO queue VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", list(self._queued.values()))
        many(
            "UPDATE queue SET packet_id = ?1 WHERE session = ?2 AND sequence = ?3 "
            "AND packet_id IN (0, ?1)",
            [(packet_id, *key) for key, packet_id in self._sent.items()],
        )
        many(
            "UPDATE queue SET released = 1 WHERE session = ? AND sequence = ? "
            "AND qos = 2 AND packet_id != 0",
            list(self._released),
        )
        many("DELETE FROM queue WHERE session = ? AND sequence = ?", list(self._finished))
        many("DELETE FROM messages WHERE id = ?", [(each,) for each in self._dropped])
        many("DELETE FROM received WHERE session = ? AND packet_id = ?", list(self._freed))
        many("INSERT INTO received VALUES (?, ?)", list(self._received))
        self._last_ones("retained", "topic", self._retained, 13)
        self._last_ones("wills", "client_id", self._wills, 15)
        self._begin()

    def _last_ones(self, table: str, key: str, rows: dict[str, Row | None], width: int) -> None:
        put = [row for row in rows.values() if row is not None]
        gone = [(name,) for name, row in rows.items() if row is None]
        marks = ", ".join("?" * width)
        self._many(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", put)
        if gone:
            self.connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", gone)

    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement that has to change one row each time."""
        if rows:
            cursor = self.connection.executemany(statement, rows)
            _expect(cursor.rowcount, len(rows), statement)


def _expect(changed: int, wanted: int, what: str) -> None:
    if changed != wanted:
        raise StoreError(f"changes don't fit what is stored: {wanted - changed} of {what!r}")
