"""What the system sees: between a PUBLISH that is read and its PUBACK the log is synced."""

import re
import signal
import subprocess
from pathlib import Path
from types import ModuleType

import trio

from mqtrio.testing import PubAck, Publish

CALLS = "read,recvfrom,recvmsg,write,sendto,sendmsg,fsync,fdatasync"


async def traced(
    folder: Path, script: ModuleType, writer: str, synchronous: str
) -> tuple[list[str], list[str]]:
    """The lines of a trace: from a PUBLISH that is read to its PUBACK, and the syncs in it."""
    broker = script.BrokerProcess(folder, writer, synchronous)
    trace = folder / "trace"
    await broker.start()
    try:
        await script.Subscriber("away", "q1/+", 1).subscribe(broker.port)
        async with script.connected(broker.port, "pub", 4, False) as peer:
            # Not the first commit of the log, which is synced in any case.
            await peer.send(Publish("q1/t", b"1", 1, packet_id=1))
            await peer.expect(PubAck, packet_id=1)
            pids = [str(broker.process.pid), *script.children_of(broker.process.pid)]
            command = ["strace", "-f", "-y", "-s", "500", "-e", f"trace={CALLS}", "-o", str(trace)]
            command += [word for pid in pids for word in ("-p", pid)]
            tracer = await trio.lowlevel.open_process(command, stderr=subprocess.DEVNULL)
            try:
                with trio.fail_after(20):
                    while not _attached(pids):  # noqa: ASYNC110 - the system has no event for it
                        await trio.sleep(0.01)
                await peer.send(Publish("q1/t", b"here it is", 1, packet_id=2))
                await peer.expect(PubAck, packet_id=2)
            finally:
                tracer.send_signal(signal.SIGINT)
                with trio.CancelScope(shield=True):
                    await tracer.wait()
    finally:
        broker.stop()
    lines = trace.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if re.search(r"recv.*here it is", line))
    end = next(n for n, line in enumerate(lines) if r"@\2\0\2" in line)
    between = lines[begin + 1 : end]
    done = [line for line in between if re.search(r"f(data)?sync.* = 0$", line)]
    return between, done


def _attached(pids: list[str]) -> bool:
    status = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return all("TracerPid:\t0\n" not in text for text in status)


async def test_a_puback_follows_a_completed_sync(
    tmp_path: Path, script: ModuleType, writer: str
) -> None:
    between, done = await traced(tmp_path, script, writer, "full")
    assert done, "\n".join(between)
    assert any("broker.db-wal" in line for line in between if "sync(" in line)


async def test_with_normal_there_is_none(tmp_path: Path, script: ModuleType) -> None:
    """So the test above can fail."""
    between, done = await traced(tmp_path, script, "process", "normal")
    assert between
    assert not done
