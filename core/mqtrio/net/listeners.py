"""Listening sockets: accepting at a bounded rate. Opening them is in opening.py."""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

import trio

from mqtrio.engine.link import LinkCore, PeerFacts
from mqtrio.errors import ConfigurationError
from mqtrio.net.addresses import (
    BoundAddress,
    ListenerAddress,
    bound_address,
    is_loopback,
    peer_address,
)
from mqtrio.net.unix import SocketFile, credentials

logger = logging.getLogger("mqtrio.net")

#: Connections accepted before other tasks get their turn.
BATCH: Final = 64

#: Seconds without accepting when the system refuses it, for want of descriptors or memory.
PAUSE: Final = 0.1

#: Serves a connection that was accepted.
Adopt = Callable[[socket.socket, PeerFacts, ListenerAddress], object]

#: Names the limit that keeps a listener from accepting one more, "" if there is room.
Full = Callable[[ListenerAddress], str]


class Pace:
    """So many events a second, and as many at once after a second without any (a token bucket)."""

    __slots__ = ("_at", "_left", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._left = rate
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until the next event may be; 0: now."""
        self._left = min(self.rate, self._left + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._left >= 1 else (1 - self._left) / self.rate

    def count(self) -> None:
        """There was an event."""
        self._left -= 1


class Listener:
    """One listening socket; `file` is that of a Unix socket which is ours."""

    def __init__(
        self, address: ListenerAddress, sock: socket.socket, file: SocketFile | None = None
    ) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # What it accepts inherits this, which saves every connection a system call.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = address
        self.sock = sock
        self.file = file
        self.bound: BoundAddress = bound_address(address, sock)
        self._complained: set[str] = set()

    async def run(self, core: LinkCore, adopt: Adopt, full: Full) -> None:
        """Accept until the socket is closed."""
        pace = Pace(core.settings.limits.accept_rate, trio.current_time())
        while self.sock.fileno() >= 0:
            try:
                await trio.lowlevel.wait_readable(self.sock)
            except trio.ClosedResourceError:
                return
            core.tick()
            pace.rate = core.settings.limits.accept_rate
            pause = self._accept(pace, adopt, full)
            core.flush()
            if pause:
                await trio.sleep(pause)

    def close(self) -> None:
        """Stop listening; who has connected and was not accepted is reset."""
        if self.sock.fileno() >= 0:
            if self.file is not None:
                self.file.remove()
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()

    def adjust(self, address: ListenerAddress) -> ListenerAddress:
        """Have the socket be as options say that have changed; returns what it was.

        Raises OSError, or ConfigurationError for what can't change. What is decided for each
        connection changes with `address` itself.
        """
        before = self.address
        if address.reuse_port != before.reuse_port:
            raise ConfigurationError(
                f"listener {address.url}: reuse_port can't change while the broker listens there"
            )
        wanted = (address.mode, address.owner, address.group)
        if self.file is not None and wanted != (before.mode, before.owner, before.group):
            self.file.restrict(*wanted)
            self.address = address
        return before

    def _accept(self, pace: Pace, adopt: Adopt, full: Full) -> float:
        """Accept some of those who wait; seconds to pause."""
        for _ in range(BATCH):
            pause = pace.wait(trio.current_time())
            if pause:
                return pause
            try:
                sock, name = self.sock.accept()
            except BlockingIOError:
                return 0.0
            except OSError as error:
                if self.sock.fileno() < 0:
                    return 0.0
                if error.errno != errno.ECONNABORTED:
                    # No descriptors, mostly. Whoever is connected notices nothing of it.
                    self._complain(f"slowly: {error.strerror}")
                    return PAUSE
            else:
                self._admit(sock, name, adopt, full)
            pace.count()
        return 0.0

    def _admit(
        self,
        sock: socket.socket,
        name: object,
        adopt: Adopt,
        full: Full,
    ) -> None:
        limit = full(self.address)
        if limit:
            sock.close()
            self._complain(f"nobody: as many connections are open as {limit} allows")
            return
        try:
            sock.setblocking(False)
            peer = self._facts(sock, name)
        except OSError:
            sock.close()  # the peer was gone before we looked
            return
        proxies = self.address.proxies
        if proxies is not None and not proxies.trust(peer):
            sock.close()
            self._complain("trusted_proxies only", f", not {peer}")
            return
        self._complained.clear()
        try:
            adopt(sock, peer, self.address)
        except Exception:
            logger.exception("a connection of %s could not be served", peer)

    def _facts(self, sock: socket.socket, name: object) -> PeerFacts:
        """Who has connected; raises OSError."""
        url = self.address.url
        if not isinstance(name, tuple):  # a Unix socket
            return PeerFacts(address="", listener=url, local=True, credentials=credentials(sock))
        host, port = peer_address(name)
        return PeerFacts(address=host, port=port, listener=url, local=is_loopback(host))

    def _complain(self, how: str, detail: str = "") -> None:
        """Log a trouble once, until a connection has been accepted again."""
        if how not in self._complained:
            self._complained.add(how)
            logger.warning("%s accepts %s%s", self.bound, how, detail)
