"""The writer process: it dies, is replaced, and outlives signals that are meant for the broker."""

import os
import signal
from pathlib import Path

import pytest
import trio

from mqtrio import RetainedPut, StoreError
from mqtrio_sqlite.database import Options
from mqtrio_sqlite.process import ProcessWriter
from mqtrio_sqlite.store import SqliteStore


async def opened(path: Path) -> tuple[SqliteStore, ProcessWriter]:
    writer = ProcessWriter(Options(path=path, busy_timeout=1))
    store = SqliteStore(writer)
    await store.open()
    await store.load()
    return store, writer


def pid_of(writer: ProcessWriter) -> int:
    assert writer._process is not None
    return writer._process.pid


async def test_one_that_is_killed_is_replaced(path: Path) -> None:
    store, writer = await opened(path)
    await store.commit([RetainedPut("a", b"", 0)])
    os.kill(pid_of(writer), signal.SIGKILL)
    with pytest.raises(StoreError, match="its writer has ended with status -9"):
        await store.commit([RetainedPut("b", b"", 0)])
    await store.commit([RetainedPut("c", b"", 0)])
    assert [put.topic for put in await store.retained(None, None, 9)] == ["a", "c"]
    await store.close()


async def test_a_commit_that_it_could_not_tell_of(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits and dies before it says so: the commit has happened, and is acknowledged."""
    store, writer = await opened(path)
    receive = writer._receive

    async def die() -> tuple[bool, object]:
        await receive()
        monkeypatch.undo()
        os.kill(pid_of(writer), signal.SIGKILL)
        raise await writer._died()

    monkeypatch.setattr(writer, "_receive", die)
    await store.commit([RetainedPut("a", b"", 0)])
    assert [put.topic for put in await store.retained(None, None, 9)] == ["a"]
    await store.commit([RetainedPut("b", b"", 0)])
    await store.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_does_not_end_it(path: Path, number: signal.Signals) -> None:
    store, writer = await opened(path)
    os.kill(pid_of(writer), number)
    await store.commit([RetainedPut("a", b"", 0)])
    await store.close()


async def test_it_ends_with_the_broker(path: Path) -> None:
    """Whose end of the socket is gone, however, has no writer any more, and no lock."""
    store, writer = await opened(path)
    process, sock = writer._process, writer._socket
    assert process is not None
    assert sock is not None
    sock.close()
    with trio.fail_after(10):
        assert await process.wait() == 0
    writer._socket = writer._process = None
    other, _ = await opened(path)
    await other.close()
    await store.close()


async def test_closing_while_it_hangs(path: Path) -> None:
    store, writer = await opened(path)
    pid = pid_of(writer)
    os.kill(pid, signal.SIGSTOP)
    with trio.move_on_after(0.2) as scope:
        await store.close()
    assert scope.cancelled_caught
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
