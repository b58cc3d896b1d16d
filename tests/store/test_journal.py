"""The journal while all goes well: grouping, release, laziness, room, long actions, the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mqtrio.errors import StoreError
from mqtrio.store.batch import COMMITTED, REFUSED, Batch, wait_committed
from mqtrio.store.changes import (
    Change,
    QueuedPut,
    ReceivedPut,
    ReceivedRemoved,
    RetainedPut,
    SessionPut,
)
from mqtrio.store.journal import Failure, Journal, Waiter
from mqtrio.store.memory import MemoryStore
from mqtrio.testing.stores import FaultyStore

LAZY = 0.1


def retained(number: int) -> Change:
    """A change that can always be applied."""
    return RetainedPut(f"t/{number}", b"", 0)


def state(batch: Batch) -> str:
    return batch.state.name


def is_full(journal: Journal) -> bool:
    return journal.full


class Witness:
    """A waiter that writes into a shared list when it is told."""

    def __init__(self, name: object, told: list[tuple[object, str]]) -> None:
        self.name = name
        self.told = told

    def released(self, batch: Batch) -> None:
        self.told.append((self.name, batch.state.name))


def fail_test(failure: Failure) -> None:
    raise AssertionError(f"unexpected: {failure}")


async def no_recovery(client_ids: frozenset[str]) -> None:
    raise AssertionError(f"unexpected: {client_ids}")


@asynccontextmanager
async def running(store: MemoryStore, **options: float) -> AsyncIterator[Journal]:
    """A journal whose commits must not fail."""
    journal = Journal(
        store,
        on_failed=fail_test,
        recover=no_recovery,
        **options,  # type: ignore[arg-type]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        yield journal
        await journal.close()


async def test_a_batch_is_in_the_store_before_its_waiters_are_told(
    autojump_clock: MockClock,
) -> None:
    store = FaultyStore(delay=1)
    told: list[tuple[object, str]] = []

    class Careful(Witness):
        def released(self, batch: Batch) -> None:
            assert "t/1" in store.state.retained
            super().released(batch)

    async with running(store) as journal:
        batch = journal.append(retained(1))
        for name in "cab":
            batch.waiters[Careful(name, told)] = None
        await trio.sleep(0.9)
        assert state(batch) == "OPEN"
        assert not told
        await trio.sleep(0.2)
        assert state(batch) == "DONE"
        assert told == [("c", "DONE"), ("a", "DONE"), ("b", "DONE")]
        assert not batch.waiters
        assert not batch.changes


async def test_what_comes_during_a_commit_shares_the_next(autojump_clock: MockClock) -> None:
    store = FaultyStore(delay=1)
    async with running(store) as journal:
        first = journal.append(retained(0))
        await trio.sleep(0.5)
        others = [journal.append(retained(n)) for n in range(1, 101)]
        assert len(set(others)) == 1
        assert others[0] is not first
        await wait_committed(others[0])
        assert trio.current_time() == pytest.approx(2, abs=0.01)
        assert [len(commit) for commit in store.commits] == [1, 100]
        assert store.commits[1] == tuple(retained(n) for n in range(1, 101))
        assert (journal.commits, journal.changes, journal.uncommitted) == (2, 101, 0)


async def test_batches_are_released_in_their_order(autojump_clock: MockClock) -> None:
    store = FaultyStore(delay=1)
    told: list[tuple[object, str]] = []
    async with running(store) as journal:
        for number in range(5):
            batch = journal.append(retained(number))
            batch.waiters[Witness(number, told)] = None
            await trio.sleep(0.7)
    assert [name for name, _ in told] == [0, 1, 2, 3, 4]
    assert len(store.commits) == 4  # at 0, 1, 2 and 3 s; the numbers 2 and 1 came at 0.7 and 1.4


async def test_all_changes_of_one_turn_are_one_commit() -> None:
    store = FaultyStore()
    async with running(store) as journal:
        session = SessionPut("a", None, 5, 60, 1, 0.0)
        first = journal.append(session)
        journal.append(ReceivedPut("a", 1))
        second = journal.append(retained(1), size=500)
        assert first is second
        assert journal.uncommitted == 628
        await wait_committed(second)
        assert store.commits == [(session, ReceivedPut("a", 1), retained(1))]


# --- lazy changes


async def test_a_lazy_change_alone_is_committed_after_a_while(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    async with running(store, lazy_delay=LAZY) as journal:
        batch = journal.append(retained(1), lazy=True)
        await trio.sleep(LAZY * 0.9)
        # More of them don't put it off.
        assert journal.append(retained(2), lazy=True) is batch
        assert not store.attempts
        await trio.sleep(LAZY * 0.2)
        assert state(batch) == "DONE"
        assert [len(commit) for commit in store.commits] == [2]


async def test_a_lazy_change_rides_with_the_next_batch(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    async with running(store, lazy_delay=LAZY) as journal:
        lazy = journal.append(retained(1), lazy=True)
        await trio.sleep(LAZY / 10)
        urgent = journal.append(retained(2))
        assert urgent is lazy
        await wait_all_tasks_blocked()
        assert state(urgent) == "DONE"
        assert trio.current_time() == pytest.approx(LAZY / 10)
        assert store.commits == [(retained(1), retained(2))]


async def test_a_lazy_change_is_not_urged_by_an_earlier_batch(autojump_clock: MockClock) -> None:
    store = FaultyStore(delay=1)
    async with running(store, lazy_delay=LAZY) as journal:
        journal.append(retained(1))
        await trio.sleep(0.99)
        lazy = journal.append(retained(2), lazy=True)
        await trio.sleep(LAZY * 0.9)
        assert len(store.attempts) == 1
        await wait_committed(lazy)
        assert len(store.attempts) == 2


# --- stores that keep nothing


async def test_without_a_durable_store_everything_is_committed_at_once() -> None:
    store = MemoryStore()
    async with running(store) as journal:
        assert not journal.active
        assert journal.append(retained(1)) is COMMITTED
        assert journal.append(retained(2), size=1 << 40) is COMMITTED
        assert not journal.full
        await wait_all_tasks_blocked()
    assert not store.state.retained


# --- room


async def test_reading_has_to_stop_while_too_much_waits(autojump_clock: MockClock) -> None:
    store = FaultyStore(delay=1)
    calls: list[float] = []

    def room() -> None:
        calls.append(trio.current_time())

    async with running(store, limit=1000) as journal:
        journal.append(retained(1), size=600)
        await trio.sleep(0.5)
        journal.append(retained(2), size=400)
        assert not is_full(journal)
        journal.on_room(room)
        assert calls == [0.5]
        journal.append(retained(3), size=1)  # with what is being committed: 1001
        assert is_full(journal)
        journal.on_room(room)
        journal.on_room(room)
        await trio.sleep(0.4)
        assert len(calls) == 1
        await trio.sleep(0.2)
        assert not is_full(journal)
        assert calls == [0.5, pytest.approx(1.0)]
        assert journal.uncommitted == 401
    assert len(calls) == 2
    assert journal.uncommitted == 0


# --- long actions


async def test_a_long_action_is_one_commit(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    async with running(store) as journal:
        await journal.begin_action()
        for number in range(3):
            batch = journal.append(retained(number))
            await trio.sleep(1)
        assert not store.attempts
        journal.end_action()
        await wait_committed(batch)
        assert [len(commit) for commit in store.commits] == [3]


async def test_overlapping_actions_starve_no_commit(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    began: list[tuple[str, float]] = []

    async def act(name: str, start: float) -> None:
        await trio.sleep(start)
        await journal.begin_action()
        began.append((name, trio.current_time()))
        try:
            journal.append(retained(ord(name)))
            await trio.sleep(1)
        finally:
            journal.end_action()

    async with running(store) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(act, "a", 0.0)
        nursery.start_soon(act, "b", 0.5)
        nursery.start_soon(act, "c", 0.6)
        await trio.sleep(1.1)
        assert began[0] == ("a", 0.0)
        assert store.commits == [(retained(ord("a")),)]
        assert [start for _, start in began[1:]] == [pytest.approx(1)] * 2


# --- release


class Told:
    """A waiter that counts."""

    def __init__(self, log: list["Told"]) -> None:
        self.log = log

    def released(self, batch: Batch) -> None:
        self.log.append(self)


async def test_many_waiters_are_released_in_slices_beside_the_next_commit() -> None:
    store = FaultyStore()
    log: list[Told] = []
    slices: list[int] = []
    journal = Journal(
        store,
        on_failed=fail_test,
        recover=no_recovery,
        flush=lambda: slices.append(len(log)),
        slice_size=500,
    )
    seen: list[tuple[int, int]] = []

    async def other() -> None:
        while len(log) < 5200:
            seen.append((len(log), len(store.attempts)))
            await trio.lowlevel.checkpoint()

    class Chatty(Told):
        def released(self, batch: Batch) -> None:
            super().released(batch)
            journal.append(retained(2))

    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        batch = journal.append(retained(1))
        waiters = [Chatty(log), *(Told(log) for _ in range(5199))]
        batch.waiters.update(dict.fromkeys(waiters))
        nursery.start_soon(other)
        await wait_all_tasks_blocked()
        await journal.close()
    assert log == waiters
    assert slices == [*range(500, 5001, 500), 5200]
    between = [attempts for released, attempts in seen if 0 < released < 5200]
    assert len(between) > 5
    assert between[-1] == 2


async def test_a_few_waiters_are_flushed_once() -> None:
    log: list[Told] = []
    slices: list[int] = []
    journal = Journal(
        FaultyStore(),
        on_failed=fail_test,
        recover=no_recovery,
        flush=lambda: slices.append(len(log)),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        journal.append(retained(1)).waiters.update(dict.fromkeys(Told(log) for _ in range(3)))
        await journal.close()
    assert slices == [3]


class Broken:
    """A waiter with a bug."""

    def released(self, batch: Batch) -> None:
        raise ZeroDivisionError


async def test_a_waiter_that_fails_harms_no_other() -> None:
    crashes: list[tuple[Waiter, Exception]] = []
    told: list[tuple[object, str]] = []
    journal = Journal(
        FaultyStore(),
        on_failed=fail_test,
        recover=no_recovery,
        crashed=lambda waiter, error: crashes.append((waiter, error)),
    )
    broken = Broken()
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        batch = journal.append(retained(1))
        batch.waiters.update(dict.fromkeys([Witness(1, told), broken, Witness(2, told)]))
        await wait_committed(journal.append(retained(2)))
        await journal.close()
    assert told == [(1, "DONE"), (2, "DONE")]
    [(waiter, error)] = crashes
    assert waiter is broken
    assert isinstance(error, ZeroDivisionError)


async def test_without_a_place_for_it_a_bug_of_a_waiter_comes_out() -> None:
    store = FaultyStore()
    journal = Journal(store, on_failed=fail_test, recover=no_recovery)

    async def use() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            journal.append(retained(1)).waiters[Broken()] = None

    with pytest.raises(ExceptionGroup) as caught:
        await use()
    assert caught.group_contains(ZeroDivisionError)
    assert store.closed


async def test_a_task_can_wait(autojump_clock: MockClock) -> None:
    await wait_committed(COMMITTED)
    with pytest.raises(StoreError):
        await wait_committed(REFUSED)
    async with running(FaultyStore(delay=1)) as journal:
        batch = journal.append(retained(1))
        with trio.move_on_after(0.5) as scope:
            await wait_committed(batch)
        assert scope.cancelled_caught
        assert not batch.waiters
        await wait_committed(batch)
        assert state(batch) == "DONE"


# --- a store that hangs


async def test_while_a_store_hangs_promises_wait_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    store = FaultyStore()
    told: list[tuple[object, str]] = []
    async with running(store, limit=10_000) as journal:
        store.hang()
        first = journal.append(retained(1))
        first.waiters[Witness("first", told)] = None
        await trio.sleep(3600)
        second = journal.append(retained(2))
        second.waiters[Witness("second", told)] = None
        await trio.sleep(3600)
        assert (state(first), state(second)) == ("OPEN", "OPEN")
        assert not told
        assert not journal.full
        store.go_on()
        await wait_committed(second)
        assert told == [("first", "DONE"), ("second", "DONE")]


# --- the end


async def test_closing_commits_the_rest_and_closes_the_store(autojump_clock: MockClock) -> None:
    store = FaultyStore(delay=1)
    async with running(store) as journal:
        journal.append(retained(1))
        await trio.sleep(0.5)
        urgent = journal.append(retained(2))
        await wait_committed(urgent)
        lazy = journal.append(retained(3), lazy=True)
        await journal.close()
        assert state(lazy) == "DONE"
        assert store.closed
        assert trio.current_time() == pytest.approx(3, abs=0.01)
        assert journal.append(retained(4)) is REFUSED
    assert len(store.commits) == 3


async def test_what_a_release_brings_is_committed_too() -> None:
    store = FaultyStore()

    class Chatty:
        def released(self, batch: Batch) -> None:
            journal.append(retained(2))

    async with running(store) as journal:
        journal.append(retained(1)).waiters[Chatty()] = None
        journal.stop()
    assert store.commits == [(retained(1),), (retained(2),)]


async def test_a_cancelled_journal_commits_the_rest(autojump_clock: MockClock) -> None:
    store = FaultyStore(delay=1)
    journal = Journal(store, on_failed=fail_test, recover=no_recovery)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        first = journal.append(retained(1))
        await trio.sleep(0.5)
        second = journal.append(retained(2))
        nursery.cancel_scope.cancel()
    assert (state(first), state(second)) == ("DONE", "DONE")
    assert len(store.commits) == 2
    assert store.closed


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_end_is_bounded(
    autojump_clock: MockClock, cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = FaultyStore()
    store.hang()
    told: list[tuple[object, str]] = []
    journal = Journal(store, on_failed=fail_test, recover=no_recovery, grace=5)
    with trio.testing.assert_checkpoints():
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            first = journal.append(retained(1))
            first.waiters[Witness("first", told)] = None
            await wait_all_tasks_blocked()
            second = journal.append(retained(2))
            second.waiters[Witness("second", told)] = None
            if cancelled:
                nursery.cancel_scope.cancel()
            else:
                await journal.close()
    assert trio.current_time() == pytest.approx(5, abs=0.01)
    assert (state(first), state(second)) == ("FAILED", "FAILED")
    assert told == [("first", "FAILED"), ("second", "FAILED")]
    assert store.closed
    assert [record.getMessage() for record in caplog.records] == [
        "1 changes were not committed before the end"
    ] * 2


async def test_the_shortest_grace_counts(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    store.hang()
    async with running(store, grace=100) as journal:
        journal.append(retained(1))
        await wait_all_tasks_blocked()
        journal.stop()
        await journal.close(grace=2)
        assert trio.current_time() == pytest.approx(2, abs=0.01)
        await journal.close()
        assert trio.current_time() == pytest.approx(2, abs=0.01)


async def test_a_store_that_does_not_close_is_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(FaultyStore):
        async def close(self) -> None:
            await trio.sleep_forever()

    async with running(Stuck(), grace=3):
        pass
    assert trio.current_time() == pytest.approx(3, abs=0.01)
    assert "not closed within 3 s" in caplog.text


async def test_an_error_of_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(FaultyStore):
        async def close(self) -> None:
            raise OSError("gone")

    async with running(Bad()):
        pass
    assert "the store can't be closed (OSError: gone)" in caplog.text


async def test_a_journal_that_never_ran_can_be_closed() -> None:
    store = FaultyStore()
    journal = Journal(store, on_failed=fail_test, recover=no_recovery)
    batch = journal.append(QueuedPut("a", 1, 1, 1))
    await journal.close()
    await journal.close()
    assert store.closed
    assert state(batch) == "FAILED"
    assert journal.append(ReceivedRemoved("a", 1)) is REFUSED
