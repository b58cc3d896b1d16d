"""What every store must do, as one contract; StoredState and `apply` say what is right."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final, TypeAlias

import trio

from mqtrio.errors import StoreError
from mqtrio.store.apply import apply_all
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
from mqtrio.store.memory import MemoryStore
from mqtrio.store.protocol import Store
from mqtrio.store.stored import StoredState
from mqtrio.testing.changes import random_batch
from mqtrio.testing.rules import rule, same

#: Opens the store that has this name: an empty one the first time, the same data afterwards.
MakeStore: TypeAlias = Callable[[str], Store | Awaitable[Store]]

#: Sizes of the pages by which queues and retained messages are read.
_PAGES: Final = (1, 3, 1000)

_PROPERTIES = (1, "text/plain", "answers/ä", b"\x00\xff", (("k", "1"), ("k", "2")))
_SESSION = SessionPut("a", "user", 5, 60, 3, 1000.5, 2000.25)
_OTHER = SessionPut("b", None, 4, 0xFFFFFFFF, 1, 1001.0)
_MESSAGE = MessagePut(
    7, "t/ä", b"\x00payload", 2, True, _PROPERTIES, "pub", "user", 3000.5, "bridge", "node1"
)
_PLAIN = MessagePut(8, "t", b"", 1, False)
_WILL = WillPut("a", "user", "gone", b"\x00", 2, True, 30, 60, _PROPERTIES, 1234.5, "deny")
_QUEUED = QueuedPut("a", 1, 7, 2)


async def check_store(make_store: MakeStore, *, exclusive: bool = False, rounds: int = 60) -> None:
    """Check that a store keeps its contract; raises AssertionError that names the broken rule.

        async def test_store(tmp_path):
            await check_store(lambda name: SqliteStore(tmp_path / name))

    `make_store` is called with a name; one name stands for one place that keeps data, which is
    empty at first. `exclusive`: a store can't be opened while another one holds its place; then
    stores are closed before they are opened again, and it isn't seen whether `commit` alone is
    enough. `rounds`: batches of random changes that are compared with the reference.
    """
    opener = _Opener(make_store, exclusive)
    for name, (rule_text, batches) in _CASES.items():
        await _check_case(opener, name, rule_text, batches)
    for check in _CHECKS:
        await check(opener)
    await _random(opener, rounds)


class _Opener:
    """Opens stores, and opens them again."""

    def __init__(self, make_store: MakeStore, exclusive: bool) -> None:
        self.make_store = make_store
        self.exclusive = exclusive

    async def __call__(self, name: str) -> Store:
        made = self.make_store(name)
        store = await made if inspect.isawaitable(made) else made
        rule(isinstance(store.durable, bool), "a store says by `durable` whether it keeps anything")
        await store.load()  # the first call of each run
        return store

    async def read(self, store: Store, name: str, state: StoredState, what: str) -> Store:
        """A store over the same place must hold this state, at once and after `close`."""
        if not self.exclusive:
            beside = await self(name)
            await _compare(beside, state, f"{what}, before the store was closed,")
            await beside.close()
        await store.close()
        again = await self(name)
        await _compare(again, state, f"{what}, opened again,")
        return again


async def _committed(store: Store, state: StoredState, batch: Sequence[Change]) -> None:
    apply_all(state, batch)
    await store.commit(batch)


# -- one place, some batches, and the state that they make


_CASES: Final[dict[str, tuple[str, list[list[Change]]]]] = {
    "empty": ("a new store is empty", []),
    "sessions": (
        "sessions keep all fields, their subscriptions and received packet identifiers",
        [
            [
                *(_SESSION, _OTHER, SubscriptionPut("a", "t/#", 2, True, True, 2, 268_435_455)),
                *(SubscriptionPut("a", "$share/g/t", 1), SubscriptionPut("a", "gone", 1)),
                ReceivedPut("a", 65535),
            ],
            [SubscriptionRemoved("a", "gone"), SessionClosed("b", 1500.75), ReceivedPut("a", 1)],
            [ReceivedRemoved("a", 1), SubscriptionPut("a", "$share/g/t", 2)],
        ],
    ),
    "opened-again": (
        "a session that is opened again keeps its subscriptions, and is connected",
        [
            [_SESSION, SubscriptionPut("a", "t", 0), SessionClosed("a", 1.0)],
            [SessionPut("a", "user", 4, 90, 4, 1000.5)],
        ],
    ),
    "removed": (
        "what belongs to a removed session goes with it, and nothing else",
        [
            [_SESSION, _OTHER, SubscriptionPut("a", "t", 1), ReceivedPut("a", 1)],
            [_MESSAGE, _QUEUED, QueuedPut("b", 1, 7, 1), SessionRemoved("a")],
            [_SESSION],
        ],
    ),
    "set-aside": (
        "a session that is set aside keeps its record and its queue under the other name, no more",
        [
            [
                *(_SESSION, SubscriptionPut("a", "t", 1), ReceivedPut("a", 1), _MESSAGE, _PLAIN),
                *(QueuedPut("a", 3, 7, 2), QueuedPut("a", 4, 8, 1), QueuedSent("a", 3, 9)),
            ],
            [QueuedReleased("a", 3), SessionSetAside("a", "$ended/1/a"), _SESSION],
            [
                *(QueuedPut("a", 1, 7, 1), SubscriptionPut("a", "new", 1)),
                QueuedRemoved("$ended/1/a", 4),
            ],
        ],
    ),
    "queue": (
        "queue entries keep order, state and message",
        [
            [
                *(_SESSION, _OTHER, _MESSAGE, _PLAIN),
                QueuedPut("a", 3, 7, 2, True, (1, 9), 0, "$share/g/t"),
                *(QueuedPut("a", 4, 8, 1), QueuedPut("a", 10, 8, 1, packet_id=5)),
                QueuedPut("b", 1, 7, 2),
            ],
            [QueuedSent("a", 3, 65535), QueuedReleased("a", 3), QueuedRemoved("a", 4)],
        ],
    ),
    "retained": (
        "retained messages keep all fields; the last one of a topic wins",
        [
            [RetainedPut("t/ä", b"old", 0), RetainedPut("t", b"1", 1), RetainedPut("x", b"", 0)],
            [
                RetainedPut("t/ä", b"\x00", 2, _PROPERTIES, "pub", "user", 9.5, "will", "node1"),
                *(RetainedRemoved("x"), RetainedRemoved("never was"), RetainedPut("$x", b"", 0)),
            ],
        ],
    ),
    "wills": (
        "wills keep all fields, and outlive their session",
        [
            [
                _SESSION,
                WillPut("a", "u", "o", b"", 0, False),
                WillPut("c", None, "g", b"", 0, False),
            ],
            [_WILL, WillPut("b", None, "x", b"", 0, False), SessionRemoved("a")],
            [WillRemoved("b")],
        ],
    ),
    "order": (
        "the changes of one batch are applied in their order",
        [
            [
                *(_SESSION, SubscriptionPut("a", "t", 0), SessionRemoved("a"), _SESSION),
                *(_MESSAGE, _QUEUED, QueuedRemoved("a", 1), MessageRemoved(7)),
                *(RetainedPut("t", b"1", 0), RetainedRemoved("t"), RetainedPut("t", b"2", 0)),
                *(ReceivedPut("a", 1), ReceivedRemoved("a", 1), ReceivedPut("a", 1)),
            ],
        ],
    ),
    "large": (
        "a payload of 300,000 bytes of any value is kept",
        [
            [
                _SESSION,
                MessagePut(1, "t", bytes(range(256)) * 1200, 1, False),
                QueuedPut("a", 1, 1, 1),
            ]
        ],
    ),
}


async def _check_case(
    opener: _Opener, name: str, rule_text: str, batches: Sequence[Sequence[Change]]
) -> None:
    state = StoredState()
    store = await opener(name)
    try:
        for batch in batches:
            await _committed(store, state, batch)
    except StoreError as error:
        raise AssertionError(f"{rule_text}: a batch that fits was refused: {error}") from error
    store = await opener.read(store, name, state, rule_text)
    await store.close()


async def _compare(store: Store, state: StoredState, what: str) -> None:
    """The store must hold what the reference holds, by whatever way it is read."""
    reference = MemoryStore(state.copy())
    got, wanted = await store.load(), await reference.load()
    same(f"{what} the set of sessions", set(got.sessions), set(wanted.sessions))
    for client_id, loaded in wanted.sessions.items():
        mine = got.sessions[client_id]
        prefix = f"{what} session {client_id!r}:"
        same(f"{prefix} its record", mine.session, loaded.session)
        same(f"{prefix} closed_at", mine.closed_at, loaded.closed_at)
        same(
            f"{prefix} its subscriptions",
            {each.topic_filter: each for each in mine.subscriptions},
            {each.topic_filter: each for each in loaded.subscriptions},
        )
        same(f"{prefix} received", sorted(mine.received), sorted(loaded.received))
        same(f"{prefix} queued", mine.queued, loaded.queued)
        same(f"{prefix} queued_bytes", mine.queued_bytes, loaded.queued_bytes)
        same(f"{prefix} earliest_expiry", mine.earliest_expiry, loaded.earliest_expiry)
        same(f"{prefix} highest_sequence", mine.highest_sequence, loaded.highest_sequence)
        rows = await store.queued(client_id, 0, 1_000_000)
        same(f"{prefix} its queue", rows, await reference.queued(client_id, 0, 1_000_000))
    same(f"{what} the wills", dict(got.wills), dict(wanted.wills))
    same(f"{what} references", dict(got.references), dict(wanted.references))
    same(f"{what} highest_message_id", got.highest_message_id, wanted.highest_message_id)
    same(f"{what} queued_messages", got.queued_messages, wanted.queued_messages)
    same(f"{what} queued_payloads", got.queued_payloads, wanted.queued_payloads)
    for topic_filter in (None, "#", "t/+", "t/#"):
        same(
            f"{what} the retained messages of {topic_filter!r}",
            await store.retained(topic_filter, None, 1_000_000),
            await reference.retained(topic_filter, None, 1_000_000),
        )
    same(f"{what} the queue of a session that isn't there", await store.queued("?", 0, 10), [])


# -- the other rules


async def _refusals(opener: _Opener) -> None:
    """A batch that can't be applied changes nothing."""
    state = StoredState()
    store = await opener("refusals")
    base: list[Change] = [_SESSION, _MESSAGE, _QUEUED, RetainedPut("t", b"1", 0)]
    await _committed(store, state, base)
    fine: list[Change] = [
        *(_OTHER, ReceivedPut("a", 1), QueuedRemoved("a", 1), MessageRemoved(7)),
        *(RetainedPut("t", b"2", 0), WillPut("a", None, "t", b"", 0, False)),
    ]
    for impossible in (
        *(QueuedPut("?", 1, 7, 1), SubscriptionPut("?", "t", 1), SessionClosed("?", 1.0)),
        *(ReceivedPut("?", 1), SessionRemoved("?"), QueuedSent("a", 99, 1)),
        *(SessionSetAside("?", "x"), SessionSetAside("a", "b")),
    ):
        try:
            await store.commit([*fine, impossible])
        except StoreError:
            continue
        except Exception as error:
            raise AssertionError(f"{_IMPOSSIBLE}: it raised {error!r}") from error
        raise AssertionError(f"{_IMPOSSIBLE}: it accepted {impossible!r}")
    await _committed(store, state, [SubscriptionPut("a", "t", 1)])
    store = await opener.read(store, "refusals", state, "after batches that were refused")
    await store.close()


