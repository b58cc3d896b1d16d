"""Opening listening sockets: TCP, Unix sockets, and those that the program was given."""

import errno
import socket
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from mqtrio.net import unix
from mqtrio.net.addresses import ListenerAddress
from mqtrio.net.listeners import Listener

#: Listening sockets that the program has already, by name.
GivenSockets = Mapping[str, Sequence[socket.socket]]
NO_SOCKETS: Final[GivenSockets] = {}

BACKLOG: Final = 1024

#: Free ports tried until one is free at all addresses of a host name.
ATTEMPTS: Final = 10

# An address of a host name that this machine does not have (IPv6 switched off, say).
_ABSENT: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


async def open_listeners(
    address: ListenerAddress, given: GivenSockets = NO_SOCKETS
) -> list[Listener]:
    """Bind a listener's sockets: one for each address of its host, all with the same port.

    Raises OSError, which names the listener.
    """
    try:
        if address.path:
            sock, file = await unix.listen(
                address.path, address.mode, address.owner, address.group, BACKLOG
            )
            return [Listener(address, sock, file)]
        if address.name:
            return [Listener(address, sock) for sock in _copies(address.name, given)]
        if not address.host:
            return [Listener(address, _listen_everywhere(address.port, address.reuse_port))]
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        names = list(dict.fromkeys((family, name[0]) for family, _, _, _, name in found))
        return [
            Listener(address, sock) for sock in _listen(names, address.port, address.reuse_port)
        ]
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"can't listen on {address.url}: {reason}") from error


def _copies(name: str, given: GivenSockets) -> list[socket.socket]:
    """Sockets of a name, as descriptors of our own: a reload may close and open them again."""
    if name not in given:
        known = ", ".join(sorted(given)) or "none"
        raise OSError(errno.ENOENT, f"no sockets of that name were passed; there are: {known}")
    opened: list[socket.socket] = []
    try:
        for sock in given[name]:
            if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):
                raise OSError(errno.EINVAL, f"{name} is no stream socket that listens (Accept=no)")
            opened.append(sock.dup())
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _listen_everywhere(port: int, reuse_port: bool) -> socket.socket:
    """One socket for IPv4 and IPv6, or for IPv4 where there is no IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port),
                family=socket.AF_INET6,
                backlog=BACKLOG,
                reuse_port=reuse_port,
                dualstack_ipv6=True,
            )
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
    return socket.create_server(("", port), backlog=BACKLOG, reuse_port=reuse_port)


def _listen(
    names: Sequence[tuple[int, str | int]], port: int, reuse_port: bool = False
) -> list[socket.socket]:
    """A socket for each address; a free port must be free at all of them."""
    for attempt in range(ATTEMPTS):
        opened: list[socket.socket] = []
        absent: OSError | None = None
        try:
            for family, host in names:
                wanted = port or (opened[0].getsockname()[1] if opened else 0)
                try:
                    opened.append(
                        socket.create_server(
                            (host, wanted), family=family, backlog=BACKLOG, reuse_port=reuse_port
                        )
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
