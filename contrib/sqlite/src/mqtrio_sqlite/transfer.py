"""A database as lines of JSON and back: a header, then the changes that make what is stored.

    {"mqtrio_store": 1}
    {"SessionPut": {"client_id": "ann", "version": 5, ...}}
    {"MessagePut": {"message_id": 7, "topic": "a/b", "payload": {"base64": "aGVsbG8="}, ...}}

Fields that have their default are left out. The order is one in which the changes can be applied.
"""

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from mqtrio import (
    Change,
    QueuedPut,
    QueuedReleased,
    ReceivedPut,
    SessionClosed,
    StoreError,
)
from mqtrio_sqlite.records import (
    KINDS,
    list_values,
    message_put,
    retained_put,
    session_put,
    subscription_put,
    will_put,
)

#: Raised whenever lines can't be read any more as they were.
FORMAT: Final = 1

_KINDS: Final = {kind.__name__: kind for kind in KINDS}

_SESSIONS: Final = (
    "SELECT client_id, username, version, expiry_interval, epoch, created_at, "
    "credentials_expire_at, closed_at FROM sessions ORDER BY id"
)
_OF_SESSION: Final = "JOIN sessions ON sessions.id = session ORDER BY session"


def changes_of(connection: sqlite3.Connection) -> Iterator[Change]:
    """Go through everything that is stored, as changes for an empty store."""
    for row in connection.execute(_SESSIONS):
        yield session_put(row[:7])
        if row[7] is not None:
            yield SessionClosed(row[0], row[7])
    for row in connection.execute(
        "SELECT client_id, topic_filter, qos, no_local, retain_as_published, retain_handling, "
        f"identifier, sent FROM subscriptions {_OF_SESSION}"
    ):
        yield subscription_put(row[0], row[1:])
    for row in connection.execute(f"SELECT client_id, packet_id FROM received {_OF_SESSION}"):
        yield ReceivedPut(*row)
    for row in connection.execute(
        "SELECT * FROM messages WHERE id IN (SELECT message FROM queue) ORDER BY id"
    ):
        yield message_put(row)
    for row in connection.execute(
        "SELECT client_id, sequence, message, qos, retain, identifiers, packet_id, shared, "
        f"released FROM queue {_OF_SESSION}, sequence"
    ):
        client_id, sequence, message_id, qos, retain, identifiers, packet_id, shared = row[:8]
        yield QueuedPut(
            *(client_id, sequence, message_id, qos, bool(retain)),
            *(list_values(identifiers), packet_id, shared),
        )
        if row[8]:
            yield QueuedReleased(client_id, sequence)
    for row in connection.execute("SELECT * FROM retained ORDER BY topic"):
        yield retained_put(row)
    for row in connection.execute("SELECT * FROM wills ORDER BY client_id"):
        yield will_put(row)


def lines(changes: Iterable[Change]) -> Iterator[str]:
    """Write changes as lines, without their ends; the header is the first."""
    yield json.dumps({"mqtrio_store": FORMAT})
    for change in changes:
        fields = {
            field.name: _plain(value)
            for field in attrs.fields(type(change))
            if (value := getattr(change, field.name)) != field.default
        }
        yield json.dumps({type(change).__name__: fields}, ensure_ascii=False)


def changes_in(given: Iterable[bytes]) -> Iterator[Change]:
    """Read lines. Raises StoreError that names the first one which can't be."""
    for number, line in enumerate(given, 1):
        try:
            value = json.loads(line)
            if number > 1:
                ((name, fields),) = value.items()
                values = {key: _value(each) for key, each in fields.items()}
                yield _KINDS[name](**values)
            elif value != {"mqtrio_store": FORMAT}:
                raise StoreError(f"it doesn't begin with {json.dumps({'mqtrio_store': FORMAT})}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"line {number} is no change ({type(error).__name__})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"], validate=True)
    if isinstance(value, list):
        return tuple(_value(each) for each in value)
    return value
