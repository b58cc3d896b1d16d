"""Measure what durability costs: mqtrio-sqlite with each of its writers, beside none at all.

`--folder` is where the database is, and where fdatasync is measured: the disk that counts. Broker
and writer have two cores, of which the load uses one: on a machine with more, or with less to do
beside, figures are better. What to read are ratios in one run.

    beside   a QoS 0 pair as fast as it goes, and one client that publishes by QoS 1, a message at
             a time, for an offline session: what its PUBACK takes, and what the pair loses
    alone    the same client, with nothing beside
    online   100 publishers by QoS 1, window 100, for one subscriber with a session that is stored
    offline  the same, for a session whose client is away (the subscriber is there by QoS 0)
    commits  no broker: messages for one session put into a database, each by a commit of its own,
             which is what group commit is to be compared with
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mqtrio import MessagePut, QueuedPut, SessionPut
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.records import records
from tests.bench.brokers import BrokerFailed, Running, started
from tests.bench.driver import LOAD_CORE, LoadFailed, build, load
from tests.bench.report import machine

MODES = ("memory", "process", "thread", "mosquitto")

# The session that is away must take all of a run.
_CONFIG = """\
[log]
level = "error"
[limits]
queue_messages = 10_000_000
queue_bytes = "10GiB"
memory = "8GiB"
"""
_PLUGIN = """\
[plugin.sqlite]
path = "{path}"
writer = "{writer}"
synchronous = "{synchronous}"
"""

_PAIR = ("--scenario", "pipe", "--qos", "0")
_MANY = ("--scenario", "fanin", "--pubs", "100", "--window", "100", "--pub-qos", "1")
ONLINE = (*_MANY, "--sub-qos", "1", "--persistent")
OFFLINE = (*_MANY, "--sub-qos", "0")


@contextmanager
def broker(mode: str, folder: Path, synchronous: str) -> Iterator[Running]:
    """Run a broker without a store, or with a new database in `folder`."""
    if mode == "mosquitto":
        with started("mosquitto", "") as running:
            yield running
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        config = Path(scratch) / "mqtrio.toml"
        text = _CONFIG
        if mode != "memory":
            text += _PLUGIN.format(
                path=Path(scratch) / "broker.db", writer=mode, synchronous=synchronous
            )
        config.write_text(text)
        command = f"{sys.executable} -m mqtrio serve {config}"
        with started("ours", f"{command} --listen mqtt://127.0.0.1:{{port}}", cores="0,1") as ours:
            yield ours


class Client:
    """A client that does one thing at a time, on a socket that blocks."""

    def __init__(self, port: int, name: str, *, clean: bool) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = b"\x00\x04MQTT\x04" + bytes([2 * clean]) + b"\x00\x00" + _text(name)
        self._ask(bytes([0x10, len(body)]) + body, 4)

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe by QoS 1, and wait for SUBACK."""
        body = b"\x00\x01" + _text(topic_filter) + b"\x01"
        self._ask(bytes([0x82, len(body)]) + body, 5)

    def publish(self, topic: str) -> float:
        """Publish 64 bytes by QoS 1; returns the seconds until PUBACK."""
        body = _text(topic) + b"\x00\x01" + bytes(64)
        begin = time.perf_counter()
        self._ask(bytes([0x32, len(body)]) + body, 4)
        return time.perf_counter() - begin

    def close(self) -> None:
        """Leave without a word."""
        self.socket.close()

    def _ask(self, packet: bytes, size: int) -> None:
        self.socket.sendall(packet)
        answer = b""
        while len(answer) < size:
            data = self.socket.recv(size - len(answer))
            if not data:
                raise LoadFailed("the broker has closed the connection")
            answer += data


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def offline_session(port: int, topic_filter: str) -> None:
    """Leave a session with one subscription behind."""
    client = Client(port, "away", clean=False)
    client.subscribe(topic_filter)
    client.close()


def waits(port: int, go_on: Callable[[int], bool]) -> list[float]:
    """Publish one message after the other to the session that is away; the waits for PUBACK."""
    client = Client(port, "lone", clean=True)
    found: list[float] = []
    while go_on(len(found)):
        found.append(client.publish("lone"))
    client.close()
    return found


def syncs(folder: Path, count: int) -> list[float]:
    """What fdatasync takes after one more page of a file, in seconds."""
    found = []
    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(count):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - begin)
    return found


