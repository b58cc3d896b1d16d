"""What the contracts watch while a plugin works: the log, the loop, and what it leaves behind."""

import base64
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

#: Shorter passwords could stand in a text by chance.
_SHORTEST_SECRET = 4

#: Where a system lists the descriptors of a process.
_DESCRIPTORS = (Path("/proc/self/fd"), Path("/dev/fd"))


class LoopWatch(trio.abc.Instrument):
    """Measures how long one task keeps the loop to itself, in seconds of real time."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self._began = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self.longest = max(self.longest, time.perf_counter() - self._began)


class LogWatch(logging.Handler):
    """Keeps the text of every record, of all loggers that have no level of their own."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.texts.append(self.format(record))


@contextmanager
def watched_log() -> Iterator[LogWatch]:
    """Everything that is logged inside of the block, debug records too."""
    watch = LogWatch()
    root = logging.getLogger()
    level = root.level
    root.addHandler(watch)
    root.setLevel(logging.DEBUG)
    try:
        yield watch
    finally:
        root.removeHandler(watch)
        root.setLevel(level)


def shows(text: str, secrets: Iterable[bytes]) -> bool:
    """Whether a text has one of the secrets in it: as text, as a literal, in hex or base64."""
    return any(
        form in text
        for secret in secrets
        if len(secret) >= _SHORTEST_SECRET
        for form in (
            secret.decode("utf-8", "replace"),
            repr(secret)[2:-1],
            secret.hex(),
            base64.b64encode(secret).decode(),
        )
    )


class Leftovers:
    """The tasks, threads and descriptors there are now; `new` says which have come since."""

    def __init__(self) -> None:
        self._tasks = _tasks()
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()

    def new(self) -> list[str]:
        """What has come, as texts."""
        found = [f"task {task.name}" for task in _tasks() - self._tasks]
        found += [
            f"thread {thread.name!r}"
            for thread in set(threading.enumerate()) - self._threads
            if thread.is_alive() and not _trios(thread)
        ]
        descriptors = _descriptors() - self._descriptors
        found += [f"file descriptor {number}" for number in sorted(descriptors)]
        return found


def _tasks() -> set[trio.lowlevel.Task]:
    """All tasks of this run but the current one, those of the system too."""
    found: set[trio.lowlevel.Task] = set()
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [root]
    while waiting:
        task = waiting.pop()
        found.add(task)
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found - {trio.lowlevel.current_task()}


def _trios(thread: threading.Thread) -> bool:
    """Whether it is a thread of Trio's cache, which waits a while for more work."""
    return thread.name.startswith("Trio thread")


def _descriptors() -> set[int]:
    for folder in _DESCRIPTORS:
        if folder.is_dir():
            return {int(entry.name) for entry in folder.iterdir() if _is_open(int(entry.name))}
    return set()


def _is_open(number: int) -> bool:
    """The listing has the descriptor by which it was read, too."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
