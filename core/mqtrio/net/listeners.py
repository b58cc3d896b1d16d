"""Listening sockets: opening them, and accepting at a bounded rate."""

import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final

import trio

from mqtrio.engine.link import LinkCore, PeerFacts
from mqtrio.net.addresses import (
    BoundAddress,
    ListenerAddress,
    bound_address,
    is_loopback,
    peer_address,
)

logger = logging.getLogger("mqtrio.net")

BACKLOG: Final = 1024

#: Connections accepted before other tasks get their turn.
BATCH: Final = 64

#: Seconds without accepting when the system refuses it, for want of descriptors or memory.
PAUSE: Final = 0.1

#: Free ports tried until one is free at all addresses of a host name.
ATTEMPTS: Final = 10

# An address of a host name that this machine does not have (IPv6 switched off, say).
_ABSENT: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}

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
    """One listening socket."""

    def __init__(self, address: ListenerAddress, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.address = address
        self.sock = sock
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
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()

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
        name: tuple[object, ...],
        adopt: Adopt,
        full: Full,
    ) -> None:
        limit = full(self.address)
        if limit:
            sock.close()
            self._complain(f"nobody: as many connections are open as {limit} allows")
            return
        self._complained.clear()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = peer_address(name)
            peer = PeerFacts(
                address=host, port=port, listener=self.address.url, local=is_loopback(host)
            )
        except OSError:
            sock.close()  # the peer was gone before we looked
            return
        try:
            adopt(sock, peer, self.address)
        except Exception:
            logger.exception("a connection of %s could not be served", peer)

    def _complain(self, how: str) -> None:
        """Log a trouble once, until a connection has been accepted again."""
        if how not in self._complained:
            self._complained.add(how)
            logger.warning("%s accepts %s", self.bound, how)


async def open_listeners(address: ListenerAddress) -> list[Listener]:
    """Bind a listener's sockets: one for each address of its host, all with the same port.

    Raises OSError, which names the listener.
    """
    try:
        if not address.host:
            return [Listener(address, _listen_everywhere(address.port))]
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        names = list(dict.fromkeys((family, name[0]) for family, _, _, _, name in found))
        return [Listener(address, sock) for sock in _listen(names, address.port)]
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"can't listen on {address.url}: {reason}") from error


def _listen_everywhere(port: int) -> socket.socket:
    """One socket for IPv4 and IPv6, or for IPv4 where there is no IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
    return socket.create_server(("", port), backlog=BACKLOG)


def _listen(names: Sequence[tuple[int, str | int]], port: int) -> list[socket.socket]:
    """A socket for each address; a free port must be free at all of them."""
    for attempt in range(ATTEMPTS):
        opened: list[socket.socket] = []
        absent: OSError | None = None
        try:
            for family, host in names:
                wanted = port or (opened[0].getsockname()[1] if opened else 0)
                try:
                    opened.append(
                        socket.create_server((host, wanted), family=family, backlog=BACKLOG)
                    )
                except OSError as error:
                    if error.errno not in _ABSENT:
                        raise
                    absent = error
        except OSError as error:
            for sock in opened:
                sock.close()
            if error.errno == errno.EADDRINUSE and opened and not port and attempt + 1 < ATTEMPTS:
                continue
            raise
        if not opened and absent is not None:
            raise absent
        return opened
    raise AssertionError("the last attempt returns or raises")
