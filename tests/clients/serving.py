"""The broker that the clients use: `python -m mqtrio serve`, as it comes, for a whole run."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Condition, Thread
from typing import IO, Literal

from tests.conformance.peer import unique

#: Seconds that anything may take on a busy machine: decides about failures, never about success.
PATIENCE = 30.0

MIB = 1024 * 1024


def topic(*levels: str) -> str:
    """A topic of this test only, with `levels` below it."""
    return "/".join(("clients", unique("t"), *levels))


class Running:
    """A broker in a process of its own. `log` has the lines that it has written so far."""

    host = "127.0.0.1"
    port = 0
    #: How paho gets there.
    transport: Literal["tcp", "websockets"] = "tcp"

    def __init__(self) -> None:
        self.log: list[str] = []
        self.grown = Condition()
        self._checked = 0

    def line(self, *words: str) -> str:
        """Wait for a line of the log with all these words in it."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [line for line in self.log if all(word in line for word in words)]
            return bool(found)

        with self.grown:
            assert self.grown.wait_for(is_there, PATIENCE), f"{words} in {''.join(self.log)}"
        return found[0]

    def check(self) -> None:
        """The broker must not have logged an error since the last check."""
        new = self.log[self._checked :]
        self._checked += len(new)
        wrong = [line for line in new if "Traceback" in line or " error " in line]
        assert not wrong, "".join(new)


@contextmanager
def serving(*arguments: str) -> Iterator[Running]:
    """Run a broker for the length of a block; it must stop in good order."""
    arguments = arguments or ("--listen", "mqtt://127.0.0.1:0")
    process = subprocess.Popen(
        [sys.executable, "-m", "mqtrio", "serve", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    running = Running()
    listening: Queue[int] = Queue()
    reader = Thread(target=_read, args=(process.stderr, running, listening))
    with process:
        reader.start()
        try:
            running.port = listening.get(timeout=PATIENCE)
            assert running.port, f"the broker did not start:\n{''.join(running.log)}"
            yield running
            process.terminate()
            assert process.wait(PATIENCE) == 0, "".join(running.log)
        finally:
            process.kill()
            reader.join()
    running.check()


def _read(stream: IO[str], running: Running, listening: "Queue[int]") -> None:
    for line in stream:
        with running.grown:
            running.log.append(line)
            running.grown.notify_all()
        found = re.search(r"listening on mqtt://[\d.]+:(\d+)", line)
        if found:
            listening.put(int(found[1]))
    listening.put(0)
