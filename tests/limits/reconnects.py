"""What others notice while clients with passwords come back: `python -m tests.limits.reconnects`.

Like fairness.py, with a broker that has the plugins passwords and anonymous. Prints a table for
docs/performance.md.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

import mqtrio
from mqtrio_plugins.anonymous import Anonymous, AnonymousSettings
from mqtrio_plugins.passwords import Passwords, PasswordsSettings
from mqtrio_plugins.passwords.hashes import Scrypt
from tests.limits import fairness
from tests.limits.fairness import CONNACK, HEADER, Client, Figures, figures_of

CLIENTS: Final = 1000
USERS: Final = 50
ROUNDS: Final = 3

#: CONNACK of MQTT 3.1.1: server unavailable, bad user name or password.
BUSY: Final = bytes((0x20, 2, 0, 3))
WRONG: Final = bytes((0x20, 2, 0, 4))


# -- the broker's process


def serve(file: str) -> None:
    """Run a broker with a file of users until it is told to end."""
    plugins = (
        Passwords(PasswordsSettings(file=Path(file)), name="passwords"),
        Anonymous(AnonymousSettings(), name="anonymous"),
    )

    async def main() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with mqtrio.open_broker("mqtt://127.0.0.1:0", plugins=plugins) as broker:
                print(f"listening on mqtt://127.0.0.1:{broker.listeners[0].port}", file=sys.stderr)
                await anext(aiter(signals))

    trio.run(main)


@contextmanager
def broker() -> Iterator[int]:
    """A broker whose users have hashes of the default cost; the port on which it listens."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "users"
        kept = Scrypt.of(b"right")
        file.write_text("".join(f"user{number}:{kept}\n" for number in range(USERS)))
        with fairness.broker("tests.limits.reconnects", "serve", str(file)) as port:
            yield port


# -- who comes


def burst(port: int, count: int, users: int, password: bytes | None) -> set[bytes]:
    """So many clients connect at once, and leave when all have an answer; returns the answers."""
    clients = [
        Client(
            port,
            f"c{number}",
            wait=False,
            username=f"user{number % users}" if users else None,
            password=password,
        )
        for number in range(count)
    ]
    answers = {client.take(4) for client in clients}
    for client in clients:
        client.close()
    return answers


def nothing(port: int) -> None:
    """Do nothing."""
    time.sleep(1)


def anonymous(port: int) -> None:
    """Come without a password: what the connections themselves cost."""
    for _ in range(ROUNDS):
        assert burst(port, CLIENTS, 0, None) == {CONNACK}


def first(port: int) -> None:
    """Each user comes for the first time, and again if the broker is busy with the others."""
    while (answers := burst(port, USERS, USERS, b"right")) != {CONNACK}:
        assert answers == {CONNACK, BUSY}


def again(port: int) -> None:
    """All come back, some times."""
    for _ in range(ROUNDS):
        assert burst(port, CLIENTS, USERS, b"right") == {CONNACK}


def wrong(port: int) -> None:
    """All come with ever new wrong passwords."""
    for number in range(ROUNDS):
        assert burst(port, CLIENTS, CLIENTS, b"wrong%d" % number) == {WRONG, BUSY}


CASES: Final[Mapping[str, tuple[str, Callable[[int], None]]]] = {
    "nothing": ("nothing", nothing),
    "anonymous": (f"{CLIENTS:,} anonymous clients connect at once, {ROUNDS} times", anonymous),
    "first": (f"{USERS} users connect for the first time", first),
    "again": (f"{CLIENTS:,} clients reconnect at once, {ROUNDS} times", again),
    "wrong": (f"{CLIENTS:,} clients with wrong passwords at once, {ROUNDS} times", wrong),
}


def measure(port: int, names: Iterable[str] = tuple(CASES)) -> dict[str, Figures]:
    """Let them come, and see what the victims saw."""
    windows: dict[str, tuple[float, float]] = {}
    with fairness.victims(port) as measured:
        for name in names:
            time.sleep(0.3)
            start = time.monotonic()
            CASES[name][1](port)
            windows[name] = (start, time.monotonic())
        time.sleep(0.3)
        pairs = measured()
    return {name: figures_of(CASES[name][0], windows[name], pairs) for name in names}


def main() -> None:
    """Print the table."""
    fairness.raise_descriptor_limit()
    print(f"victims' latencies, {os.cpu_count()} cores\n\n{HEADER}")
    with broker() as port:
        figures = measure(port)
    for each in figures.values():
        print(each.row())


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        main()
