"""A store that can't keep anything: its words at the start and in the log, and never a PUBACK."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from mqtrio import PluginError, RetainedPut, StoreError, open_broker
from mqtrio.testing import Harness, PubAck, Publish, PubRec, open_harness
from mqtrio_sqlite import SqlitePlugin, SqliteSettings
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.records import records

LASTING: dict[int, dict[str, Any]] = {4: {"clean_start": False}, 5: {"session_expiry_interval": 60}}

#: What takes the root user's right to write everywhere, so that modes of files count.
AS_ANYBODY = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]


def plugin(path: Path, **values: Any) -> SqlitePlugin:
    settings = SqliteSettings(path=path, **{"busy_timeout": 0.05, **values})
    return SqlitePlugin(settings, name="sqlite")


# -- while it runs

Fault: TypeAlias = Callable[[Path, Harness], AbstractContextManager[None]]


@contextmanager
def locked(path: Path, harness: Harness) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def full(path: Path, harness: Harness) -> Iterator[None]:
    """A part of what may be stored at all is much smaller than one message."""
    yield


@contextmanager
def read_only(path: Path, harness: Harness) -> Iterator[None]:
    store: Any = harness.broker._core.recorder.journal.store
    connection = store._writer._database.connection
    connection.execute("PRAGMA query_only = 1")
    yield
    connection.execute("PRAGMA query_only = 0")


FAULTS: dict[Fault, str] = {
    locked: "another program holds it",
    full: "there is no room left",
    read_only: "it can't be written",
}


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
async def test_nothing_is_acknowledged_that_is_not_stored(
    path: Path, fault: Fault, qos: int, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    one = plugin(path, writer="thread", max_size=200_000)
    async with open_harness(plugins=[one]) as harness:
        away = await harness.connect("away", version=version, **LASTING[version])
        await away.subscribe("x", 2)
        await away.drop()
        peer = await harness.connect("peer", version=version)
        with fault(path, harness):
            await refused(peer, qos, version, 0x97 if fault is full else 0x80)
        assert re.search(
            f"commit of .* failed .*{re.escape(str(path))}: {FAULTS[fault]}", caplog.text
        )
        await kept(harness, b"kept", qos, version)
        back = harness.peer("away", version=version)
        fields = LASTING[version] | {"clean_start": False}
        await back.connect(session_present=True, **fields)
        await back.message(b"kept")


async def refused(peer: Any, qos: int, version: int, code: int) -> None:
    """A message that can't be stored; for the store `full` it is too large for good."""
    await peer.send(Publish("x", bytes(300_000), qos, packet_id=1))
    if version == 4:
        await peer.expect_closed()
    else:
        packet = await peer.expect(PubAck if qos == 1 else PubRec, packet_id=1)
        assert packet.reason_code == code


async def kept(harness: Harness, payload: bytes, qos: int, version: int) -> None:
    """Publish once the sessions are loaded again."""
    with trio.fail_after(10):
        while harness.broker._core.sessions.reloading:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)
    peer = await harness.connect("other", version=version)
    await peer.publish("x", payload, qos)


