"""A disk that fails: nothing is acknowledged, nothing of it comes back, and it goes on."""

import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from types import ModuleType

import pytest
import trio

from mqtrio import Change, RetainedPut, StoreError
from mqtrio.testing import Peer, PubAck, Publish
from mqtrio_sqlite.database import Options
from mqtrio_sqlite.process import ProcessWriter
from mqtrio_sqlite.store import SqliteStore

FAULTS = {
    "sync": "its disk fails: see the log of the system",
    "write": "its disk fails: see the log of the system",
    "full": "there is no room left",
}


@pytest.fixture
def fault(tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is written to this file is what fails, for the processes that this one starts."""
    control = tmp_path / "fault"
    monkeypatch.setenv("LD_PRELOAD", str(script.failing_disk(tmp_path)))
    monkeypatch.setenv("DISK_FAULT", str(control))
    return control


def put(topic: str) -> list[Change]:
    return [RetainedPut(topic, b"x" * 6000, 0)]


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_failed_commit(path: Path, fault: Path, kind: str) -> None:
    store = SqliteStore(ProcessWriter(Options(path=path)))
    await store.open()
    await store.load()
    await store.commit(put("before"))
    fault.write_text(kind)
    for number in range(3):
        with pytest.raises(StoreError, match=FAULTS[kind]) as caught:
            await store.commit(put(f"failed/{number}"))
        assert str(path) in str(caught.value)
    fault.unlink()
    await store.commit(put("after"))
    topics = [each.topic for each in await store.retained(None, None, 10)]
    assert topics == ["after", "before"]
    await store.close()


@pytest.mark.parametrize("kind", FAULTS)
async def test_what_has_failed_stays_failed_over_a_crash(
    path: Path, fault: Path, tmp_path: Path, kind: str
) -> None:
    """Pages of a commit that could not be synced may be in the log; they must not count."""
    writer = ProcessWriter(Options(path=path))
    store = SqliteStore(writer)
    await store.open()
    await store.load()
    await store.commit(put("before"))
    fault.write_text(kind)
    with pytest.raises(StoreError):
        await store.commit(put("failed"))
    assert writer._process is not None
    os.kill(writer._process.pid, signal.SIGKILL)
    await writer._process.wait()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("broker.db", "broker.db-wal"):
        shutil.copy(path.with_name(name), crashed)
    with sqlite3.connect(crashed / "broker.db") as there:
        assert there.execute("SELECT topic FROM retained").fetchall() == [("before",)]
    there.close()
    fault.unlink()
    with pytest.raises(StoreError, match="its writer has ended"):
        await store.load()
    await store.close()


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A real one, of one mebibyte."""
    script = Path(__file__).with_name("full_disk.py")
    unshare = ["unshare", "--mount"]
    if os.geteuid():
        unshare.append("--map-root-user")
    ran = await trio.run_process(
        [*unshare, sys.executable, str(script), str(tmp_path)],
        check=False,
        capture_stderr=True,
    )
    if ran.returncode == 77 or b"unshare failed" in ran.stderr:
        pytest.skip("only where a test may mount a file system")
    assert not ran.returncode, ran.stderr.decode()


@pytest.mark.parametrize("version", [4, 5])
async def test_clients_of_a_broker_whose_disk_fails(
    tmp_path: Path, fault: Path, script: ModuleType, version: int
) -> None:
    """No PUBACK of success: MQTT 5 hears a reason, MQTT 3 loses its connection; then it goes on."""
    broker = script.BrokerProcess(tmp_path, "process", "full")
    await broker.start()
    try:
        subscriber = script.Subscriber("away", "q1/+", 1)
        await subscriber.subscribe(broker.port)
        async with script.connected(broker.port, "pub", version, False) as peer:
            assert isinstance(peer, Peer)
            fault.write_text("sync")
            await peer.send(Publish("q1/t", b"1", 1, packet_id=1))
            if version == 5:
                packet = await peer.expect(PubAck, packet_id=1)
                assert packet.reason_code >= 0x80
            else:
                await peer.expect_closed()
        fault.unlink()
        with trio.fail_after(20):
            await script.again(_publish, script, broker.port, version)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(script.again, subscriber.run, broker.port)
                while not subscriber.deliveries:  # noqa: ASYNC110 - it is another process
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert subscriber.got == {"q1/t": [2]}
    finally:
        broker.stop()


async def _publish(script: ModuleType, port: int, version: int) -> None:
    async with script.connected(port, "pub", version, False) as peer:
        await peer.send(Publish("q1/t", b"2", 1, packet_id=2))
        packet = await peer.expect(PubAck, packet_id=2)
        if packet.reason_code:  # the sessions are not loaded again yet
            raise OSError


async def test_a_broker_that_stops_when_its_store_fails(tmp_path: Path, script: ModuleType) -> None:
    """`on_store_failure = "stop"`: an exit status, the words of the store, and no PUBACK."""
    broker = script.BrokerProcess(tmp_path, "process", "full")
    with broker.config.open("a") as config:
        config.write('max_size = 200_000\n[session]\non_store_failure = "stop"\n')
    log = tmp_path / "log"
    with log.open("w") as broker.log:
        await broker.start()
    async with script.connected(broker.port, "pub", 4, False) as peer:
        await peer.send(Publish("t", bytes(300_000), 1, True, packet_id=1))
        await peer.expect_closed()
    with trio.fail_after(20):
        assert await trio.to_thread.run_sync(broker.process.wait) == 1
    said = log.read_text().splitlines()
    database = tmp_path / "broker.db"
    assert said[-1].startswith(
        f'mqtrio: the store failed, and on_store_failure is "stop": {database}: there is no room'
    )