_IMPOSSIBLE: Final = "a batch with a change that can't be applied must be refused by StoreError"


async def _pages(opener: _Opener) -> None:
    """Queues and retained messages come in pages of any size, in order, none twice."""
    # Topics whose order differs between code points, UTF-16, cases and locales.
    topics = ["a/B", "a/a", "a/ä", "a/\uffee", "a/\U0001f600", "a/b", "a/0", "b"]
    numbers = range(1, 25)
    store = await opener("pages")
    await store.commit(
        [
            _SESSION,
            *(MessagePut(n, "t", b"%d" % n, 1, False) for n in numbers),
            *(QueuedPut("a", n * 10, n, 1) for n in numbers),
            *(RetainedPut(topic, b"", 0) for topic in topics),
        ]
    )
    for size in _PAGES:
        seen: list[int] = []
        after = 0
        while rows := await store.queued("a", after, size):
            rule(len(rows) <= size, f"queued gave {len(rows)} entries where {size} were asked for")
            seen += [row.sequence for row in rows]
            after = rows[-1].sequence
            rule(len(seen) <= len(numbers), "queued gives entries that are not above `after`")
        same(f"a queue read in pages of {size}", seen, [n * 10 for n in numbers])
        found: list[str] = []
        last = None
        while puts := await store.retained("a/#", last, size):
            rule(len(puts) <= size, f"retained gave {len(puts)} where {size} were asked for")
            found += [put.topic for put in puts]
            last = puts[-1].topic
            rule(len(found) <= len(topics), "retained gives topics that are not above `after`")
        wanted = sorted(topic for topic in topics if topic != "b")
        same(f"retained topics (ordered by code points) in pages of {size}", found, wanted)
    for size, wanted_rows in ((1, 1), (9, 9), (10, 10), (11, 10), (25, 17), (1000, 24)):
        page = await store.queued("a", 0, 1000, size)  # nine payloads of 1 byte, others of 2
        same(f"a page of {size} bytes: its entries", len(page), wanted_rows)
    same("a page of 2 entries and 25 bytes", len(await store.queued("a", 0, 2, 25)), 2)
    page = await store.queued("a", 55, 2)
    same("a page after a sequence that isn't there", [row.sequence for row in page], [60, 70])
    await store.close()