def commits(folder: Path, synchronous: str, count: int) -> float:
    """Messages a second, if each has a commit of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        database = Database(Options(path=Path(scratch) / "broker.db", synchronous=synchronous))
        try:
            database.commit(records([SessionPut("away", None, 4, 0xFFFFFFFF, 1, 0.0)]))
            begin = time.perf_counter()
            for n in range(1, count + 1):
                message = MessagePut(n, "lone", bytes(64), 1, False, publisher="lone")
                database.commit(records([message, QueuedPut("away", n, n, 1)]))
            return count / (time.perf_counter() - begin)
        finally:
            database.close()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def beside(running: Running, scale: float) -> tuple[float, list[float]]:
    """Messages a second of the pair, and the waits of the lone publisher beside it."""
    offline_session(running.port, "lone")
    count = str(int(3_000_000 * scale))
    command = [str(build("mqload")), "--port", str(running.port), *_PAIR, "--count", count]
    with subprocess.Popen(
        ["taskset", "-c", LOAD_CORE, *command, "--json"], stdout=subprocess.PIPE, text=True
    ) as pair:
        time.sleep(0.3)
        found = waits(running.port, lambda _: pair.poll() is None)
        assert pair.stdout is not None
        return json.loads(pair.stdout.read())["msgs_per_s"], found[:-1]


def throughput(running: Running, scale: float, arguments: Sequence[str]) -> float:
    """Messages a second; raises LoadFailed if one is lost."""
    if arguments is OFFLINE:
        offline_session(running.port, "#")
    options = ("--port", str(running.port), "--timeout", "60", "--json")
    count = str(int(3000 * scale))
    said = load(build("mqload"), *options, *arguments, "--count", count)
    if not said["ok"]:
        raise LoadFailed(f"the load did not end well: {said}")
    return float(said["msgs_per_s"])


def main() -> None:
    """Print the figures of each run, and their medians."""
    arguments = _arguments()
    for key, value in machine().items():
        print(f"{key:12} {value}")
    print(f"{'folder':12} {arguments.folder}\n{'synchronous':12} {arguments.synchronous}\n")
    print(_HEAD)
    rows: dict[str, list[list[float]]] = {}
    for _ in range(arguments.runs):
        for mode in arguments.modes:
            row = _row(mode, arguments)
            rows.setdefault(mode, []).append(row)
            print(_line(mode, row), flush=True)
    print("\nmedians")
    for mode, measured in rows.items():
        print(_line(mode, [statistics.median(column) for column in zip(*measured, strict=True)]))


_HEAD = (
    f"{'':10} {'QoS 0/s':>9} {'beside it: PUBACKs':>18} {'p50 ms':>7} {'p99 ms':>7}"
    f" {'alone p50 us':>12} {'fdatasync':>9} {'online/s':>9} {'offline/s':>9} {'one by one/s':>12}"
    f" {'commits/s':>9}"
)


def _line(mode: str, row: Sequence[float]) -> str:
    return (
        f"{mode:10} {row[0]:9,.0f} {row[1]:18,.0f} {row[2] * 1e3:7.2f} {row[3] * 1e3:7.2f}"
        f" {row[4] * 1e6:12.0f} {row[5] * 1e6:9.0f} {row[6]:9,.0f} {row[7]:9,.0f} {row[8]:12,.0f}"
        f" {row[9]:9,.0f}"
    )


def _row(mode: str, arguments: argparse.Namespace) -> list[float]:
    folder, scale = arguments.folder, arguments.scale
    with broker(mode, folder, arguments.synchronous) as running:
        rate, found = beside(running, scale)
    with broker(mode, folder, arguments.synchronous) as running:
        offline_session(running.port, "lone")
        most = int(1000 * scale)
        alone = waits(running.port, lambda count: count < most)
        disk = syncs(folder, most)
        each = commits(folder, arguments.synchronous, most)
    measured = []
    for load_arguments in (ONLINE, OFFLINE):
        with broker(mode, folder, arguments.synchronous) as running:
            measured.append(throughput(running, scale, load_arguments))
    return [
        *(rate, len(found), statistics.median(found), percentile(found, 0.99)),
        *(statistics.median(alone), statistics.median(disk), *measured, len(alone) / sum(alone)),
        each,
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.durable",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--modes", type=lambda text: text.split(","), default=MODES)
    parser.add_argument("--synchronous", choices=("full", "normal"), default="full")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="times the messages of each run")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except (BrokerFailed, LoadFailed) as failure:
        sys.exit(f"tests.bench.durable: {failure}")
