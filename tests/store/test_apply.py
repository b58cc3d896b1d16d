"""`apply` against a naive model: lists of rows, searched from end to end."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from attrs import evolve
from hypothesis import given, settings

from mqtrio.errors import StoreError
from mqtrio.store.apply import apply, apply_all
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
from mqtrio.store.stored import StoredState

# Small domains, so that changes meet each other often.
clients = st.sampled_from(["a", "b", "c"])
messages = st.integers(1, 4)
sequences = st.integers(1, 8)
packet_ids = st.integers(1, 3)
topics = st.sampled_from(["t", "t/u", "$x"])
payloads = st.binary(max_size=2)

changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        SessionPut, clients, st.none(), st.just(5), st.just(60), st.integers(1, 3), st.just(0.0)
    ),
    st.builds(SessionRemoved, clients),
    st.builds(SessionSetAside, clients, clients),
    st.builds(SessionClosed, clients, st.floats(0, 9)),
    st.builds(SubscriptionPut, clients, topics, st.integers(0, 2)),
    st.builds(SubscriptionRemoved, clients, topics),
    st.builds(MessagePut, messages, topics, payloads, st.integers(1, 2), st.booleans()),
    st.builds(MessageRemoved, messages),
    st.builds(QueuedPut, clients, sequences, messages, st.integers(1, 2)),
    st.builds(QueuedPut, clients, sequences, messages, st.integers(1, 2)),
    st.builds(QueuedSent, clients, sequences, packet_ids),
    st.builds(QueuedReleased, clients, sequences),
    st.builds(QueuedRemoved, clients, sequences),
    st.builds(ReceivedPut, clients, packet_ids),
    st.builds(ReceivedRemoved, clients, packet_ids),
    st.builds(RetainedPut, topics, payloads, st.integers(0, 2)),
    st.builds(RetainedRemoved, topics),
    st.builds(WillPut, clients, st.none(), topics, payloads, st.integers(0, 2), st.booleans()),
    st.builds(WillRemoved, clients),
)


class Model:
    """One flat list of rows. A row: its table, its key, its value."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, tuple[Any, ...], Any]] = []

    def keys(self, table: str, *start: object) -> list[tuple[Any, ...]]:
        return [k for t, k, _ in self.rows if t == table and k[: len(start)] == start]

    def value(self, table: str, *key: object) -> Any:
        return next((v for t, k, v in self.rows if t == table and k == key), None)

    def delete(self, table: str, *start: object) -> None:
        self.rows = [row for row in self.rows if row[0] != table or row[1][: len(start)] != start]

    def write(self, table: str, *key: object, value: object) -> None:
        self.delete(table, *key)
        self.rows.append((table, key, value))

    def allows(self, change: Change) -> bool:
        match change:
            case SessionPut() | RetainedPut() | RetainedRemoved() | WillPut():
                return True
            case SessionRemoved(c) | SessionClosed(c) | SubscriptionPut(c):
                return bool(self.keys("session", c))
            case SessionSetAside(c, name):
                return bool(self.keys("session", c)) and not self.keys("session", name)
            case SubscriptionRemoved(c, topic_filter):
                return bool(self.keys("subscription", c, topic_filter))
            case MessagePut(m):
                return not self.keys("message", m)
            case MessageRemoved(m):
                used = [v for t, _, v in self.rows if t == "queue" and v["message"] == m]
                return bool(self.keys("message", m)) and not used
            case QueuedPut(c, sequence, m):
                known = self.keys("session", c) and self.keys("message", m)
                return bool(known) and all(k[1] < sequence for k in self.keys("queue", c))
            case QueuedSent(c, sequence, packet_id):
                entry = self.value("queue", c, sequence)
                return entry is not None and entry["sent"] in (0, packet_id)
            case QueuedReleased(c, sequence):
                entry = self.value("queue", c, sequence)
                return entry is not None and entry["qos"] == 2 and entry["sent"] > 0
            case QueuedRemoved(c, sequence):
                return bool(self.keys("queue", c, sequence))
            case ReceivedPut(c, packet_id):
                return bool(self.keys("session", c)) and not self.keys("received", c, packet_id)
            case ReceivedRemoved(c, packet_id):
                return bool(self.keys("received", c, packet_id))
            case WillRemoved(c):
                return bool(self.keys("will", c))

    def change(self, change: Change) -> None:
        match change:
            case SessionPut(c):
                self.write("session", c, value=(change, None))
            case SessionRemoved(c):
                for table in ("session", "subscription", "queue", "received"):
                    self.delete(table, c)
            case SessionSetAside(c, name):
                put, closed_at = self.value("session", c)
                self.write("session", name, value=(evolve(put, client_id=name), closed_at))
                for _, sequence in self.keys("queue", c):
                    entry = self.value("queue", c, sequence)
                    self.write("queue", name, sequence, value=entry)
                for table in ("session", "subscription", "queue", "received"):
                    self.delete(table, c)
            case SessionClosed(c, closed_at):
                self.write("session", c, value=(self.value("session", c)[0], closed_at))
            case SubscriptionPut(c, topic_filter):
                self.write("subscription", c, topic_filter, value=change)
            case SubscriptionRemoved(c, topic_filter):
                self.delete("subscription", c, topic_filter)
            case MessagePut(m):
                self.write("message", m, value=change)
            case MessageRemoved(m):
                self.delete("message", m)
            case QueuedPut(c, sequence, m, qos):
                entry = {"message": m, "qos": qos, "sent": 0, "released": False}
                self.write("queue", c, sequence, value=entry)
            case QueuedSent(c, sequence, packet_id):
                entry = self.value("queue", c, sequence) | {"sent": packet_id}
                self.write("queue", c, sequence, value=entry)
            case QueuedReleased(c, sequence):
                entry = self.value("queue", c, sequence) | {"released": True}
                self.write("queue", c, sequence, value=entry)
            case QueuedRemoved(c, sequence):
                self.delete("queue", c, sequence)
            case ReceivedPut(c, packet_id):
                self.write("received", c, packet_id, value=None)
            case ReceivedRemoved(c, packet_id):
                self.delete("received", c, packet_id)
            case RetainedPut(topic):
                self.write("retained", topic, value=change)
            case RetainedRemoved(topic):
                self.delete("retained", topic)
            case WillPut(c):
                self.write("will", c, value=change)
            case WillRemoved(c):
                self.delete("will", c)


