"""The journal when commits fail: a clean cut, and memory and store agree again."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given, settings
from trio.testing import MockClock, wait_all_tasks_blocked

from mqtrio.errors import StoreError, StoreFull
from mqtrio.store.apply import apply_all
from mqtrio.store.batch import REFUSED, Batch, BatchState, wait_committed
from mqtrio.store.changes import (
    Change,
    MessagePut,
    MessageRemoved,
    QueuedPut,
    QueuedRemoved,
    ReceivedPut,
    ReceivedRemoved,
    RetainedPut,
    RetainedRemoved,
    SessionClosed,
    SessionPut,
    SessionRemoved,
    SubscriptionPut,
    WillPut,
    WillRemoved,
)
from mqtrio.store.journal import Failure, Journal
from mqtrio.store.stored import StoredEntry, StoredSession, StoredState
from mqtrio.testing.stores import FaultyStore

SLOW = 1.0


def session(client_id: str) -> SessionPut:
    return SessionPut(client_id, None, 5, 60, 1, 0.0)


def state(batch: Batch) -> str:
    return batch.state.name


class Events:
    """What the journal says to an engine, in one list."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.failures: list[Failure] = []
        self.recovered = trio.Event()
        self.recovered.set()
        self.recover_errors: list[Exception] = []

    def on_failed(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.log.append(f"failed {'+'.join(sorted(failure.client_ids))}")

    async def recover(self, client_ids: frozenset[str]) -> None:
        self.log.append(f"recover {'+'.join(sorted(client_ids))}")
        await self.recovered.wait()
        if self.recover_errors:
            raise self.recover_errors.pop(0)
        self.log.append("recovered")

    def watch(self, batch: Batch, name: str) -> Batch:
        """Log what becomes of a batch."""
        batch.waiters[_Named(name, self.log)] = None
        return batch


class _Named:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def released(self, batch: Batch) -> None:
        self.log.append(f"{self.name} {batch.state.name}")


@asynccontextmanager
async def running(
    store: FaultyStore, events: Events, limit: int = 1 << 20
) -> AsyncIterator[Journal]:
    journal = Journal(store, on_failed=events.on_failed, recover=events.recover, limit=limit)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        yield journal
        await journal.close()


async def with_sessions(*client_ids: str, delay: float = 0.0) -> FaultyStore:
    """A store that has these sessions already."""
    filled = StoredState()
    apply_all(filled, [session(client_id) for client_id in client_ids])
    return FaultyStore(filled, delay=delay)


async def test_a_failed_commit_takes_all_with_it_that_is_not_stored(
    autojump_clock: MockClock,
) -> None:
    store = await with_sessions("a", "b", "c", delay=SLOW)
    events = Events()
    async with running(store, events) as journal:
        store.fail_next()
        failed = events.watch(journal.append(ReceivedPut("a", 1)), "first")
        await trio.sleep(SLOW / 2)
        following = events.watch(journal.append(ReceivedPut("b", 1)), "second")
        await trio.sleep(SLOW)
        assert (state(failed), state(following)) == ("FAILED", "FAILED")
        # The memory is put right before anybody is told, and all are told before the loading.
        assert events.log == [
            "failed a+b",
            "first FAILED",
            "second FAILED",
            "recover a+b",
            "recovered",
        ]
        # A session that had nothing under way has nothing to do with it.
        assert state(journal.append(ReceivedPut("c", 1))) == "OPEN"
    assert store.commits == [(ReceivedPut("c", 1),)]
    assert journal.failures == 1


async def test_the_failure_says_what_the_memory_must_forget() -> None:
    store = await with_sessions("a", "b")
    events = Events()
    error = OSError(5, "Input/output error")
    async with running(store, events) as journal:
        store.fail_next(error=error)
        journal.append(MessagePut(7, "t", b"", 1, False))
        journal.append(QueuedPut("a", 1, 7, 1))
        journal.append(WillPut("b", None, "t", b"", 0, False), lazy=True)
        journal.append(RetainedPut("t", b"", 0), lazy=True)
        await wait_all_tasks_blocked()
        [failure] = events.failures
    assert failure.client_ids == {"a", "b"}
    assert failure.message_ids == {7}
    assert failure.error is error


async def test_nothing_is_committed_before_the_lost_sessions_are_back(
    autojump_clock: MockClock,
) -> None:
    store = await with_sessions("a", "b")
    events = Events()
    async with running(store, events) as journal:
        events.recovered = trio.Event()
        store.fail_next()
        journal.append(ReceivedPut("a", 1))
        await trio.sleep(10)
        assert journal.lost == {"a"}
        unrelated = journal.append(ReceivedPut("b", 1))
        await trio.sleep(10)
        assert state(unrelated) == "OPEN"
        assert len(store.attempts) == 1
        events.recovered.set()
        await wait_committed(unrelated)
        assert not journal.lost


async def test_what_touches_a_lost_session_is_refused_until_it_is_back(
    autojump_clock: MockClock,
) -> None:
    store = await with_sessions("a", "b")
    events = Events()
    async with running(store, events) as journal:
        events.recovered = trio.Event()
        store.fail_next()
        journal.append(ReceivedPut("a", 1))
        await trio.sleep(1)
        assert journal.append(ReceivedPut("a", 2)) is REFUSED
        assert journal.append(SessionClosed("a", 1.0), lazy=True) is REFUSED
        assert journal.uncommitted == 0
        events.recovered.set()
        await trio.sleep(1)
        assert state(journal.append(ReceivedPut("a", 3))) == "OPEN"
    assert store.commits == [(ReceivedPut("a", 3),)]


async def test_on_failed_runs_before_anything_else_can(autojump_clock: MockClock) -> None:
    """Another task that appends all the time never gets a change for a lost session in."""
    store = await with_sessions("a")
    dropped = False
    late: list[Batch] = []

    def on_failed(failure: Failure) -> None:
        nonlocal dropped
        dropped = True

    async def recover(client_ids: frozenset[str]) -> None:
        for _ in range(20):
            await trio.lowlevel.checkpoint()

    journal = Journal(store, on_failed=on_failed, recover=recover)

    async def busy() -> None:
        for number in range(1, 100):
            batch = journal.append(ReceivedPut("a", number))
            if dropped and journal.lost:
                late.append(batch)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        store.fail_next()
        await busy()
        await journal.close()
    assert late
    assert set(late) == {REFUSED}


async def test_room_is_made_by_a_failure_too(autojump_clock: MockClock) -> None:
    store = await with_sessions("a")
    events = Events()
    async with running(store, events, limit=100) as journal:
        store.hang()
        store.fail_next()
        journal.append(ReceivedPut("a", 1), size=90)
        await wait_all_tasks_blocked()
        journal.append(ReceivedPut("a", 2), size=90)
        assert journal.full
        journal.on_room(lambda: events.log.append("room"))
        store.go_on()
        await wait_all_tasks_blocked()
        assert events.log == ["failed a", "room", "recover a", "recovered"]
        assert journal.uncommitted == 0


# --- retained messages


async def test_retained_messages_are_carried_to_the_next_commit(
    autojump_clock: MockClock,
) -> None:
    store = await with_sessions("a")
    events = Events()
    async with running(store, events) as journal:
        store.fail_next()
        batch = journal.append(RetainedPut("t", b"1", 1))
        await wait_all_tasks_blocked()
        # Its publisher is refused all the same: nothing was promised.
        assert state(batch) == "FAILED"
        # No session is touched, so none is loaded; nobody has to append anything either.
        assert events.log == ["failed "]
        await trio.sleep(1)
        assert store.state.retained["t"].payload == b"1"
        assert not journal.lost
    assert len(store.commits) == 1


async def test_of_carried_retained_messages_the_last_of_a_topic_counts(
    autojump_clock: MockClock,
) -> None:
    store = await with_sessions("a")
    apply_all(store.state, [RetainedPut("gone", b"0", 1)])
    events = Events()
    async with running(store, events) as journal:
        store.fail_next(3)
        store.delay = SLOW
        for payload in (b"1", b"2", b"3"):
            journal.append(RetainedPut("t", payload, 1))
            journal.append(RetainedPut("new", payload, 1))
            journal.append(RetainedPut("gone", payload, 1))
            await trio.sleep(SLOW / 4)
        journal.append(RetainedRemoved("gone"))
        journal.append(RetainedRemoved("new"))
        await trio.sleep(SLOW * 4)
        journal.append(RetainedPut("t", b"4", 1))
    assert len(events.failures) == 3
    # What a carried change was replaced by is not committed any more.
    assert not any(isinstance(c, RetainedPut) and c.topic == "gone" for c in store.commits[0])
    assert {topic: put.payload for topic, put in store.state.retained.items()} == {"t": b"4"}


async def test_a_new_retained_message_comes_after_a_carried_one(
    autojump_clock: MockClock,
) -> None:
    store = await with_sessions("a")
    async with running(store, Events()) as journal:
        store.fail_next()
        journal.append(RetainedPut("t", b"1", 1))
        await wait_all_tasks_blocked()
        await wait_committed(journal.append(RetainedPut("t", b"2", 1)))
        assert len(store.commits) == 1
        assert store.state.retained["t"].payload == b"2"


async def test_carried_changes_survive_until_the_end(autojump_clock: MockClock) -> None:
    store = await with_sessions("a")
    async with running(store, Events()) as journal:
        store.fail_next()
        journal.append(RetainedPut("t", b"1", 1))
        await wait_all_tasks_blocked()
        assert not store.state.retained
    assert store.state.retained["t"].payload == b"1"


class Small(FaultyStore):
    """Has room for 10 bytes of retained payloads in one commit."""

    async def commit(self, changes: Sequence[Change]) -> None:
        puts = [change for change in changes if isinstance(change, RetainedPut)]
        if sum(len(put.payload) for put in puts) > 10:
            raise StoreFull("there is no room left")
        await super().commit(changes)


async def test_what_is_too_large_for_good_keeps_nothing_else_from_being_stored(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Small()
    async with running(store, Events()) as journal:
        for number in range(9):
            journal.append(RetainedPut(f"t/{number}", b"1234", 1))
        batch = journal.append(RetainedPut("large", b"x" * 11, 1))
        await wait_all_tasks_blocked()
        assert state(batch) == "FAILED"
        assert batch.full
        fresh = journal.append(RetainedPut("t/1", b"new", 1))
        await wait_committed(fresh)
        await trio.sleep(5)
        # What was carried came behind the new value of the same topic, and did not replace it.
        payloads = {topic: put.payload for topic, put in store.state.retained.items()}
        assert payloads == {f"t/{n}": b"1234" for n in range(9)} | {"t/1": b"new"}
        await wait_committed(journal.append(RetainedPut("later", b"1", 1)))
    assert "the retained message of 'large' is not stored: there is no room left" in caplog.text
    assert "xxx" not in caplog.text


async def test_another_failure_on_the_way_out_of_a_full_store(autojump_clock: MockClock) -> None:
    """What could not be tried is carried on."""
    store = FaultyStore()
    async with running(store, Events()) as journal:
        store.fail_next(error=StoreFull("there is no room left"))
        store.fail_next(error=StoreError("the disk is broken"))
        journal.append(RetainedPut("t", b"1", 1))
        await wait_all_tasks_blocked()
        await trio.sleep(5)
        assert store.state.retained["t"].payload == b"1"
        assert [len(attempt) for attempt in store.attempts] == [1, 1, 1]


# --- pauses


async def test_a_store_that_keeps_failing_is_asked_less_often(autojump_clock: MockClock) -> None:
    store = await with_sessions("a")
    events = Events()
    times: list[float] = []
    store.fail_next(9)
    async with running(store, events) as journal:
        for number in range(1, 11):
            batch = journal.append(ReceivedPut("a", number))
            with pytest.raises(StoreError) if number < 10 else nullcontext():
                await wait_committed(batch)
            await wait_all_tasks_blocked()  # the session is loaded again
            times.append(trio.current_time())
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2])
        await wait_committed(journal.append(ReceivedPut("a", 11)))
        assert trio.current_time() == pytest.approx(times[-1])


