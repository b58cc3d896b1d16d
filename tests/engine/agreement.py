"""Comparing what a broker has in memory with what its store holds."""

from collections import Counter
from typing import Any

import trio
from attrs import evolve

from mqtrio.engine.core import Core
from mqtrio.engine.wills import PendingWill
from mqtrio.state.message import Message
from mqtrio.state.session import Delivery, Session
from mqtrio.store.changes import (
    MessagePut,
    RetainedPut,
    SessionPut,
    SubscriptionPut,
    WillPut,
    stored_properties,
)
from mqtrio.store.stored import StoredEntry, StoredSession, StoredState
from mqtrio.testing import FaultyStore, Harness


def in_memory(core: Core, like: StoredState) -> StoredState:
    """The state that a store must hold for this memory.

    Moments of the wall clock that memory doesn't keep are those of `like`, and so is what memory
    has not read: it must know how much that is.
    """
    state = StoredState()
    unread: Counter[int] = Counter()
    for session in core.sessions.by_id.values():
        if session.stored:
            _session(core, session, like, state)
            for sequence, entry in _unread(session, like).items():
                state.queues[session.client_id][sequence] = entry
                unread[entry.message_id] += 1
    state.messages = {number: like.messages[number] for number in unread}
    held = core.recorder.messages
    assert core.recorder.references.counts == {
        number: count for number, count in unread.items() if count > 1 or number in held
    }
    for number, message in core.recorder.messages.items():
        assert message.message_id == number
        assert message.references, f"nobody holds {message!r} any more"
        state.messages[number] = _message(core, message)
    _counts(core, [like.messages[number] for number in unread if number not in held])
    for kept in core.retained.match("#"):
        state.retained[kept.topic] = _retained(core, kept)
    for kept in core.retained.match("$x/#"):
        state.retained[kept.topic] = _retained(core, kept)
    for client_id, connection in core.sessions.holders.items():
        if connection.will is not None and connection.session is not None:
            if connection.session.stored:
                state.wills[client_id] = _will(connection.will, None)
    for client_id, (_, _, pending) in core.wills.registry._pending.items():
        due = like.wills[client_id].due if client_id in like.wills else None
        state.wills[client_id] = _will(pending, due)
    return state


def _counts(core: Core, away: list[MessagePut]) -> None:
    """Messages are counted once, wherever they are; `away` are those that memory doesn't hold."""
    sessions = {*core.sessions.by_id.values(), *core.sessions.local}
    holders = [delivery.message for session in sessions for delivery in session.deliveries()]
    for topic_filter in ("#", "$x/#"):
        holders += filter(None, core.retained.match(topic_filter))
    payloads = [len(message.payload) for message in set(holders)]
    deliveries, references = core.deliveries, core.recorder.references
    assert (deliveries.held, deliveries.held_bytes) == (len(payloads), sum(payloads))
    payloads = [len(message.payload) for message in away]
    assert (references.away, references.away_bytes) == (len(payloads), sum(payloads))


def _session(core: Core, session: Session, like: StoredState, state: StoredState) -> None:
    client_id = session.client_id
    old = like.sessions.get(client_id)
    connected = session.outlet is not None or client_id in core.sessions.holders
    if connected:
        closed_at = None
    else:
        # Where the store says nothing, memory can't know better: it is a session of this process.
        closed_at = old.closed_at if old is not None else 0.0
    put = SessionPut(
        client_id,
        session.username,
        session.version,
        session.expiry_interval,
        session.epoch,
        old.session.created_at if old is not None else 0.0,
        old.session.credentials_expire_at if old is not None else None,
    )
    state.sessions[client_id] = StoredSession(put, closed_at)
    state.subscriptions[client_id] = {
        name: SubscriptionPut(
            client_id,
            name,
            own.qos,
            own.no_local,
            own.retain_as_published,
            own.retain_handling,
            own.identifier,
            own.sent if own.sent != name else "",
        )
        for name, own in session.subscriptions.items()
    }
    deliveries = sorted(session.deliveries(), key=lambda delivery: delivery.sequence)
    state.queues[client_id] = {each.sequence: _entry(core, each) for each in deliveries}
    state.received[client_id] = dict.fromkeys(session.received or ())


def _unread(session: Session, like: StoredState) -> dict[int, StoredEntry]:
    if session.unread is None:
        return {}
    queue = like.queues.get(session.client_id, {})
    found = {number: each for number, each in queue.items() if number > session.unread.after}
    assert session.unread.count == len(found)
    assert not session.unread.reading
    return found


def _entry(core: Core, delivery: Delivery) -> StoredEntry:
    group = delivery.group
    shared = f"$share/{group.name}/{group.pattern}" if group is not None else ""
    return StoredEntry(
        delivery.message.message_id,
        delivery.qos,
        delivery.retain,
        delivery.identifiers,
        delivery.packet_id,
        _alive(core, shared),
        delivery.released,
    )


def _alive(core: Core, shared: str) -> str:
    """A shared subscription without a member is forgotten by memory, and doesn't matter."""
    return shared if shared and core.router.index.group_of(shared) is not None else ""


def _expires_at(core: Core, message: Message) -> float | None:
    return round(core.clock.to_wall(message.expires_at), 3) if message.expires_at >= 0 else None


def _message(core: Core, message: Message) -> MessagePut:
    return MessagePut(
        message.message_id,
        message.topic,
        message.payload,
        message.qos,
        message.retain,
        stored_properties(message.properties),
        message.client_id,
        message.username,
        _expires_at(core, message),
        message.origin,
        message.node,
    )


def _retained(core: Core, message: Message) -> RetainedPut:
    return RetainedPut(
        message.topic,
        message.payload,
        message.qos,
        stored_properties(message.properties),
        message.client_id,
        message.username,
        _expires_at(core, message),
        message.origin,
        message.node,
    )


def _will(pending: PendingWill, due: float | None) -> WillPut:
    will = pending.will
    properties = will.properties
    return WillPut(
        pending.client_id,
        pending.username,
        will.topic,
        will.payload,
        will.qos,
        will.retain,
        will.delay_interval,
        properties.message_expiry_interval if properties is not None else None,
        stored_properties(properties),
        due,
        pending.ruling,
    )


def _comparable(core: Core, state: StoredState) -> StoredState:
    copy = state.copy()
    for queue in copy.queues.values():
        for sequence, entry in queue.items():
            queue[sequence] = evolve(entry, shared=_alive(core, entry.shared))
    for table in (copy.messages, copy.retained):
        for row in table.values():
            if row.expires_at is not None:
                row.expires_at = round(row.expires_at, 3)
    return copy


async def agree(harness: Harness, store: FaultyStore) -> None:
    """Wait until all is committed; then memory and store must hold the same."""
    await trio.sleep(10)
    core = harness.broker._core
    assert not core.sessions.reloading
    stored = _comparable(core, store.state)
    memory = in_memory(core, stored)
    differences = memory.differences(stored)
    assert not differences, [
        (name, _look(memory, name), _look(stored, name)) for name in differences
    ]


def _look(state: StoredState, difference: str) -> Any:
    table, _, key = difference.partition(": ")
    return next((v for k, v in state.tables()[table].items() if repr(k) == key), "nothing")