def rows_of(state: StoredState) -> list[tuple[str, tuple[Any, ...], Any]]:
    """A StoredState in the form of the model."""
    rows: list[tuple[str, tuple[Any, ...], Any]] = []
    rows += [("session", (c,), (s.session, s.closed_at)) for c, s in state.sessions.items()]
    rows += [
        ("subscription", (c, f), s) for c, d in state.subscriptions.items() for f, s in d.items()
    ]
    rows += [("message", (m,), put) for m, put in state.messages.items()]
    rows += [("retained", (t,), put) for t, put in state.retained.items()]
    rows += [("will", (c,), put) for c, put in state.wills.items()]
    rows += [("received", (c, p), None) for c, d in state.received.items() for p in d]
    for client_id, queue in state.queues.items():
        for sequence, entry in queue.items():
            value = {
                "message": entry.message_id,
                "qos": entry.qos,
                "sent": entry.packet_id,
                "released": entry.released,
            }
            rows.append(("queue", (client_id, sequence), value))
    return rows


def in_order(
    rows: list[tuple[str, tuple[Any, ...], Any]],
) -> list[tuple[str, tuple[Any, ...], Any]]:
    return sorted(rows, key=lambda row: row[:2])


def check_invariants(state: StoredState) -> None:
    for queue in state.queues.values():
        assert list(queue) == sorted(queue)
    used = [entry.message_id for queue in state.queues.values() for entry in queue.values()]
    assert state.references == {m: used.count(m) for m in set(used)}
    assert state.sessions.keys() == state.queues.keys()
    assert state.sessions.keys() == state.subscriptions.keys() == state.received.keys()


@given(st.lists(changes, max_size=60))
@settings(max_examples=300, deadline=None)
def test_apply_does_what_a_naive_model_does(sequence: list[Change]) -> None:
    state, model = StoredState(), Model()
    for change in sequence:
        if model.allows(change):
            apply(state, change)
            model.change(change)
        else:
            before = state.copy()
            with pytest.raises(StoreError):
                apply(state, change)
            assert state == before
        assert in_order(rows_of(state)) == in_order(model.rows)
    check_invariants(state)


