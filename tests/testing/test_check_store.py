"""The contract for stores: right ones keep it; each wrong one breaks the rule that it should."""

import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import attrs
import pytest
import trio

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
    ReceivedRemoved,
    RetainedPut,
    RetainedRemoved,
    SessionClosed,
    SessionPut,
    SessionRemoved,
    SessionSetAside,
    SubscriptionRemoved,
    WillPut,
    WillRemoved,
)
from mqtrio.store.memory import MemoryStore
from mqtrio.store.protocol import Loaded, QueuedRow
from mqtrio.store.stored import StoredState
from mqtrio.testing import FaultyStore, check_store

Make = Callable[[StoredState], MemoryStore]


class DurableMemoryStore(MemoryStore):
    durable = True


def places(make: Make) -> Callable[[str], MemoryStore]:
    states: dict[str, StoredState] = defaultdict(StoredState)
    return lambda name: make(states[name])


@pytest.mark.parametrize("kind", [MemoryStore, DurableMemoryStore, FaultyStore])
async def test_right_stores(kind: type[MemoryStore]) -> None:
    await check_store(places(kind))


class Locked(FaultyStore):
    """Nobody else may open its place before it is closed."""

    def __init__(self, state: StoredState) -> None:
        super().__init__(state)
        self.lock = LOCKS.setdefault(id(state), [])
        assert not self.lock, "the place is locked"
        self.lock.append(self)

    async def close(self) -> None:
        await super().close()
        self.lock.clear()


LOCKS: dict[int, list[Locked]] = {}


async def test_a_store_may_be_opened_asynchronously_and_alone() -> None:
    make = places(Locked)

    async def open_store(name: str) -> MemoryStore:
        await trio.lowlevel.checkpoint()
        return make(name)

    await check_store(open_store, exclusive=True)
    with pytest.raises(AssertionError, match="the place is locked"):
        await check_store(places(Locked))


def forgets(*kinds: type[Change]) -> Make:
    class Wrong(MemoryStore):
        async def commit(self, changes: Sequence[Change]) -> None:
            await super().commit([c for c in changes if type(c) not in kinds])

    return Wrong


def loses(kind: type[Change], field: str, value: Any) -> Make:
    """One field of a change isn't kept."""

    class Wrong(MemoryStore):
        async def commit(self, changes: Sequence[Change]) -> None:
            lost = {field: value}
            await super().commit(
                [attrs.evolve(c, **lost) if type(c) is kind else c for c in changes]
            )

    return Wrong


class HalfBatches(MemoryStore):
    async def commit(self, changes: Sequence[Change]) -> None:
        for change in changes:
            await super().commit([change])


class SwallowsErrors(MemoryStore):
    async def commit(self, changes: Sequence[Change]) -> None:
        try:
            await super().commit(changes)
        except StoreError:
            pass


class WrongError(MemoryStore):
    async def commit(self, changes: Sequence[Change]) -> None:
        try:
            await super().commit(changes)
        except StoreError as error:
            raise KeyError("no such row") from error


class OutOfOrder(MemoryStore):
    """Removes after it puts."""

    async def commit(self, changes: Sequence[Change]) -> None:
        removing = (RetainedRemoved, WillRemoved)
        await super().commit(sorted(changes, key=lambda c: isinstance(c, removing)))


class WritesAtClose(MemoryStore):
    def __init__(self, state: StoredState) -> None:
        self.disk = state
        super().__init__(state.copy())

    async def close(self) -> None:
        for name, table in self.state.tables().items():
            setattr(self.disk, name, table)
        self.disk.references = self.state.references


class WritesInSteps(MemoryStore):
    async def commit(self, changes: Sequence[Change]) -> None:
        apply_all(self.state.copy(), changes)
        for change in changes:
            apply(self.state, change)
            await trio.lowlevel.checkpoint()


class CancelledInTheMiddle(MemoryStore):
    async def commit(self, changes: Sequence[Change]) -> None:
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            apply_all(self.state, changes[:1])
            raise
        await super().commit(changes)


class PagesFromTheStart(MemoryStore):
    async def queued(
        self, client_id: str, after: int, limit: int, size: int | None = None
    ) -> list[QueuedRow]:
        return await super().queued(client_id, 0, limit, size)


class NoLimit(MemoryStore):
    async def queued(
        self, client_id: str, after: int, limit: int, size: int | None = None
    ) -> list[QueuedRow]:
        return await super().queued(client_id, after, 1000)


class NoSize(MemoryStore):
    async def queued(
        self, client_id: str, after: int, limit: int, size: int | None = None
    ) -> list[QueuedRow]:
        return await super().queued(client_id, after, limit)


class SortsByLocale(MemoryStore):
    async def retained(
        self, topic_filter: str | None, after: str | None, limit: int
    ) -> list[RetainedPut]:
        puts = await super().retained(topic_filter, None, 1000)
        puts.sort(key=lambda put: put.topic.casefold())
        if after is not None:
            puts = [put for put in puts if put.topic.casefold() > after.casefold()]
        return puts[:limit]


class KeepsGarbage(MemoryStore):
    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        kept = dict(self.state.messages)
        loaded = await super().load(client_ids)
        self.state.messages.update(kept)
        return loaded


class LoadsEverything(MemoryStore):
    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        return await super().load()


