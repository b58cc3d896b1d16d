"""What systemd passes on to a service by its environment: sockets, and where to tell how it is.

For the command line only: the environment of a program is its own. See sd_listen_fds(3) and
sd_notify(3); the library itself is not needed.
"""

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

import trio

from mqtrio.errors import ConfigurationError

logger = logging.getLogger("mqtrio.net")

#: The first of the descriptors that are passed.
FIRST: Final = 3

#: The name of a descriptor that has none.
NAMELESS: Final = "unknown"

Environment = MutableMapping[str, str]


def passed_sockets(environment: Environment) -> dict[str, list[socket.socket]]:
    """Take the sockets that were passed to this process, by name; {} if there are none.

    Their variables are taken out: no child shall look for the descriptors, which it doesn't get.
    Raises ConfigurationError.
    """
    pid, count, names = (
        environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()):
        return {}
    if not (count.isascii() and count.isdigit()):
        raise ConfigurationError(f"LISTEN_FDS must be a number, not {count!r}")
    known = names.split(":") if names else []
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        name = known[index] if index < len(known) else NAMELESS
        try:
            os.set_inheritable(FIRST + index, False)
            sock = socket.socket(fileno=FIRST + index)
        except OSError as error:
            text = f"descriptor {FIRST + index} ({name}) was passed and is no socket: "
            raise ConfigurationError(f"{text}{error.strerror}") from None
        found.setdefault(name, []).append(sock)
    return found


class Supervisor:
    """Who has started this service, and is told how it is; nobody, where nobody asks."""

    def __init__(self, environment: Environment) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        pid = environment.pop("WATCHDOG_PID", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        # "@" stands for the zero byte with which names in Linux's abstract namespace begin.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        #: Seconds after which silence counts as a failure; None where it doesn't.
        self.watchdog: float | None = None
        mine = pid in ("", str(os.getpid()))
        if path and mine and microseconds.isascii() and microseconds.isdigit():
            self.watchdog = int(microseconds) / 1e6 or None

    def tell(self, *assignments: str) -> None:
        """Tell something, `READY=1` say. What can't be told stands in the log, once each time."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            logger.warning("can't tell the supervisor %s: %s", assignments[0], error)

    def tell_reloading(self) -> None:
        """Tell that the configuration is read again; `READY=1` follows whatever becomes of it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    async def reassure(self) -> None:
        """Say twice in the time allowed that the event loop still turns, for ever."""
        if self.watchdog is not None:
            while True:
                self.tell("WATCHDOG=1")
                await trio.sleep(self.watchdog / 2)