@given(st.lists(changes, max_size=40), st.lists(changes, max_size=8))
@settings(max_examples=300, deadline=None)
def test_a_batch_is_applied_whole_or_not_at_all(history: list[Change], batch: list[Change]) -> None:
    state, model = StoredState(), Model()
    for change in history:
        if model.allows(change):
            apply(state, change)
            model.change(change)
    before, print_before = state.copy(), state.fingerprint()
    fine = True
    for change in batch:
        fine = fine and model.allows(change)
        if fine:
            model.change(change)
    if fine:
        apply_all(state, batch)
        assert in_order(rows_of(state)) == in_order(model.rows)
    else:
        with pytest.raises(StoreError):
            apply_all(state, batch)
        assert state == before
        assert state.fingerprint() == print_before
    check_invariants(state)


SESSION = SessionPut("a", "user", 5, 60, 1, 0.0)


def filled() -> StoredState:
    state = StoredState()
    apply_all(
        state,
        [
            SESSION,
            SubscriptionPut("a", "t/#", 2),
            MessagePut(1, "t", b"one", 2, False),
            MessagePut(2, "t", b"two", 2, False),
            QueuedPut("a", 1, 1, 2, shared="$share/g/t/#"),
            QueuedPut("a", 2, 2, 2),
            ReceivedPut("a", 9),
            RetainedPut("t", b"kept", 1),
            WillPut("a", "user", "gone", b"bye", 1, False),
        ],
    )
    return state


CHANGES_OF_CONTENT: list[Callable[[StoredState], None]] = [
    lambda state: apply(state, MessagePut(3, "t", b"", 1, False)),
    lambda state: apply(state, QueuedSent("a", 1, 7)),
    lambda state: apply(state, SessionClosed("a", 5.0)),
    lambda state: apply(state, RetainedPut("t", b"other", 1)),
    lambda state: apply(state, ReceivedRemoved("a", 9)),
    lambda state: apply(state, SubscriptionRemoved("a", "t/#")),
    lambda state: apply(state, WillRemoved("a")),
    lambda state: apply(state, SessionPut("b", None, 4, 0, 1, 0.0)),
]


@pytest.mark.parametrize("alter", CHANGES_OF_CONTENT)
def test_any_difference_shows(alter: Callable[[StoredState], None]) -> None:
    state, other = filled(), filled()
    assert state == other
    assert state.fingerprint() == other.fingerprint()
    assert not state.differences(other)
    alter(other)
    assert state != other
    assert state.fingerprint() != other.fingerprint()
    assert state.differences(other)
    assert other.differences(state)


def test_differences_name_the_place_and_keep_payloads_to_themselves() -> None:
    state, other = filled(), filled()
    apply(other, RetainedPut("t", b"other", 1))
    apply(other, SessionClosed("a", 1.0))
    assert state.differences(other) == ["sessions: 'a'", "retained: 't'"]


def test_a_copy_is_independent() -> None:
    state = filled()
    copy = state.copy()
    apply_all(copy, [SessionRemoved("a"), MessageRemoved(1), RetainedRemoved("t")])
    assert state == filled()
    assert not copy.queues
    apply(state, QueuedRemoved("a", 2))
    assert copy.differences(filled())


def test_the_order_of_a_queue_survives_an_undone_batch() -> None:
    state = filled()
    with pytest.raises(StoreError, match="unknown queue entry"):
        apply_all(state, [QueuedRemoved("a", 1), QueuedRemoved("a", 9)])
    assert list(state.queues["a"]) == [1, 2]
    assert state.highest_sequence("a") == 2


def test_a_reopened_session_keeps_its_queue_and_is_no_longer_closed() -> None:
    state = filled()
    apply(state, SessionClosed("a", 5.0))
    apply(state, SESSION)
    assert state.sessions["a"].closed_at is None
    assert list(state.queues["a"]) == [1, 2]


def test_a_will_outlives_its_session() -> None:
    state = filled()
    apply(state, SessionRemoved("a"))
    assert state.wills["a"].topic == "gone"


def test_unreferenced_messages_are_found() -> None:
    state = filled()
    apply(state, QueuedRemoved("a", 1))
    assert state.unreferenced() == [1]


def test_an_error_shows_no_payload() -> None:
    with pytest.raises(StoreError) as caught:
        apply(filled(), MessagePut(1, "t", b"s3cret", 1, False))
    assert "s3cret" not in str(caught.value)
