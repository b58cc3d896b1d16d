"""What other clients notice of abuse, measured on the wire: `python -m tests.limits.fairness`.

A broker and its victims run in processes of their own; this one is the abuser. Prints a table for
docs/performance.md.
"""

import argparse
import json
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from attrs import define

from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import (
    MQTT_3_1_1,
    Connect,
    Packet,
    PubAck,
    Publish,
    Subscribe,
    SubscriptionRequest,
)

#: What other clients' p99 must stay under, in seconds.
BOUND: Final = 0.05

#: Seconds that anything may take: decides about failures, never about success.
PATIENCE: Final = 60.0

ROOT: Final = Path(__file__).resolve().parents[2]

RETAINED: Final = 100_000
SUBSCRIBERS: Final = 10_000
ROUNDS: Final = 10

#: Seconds that a flood lasts.
FLOOD: Final = 3.0

#: Descriptors beside those of subscribers.
RESERVE: Final = 600

CONNACK: Final = bytes((0x20, 2, 0, 0))


@define(frozen=True)
class Figures:
    """What victims saw during one abuse. Latencies in seconds."""

    what: str
    seconds: float
    messages: int
    p50: float
    p99: float
    worst: float

    def row(self) -> str:
        """A line of the table."""
        return (
            f"| {self.what} | {self.seconds:.2f} s | {self.messages} | {self.p50 * 1e3:.2f} ms "
            f"| {self.p99 * 1e3:.1f} ms | {self.worst * 1e3:.0f} ms |"
        )


HEADER: Final = """\
| while this happens | for | messages of others | p50 | p99 | worst |
|---|---|---|---|---|---|"""


# -- clients


class Client:
    """A raw connection in MQTT 3.1.1, which blocks unless it says otherwise."""

    def __init__(self, port: int, client_id: str, *, wait: bool = True, **fields: Any) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.send(Connect(MQTT_3_1_1, client_id, **fields))
        if wait:
            self.let_in()

    def let_in(self) -> None:
        """CONNACK has come."""
        assert self.take(4) == CONNACK

    def send(self, *packets: Packet) -> None:
        """Send packets in one write."""
        self.sock.sendall(b"".join(encode(packet, MQTT_3_1_1) for packet in packets))

    def take(self, size: int) -> bytes:
        """The next bytes."""
        while len(self.buffer) < size:
            data = self.sock.recv(1 << 18)
            assert data, "the broker has closed the connection"
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def subscribe(self, topic_filter: str, qos: int = 0) -> None:
        """Subscribe, and see it granted."""
        self.send(Subscribe(1, (SubscriptionRequest(topic_filter, qos),)))
        assert self.take(5) == bytes((0x90, 3, 0, 1, qos))

    def ping(self) -> None:
        """All that was sent before has been handled."""
        self.sock.sendall(b"\xc0\x00")
        assert self.take(2) == b"\xd0\x00"

    def pump(self, chunks: Iterator[bytes], until: float) -> int:
        """Send as fast as it goes and discard the answers; how many bytes were sent."""
        self.sock.setblocking(False)
        sent = 0
        data = memoryview(b"")
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while time.monotonic() < until:
                for _, events in selector.select(0.1):
                    if events & selectors.EVENT_READ:
                        assert self.sock.recv(1 << 20), "the broker has closed the connection"
                    if events & selectors.EVENT_WRITE:
                        data = data or memoryview(next(chunks))
                        count = self.sock.send(data)
                        sent += count
                        data = data[count:]
        self.sock.setblocking(True)
        return sent

    def close(self) -> None:
        """Leave without a word."""
        self.sock.close()


# -- processes


#: A broker with its defaults.
SERVE: Final = ("mqtrio", "serve", "--listen", "mqtt://127.0.0.1:0")


@contextmanager
def broker(*module: str) -> Iterator[int]:
    """A broker in a process of its own (default: SERVE); the port on which it listens."""
    command = [sys.executable, "-m", *(module or SERVE)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with (
            log.open("wb") as stderr,
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, cwd=ROOT) as process,
        ):
            try:
                yield _port(log, process)
                process.terminate()
                assert process.wait(PATIENCE) == 0
                mistakes = [line for line in log.read_text().splitlines() if "Traceback" in line]
                assert not mistakes, log.read_text()[-5000:]
            finally:
                process.kill()