class CountsNoZeros(MemoryStore):
    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        loaded = await super().load(client_ids)
        references = {number: count for number, count in loaded.references.items() if count}
        return attrs.evolve(loaded, references=references)


class CountsNothing(MemoryStore):
    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        return attrs.evolve(await super().load(client_ids), references={})


class ReplacesSessions(MemoryStore):
    """INSERT OR REPLACE, which takes along what refers to the row."""

    async def commit(self, changes: Sequence[Change]) -> None:
        known = set(self.state.sessions)
        await super().commit(changes)
        for change in changes:
            if isinstance(change, SessionPut) and change.client_id in known:
                self.state.subscriptions[change.client_id] = {}


class Truncates(MemoryStore):
    """A column of 64 KiB."""

    async def commit(self, changes: Sequence[Change]) -> None:
        await super().commit(
            [
                attrs.evolve(c, payload=c.payload[:65_535]) if isinstance(c, MessagePut) else c
                for c in changes
            ]
        )


class SharesItsCache(MemoryStore):
    """Sessions of one store show in another one that is open at the same time."""

    def __init__(self, state: StoredState) -> None:
        super().__init__(state)
        OPEN.append(state)

    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        loaded = await super().load(client_ids)
        sessions = dict(loaded.sessions)
        for state in OPEN:
            if state is not self.state:
                sessions |= (await MemoryStore(state).load(client_ids)).sessions
        return attrs.evolve(loaded, sessions=sessions)

    async def close(self) -> None:
        OPEN.remove(self.state)
        await super().close()


OPEN: list[StoredState] = []


class KnowsNoRuling(MemoryStore):
    """What no case has, and random changes do."""

    async def commit(self, changes: Sequence[Change]) -> None:
        await super().commit(
            [
                attrs.evolve(c, ruling="") if isinstance(c, WillPut) and c.ruling == "none" else c
                for c in changes
            ]
        )


class Undecided(MemoryStore):
    durable = None  # type: ignore[assignment]  # that is what's wrong


SHARED = StoredState()

WRONG: list[tuple[Make, str]] = [
    (HalfBatches, "after batches that were refused"),
    (SwallowsErrors, "must be refused by StoreError: it accepted"),
    (WrongError, "must be refused by StoreError: it raised KeyError"),
    (OutOfOrder, "the changes of one batch are applied in their order"),
    (WritesAtClose, "before the store was closed"),
    (WritesInSteps, "saw a part of it"),
    (CancelledInTheMiddle, "happened by half"),
    (PagesFromTheStart, "not above `after`"),
    (NoLimit, "where 1 were asked for"),
    (NoSize, "a page of 1 bytes"),
    (SortsByLocale, "ordered by code points"),
    (KeepsGarbage, "drops garbage"),
    (LoadsEverything, r"load\(\['a', 'nobody'\]\): the set of sessions"),
    (CountsNothing, "references"),
    (CountsNoZeros, "references"),
    (Undecided, "durable"),
    (lambda state: MemoryStore(SHARED), "is|share"),
    (forgets(SessionClosed), "closed_at"),
    (forgets(SessionRemoved), "what belongs to a removed session goes with it"),
    (forgets(SessionSetAside), "a session that is set aside keeps"),
    (forgets(SubscriptionRemoved), "its subscriptions"),
    (forgets(QueuedSent, QueuedReleased), "its queue"),
    (forgets(QueuedRemoved, MessageRemoved), "queue"),
    (forgets(MessageRemoved), "after MessageRemoved"),
    (forgets(ReceivedRemoved), "received"),
    (forgets(RetainedRemoved), "the retained messages"),
    (forgets(WillRemoved), "the wills"),
    (loses(SessionPut, "credentials_expire_at", None), "its record"),
    (loses(MessagePut, "properties", None), "its queue"),
    (loses(MessagePut, "payload", b"short"), "queue"),
    (loses(RetainedPut, "expires_at", None), "the retained messages"),
    (loses(WillPut, "due", None), "the wills"),
    (loses(QueuedPut, "shared", ""), "queue entries keep order, state and message"),
    (ReplacesSessions, "a session that is opened again keeps its subscriptions"),
    (Truncates, "300,000 bytes"),
    (SharesItsCache, "two stores share their content"),
    (KnowsNoRuling, "after 10 random batches"),
]


@pytest.mark.parametrize(("make", "text"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_wrong_store_is_found(make: Make, text: str) -> None:
    OPEN.clear()
    with pytest.raises(AssertionError, match=text):
        await check_store(places(make))


async def test_each_check_finds_a_store_that_is_wrong_in_its_way() -> None:
    """A check that none of the wrong stores fails could be left out."""
    contract = sys.modules["mqtrio.testing.check_store"]
    checks = {check.__name__ for check in (*contract._CHECKS, contract._random)}
    wanted = {*checks, *contract._CASES}
    found = set()
    for make, _ in WRONG:
        OPEN.clear()
        with pytest.raises(AssertionError) as caught:
            await check_store(places(make))
        for frame, _ in traceback.walk_tb(caught.tb):
            name = frame.f_code.co_name
            found.add(frame.f_locals["name"] if name == "_check_case" else name)
    assert wanted - found == set()


async def test_the_memory_store_is_not_durable_by_itself() -> None:
    assert not MemoryStore().durable
    assert FaultyStore().durable
