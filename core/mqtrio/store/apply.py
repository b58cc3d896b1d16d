"""The one function that changes a StoredState: what each change means.

A change that refers to something that isn't there, or puts twice what may be put once, is a
StoreError and changes nothing: it would be a bug of the core, and a store that swallowed it would
lose data quietly. Retained messages are the exception; the last value of a topic wins.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from attrs import evolve

from mqtrio.errors import StoreError
from mqtrio.store.changes import (
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
    SubscriptionPut,
    SubscriptionRemoved,
    WillPut,
    WillRemoved,
)
from mqtrio.store.stored import StoredEntry, StoredSession, StoredState


def apply(state: StoredState, change: Change) -> None:
    """Apply one change. Raises StoreError, with nothing changed, if it can't be applied."""
    _HANDLERS[type(change)](state, change)


def apply_all(state: StoredState, changes: Iterable[Change]) -> None:
    """Apply all changes in order. Raises StoreError, with nothing changed, if one can't be."""
    with state.all_or_nothing():
        for change in changes:
            apply(state, change)


def _check(fine: bool, change: Change, wrong: str) -> None:
    if not fine:
        raise StoreError(f"{wrong}: {change!r}")


def _entry(state: StoredState, change: QueuedSent | QueuedReleased | QueuedRemoved) -> StoredEntry:
    entry = state.queues.get(change.client_id, {}).get(change.sequence)
    if entry is None:
        raise StoreError(f"unknown queue entry: {change!r}")
    return entry


def _session_put(state: StoredState, change: SessionPut) -> None:
    client_id = change.client_id
    if client_id not in state.sessions:
        state.put(state.subscriptions, client_id, {})
        state.put(state.queues, client_id, {})
        state.put(state.received, client_id, {})
    state.put(state.sessions, client_id, StoredSession(change))


def _session_removed(state: StoredState, change: SessionRemoved) -> None:
    client_id = change.client_id
    _check(client_id in state.sessions, change, "unknown session")
    for entry in state.queues[client_id].values():
        state.refer(entry.message_id, -1)
    for table in (state.sessions, state.subscriptions, state.queues, state.received):
        state.remove(table, client_id)


def _session_set_aside(state: StoredState, change: SessionSetAside) -> None:
    client_id, name = change.client_id, change.name
    _check(client_id in state.sessions, change, "unknown session")
    _check(name not in state.sessions, change, "name in use")
    stored = state.sessions[client_id]
    renamed = evolve(stored, session=evolve(stored.session, client_id=name))
    state.put(state.sessions, name, renamed)
    state.put(state.queues, name, state.queues[client_id])
    state.put(state.subscriptions, name, {})
    state.put(state.received, name, {})
    for table in (state.sessions, state.subscriptions, state.queues, state.received):
        state.remove(table, client_id)


def _session_closed(state: StoredState, change: SessionClosed) -> None:
    stored = state.sessions.get(change.client_id)
    if stored is None:
        raise StoreError(f"unknown session: {change!r}")
    state.put(state.sessions, change.client_id, evolve(stored, closed_at=change.closed_at))


def _subscription_put(state: StoredState, change: SubscriptionPut) -> None:
    _check(change.client_id in state.sessions, change, "unknown session")
    state.put(state.subscriptions[change.client_id], change.topic_filter, change)


def _subscription_removed(state: StoredState, change: SubscriptionRemoved) -> None:
    subscriptions = state.subscriptions.get(change.client_id, {})
    _check(change.topic_filter in subscriptions, change, "unknown subscription")
    state.remove(subscriptions, change.topic_filter)


def _message_put(state: StoredState, change: MessagePut) -> None:
    _check(change.message_id not in state.messages, change, "message id in use")
    state.put(state.messages, change.message_id, change)


def _message_removed(state: StoredState, change: MessageRemoved) -> None:
    _check(change.message_id in state.messages, change, "unknown message")
    _check(change.message_id not in state.references, change, "message still referred to")
    state.remove(state.messages, change.message_id)


def _queued_put(state: StoredState, change: QueuedPut) -> None:
    client_id = change.client_id
    _check(client_id in state.sessions, change, "unknown session")
    _check(change.message_id in state.messages, change, "unknown message")
    _check(change.sequence > state.highest_sequence(client_id), change, "sequence out of order")
    entry = StoredEntry(
        change.message_id,
        change.qos,
        change.retain,
        change.identifiers,
        change.packet_id,
        change.shared,
    )
    state.put(state.queues[client_id], change.sequence, entry)
    state.refer(change.message_id, 1)


def _queued_sent(state: StoredState, change: QueuedSent) -> None:
    entry = _entry(state, change)
    fine = entry.packet_id in (0, change.packet_id)
    _check(fine, change, "sent with another packet identifier before")
    sent = evolve(entry, packet_id=change.packet_id)
    state.put(state.queues[change.client_id], change.sequence, sent)


def _queued_released(state: StoredState, change: QueuedReleased) -> None:
    entry = _entry(state, change)
    _check(entry.qos == 2 and entry.packet_id != 0, change, "no QoS 2 message that was sent")
    state.put(state.queues[change.client_id], change.sequence, evolve(entry, released=True))


def _queued_removed(state: StoredState, change: QueuedRemoved) -> None:
    entry = _entry(state, change)
    state.remove(state.queues[change.client_id], change.sequence)
    state.refer(entry.message_id, -1)


def _received_put(state: StoredState, change: ReceivedPut) -> None:
    _check(change.client_id in state.sessions, change, "unknown session")
    received = state.received[change.client_id]
    _check(change.packet_id not in received, change, "packet identifier in use")
    state.put(received, change.packet_id, None)


def _received_removed(state: StoredState, change: ReceivedRemoved) -> None:
    received = state.received.get(change.client_id, {})
    _check(change.packet_id in received, change, "unknown packet identifier")
    state.remove(received, change.packet_id)


def _retained_put(state: StoredState, change: RetainedPut) -> None:
    state.put(state.retained, change.topic, change)


def _retained_removed(state: StoredState, change: RetainedRemoved) -> None:
    if change.topic in state.retained:
        state.remove(state.retained, change.topic)


def _will_put(state: StoredState, change: WillPut) -> None:
    state.put(state.wills, change.client_id, change)


def _will_removed(state: StoredState, change: WillRemoved) -> None:
    _check(change.client_id in state.wills, change, "unknown will")
    state.remove(state.wills, change.client_id)


_Handler: TypeAlias = Callable[[StoredState, Any], None]

_HANDLERS: Final[dict[type[Change], _Handler]] = {
    SessionPut: _session_put,
    SessionRemoved: _session_removed,
    SessionSetAside: _session_set_aside,
    SessionClosed: _session_closed,
    SubscriptionPut: _subscription_put,
    SubscriptionRemoved: _subscription_removed,
    MessagePut: _message_put,
    MessageRemoved: _message_removed,
    QueuedPut: _queued_put,
    QueuedSent: _queued_sent,
    QueuedReleased: _queued_released,
    QueuedRemoved: _queued_removed,
    ReceivedPut: _received_put,
    ReceivedRemoved: _received_removed,
    RetainedPut: _retained_put,
    RetainedRemoved: _retained_removed,
    WillPut: _will_put,
    WillRemoved: _will_removed,
}