async def _some_sessions(opener: _Opener) -> None:
    """`load` of some client identifiers gives those sessions and wills, but all counters."""
    store = await opener("some")
    batch: list[Change] = [_SESSION, _OTHER, _MESSAGE, _QUEUED, QueuedPut("b", 1, 7, 1), _WILL]
    await store.commit([*batch, WillPut("b", None, "x", b"", 0, False)])
    await store.commit([_PLAIN])
    loaded = await store.load(["a", "nobody"])
    same("load(['a', 'nobody']): the set of sessions", set(loaded.sessions), {"a"})
    same("load(['a', 'nobody']): the wills", dict(loaded.wills), {"a": _WILL})
    same("load(['a', 'nobody']): references", dict(loaded.references), {7: 2, 8: 0})
    same("load(['a', 'nobody']): highest_message_id", loaded.highest_message_id, 8)
    same("load(['a', 'nobody']): queued_messages", loaded.queued_messages, 1)
    payloads = len(_MESSAGE.payload)
    same("load(['a', 'nobody']): queued_payloads", loaded.queued_payloads, payloads)
    await store.close()


async def _released(opener: _Opener) -> None:
    """A message that was removed is gone at once."""
    store = await opener("released")
    await store.commit([_SESSION, _MESSAGE, _QUEUED])
    await store.commit([QueuedRemoved("a", 1), MessageRemoved(7)])
    left = (await store.load(["a"])).highest_message_id
    same("highest_message_id after MessageRemoved", left, 0)
    await store.close()