async def test_loading_again_is_tried_until_it_succeeds(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = await with_sessions("a")
    events = Events()
    events.recover_errors = [StoreError("the disk can't be read")] * 3
    async with running(store, events) as journal:
        store.fail_next()
        journal.append(ReceivedPut("a", 1))
        await trio.sleep(0.3)
        assert journal.lost == {"a"}
        await trio.sleep(0.1)
        assert not journal.lost
        assert events.log == ["failed a", *["recover a"] * 4, "recovered"]
    assert "1 sessions can't be loaded again yet: the disk can't be read" in caplog.text


async def test_a_bug_in_recover_comes_out() -> None:
    store = await with_sessions("a")
    events = Events()
    events.recover_errors = [ZeroDivisionError()]
    store.fail_next()

    async def use() -> None:
        async with running(store, events) as journal:
            journal.append(ReceivedPut("a", 1))
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await use()
    assert caught.group_contains(ZeroDivisionError)
    assert store.closed


async def test_the_log_names_the_error_and_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    store = await with_sessions("a")
    async with running(store, Events()) as journal:
        journal.append(MessagePut(1, "t", b"s3cret", 1, False))
        journal.append(QueuedPut("nobody", 1, 1, 1))
        await wait_all_tasks_blocked()
    assert "commit of 2 changes failed (StoreError: unknown session" in caplog.text
    assert "s3cret" not in caplog.text


# --- the end


async def test_the_last_commit_fails_once_and_loads_nothing(autojump_clock: MockClock) -> None:
    store = await with_sessions("a")
    events = Events()
    async with running(store, events) as journal:
        store.delay = SLOW
        store.fail_next(5)
        batch = events.watch(journal.append(ReceivedPut("a", 1), lazy=True), "last")
        await journal.close()
    assert state(batch) == "FAILED"
    assert events.log == ["failed a", "last FAILED"]
    assert len(store.attempts) == 1
    assert store.closed


async def test_closing_does_not_wait_for_a_recovery(autojump_clock: MockClock) -> None:
    store = await with_sessions("a", "b")
    events = Events()
    async with running(store, events) as journal:
        events.recovered = trio.Event()
        store.fail_next()
        journal.append(ReceivedPut("a", 1))
        await trio.sleep(1)
        unrelated = journal.append(ReceivedPut("b", 1))
        await journal.close()
        assert trio.current_time() == pytest.approx(1, abs=0.01)
    assert state(unrelated) == "DONE"
    assert store.commits == [(ReceivedPut("b", 1),)]


async def test_an_action_in_the_way_of_a_failure_does_not_stop_it(
    autojump_clock: MockClock,
) -> None:
    store = await with_sessions("a", "b")
    events = Events()
    async with running(store, events) as journal:
        store.delay = SLOW
        store.fail_next()
        journal.append(ReceivedPut("a", 1))
        await trio.sleep(SLOW / 2)
        await journal.begin_action()
        half = journal.append(ReceivedPut("b", 1))
        await trio.sleep(SLOW)
        assert state(half) == "FAILED"
        assert events.failures[0].client_ids == {"a", "b"}
        journal.end_action()


# --- memory and store agree again


class Mirror:
    """An engine reduced to its memory: it changes its state, then tells the journal.

    What it keeps of a lost session is nothing; what it gets back is what the store has.
    """

    def __init__(self, store: FaultyStore) -> None:
        self.store = store
        self.memory = StoredState()
        self.batches: list[Batch] = []
        self.message_id = 0
        self.sequence = 0
        self.journal = Journal(store, on_failed=self.on_failed, recover=self.recover)

    def do(self, changes: list[Change], *, lazy: bool = False) -> None:
        lost = [each for each in changes if getattr(each, "client_id", None) in self.journal.lost]
        for change in lost:
            assert self.journal.append(change, lazy=lazy) is REFUSED
        if lost:
            return
        apply_all(self.memory, changes)
        batches = {self.journal.append(change, lazy=lazy) for change in changes}
        self.batches += batches
        assert len(batches) <= 1, "what is appended in one go is one commit"

    def on_failed(self, failure: Failure) -> None:
        memory = self.memory
        for client_id in failure.client_ids:
            for entry in memory.queues.pop(client_id, {}).values():
                memory.refer(entry.message_id, -1)
            for table in (memory.sessions, memory.subscriptions, memory.received, memory.wills):
                table.pop(client_id, None)
        for message_id in failure.message_ids:
            memory.messages.pop(message_id, None)

    async def recover(self, client_ids: frozenset[str]) -> None:
        memory = self.memory
        loaded = await self.store.load(client_ids)
        for client_id, stored in loaded.sessions.items():
            memory.sessions[client_id] = StoredSession(stored.session, stored.closed_at)
            memory.subscriptions[client_id] = {s.topic_filter: s for s in stored.subscriptions}
            memory.received[client_id] = dict.fromkeys(stored.received)
            memory.queues[client_id] = {}
            after = 0
            while rows := await self.store.queued(client_id, after, 2):
                for row in rows:
                    memory.messages[row.message.message_id] = row.message
                    memory.refer(row.message.message_id, 1)
                    memory.queues[client_id][row.sequence] = StoredEntry(
                        row.message.message_id,
                        row.qos,
                        row.retain,
                        row.identifiers,
                        row.packet_id,
                        row.shared,
                        row.released,
                    )
                after = rows[-1].sequence
        memory.wills.update(loaded.wills)

    # What a random engine does. Each is one action.

    def open_session(self, client_id: str) -> None:
        will = WillPut(client_id, None, "gone", b"", 0, False)
        self.do([session(client_id), SubscriptionPut(client_id, "t", 1), will])

    def publish(self, *client_ids: str) -> None:
        targets = [c for c in dict.fromkeys(client_ids) if c in self.memory.sessions]
        if not targets:
            return
        self.message_id += 1
        changes: list[Change] = [MessagePut(self.message_id, "t", b"x", 1, False)]
        for client_id in targets:
            self.sequence += 1
            changes.append(QueuedPut(client_id, self.sequence, self.message_id, 1))
        self.do(changes)

    def acknowledge(self, client_id: str) -> None:
        queue = self.memory.queues.get(client_id)
        if not queue:
            return
        sequence, entry = next(iter(queue.items()))
        changes: list[Change] = [QueuedRemoved(client_id, sequence)]
        if self.memory.references[entry.message_id] == 1:
            changes.append(MessageRemoved(entry.message_id))
        self.do(changes, lazy=True)

    def end_session(self, client_id: str) -> None:
        if client_id not in self.memory.sessions:
            return
        changes: list[Change] = [SessionRemoved(client_id)]
        if client_id in self.memory.wills:
            changes.append(WillRemoved(client_id))
        changes += [
            MessageRemoved(entry.message_id)
            for entry in self.memory.queues[client_id].values()
            if self.memory.references[entry.message_id] == 1
        ]
        self.do(changes)

    def receive(self, client_id: str) -> None:
        if client_id in self.memory.sessions:
            received = self.memory.received[client_id]
            change = ReceivedRemoved(client_id, 1) if 1 in received else ReceivedPut(client_id, 1)
            self.do([change])

    def leave(self, client_id: str) -> None:
        if client_id in self.memory.sessions and client_id in self.memory.wills:
            self.do([SessionClosed(client_id, 1.0), WillRemoved(client_id)], lazy=True)

    def retain(self, client_id: str) -> None:
        topic = f"of/{client_id}"
        put = RetainedPut(topic, b"%d" % len(self.batches), 0)
        removed = topic in self.memory.retained and len(self.batches) % 3 == 0
        self.do([RetainedRemoved(topic) if removed else put], lazy=True)


ACTIONS: list[Callable[..., None]] = [
    Mirror.open_session,
    Mirror.publish,
    Mirror.acknowledge,
    Mirror.end_session,
    Mirror.receive,
    Mirror.leave,
    Mirror.retain,
]

clients = st.sampled_from(["a", "b", "c", "d"])
steps = st.one_of(
    st.tuples(st.sampled_from(ACTIONS), clients),
    st.tuples(st.just(Mirror.publish), clients, clients, clients),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.3, 3.0])),
    st.tuples(st.just("fail"), st.integers(1, 2)),
    st.tuples(st.just("fail load"), st.just(1)),
)


@given(st.lists(steps, max_size=60), st.sampled_from([0.0, 0.05, 0.4]))
@settings(max_examples=150, deadline=None)
def test_after_any_failures_memory_and_store_agree(
    script: list[tuple[object, ...]], delay: float
) -> None:
    trio.run(play, script, delay, clock=MockClock(autojump_threshold=0))


async def play(script: list[tuple[object, ...]], delay: float) -> None:
    store = FaultyStore(delay=delay)
    mirror = Mirror(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(mirror.journal.run)
        for what, *arguments in script:
            if what == "wait":
                await trio.sleep(*arguments)  # type: ignore[arg-type]
            elif what == "fail":
                store.fail_next(*arguments)  # type: ignore[arg-type]
            elif what == "fail load":
                store.fail_next_load()
            else:
                assert callable(what)
                what(mirror, *arguments)
        await trio.sleep(100)
        store.heal()
        assert not mirror.journal.lost
        await mirror.journal.close()
    assert all(batch.state is not BatchState.OPEN for batch in mirror.batches)
    assert mirror.memory.differences(store.state) == []
    assert mirror.memory.references == store.state.references
