"""Which sockets are ready: an epoll of our own, hidden here.

Trio's own `wait_readable` costs a task switch, a system call to arm it and one to wait for every
single socket. This set is waited for as a whole, by one task, through its file descriptor.
"""

import contextlib
import os
import select
import sys
from typing import Final

# Values of Linux, as select.EPOLLIN and so on, which other systems do not define.
READ: Final = 0x01
WRITE: Final = 0x04
#: Error or hang-up: reported whether it was asked for or not.
BROKEN: Final = 0x08 | 0x10

#: The peer sends no more; what it sent before is still to be read. Reported beside READ.
ENDED: Final = 0x2000

#: Whether this system has what `Readiness` needs. Where it has not (Windows, macOS), listeners
#: serve each connection by tasks of its own (net/streams.py).
AVAILABLE: Final = hasattr(select, "epoll") and hasattr(os, "eventfd")

if sys.platform == "linux":

    class Readiness:
        """A set of file descriptors, each with what it is watched for, and a bell.

        A descriptor that is watched for nothing must be taken out: epoll reports a hang-up even
        then, and whoever waits would spin.
        """

        __slots__ = ("_bell", "_epoll")

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._epoll.register(self._bell, READ)

        def fileno(self) -> int:
            """A descriptor that is readable while anything in the set is ready."""
            return self._epoll.fileno()

        def watch(self, fd: int, before: int, now: int) -> None:
            """Change what a descriptor is watched for; 0 means that it is not in the set."""
            if not now:
                self._epoll.unregister(fd)
            elif not before:
                self._epoll.register(fd, now | ENDED if now & READ else now)
            else:
                self._epoll.modify(fd, now | ENDED if now & READ else now)

        def ready(self, most: int) -> list[tuple[int, int]]:
            """What is ready now, at most so many; what is left over comes first the next time."""
            return self._epoll.poll(0, most)

        def ring(self) -> None:
            """Make the set readable until `hush`."""
            os.eventfd_write(self._bell, 1)

        def hush(self, fd: int) -> None:
            """Silence the bell if `fd` is the bell."""
            if fd == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell)

        def close(self) -> None:
            """Give the descriptors back."""
            self._epoll.close()
            os.close(self._bell)
