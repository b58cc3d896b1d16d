"""The contract for stores: right ones keep it; each wrong one breaks the rule that it should."""

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
]


@pytest.mark.parametrize(("make", "text"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_wrong_store_is_found(make: Make, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        await check_store(places(make))


async def test_the_memory_store_is_not_durable_by_itself() -> None:
    assert not MemoryStore().durable
    assert FaultyStore().durable
