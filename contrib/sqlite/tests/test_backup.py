"""Copies of a database that a broker is writing to, as docs/durability.md says to take them."""

import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from mqtrio import Broker, open_broker
from mqtrio_sqlite import SqlitePlugin, SqliteSettings

Copy = Callable[[Path, Path], Awaitable[None]]


def plugin(path: Path) -> SqlitePlugin:
    return SqlitePlugin(SqliteSettings(path=path), name="sqlite")


def backup(path: Path, copy: Path) -> None:
    """What `sqlite3 broker.db ".backup copy.db"` does."""
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()


def export(path: Path, copy: Path) -> None:
    lines = copy.with_suffix(".jsonl")
    with lines.open("w") as out:
        store("export", path, stdout=out)
    with lines.open() as given:
        store("import", copy, stdin=given)


def store(command: str, path: Path, **streams: object) -> None:
    words = [sys.executable, "-m", "mqtrio", "store", command, str(path)]
    subprocess.run(words, check=True, **streams)  # type: ignore[call-overload]  # by name


@pytest.mark.parametrize("take", [backup, export])
async def test_a_copy_of_a_running_broker(path: Path, take: Callable[[Path, Path], None]) -> None:
    """One moment of it: all that was acknowledged before, of later things a beginning, no more."""
    copy = path.with_name("copy.db")
    acknowledged = 0

    async def publish(broker: Broker) -> None:
        nonlocal acknowledged
        while True:
            await broker.publish("jobs", str(acknowledged), qos=2, retain=True)
            acknowledged += 1

    async with open_broker([], plugins=[plugin(path)]) as broker:
        async with broker.subscribe("jobs", session="worker", qos=2):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, broker)
            while acknowledged < 50:
                await trio.lowlevel.checkpoint()
            before = acknowledged
            await trio.to_thread.run_sync(take, path, copy)
            while acknowledged == before:
                await trio.lowlevel.checkpoint()
            after = acknowledged
            nursery.cancel_scope.cancel()
    assert before < after
    store("check", copy)
    async with open_broker([], plugins=[plugin(copy)]) as broker:
        (kept,) = broker.retained("jobs")
        async with broker.subscribe("jobs", session="worker", qos=2, timeout=1) as messages:
            got = [int(message.payload) async for message in messages]
        assert got == list(range(len(got)))
        assert before <= len(got) <= after + 1
        assert int(kept.payload) == got[-1]
