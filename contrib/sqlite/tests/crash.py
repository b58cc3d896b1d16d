"""A crash test that anyone can run: kill the broker, its writer, or both, and see what is kept.

    python contrib/sqlite/tests/crash.py --rounds 50 --seed 7
    python contrib/sqlite/tests/crash.py --rounds 50 --power

A real broker with its database, publishers at QoS 1 and 2, subscribers with sessions that come and
go, retained messages, wills. Each round lasts for a random time; then something is killed by
SIGKILL, and the broker starts again. At the end everything has to be there:

- each message that was acknowledged, at least once (QoS 1), exactly once (QoS 2), in order;
- each topic's retained message: the one that was acknowledged last, or a later one;
- the will of each client that was let in and never left;
- each session.

With --power a kill is a power failure: of each file of the database is left what it was when it
was last synced, and nothing later. That needs a C compiler, and `synchronous = "full"`.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import trio
from attrs import Factory, define, field

from mqtrio import Will
from mqtrio.testing import (
    Closed,
    ConnAck,
    Peer,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
)

#: Messages that a publisher has under way at most.
WINDOW = 20

FOR_EVER = 0xFFFFFFFF

_CONFIG = """\
[log]
level = "error"
[plugin.sqlite]
path = "broker.db"
synchronous = "{synchronous}"
writer = "{writer}"
checkpoint = 262_144
"""


class Failure(Exception):
    """What must not be."""


class BrokerProcess:
    """A broker in a process of its own, always at the same port and over the same database."""

    def __init__(self, folder: Path, writer: str, synchronous: str, power: bool = False) -> None:
        self.config = folder / "mqtrio.toml"
        self.config.write_text(_CONFIG.format(writer=writer, synchronous=synchronous))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        #: Whether it has a process for the writer, which can be killed alone.
        self.apart = writer == "process"
        self.process: subprocess.Popen[bytes] | None = None
        #: Where its log goes; None: where that of this program goes.
        self.log: IO[str] | None = None
        self.survivors = folder / "survivors" if power else None
        self.environment = dict(os.environ)
        if self.survivors is not None:
            self.survivors.mkdir()
            disk = {"LD_PRELOAD": str(failing_disk(folder)), "DISK_SURVIVORS": str(self.survivors)}
            self.environment |= disk

    async def start(self) -> None:
        url = f"mqtt://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "mqtrio", "serve", str(self.config), "--listen", url]
        # A group of its own, so that broker and writer can be killed in one moment.
        self.process = subprocess.Popen(  # noqa: ASYNC220 - takes no time that counts here
            command, env=self.environment, start_new_session=True, stderr=self.log
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(f"the broker has ended with status {self.process.returncode}")
            try:
                await (await trio.open_tcp_stream("127.0.0.1", self.port)).aclose()
                return
            except OSError:
                await trio.sleep(0.02)
        raise Failure("the broker does not answer")

    def kill(self, what: str) -> None:
        """Kill the broker, its writer, or both in one moment."""
        assert self.process is not None
        pid = self.process.pid
        children = children_of(pid)
        if what == "both":
            os.killpg(pid, signal.SIGKILL)
        elif what == "broker":
            os.kill(pid, signal.SIGKILL)
        else:
            if not children:
                raise Failure("there is no writer to kill")
            for child in children:
                os.kill(int(child), signal.SIGKILL)
            return
        self.process.wait()
        if what == "both" and self.survivors is not None:
            while any(_lives(child) for child in children):
                time.sleep(0.001)
            self._lose_power()

    def _lose_power(self) -> None:
        assert self.survivors is not None
        for path in self.config.parent.glob("broker.db*"):
            path.unlink()
        for path in self.survivors.glob("broker.db*"):
            shutil.copy(path, self.config.parent)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if self.process.wait(30):
                raise Failure(f"the broker has ended with status {self.process.returncode}")


def children_of(pid: int) -> list[str]:
    """The child processes of all threads of a process."""
    found: list[str] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        found += listed.read_text().split()
    return found


def _lives(pid: str) -> bool:
    """Whether a process is there, and is more than its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def failing_disk(folder: Path) -> Path:
    """Compile disk.c, for LD_PRELOAD."""
    library = folder / "disk.so"
    source = Path(__file__).with_name("disk.c")
    subprocess.run(
        ["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
    )
    return library


@asynccontextmanager
async def connected(
    port: int, client_id: str, version: int, known: bool, will: Will | None = None
) -> AsyncIterator[Peer]:
    """Let a client in; its session must be there if it was let in before."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        peer = Peer(stream, version=version, client_id=client_id)
        expiry = FOR_EVER if version == 5 else None
        fields = {"clean_start": False, "session_expiry_interval": expiry, "will": will}
        await peer.send(peer.connect_packet(**fields))
        connack = await peer.expect(ConnAck)
        if connack.reason_code in (0x88, 3):  # server unavailable: the store has just failed
            raise Closed(f"{connack!r}")
        if connack.reason_code:
            raise Failure(f"{client_id} is not let in: {connack!r}")
        if known and not connack.session_present:
            raise Failure(f"the session of {client_id} is lost")
        yield peer
    finally:
        await trio.aclose_forcefully(stream)


@define(eq=False)
class Publisher:
    """Publishes numbers, and publishes again what was not acknowledged."""

    name: str
    qos: int
    retain: bool = False
    #: Numbers below this were given out, and are acknowledged if they aren't in `under_way`.
    next: int = 0
    #: Packet identifier -> number; None once PUBREC has come for it.
    under_way: dict[int, int | None] = Factory(dict)
    last_acknowledged: int = -1
    known: bool = False
    acknowledgements: int = 0

    @property
    def topic(self) -> str:
        return f"{'r' if self.retain else 'q'}{self.qos}/{self.name}"

    async def run(self, port: int, going: trio.Event, enough: trio.Event) -> None:
        """Publish until the connection ends, or `enough` is set and all is acknowledged."""
        async with connected(port, self.name, 4, self.known) as peer:
            self.known = True
            for packet_id, number in self.under_way.items():
                await self._send(peer, packet_id, number, dup=True)
            while not (enough.is_set() and not self.under_way):
                while len(self.under_way) < WINDOW and not enough.is_set():
                    packet_id = self._free()
                    self.under_way[packet_id] = self.next
                    self.next += 1
                    await self._send(peer, packet_id, self.next - 1)
                with trio.move_on_after(0.5):  # to look whether it is enough
                    await self._receive(peer)
                going.set()

    def _free(self) -> int:
        return next(n for n in range(1, WINDOW + 1) if n not in self.under_way)

    async def _send(
        self, peer: Peer, packet_id: int, number: int | None, dup: bool = False
    ) -> None:
        if number is None:
            await peer.send(PubRel(packet_id))
            return
        payload = b"%d" % number
        await peer.send(Publish(self.topic, payload, self.qos, self.retain, dup, packet_id))

    async def _receive(self, peer: Peer) -> None:
        packet = await peer.receive()
        if isinstance(packet, PubRec):
            self._acknowledged(self.under_way[packet.packet_id])
            self.under_way[packet.packet_id] = None
            await peer.send(PubRel(packet.packet_id))
        elif isinstance(packet, PubAck | PubComp):
            self._acknowledged(self.under_way.pop(packet.packet_id))
        else:
            raise Failure(f"{self.name} got {packet!r}")

    def _acknowledged(self, number: int | None) -> None:
        if number is not None:
            self.acknowledgements += 1
            self.last_acknowledged = max(self.last_acknowledged, number)


@define(eq=False)
class Subscriber:
    """Has a session, and comes and goes."""

    name: str
    topic_filter: str
    qos: int
    #: Topic -> numbers in the order of their coming.
    got: dict[str, list[int]] = Factory(dict)
    #: Packet identifiers of QoS 2 messages that were taken and are not released yet.
    taken: set[int] = Factory(set)
    known: bool = False
    deliveries: int = 0

    async def subscribe(self, port: int) -> None:
        async with connected(port, self.name, 5, False) as peer:
            await peer.subscribe(self.topic_filter, self.qos)
            self.known = True

    async def run(self, port: int) -> None:
        """Take what comes, until the connection ends."""
        async with connected(port, self.name, 5, self.known) as peer:
            while True:
                packet = await peer.receive()
                if isinstance(packet, Publish):
                    await self._take(peer, packet)
                elif isinstance(packet, PubRel):
                    self.taken.discard(packet.packet_id)
                    await peer.send(PubComp(packet.packet_id))
                else:
                    raise Closed(f"{packet!r}")

    async def _take(self, peer: Peer, packet: Publish) -> None:
        if packet.qos == 0 or packet.packet_id not in self.taken:
            self.deliveries += 1
            self.got.setdefault(packet.topic, []).append(int(packet.payload))
        if packet.qos == 2:
            self.taken.add(packet.packet_id)
            await peer.send(PubRec(packet.packet_id))
        elif packet.qos == 1:
            await peer.send(PubAck(packet.packet_id))


async def again(run: object, *arguments: object) -> None:
    """Run something until it ends well; connections may end, and brokers be away."""
    assert callable(run)
    while True:
        try:
            await run(*arguments)
            return
        except (OSError, trio.BrokenResourceError, Closed):
            await trio.sleep(0.01)


async def coming_and_going(subscriber: Subscriber, port: int, chance: random.Random) -> None:
    while True:
        with trio.move_on_after(chance.uniform(0.02, 0.6)):
            await again(subscriber.run, port)
        await trio.sleep(chance.uniform(0, 0.3))


@define(eq=False)
class Crash:
    """One run of the test."""

    broker: BrokerProcess
    chance: random.Random
    publishers: list[Publisher] = field(
        factory=lambda: [
            *(Publisher("ann", 1), Publisher("ben", 1), Publisher("cat", 2), Publisher("dan", 2)),
            *(Publisher("eve", 1, retain=True), Publisher("fay", 2, retain=True)),
        ]
    )
    subscribers: list[Subscriber] = field(
        factory=lambda: [
            *(Subscriber("one", "q1/+", 1), Subscriber("two", "q2/+", 2)),
            *(Subscriber("away", "q2/+", 2), Subscriber("heir", "w/+", 1)),
        ]
    )
    #: The wills of those who were let in.
    wills: set[int] = Factory(set)
    kills: dict[str, int] = Factory(dict)

    async def run(self, rounds: int) -> None:
        await self.broker.start()
        for subscriber in self.subscribers:
            await subscriber.subscribe(self.broker.port)
        for number in range(rounds):
            await self._round(number)
            await self._look_at_retained()
        await self._last_round()
        self._judge()

    async def _round(self, number: int) -> None:
        port, enough, going = self.broker.port, trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            for publisher in self.publishers:
                nursery.start_soon(again, publisher.run, port, going, enough)
            for subscriber in self.subscribers:
                if subscriber.name != "away":
                    nursery.start_soon(coming_and_going, subscriber, port, self.chance)
            nursery.start_soon(again, self._leave_a_will, number)
            with trio.fail_after(30):
                await going.wait()
            await trio.sleep(self.chance.uniform(0.02, 0.8))
            what = self.chance.choice(("broker", "both", "writer"))
            if self.broker.survivors is not None or (what == "writer" and not self.broker.apart):
                what = "both"
            self.kills[what] = self.kills.get(what, 0) + 1
            self.broker.kill(what)
            if what == "writer":  # the broker goes on, with another one
                await trio.sleep(self.chance.uniform(0.1, 0.8))
                self.broker.kill("both")
            nursery.cancel_scope.cancel()
        await self.broker.start()

    async def _leave_a_will(self, number: int) -> None:
        will = Will("w/x", b"%d" % number, 1)
        name = f"mortal-{number}-{self.chance.randrange(1 << 30)}"
        async with connected(self.broker.port, name, 5, False, will):
            self.wills.add(number)
            await trio.sleep_forever()

    async def _look_at_retained(self) -> None:
        wanted = {p.topic: p for p in self.publishers if p.retain and p.last_acknowledged >= 0}
        async with connected(self.broker.port, "reader", 4, False) as peer:
            await peer.subscribe("+/+", 0)
            with trio.move_on_after(30):
                while wanted:
                    packet = await peer.receive()
                    if isinstance(packet, Publish) and packet.topic in wanted:
                        publisher = wanted.pop(packet.topic)
                        if int(packet.payload) < publisher.last_acknowledged:
                            raise Failure(
                                f"{packet.topic} has {int(packet.payload)}, and "
                                f"{publisher.last_acknowledged} was acknowledged"
                            )
            if wanted:
                raise Failure(f"the retained messages of {', '.join(sorted(wanted))} are lost")
            await peer.unsubscribe("+/+")

    async def _last_round(self) -> None:
        """Nothing is killed any more: let everything come to its end."""
        port, enough = self.broker.port, trio.Event()
        enough.set()
        async with trio.open_nursery() as nursery:
            for subscriber in self.subscribers:
                nursery.start_soon(again, subscriber.run, port)
            with trio.fail_after(60):
                async with trio.open_nursery() as publishing:
                    for publisher in self.publishers:
                        publishing.start_soon(again, publisher.run, port, trio.Event(), enough)
            await self._quiet()
            nursery.cancel_scope.cancel()
        self.broker.stop()

    async def _quiet(self) -> None:
        """Wait until nothing comes any more."""
        before = -1
        while before != (now := sum(each.deliveries for each in self.subscribers)):
            before = now
            await trio.sleep(1)

    def _judge(self) -> None:
        for subscriber in self.subscribers:
            for publisher in self.publishers:
                if publisher.topic.startswith(subscriber.topic_filter[:-1]):
                    self._judge_one(subscriber, publisher)
        heir = next(each for each in self.subscribers if each.name == "heir")
        lost = self.wills - set(heir.got.get("w/x", []))
        if lost:
            raise Failure(f"the wills of rounds {sorted(lost)} were not published")

    def _judge_one(self, subscriber: Subscriber, publisher: Publisher) -> None:
        got = subscriber.got.get(publisher.topic, [])
        if publisher.qos == 1:
            got = list(dict.fromkeys(got))
        if got == list(range(publisher.next)):
            return
        missing = sorted(set(range(publisher.next)) - set(got))
        twice = sorted(number for number in set(got) if got.count(number) > 1)
        raise Failure(
            f"{subscriber.name} got {len(got)} of {publisher.next} messages of {publisher.topic}: "
            f"missing {missing[:9]}, twice {twice[:9]}, "
            f"{'in' if got == sorted(got) else 'not in'} order"
        )

    def said(self) -> str:
        """What has happened, in one line."""
        acknowledged = sum(each.acknowledgements for each in self.publishers)
        delivered = sum(each.deliveries for each in self.subscribers)
        kills = ", ".join(f"{count} x {what}" for what, count in sorted(self.kills.items()))
        return (
            f"killed {kills}; {acknowledged} messages acknowledged, {delivered} deliveries, "
            f"{len(self.wills)} wills: nothing lost"
        )


async def crash(
    folder: Path, rounds: int, seed: int, writer: str, synchronous: str, power: bool = False
) -> Crash:
    """Run the test in a folder. Raises Failure, maybe in a group."""
    test = Crash(BrokerProcess(folder, writer, synchronous, power), random.Random(seed))
    try:
        await test.run(rounds)
    finally:
        process = test.broker.process
        if process is not None and process.poll() is None:
            test.broker.kill("both")
    return test


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--writer", choices=("process", "thread"), default="process")
    parser.add_argument("--synchronous", choices=("full", "normal"), default="full")
    parser.add_argument("--power", action="store_true", help="kills are power failures")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.rounds} rounds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        test = trio.run(
            crash,
            *(Path(folder), options.rounds, options.seed, options.writer, options.synchronous),
            options.power,
        )
    print(test.said())


if __name__ == "__main__":
    main()