@pytest.mark.parametrize("version", [4, 5])
async def test_damage_that_shows_while_it_runs(
    path: Path, writer: str, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The list of free pages, which nobody reads before there is something large to store."""
    damaged(path)
    async with open_harness(plugins=[plugin(path, writer=writer)]) as harness:
        peer = await harness.connect("peer", version=version)
        await peer.send(Publish("x", bytes(300_000), 1, True, packet_id=1))
        if version == 4:
            await peer.expect_closed()
        else:
            packet = await peer.expect(PubAck, packet_id=1)
            assert packet.reason_code >= 0x80
    assert f"{path}: it is damaged: stop the broker" in caplog.text


def damaged(path: Path) -> None:
    database = Database(Options(path=path))
    database.commit(records([RetainedPut(f"t/{n}", bytes(9000), 0) for n in range(100)]))
    database.connection.execute("DELETE FROM retained")
    database.close()
    content = bytearray(path.read_bytes())
    trunk = int.from_bytes(content[32:36], "big")  # see "The Database Header" of SQLite's format
    assert trunk
    begin = (trunk - 1) * 4096
    content[begin : begin + 4096] = b"\xa5" * 4096
    path.write_bytes(content)


# -- at the start


def _command(folder: Path) -> list[str]:
    (folder / "mqtrio.toml").write_text('[plugin.sqlite]\npath = "data/broker.db"\n')
    command = [sys.executable, "-m", "mqtrio", "serve", str(folder / "mqtrio.toml")]
    return [*(AS_ANYBODY if os.geteuid() == 0 else []), *command, "--listen", "mqtt://127.0.0.1:0"]


def serve(folder: Path) -> subprocess.CompletedProcess[str]:
    """Start a broker that may write only where the modes of files let it; it must end."""
    return subprocess.run(_command(folder), capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("made", [True, False], ids=["a database", "none yet"])
def test_a_folder_that_is_read_only(tmp_path: Path, made: bool) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if made:
        Database(Options(path=data / "broker.db")).close()
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    for path in data.iterdir():
        path.chmod(0o444)
    data.chmod(0o555)
    try:
        ended = serve(tmp_path)
    finally:
        data.chmod(0o755)
    assert ended.returncode == 2
    assert "listening" not in ended.stderr
    assert "Traceback" not in ended.stderr
    said = ended.stderr.splitlines()[-1]
    assert str(data / "broker.db") in said
    assert "let the broker's user write" in said or "must be allowed to write there" in said
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def test_a_file_that_is_read_only(tmp_path: Path) -> None:
    """In a folder where the broker may write, and does: its lock."""
    data = tmp_path / "data"
    data.mkdir()
    path = data / "broker.db"
    Database(Options(path=path)).close()
    path.chmod(0o444)
    before = path.read_bytes()
    ended = serve(tmp_path)
    assert ended.returncode == 2
    assert "listening" not in ended.stderr
    assert f"{path}: it can't be written: let the broker's user write" in ended.stderr
    assert path.read_bytes() == before


def test_these_modes_are_what_keeps_it_from_starting(tmp_path: Path) -> None:
    """So the tests above can fail: the same start, with a folder where it may write."""
    (tmp_path / "data").mkdir()
    with subprocess.Popen(_command(tmp_path), stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stderr is not None
        assert any("listening on" in line for line in broker.stderr)
        broker.terminate()
    assert broker.returncode == 0


async def test_a_start_beside_a_program_that_writes(path: Path, writer: str) -> None:
    Database(Options(path=path)).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    words = f"{re.escape(str(path))}: another program holds it"
    with pytest.raises(PluginError, match=words):
        async with open_broker([], plugins=[plugin(path, writer=writer)]):
            raise AssertionError("it has started")
    other.close()


async def test_a_start_with_a_database_that_is_damaged(path: Path, writer: str) -> None:
    database = Database(Options(path=path))
    database.commit(records([RetainedPut(f"t/{n}", b"x" * 900, 0) for n in range(500)]))
    database.close()
    content = bytearray(path.read_bytes())
    content[4096 * 20 :] = b"\xa5" * (len(content) - 4096 * 20)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"{re.escape(str(path))}: it is damaged: stop the broker"):
        async with open_broker([], plugins=[plugin(path, writer=writer)]):
            raise AssertionError("it has started")


async def test_a_start_with_a_database_that_may_grow_no_more(path: Path, writer: str) -> None:
    """Its clients get what is in it; only what is new is refused."""
    database = Database(Options(path=path))
    database.commit(records([RetainedPut(f"t/{n}", bytes(9000), 0) for n in range(20)]))
    database.close()
    one = plugin(path, writer=writer, max_size=65_536)
    async with open_harness(plugins=[one]) as harness:
        assert len(harness.broker.retained("t/+")) == 20
        peer = await harness.connect("peer", version=5)
        await peer.send(Publish("x", bytes(9000), 1, True, packet_id=1))
        packet = await peer.expect(PubAck, packet_id=1)
        assert packet.reason_code >= 0x80


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_retained_message_that_is_too_large_for_good(
    path: Path, writer: str, qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused, and stands in nobody's way."""
    async with open_harness(plugins=[plugin(path, writer=writer, max_size=200_000)]) as harness:
        peer = await harness.connect("peer", version=5)
        await peer.send(Publish("large", bytes(300_000), qos, True, packet_id=1))
        if qos:
            await peer.expect(PubAck, packet_id=1, reason_code=0x97)
        with trio.fail_after(10):
            for topic in ("small", "other"):
                while (await publish(peer, topic)).reason_code >= 0x80:
                    pass
    async with open_harness(plugins=[plugin(path, writer=writer)]) as harness:
        assert {message.topic for message in harness.broker.retained("#")} == {"small", "other"}
    assert "'large'" in caplog.text


async def publish(peer: Any, topic: str) -> PubAck:
    await peer.send(Publish(topic, b"x", 1, True, packet_id=7))
    packet: PubAck = await peer.expect(PubAck, packet_id=7)
    return packet
