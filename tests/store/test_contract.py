"""What every store has to do, as a list of checks that run against any of them.

A check gets `reopen`, which opens a store over the same data each time: the first time it is empty.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import pytest

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
    SubscriptionPut,
    SubscriptionRemoved,
    WillPut,
    WillRemoved,
)
from mqtrio.store.memory import MemoryStore
from mqtrio.store.protocol import Store
from mqtrio.store.stored import StoredState
from mqtrio.testing.stores import FaultyStore

Reopen: TypeAlias = Callable[[], Awaitable[Store]]
Check: TypeAlias = Callable[[Reopen], Awaitable[None]]

PROPERTIES = (1, "text/plain", "answers/ä", b"\x00\xff", (("k", "1"), ("k", "2")))
SESSION = SessionPut("a", "user", 5, 60, 3, 1000.5, 2000.25)
OTHER = SessionPut("b", None, 4, 0xFFFFFFFF, 1, 1001.0)
MESSAGE = MessagePut(
    7, "t/ä", b"\x00payload", 2, True, PROPERTIES, "pub", "user", 3000.5, "bridge", "node1"
)


async def commit_and_reopen(reopen: Reopen, *batches: list[Change]) -> Store:
    """Commit to a new store, close it and open it again."""
    store = await reopen()
    for batch in batches:
        await store.commit(batch)
    await store.close()
    return await reopen()


async def check_empty(reopen: Reopen) -> None:
    store = await reopen()
    loaded = await store.load()
    assert not loaded.sessions
    assert not loaded.wills
    assert not loaded.references
    assert loaded.highest_message_id == 0
    assert await store.queued("a", 0, 10) == []
    assert await store.retained(None, None, 10) == []
    await store.close()


async def check_sessions(reopen: Reopen) -> None:
    wide = SubscriptionPut("a", "t/#", 2, True, True, 2, 268_435_455)
    shared = SubscriptionPut("a", "$share/g/t", 1)
    store = await commit_and_reopen(
        reopen,
        [SESSION, OTHER, wide, shared, SubscriptionPut("a", "gone", 1), ReceivedPut("a", 65535)],
        [SubscriptionRemoved("a", "gone"), SessionClosed("b", 1500.75), ReceivedPut("a", 1)],
        [ReceivedRemoved("a", 1)],
    )
    loaded = await store.load()
    assert set(loaded.sessions) == {"a", "b"}
    first, second = loaded.sessions["a"], loaded.sessions["b"]
    assert (first.session, first.closed_at) == (SESSION, None)
    assert sorted(first.subscriptions, key=lambda s: s.topic_filter) == [shared, wide]
    assert first.received == (65535,)
    assert (second.session, second.closed_at) == (OTHER, 1500.75)
    assert (second.subscriptions, second.received) == ((), ())
    await store.close()


async def check_session_opened_again(reopen: Reopen) -> None:
    again = SessionPut("a", "user", 4, 90, 4, 1000.5)
    store = await commit_and_reopen(
        reopen, [SESSION, SubscriptionPut("a", "t", 0), SessionClosed("a", 1.0)], [again]
    )
    session = (await store.load()).sessions["a"]
    assert (session.session, session.closed_at) == (again, None)
    assert session.subscriptions == (SubscriptionPut("a", "t", 0),)
    await store.close()


async def check_session_removed(reopen: Reopen) -> None:
    store = await commit_and_reopen(
        reopen,
        [SESSION, OTHER, SubscriptionPut("a", "t", 1), ReceivedPut("a", 1)],
        [MESSAGE, QueuedPut("a", 1, 7, 1), QueuedPut("b", 1, 7, 1), SessionRemoved("a")],
        [SESSION],
    )
    session = (await store.load()).sessions["a"]
    assert (session.subscriptions, session.received, session.queued) == ((), (), 0)
    assert await store.queued("a", 0, 10) == []
    assert [row.message for row in await store.queued("b", 0, 10)] == [MESSAGE]
    await store.close()


async def check_queue(reopen: Reopen) -> None:
    second = MessagePut(8, "t", b"", 1, False)
    store = await commit_and_reopen(
        reopen,
        [
            *(SESSION, OTHER, MESSAGE, second),
            QueuedPut("a", 3, 7, 2, True, (1, 9), 0, "$share/g/t"),
            *(QueuedPut("a", 4, 8, 1), QueuedPut("a", 10, 8, 1, packet_id=5)),
            QueuedPut("b", 1, 7, 2),
        ],
        [QueuedSent("a", 3, 65535), QueuedReleased("a", 3), QueuedRemoved("a", 4)],
    )
    loaded = await store.load()
    session = loaded.sessions["a"]
    assert (session.queued, session.highest_sequence) == (2, 10)
    assert session.queued_bytes == len(MESSAGE.payload)
    assert loaded.references == {7: 2}
    assert loaded.highest_message_id == 8
    released, sent = await store.queued("a", 0, 10)
    assert released.message == MESSAGE
    assert (released.sequence, released.qos, released.retain) == (3, 2, True)
    assert (released.identifiers, released.shared) == ((1, 9), "$share/g/t")
    assert (released.packet_id, released.released) == (65535, True)
    assert (sent.sequence, sent.message, sent.packet_id) == (10, second, 5)
    assert (sent.retain, sent.released, sent.identifiers, sent.shared) == (False, False, (), "")
    await store.close()


async def check_queue_in_pages(reopen: Reopen) -> None:
    numbers = range(1, 25)
    puts: list[Change] = [MessagePut(n, "t", b"%d" % n, 1, False) for n in numbers]
    store = await commit_and_reopen(
        reopen, [SESSION, *puts, *(QueuedPut("a", n * 10, n, 1) for n in numbers)]
    )
    seen: list[bytes] = []
    after = 0
    while rows := await store.queued("a", after, 10):
        seen += [row.message.payload for row in rows]
        after = rows[-1].sequence
    assert seen == [b"%d" % n for n in numbers]
    assert [row.sequence for row in await store.queued("a", 55, 2)] == [60, 70]
    await store.close()


async def check_retained(reopen: Reopen) -> None:
    full = RetainedPut("t/ä", b"\x00", 2, PROPERTIES, "pub", "user", 9.5, "will", "node1")
    store = await commit_and_reopen(
        reopen,
        [RetainedPut("t/ä", b"old", 0), RetainedPut("t", b"1", 1), RetainedPut("gone", b"", 0)],
        [full, RetainedRemoved("gone"), RetainedRemoved("never was"), RetainedPut("$x", b"", 0)],
    )
    assert await store.retained("t/+", None, 10) == [full]
    assert [put.topic for put in await store.retained("#", None, 10)] == ["t", "t/ä"]
    assert [put.topic for put in await store.retained(None, None, 10)] == ["$x", "t", "t/ä"]
    await store.close()


async def check_retained_in_pages(reopen: Reopen) -> None:
    # Orders that differ between code points, UTF-16 and locales.
    names = sorted(["a/B", "a/a", "a/ä", "a/\uffee", "a/\U0001f600", "a/b", "a/0", "b"])
    store = await commit_and_reopen(reopen, [RetainedPut(name, b"", 0) for name in names[::-1]])
    seen: list[str] = []
    after = None
    while puts := await store.retained("a/#", after, 3):
        seen += [put.topic for put in puts]
        after = puts[-1].topic
    assert seen == [name for name in names if name != "b"]
    await store.close()


async def check_wills(reopen: Reopen) -> None:
    will = WillPut("a", "user", "gone", b"\x00", 2, True, 30, 60, PROPERTIES, 1234.5)
    living = WillPut("c", None, "gone", b"", 0, False)
    store = await commit_and_reopen(
        reopen,
        [SESSION, WillPut("a", "user", "old", b"", 0, False), living],
        [will, WillPut("b", None, "x", b"", 0, False), SessionRemoved("a")],
        [WillRemoved("b")],
    )
    assert (await store.load()).wills == {"a": will, "c": living}
    await store.close()


async def check_some_sessions(reopen: Reopen) -> None:
    will = WillPut("a", "user", "gone", b"", 0, False)
    store = await commit_and_reopen(
        reopen,
        [SESSION, OTHER, MESSAGE, QueuedPut("a", 1, 7, 1), QueuedPut("b", 1, 7, 1)],
        [will, WillPut("b", None, "x", b"", 0, False)],
    )
    loaded = await store.load(["a", "nobody"])
    assert set(loaded.sessions) == {"a"}
    assert loaded.sessions["a"].queued == 1
    assert loaded.wills == {"a": will}
    assert loaded.references == {7: 2}
    assert loaded.highest_message_id == 7
    await store.close()


async def check_message_released(reopen: Reopen) -> None:
    store = await commit_and_reopen(
        reopen,
        [SESSION, MESSAGE, QueuedPut("a", 1, 7, 1)],
        [QueuedRemoved("a", 1), MessageRemoved(7)],
    )
    # Loading everything would drop it anyhow.
    assert (await store.load(["a"])).highest_message_id == 0
    await store.close()


async def check_garbage_is_dropped(reopen: Reopen) -> None:
    """A session removed with pages that the core never read leaves messages behind."""
    store = await commit_and_reopen(
        reopen, [SESSION, MESSAGE, QueuedPut("a", 1, 7, 1)], [SessionRemoved("a")]
    )
    await store.load()
    await store.close()
    store = await reopen()
    assert (await store.load()).highest_message_id == 0
    await store.close()


async def check_order_in_a_batch(reopen: Reopen) -> None:
    store = await commit_and_reopen(
        reopen,
        [
            *(SESSION, SubscriptionPut("a", "t", 0), SessionRemoved("a"), SESSION),
            *(MESSAGE, QueuedPut("a", 1, 7, 1), QueuedRemoved("a", 1), MessageRemoved(7)),
            *(RetainedPut("t", b"1", 0), RetainedRemoved("t"), RetainedPut("t", b"2", 0)),
            *(ReceivedPut("a", 1), ReceivedRemoved("a", 1), ReceivedPut("a", 1)),
        ],
    )
    session = (await store.load()).sessions["a"]
    assert (session.subscriptions, session.queued, session.received) == ((), 0, (1,))
    assert [put.payload for put in await store.retained("t", None, 10)] == [b"2"]
    await store.close()


async def check_all_or_nothing(reopen: Reopen) -> None:
    store = await reopen()
    await store.commit([SESSION, MESSAGE, QueuedPut("a", 1, 7, 1), RetainedPut("t", b"1", 0)])
    impossible = QueuedPut("nobody", 1, 7, 1)
    with pytest.raises(StoreError):
        await store.commit(
            [
                *(OTHER, ReceivedPut("a", 1), QueuedRemoved("a", 1), MessageRemoved(7)),
                *(RetainedPut("t", b"2", 0), WillPut("a", None, "t", b"", 0, False), impossible),
            ]
        )
    await store.commit([SubscriptionPut("a", "t", 1)])
    await store.close()
    store = await reopen()
    loaded = await store.load()
    assert set(loaded.sessions) == {"a"}
    assert loaded.sessions["a"].received == ()
    assert loaded.sessions["a"].subscriptions == (SubscriptionPut("a", "t", 1),)
    assert not loaded.wills
    assert [row.message for row in await store.queued("a", 0, 10)] == [MESSAGE]
    assert [put.payload for put in await store.retained("t", None, 10)] == [b"1"]
    await store.close()


CHECKS: list[Check] = [
    check_empty,
    check_sessions,
    check_session_opened_again,
    check_session_removed,
    check_queue,
    check_queue_in_pages,
    check_retained,
    check_retained_in_pages,
    check_wills,
    check_some_sessions,
    check_message_released,
    check_garbage_is_dropped,
    check_order_in_a_batch,
    check_all_or_nothing,
]


class DurableMemoryStore(MemoryStore):
    durable = True


@pytest.mark.parametrize("kind", [MemoryStore, DurableMemoryStore, FaultyStore])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_store(kind: type[MemoryStore], check: Check) -> None:
    state = StoredState()

    async def reopen() -> Store:
        return kind(state)

    await check(reopen)


def _forgetful(forgotten: type[Change]) -> type[MemoryStore]:
    """A store that is wrong in one way."""

    class Wrong(MemoryStore):
        async def commit(self, changes: Sequence[Change]) -> None:
            await super().commit([c for c in changes if type(c) is not forgotten])

    return Wrong


class HalfBatches(MemoryStore):
    """Commits what it can of a batch that can't be committed."""

    async def commit(self, changes: Sequence[Change]) -> None:
        for change in changes:
            await super().commit([change])


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (HalfBatches, check_all_or_nothing),
        (_forgetful(SessionClosed), check_sessions),
        (_forgetful(SessionRemoved), check_session_removed),
        (_forgetful(QueuedSent), check_queue),
        (_forgetful(ReceivedRemoved), check_sessions),
        (_forgetful(RetainedRemoved), check_retained),
        (_forgetful(WillRemoved), check_wills),
        (_forgetful(MessageRemoved), check_message_released),
    ],
)
async def test_a_wrong_store_is_found(wrong: type[MemoryStore], check: Check) -> None:
    state = StoredState()

    async def reopen() -> Store:
        return wrong(state)

    with pytest.raises((AssertionError, StoreError)):
        await check(reopen)


async def test_the_memory_store_is_not_durable_by_itself() -> None:
    assert not MemoryStore().durable
    assert FaultyStore().durable
