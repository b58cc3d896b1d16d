"""Measure a start with very many messages in the queues of clients that are away.

A database is made with `--sessions` sessions and `--messages` messages for each; every message is
for `--shared` of them. Then the broker starts, and one client comes and takes what is its own.
`ready` is the time from the start of the process until it takes connections (Python's own start
included), with the CPU time of broker and writer, `RSS` the most that each of them has occupied by
then, `taken` the time until the client has its messages.
"""

import argparse
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mqtrio import Change, MessagePut, QueuedPut, SessionClosed, SessionPut, SubscriptionPut
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.records import records
from tests.bench.brokers import BrokerFailed, started
from tests.bench.report import machine

_CONFIG = """\
[log]
level = "error"
[limits]
sessions = 10_000_000
queue_messages = 10_000_000
queue_bytes = "10GiB"
[plugin.sqlite]
path = "{path}"
"""

#: Changes in one commit.
_BATCH = 200_000


def changes(sessions: int, messages: int, shared: int) -> Iterator[Change]:
    """What makes such a database; sequences and message ids count from 1."""
    now = time.time()
    for number in range(sessions):
        yield SessionPut(f"away-{number}", None, 4, 0xFFFFFFFF, 1, now)
        yield SubscriptionPut(f"away-{number}", f"to/{number}", 1)
        yield SessionClosed(f"away-{number}", now)
    message_id = 0
    for group in range(0, sessions, shared):
        for sequence in range(1, messages + 1):
            message_id += 1
            yield MessagePut(message_id, f"to/{group}", b"%064d" % sequence, 1, False)
            for number in range(group, min(sessions, group + shared)):
                yield QueuedPut(f"away-{number}", sequence, message_id, 1)


def fill(path: Path, sessions: int, messages: int, shared: int) -> None:
    """Make the database."""
    database = Database(Options(path=path, synchronous="normal"))
    batch: list[Change] = []
    for change in changes(sessions, messages, shared):
        batch.append(change)
        if len(batch) >= _BATCH and not isinstance(change, MessagePut):
            database.commit(records(batch))
            batch = []
    database.commit(records(batch))
    database.close()


def take(port: int, name: str, count: int) -> tuple[float, float]:
    """Take all messages of a session by QoS 1; returns seconds until the first, and the last."""
    begin = time.perf_counter()
    first = 0.0
    taken = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        text = name.encode()
        body = b"\x00\x04MQTT\x04\x00\x00\x00" + len(text).to_bytes(2, "big") + text
        client.sendall(bytes([0x10, len(body)]) + body)
        stream = client.makefile("rb")
        if stream.read(4) != b"\x20\x02\x01\x00":
            raise BrokerFailed("the session is not there")
        while taken < count:
            kind, size = stream.read(2)  # they are short
            packet = stream.read(size)
            if kind & 0xF0 != 0x30:
                raise BrokerFailed(f"packet {kind:#x} instead of a PUBLISH")
            start = 2 + int.from_bytes(packet[:2], "big")
            taken += 1
            if int(packet[start + 2 :]) != taken:
                raise BrokerFailed("a message is missing, or out of order")
            first = first or time.perf_counter() - begin
            client.sendall(b"\x40\x02" + packet[start : start + 2])
    return first, time.perf_counter() - begin


def peak(process_id: int) -> int:
    """The most bytes that a process has had in memory."""
    status = Path(f"/proc/{process_id}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def processor_time(process_id: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(process_id: int) -> list[int]:
    """The processes that a process has started, whichever of its threads did."""
    found = Path(f"/proc/{process_id}/task").glob("*/children")
    return [int(each) for file in found for each in file.read_text().split()]


def main() -> None:
    """Print what was measured."""
    arguments = _arguments()
    for key, value in machine().items():
        print(f"{key:12} {value}")
    total = arguments.sessions * arguments.messages
    print(f"{'away':12} {arguments.sessions:,} sessions, {total:,} queued messages in all")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        path = Path(scratch) / "broker.db"
        fill(path, arguments.sessions, arguments.messages, arguments.shared)
        print(f"{'database':12} {path.stat().st_size / 1e6:,.0f} MB\n")
        config = Path(scratch) / "mqtrio.toml"
        config.write_text(_CONFIG.format(path=path))
        command = f"{sys.executable} -m mqtrio serve {config} --listen mqtt://127.0.0.1:{{port}}"
        for run in range(arguments.runs):
            begin = time.perf_counter()
            with started("ours", command, cores="0,1") as running:
                ready = time.perf_counter() - begin - SETTLED
                processes = [running.process.pid, *children(running.process.pid)]
                broker, *writer = map(peak, processes)
                used = sum(map(processor_time, processes))
                name = f"away-{run}"
                first, last = take(running.port, name, arguments.messages)
                print(
                    f"ready {ready:5.2f} s (CPU {used:4.2f} s)   RSS {broker / 1e6:3.0f} MB + "
                    f"{sum(writer) / 1e6:.0f} MB   taken: the first after {first * 1e3:.0f} ms, "
                    f"{arguments.messages:,} after {last * 1e3:.0f} ms",
                    flush=True,
                )


#: What `started` waits once the broker takes connections, in seconds.
SETTLED = 0.4


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.restart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--shared", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
