"""The store with either writer: what is refused, and in what words."""

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio

from mqtrio import (
    Change,
    MessagePut,
    QueuedPut,
    RetainedPut,
    SessionPut,
    StoreError,
    SubscriptionPut,
)
from mqtrio_sqlite.store import SqliteStore

ANN = SessionPut("ann", None, 5, 60, 1, 1000.0)


async def topics(store: SqliteStore) -> list[str]:
    await store.load()
    return [put.topic for put in await store.retained(None, None, 1000)]


async def read(open_store: Any) -> None:
    async with open_store() as store:
        await topics(store)


async def write(open_store: Any) -> None:
    async with open_store() as store:
        await store.commit([RetainedPut(f"t/{n}", b"y", 0) for n in range(500)])


async def test_it_keeps_what_was_committed(open_store: Any) -> None:
    async with open_store() as store:
        await store.load()
        await store.commit(
            [ANN, SubscriptionPut("ann", "a/#", 1), MessagePut(1, "a", b"x", 1, False)]
        )
        await store.commit([QueuedPut("ann", 1, 1, 1)])
    async with open_store() as store:
        loaded = await store.load()
        assert loaded.sessions["ann"].session == ANN
        assert loaded.highest_message_id == 1
        (row,) = await store.queued("ann", 0, 10)
        assert row.message == MessagePut(1, "a", b"x", 1, False)


async def test_the_files_of_a_writer_that_died(open_store: Any, path: Path, tmp_path: Path) -> None:
    """A commit alone is enough: the files as they are right after it hold everything."""
    async with open_store() as store:
        await store.load()
        for number in range(20):
            await store.commit([RetainedPut(f"t/{number:02}", b"x" * 5000, 0)])
            copy = tmp_path / f"copy-{number}"
            copy.mkdir()
            for name in ("broker.db", "broker.db-wal"):
                shutil.copy(path.with_name(name), copy / name)
            with sqlite3.connect(copy / "broker.db") as there:
                count = there.execute("SELECT count(*) FROM retained").fetchone()
            there.close()
            assert count == (number + 1,)


async def test_a_second_broker_is_refused(open_store: Any, path: Path) -> None:
    async with open_store() as store:
        await store.load()
        with pytest.raises(StoreError, match=re.escape(f"{path}: another program holds it")):
            async with open_store():
                raise AssertionError("not reached")
        await store.commit([RetainedPut("t", b"1", 0)])
    async with open_store() as store:
        assert await topics(store) == ["t"]


async def test_another_program_that_writes(open_store: Any, path: Path) -> None:
    async with open_store() as store:
        await store.load()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program holds it"):
            await store.commit([RetainedPut("t", b"1", 0)])
        other.execute("ROLLBACK")
        other.close()
        await store.commit([RetainedPut("u", b"1", 0)])
        assert await topics(store) == ["u"]


async def test_others_may_read_and_back_up_meanwhile(
    open_store: Any, path: Path, tmp_path: Path
) -> None:
    async with open_store() as store:
        await store.load()
        await store.commit([RetainedPut("t", b"1", 0)])
        backup = sqlite3.connect(tmp_path / "backup.db")
        reader = sqlite3.connect(path)
        reader.backup(backup)
        reader.close()
        assert backup.execute("SELECT topic FROM retained").fetchall() == [("t",)]
        backup.close()
        await store.commit([RetainedPut("u", b"1", 0)])


async def test_full(open_store: Any, path: Path) -> None:
    """What doesn't fit is refused as a whole; what fits later is taken."""
    async with open_store(max_size=400_000) as store:
        await store.load()
        await store.commit([RetainedPut("t", b"x" * 100_000, 0)])
        large: list[Change] = [RetainedPut(f"u/{n}", b"x" * 100_000, 0) for n in range(5)]
        for _ in range(3):
            with pytest.raises(StoreError, match=f"{re.escape(str(path))}: there is no room left"):
                await store.commit([RetainedPut("v", b"", 0), *large])
        assert await topics(store) == ["t"]
        await store.commit([RetainedPut("w", b"x" * 100_000, 0)])
    async with open_store() as store:
        assert await topics(store) == ["t", "w"]
        await store.commit(large)


async def test_a_database_of_something_else_is_refused(open_store: Any, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE photos (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="a database of something else"):
        async with open_store():
            raise AssertionError("not reached")
    assert path.read_bytes() == before


async def test_what_is_no_database_is_refused(open_store: Any, path: Path) -> None:
    path.write_bytes(b"this is a letter to my aunt" * 1000)
    with pytest.raises(StoreError, match="it is no database"):
        async with open_store():
            raise AssertionError("not reached")
    assert path.read_bytes().startswith(b"this is a letter")


async def test_a_folder_that_is_not_there(open_store: Any, path: Path) -> None:
    nowhere = path.parent / "nowhere" / "broker.db"
    with pytest.raises(StoreError, match="its folder must be there"):
        async with open_store(path=nowhere):
            raise AssertionError("not reached")


async def test_a_damaged_database(open_store: Any, path: Path) -> None:
    """Damage is found when a damaged page is needed: then nothing is acknowledged."""
    async with open_store() as store:
        await store.load()
        await store.commit([RetainedPut(f"t/{n}", b"x" * 900, 0) for n in range(500)])
    content = bytearray(path.read_bytes())
    content[4096 * 4 :] = b"\xa5" * (len(content) - 4096 * 4)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"{re.escape(str(path))}: it is damaged"):
        await read(open_store)
    with pytest.raises(StoreError, match="it is damaged"):
        await write(open_store)


async def test_a_commit_that_nobody_waits_for_any_more(open_store: Any) -> None:
    async with open_store() as store:
        await store.load()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    store.commit, [RetainedPut(f"t/{n}", b"x" * 100, 0) for n in range(3000)]
                )
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    async with open_store() as store:
        assert len(await store.retained(None, None, 10_000)) in (0, 3000)
