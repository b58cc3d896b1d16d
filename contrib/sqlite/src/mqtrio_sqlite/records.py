"""Changes as plain tuples, and rows of the tables as what a store gives back.

A record is (number of the kind, rows of the fields of changes of that kind in their order), for
changes of one kind that follow each other: what `marshal` can carry to another process, and what
the database is told.
"""

import json
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeAlias, get_args

import attrs

from mqtrio import (
    Change,
    LoadedSession,
    MessagePut,
    QueuedRow,
    RetainedPut,
    SessionPut,
    SubscriptionPut,
    WillPut,
)

Row: TypeAlias = tuple[Any, ...]
Record: TypeAlias = tuple[int, list[Row]]
Properties: TypeAlias = tuple[int | None, str | None, str | None, bytes | None, Any]

#: The kinds of changes in the order of their numbers. The numbers are kept in no file.
KINDS: Final[tuple[type[Change], ...]] = get_args(Change)


def _getter(kind: type[Change]) -> Callable[[Any], Row]:
    names = [field.name for field in attrs.fields(kind)]
    if len(names) > 1:
        return attrgetter(*names)
    (name,) = names
    return lambda change: (getattr(change, name),)


_GETTERS: Final = {kind: (n, _getter(kind)) for n, kind in enumerate(KINDS)}


def records(changes: Iterable[Change]) -> list[Record]:
    """Give changes as records."""
    found = []
    for kind, alike in groupby(changes, type):
        number, getter = _GETTERS[kind]
        found.append((number, list(map(getter, alike))))
    return found


# -- properties: five columns


def property_columns(properties: Properties | None) -> Row:
    """Give the columns of a message's properties."""
    if properties is None:
        return (None, None, None, None, None)
    return (*properties[:4], json.dumps(properties[4], ensure_ascii=False))


def list_column(numbers: Iterable[int]) -> str | None:
    """Give the column of a tuple of numbers."""
    return json.dumps(list(numbers)) if numbers else None


def list_values(column: str | None) -> tuple[int, ...]:
    """Read the column of a tuple of numbers."""
    return tuple(json.loads(column)) if column else ()


def _properties(columns: Row) -> Properties | None:
    indicator, content_type, response_topic, correlation_data, pairs = columns
    if pairs is None:
        return None
    user_properties = tuple((key, value) for key, value in json.loads(pairs))
    return indicator, content_type, response_topic, correlation_data, user_properties


# -- rows


def session_put(row: Row) -> SessionPut:
    """Make a session's own record of its seven columns."""
    return SessionPut(*row)


def subscription_put(client_id: str, row: Row) -> SubscriptionPut:
    """Make a subscription of its columns."""
    topic_filter, qos, no_local, as_published, handling, identifier, sent = row
    return SubscriptionPut(
        *(client_id, topic_filter, qos, bool(no_local), bool(as_published)),
        *(handling, identifier, sent),
    )


def message_put(row: Row) -> MessagePut:
    """Make a message of its columns."""
    number, topic, payload, qos, retain = row[:5]
    return MessagePut(number, topic, payload, qos, bool(retain), _properties(row[5:10]), *row[10:])


def queued_row(row: Row) -> QueuedRow:
    """Make an entry of a queue of its columns and those of its message."""
    sequence, qos, retain, identifiers, packet_id, shared, released = row[:7]
    return QueuedRow(
        sequence,
        message_put(row[7:]),
        qos,
        bool(retain),
        list_values(identifiers),
        packet_id,
        bool(released),
        shared,
    )


def retained_put(row: Row) -> RetainedPut:
    """Make a retained message of its columns."""
    topic, payload, qos = row[:3]
    return RetainedPut(topic, payload, qos, _properties(row[3:8]), *row[8:])


def will_put(row: Row) -> WillPut:
    """Make a will of its columns."""
    client_id, username, topic, payload, qos, retain, delay, expiry = row[:8]
    return WillPut(
        *(client_id, username, topic, payload, qos, bool(retain), delay, expiry),
        *(_properties(row[8:13]), row[13], row[14]),
    )


def loaded_session(row: Row) -> LoadedSession:
    """Make a session of what `Database.load` gives."""
    own, closed_at, subscriptions, received, queued, queued_bytes, highest, expiry = row
    put = session_put(own)
    return LoadedSession(
        put,
        closed_at,
        tuple(subscription_put(put.client_id, each) for each in subscriptions),
        tuple(received),
        queued,
        queued_bytes,
        highest,
        expiry,
    )