async def _garbage(opener: _Opener) -> None:
    """Loading everything drops messages that nothing refers to any more."""
    store = await opener("garbage")
    await store.commit([_SESSION, _MESSAGE, _QUEUED])
    await store.commit([SessionRemoved("a")])
    await store.close()
    await (await opener("garbage")).close()  # loads everything
    store = await opener("garbage")
    left = (await store.load([])).highest_message_id
    same("highest_message_id after a load() of everything, which drops garbage,", left, 0)
    await store.close()


async def _overlap(opener: _Opener) -> None:
    """Reading while a commit goes on sees all of it or nothing."""
    store = await opener("overlap")
    size = 400
    await store.commit([_SESSION])
    batch: list[Change] = []
    for number in range(1, size + 1):
        batch.append(MessagePut(number, "t", b"x", 1, False))
        batch.append(QueuedPut("a", number, number, 1))
    seen: set[int] = set()
    done = trio.Event()

    async def commit() -> None:
        await store.commit(batch)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit)
        while not done.is_set():
            seen.add(len(await store.queued("a", 0, 10 * size)))
            await trio.lowlevel.checkpoint()
    halves = sorted(seen - {0, size})
    rule(not halves, f"reading beside a commit of {size} entries saw a part of it: {halves}")
    await store.close()


async def _cancelled(opener: _Opener) -> None:
    """A commit that is cancelled has happened as a whole or not at all, and the store goes on."""
    store = await opener("cancelled")
    await store.commit([_SESSION])
    batch: list[Change] = [_OTHER, _MESSAGE, _QUEUED, RetainedPut("t", b"1", 0)]
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.commit(batch)
    await store.close()
    store = await opener("cancelled")
    loaded = await store.load()
    rows = await store.queued("a", 0, 10)
    puts = await store.retained(None, None, 10)
    seen = ("b" in loaded.sessions, len(rows) == 1, len(puts) == 1)
    rule(len(set(seen)) == 1, "a commit that was cancelled has happened by half")
    await store.close()


async def _two_places(opener: _Opener) -> None:
    """Two stores in one process know nothing of each other."""
    first, second = await opener("place-1"), await opener("place-2")
    await first.commit([_SESSION, RetainedPut("t", b"1", 0)])
    loaded = await second.load()
    rule(not loaded.sessions, "two stores share their content: state is kept outside of the store")
    await first.close()
    await second.commit([_OTHER])
    await second.close()


async def _random(opener: _Opener, rounds: int) -> None:
    """Whatever is committed, the store holds what the reference holds."""
    random = Random(20)
    state = StoredState()
    store = await opener("random")
    for number in range(rounds):
        batch = random_batch(random, state)
        try:
            await _committed(store, state, batch)
        except StoreError as error:
            raise AssertionError(f"a batch that fits was refused: {error}") from error
        if number % 10 == 9:
            store = await opener.read(store, "random", state, f"after {number + 1} random batches")
            apply_all(state, [MessageRemoved(each) for each in state.unreferenced()])
    await store.close()


_CHECKS: Final = (
    *(_refusals, _pages, _some_sessions, _released, _garbage),
    *(_overlap, _cancelled, _two_places),
)