def _port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        found = re.search(r"listening on mqtt://[\d.]+:(\d+)", log.read_text())
        if found:
            return int(found[1])
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@contextmanager
def victims(port: int) -> Iterator[Callable[[], list[tuple[float, float]]]]:
    """Clients that go on beside; the function ends them and returns what they measured."""
    command = [sys.executable, "-m", "tests.limits.victims", str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            assert stdout.readline() == "ready\n"
            yield lambda: _measured(stdin, stdout)
        finally:
            process.kill()


def _measured(stdin: IO[str], stdout: IO[str]) -> list[tuple[float, float]]:
    stdin.close()
    return [(due, latency) for due, latency in json.loads(stdout.read())]


# -- abuse


class Abuse:
    """The abuses, on one broker. Each returns when it is over."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.subscribers: list[Client] = []

    def nothing(self) -> None:
        """What victims see of a broker that has nothing else to do."""
        time.sleep(1)

    def retain(self) -> None:
        """Publish retained messages to as many topics, as fast as it goes."""
        publisher = Client(self.port, "retainer")
        for start in range(0, RETAINED, 1000):
            publisher.send(
                *(
                    Publish(f"retained/{number // 1000}/{number}", b"%020d" % number, retain=True)
                    for number in range(start, start + 1000)
                )
            )
        publisher.ping()
        publisher.close()

    def replay(self) -> None:
        """A new subscription to `#` gets all of them."""
        subscriber = Client(self.port, "everything")
        subscriber.send(Subscribe(1, (SubscriptionRequest("#"),)))
        assert subscriber.take(5)[:2] == b"\x90\x03"
        left = RETAINED
        while left:
            first, length = subscriber.take(2)
            assert length < 128
            subscriber.take(length)
            left -= first & 1
        subscriber.close()

    def fan_out(self) -> None:
        """Publish to all subscribers, again when all have it."""
        self._fan_out(0)

    def fan_out_at_qos_1(self) -> None:
        """The same with an acknowledgement from each of them."""
        self._fan_out(1)

    def _fan_out(self, qos: int) -> None:
        publisher = Client(self.port, "publisher")
        packet = Publish("fan", bytes(60), qos, packet_id=1 if qos else 0)
        wanted = len(encode(packet, MQTT_3_1_1))
        with selectors.DefaultSelector() as selector:
            for client in self.subscribers:
                selector.register(client.sock, selectors.EVENT_READ, client)
            for _ in range(ROUNDS):
                publisher.send(packet)
                left = len(self.subscribers)
                while left:
                    for key, _events in selector.select(PATIENCE):
                        client = key.data
                        client.buffer += client.sock.recv(65536)
                        if len(client.buffer) < wanted:
                            continue
                        if qos:
                            start = wanted - 62  # the packet identifier is before the payload
                            packet_id = int.from_bytes(client.buffer[start : start + 2], "big")
                            client.send(PubAck(packet_id))
                        client.buffer = b""
                        left -= 1
        publisher.close()

    def come(self) -> None:
        """Subscribers connect, as many as there may be."""
        count = subscribers()
        for start in range(0, count, 500):
            part = [
                Client(self.port, f"s{number}", wait=False)
                for number in range(start, min(start + 500, count))
            ]
            for client in part:
                client.let_in()
                client.subscribe("fan", 1)
            self.subscribers += part

    def leave(self) -> None:
        """All subscribers break off at once."""
        for client in self.subscribers:
            client.close()
        self.subscribers.clear()
        time.sleep(2)

    def ping_flood(self) -> None:
        """PINGREQ without an end."""
        flooder = Client(self.port, "pinger")
        flooder.pump(_repeated(b"\xc0\x00" * 32768), time.monotonic() + FLOOD)
        flooder.close()

    def subscribe_flood(self) -> None:
        """SUBSCRIBE without an end, to ever new filters that no retained message matches."""
        flooder = Client(self.port, "subscriber")
        flooder.pump(_subscribes("flood/{}/+"), time.monotonic() + FLOOD)
        self.flooder = flooder

    def subscribe_flood_that_looks_far(self) -> None:
        """The same with filters for which every retained message must be looked at."""
        flooder = Client(self.port, "searcher")
        flooder.pump(_subscribes("+/+/none{}"), time.monotonic() + FLOOD)
        flooder.close()

    def flooder_leaves(self) -> None:
        """A session with many subscriptions ends."""
        self.flooder.close()
        time.sleep(1)

    def publish_flood(self) -> None:
        """QoS 1 messages without an end."""
        flooder = Client(self.port, "publisher")
        data = b"".join(
            encode(Publish("nobody", bytes(60), 1, packet_id=number), MQTT_3_1_1)
            for number in range(1, 1001)
        )
        flooder.pump(_repeated(data), time.monotonic() + FLOOD)
        flooder.close()

    def connect_flood(self) -> None:
        """Clients that come and go."""
        until = time.monotonic() + FLOOD
        while time.monotonic() < until:
            some = [Client(self.port, f"c{number}", wait=False) for number in range(50)]
            for client in some:
                client.let_in()
                client.close()


def _repeated(data: bytes) -> Iterator[bytes]:
    while True:
        yield data


def _subscribes(pattern: str) -> Iterator[bytes]:
    number = 0
    while True:
        packets = []
        for _ in range(500):
            number += 1
            request = SubscriptionRequest(pattern.format(number))
            packets.append(encode(Subscribe(number % 65535 + 1, (request,)), MQTT_3_1_1))
        yield b"".join(packets)


#: What is done, in this order, on one broker. The first is no abuse but a measure of the machine.
ABUSES: Final[Mapping[str, str]] = {
    "nothing": "nothing",
    "retain": f"{RETAINED:,} retained messages are published",
    "replay": f"{RETAINED:,} retained messages go to a new `#`",
    "come": f"{SUBSCRIBERS:,} clients connect and subscribe",
    "fan_out": f"{SUBSCRIBERS:,} subscribers get a message, {ROUNDS} times",
    "fan_out_at_qos_1": "the same at QoS 1",
    "leave": f"{SUBSCRIBERS:,} clients break off",
    "ping_flood": "a PINGREQ flood",
    "subscribe_flood": "a SUBSCRIBE flood",
    "flooder_leaves": "the session of the SUBSCRIBE flood ends",
    "subscribe_flood_that_looks_far": "SUBSCRIBE that searches all retained messages, a flood",
    "publish_flood": "a PUBLISH flood at QoS 1",
    "connect_flood": "a CONNECT flood",
}


def subscribers() -> int:
    """How many connections there may be at one time, here and in the broker."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return SUBSCRIBERS if soft == resource.RLIM_INFINITY else min(SUBSCRIBERS, soft - RESERVE)


def raise_descriptor_limit() -> None:
    """Allow as many sockets as the system lets us, here and in the broker."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(port: int, names: list[str]) -> dict[str, Figures]:
    """Abuse a broker in all these ways, one after the other."""
    abuse = Abuse(port)
    windows: dict[str, tuple[float, float]] = {}
    with victims(port) as measured:
        for name in names:
            time.sleep(0.3)
            start = time.monotonic()
            getattr(abuse, name)()
            windows[name] = (start, time.monotonic())
        time.sleep(0.3)
        pairs = measured()
    for client in abuse.subscribers:
        client.close()
    return {name: figures_of(ABUSES[name], windows[name], pairs) for name in names}


def figures_of(what: str, window: tuple[float, float], pairs: list[tuple[float, float]]) -> Figures:
    """What victims saw between two moments."""
    start, end = window
    latencies = sorted(latency for due, latency in pairs if due + latency > start and due < end)
    assert latencies, f"no message of a victim came back while this happened: {what}"
    count = len(latencies)
    return Figures(
        what,
        end - start,
        count,
        latencies[count // 2],
        latencies[min(count - 1, count * 99 // 100)],
        latencies[-1],
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *ABUSES], help="default: all of them")
    chosen = parser.parse_args().names or list(ABUSES)
    raise_descriptor_limit()
    print(f"victims' latencies, {os.cpu_count()} cores\n\n{HEADER}")
    with broker() as port:
        figures = measure(port, chosen)
    for each in figures.values():
        print(each.row())
    if subscribers() < SUBSCRIBERS:
        print(f"\nonly {subscribers():,} subscribers: the system allows no more descriptors")


if __name__ == "__main__":
    main()
