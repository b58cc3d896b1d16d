"""Listener URLs, and the addresses that came of them."""

import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from attrs import define

from mqtrio.errors import ConfigurationError
from mqtrio.net.layers import LayerFactory
from mqtrio.net.proxy import TrustedProxies


@define(frozen=True)
class Scheme:
    """What a listener's scheme means."""

    #: The names of the layers between the socket and MQTT, the outermost first.
    stack: tuple[str, ...]
    default_port: int


SCHEMES: Final[Mapping[str, Scheme]] = {
    "mqtt": Scheme((), 1883),
    "mqtts": Scheme(("tls",), 8883),
    "ws": Scheme(("websocket",), 80),
    "wss": Scheme(("tls", "websocket"), 443),
}

#: What may carry the bytes instead of TCP, as a scheme of its own (for plain MQTT).
TRANSPORTS: Final = ("unix", "systemd")

#: Permissions of a Unix socket of which nothing is said: its owner, and its group.
DEFAULT_MODE: Final = 0o660


@define(frozen=True, kw_only=True)
class ListenerAddress:
    """A listener URL, taken apart, and what its options say of the socket."""

    url: str
    #: A host name or an address; empty: all addresses of this machine, IPv4 and IPv6.
    host: str = ""
    #: 0: any free one.
    port: int = 0
    #: The file of a Unix socket, else "".
    path: str = ""
    #: The name of sockets that the program was given already, else "".
    name: str = ""
    #: The names of its layers, the outermost first.
    stack: tuple[str, ...] = ()
    #: What makes them; filled when the broker starts.
    layers: tuple[LayerFactory, ...] = ()
    #: Permissions, owner and group of the file; "" for what the process has.
    mode: int = DEFAULT_MODE
    owner: str = ""
    group: str = ""
    #: Whether other processes may listen on the same port.
    reuse_port: bool = False
    #: Who says by the PROXY protocol for whom it connects; None: nobody does.
    proxies: TrustedProxies | None = None

    @property
    def local(self) -> bool | None:
        """Whether only this machine can connect to it; None where the URL alone doesn't tell."""
        if self.name:
            return None
        if self.path or self.host == "localhost":
            return True
        if not self.host:
            return False
        try:
            ip_address(self.host)
        except ValueError:
            return None
        return is_loopback(self.host)


@define(frozen=True, kw_only=True)
class BoundAddress:
    """An address on which the broker listens."""

    #: The URL from which it came, as it was configured.
    url: str
    scheme: str
    #: An IP address, "" for a Unix socket; "::" stands for all of IPv4 as well.
    host: str = ""
    #: 0 for a Unix socket.
    port: int = 0
    #: The file of a Unix socket, "" for TCP.
    path: str = ""
    #: Whether only this machine can connect to it.
    local: bool

    def __str__(self) -> str:
        if self.path:
            return f"{'' if self.scheme == 'mqtt' else f'{self.scheme}+'}unix://{self.path}"
        return f"{self.scheme}://{join(self.host, self.port)}"


def join(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listener(url: str) -> ListenerAddress:
    """Take a listener URL apart: mqtt://HOST[:PORT], unix:///PATH, systemd://NAME.

    The schemes, and their default ports, stand in SCHEMES. HOST may be empty, "*" or "[::]" for all
    addresses; "0.0.0.0" is all of IPv4. PATH stands there as it is, without escapes. NAME is that
    of sockets which the program was given. Before unix and systemd may stand what is spoken there:
    ws+unix:///PATH. Raises ConfigurationError.
    """
    spoken, _, transport = url.partition(":")[0].lower().rpartition("+")
    if transport in TRANSPORTS:
        return _elsewhere(url, spoken or "mqtt", transport)
    # First of all, so that no password gets into one of the errors that show the URL.
    if "@" in url:
        raise ConfigurationError("a listener URL has no user name or password (found '@')")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"listener {url!r}: {error}") from None
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(f"listener {url!r}: {_unknown(parts.scheme)}")
    if not url.lower().startswith(f"{parts.scheme}://"):
        raise ConfigurationError(f"listener {url!r}: write {parts.scheme}://HOST:PORT")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigurationError(f"listener {url!r}: nothing may follow the port")
    scheme = SCHEMES[parts.scheme]
    host = parts.hostname or ""
    if host.isdigit():
        raise ConfigurationError(
            f"listener {url!r}: a port stands behind a colon: {parts.scheme}://:{host}"
        )
    return ListenerAddress(
        url=url,
        host="" if host in ("*", "::") else host,
        port=scheme.default_port if port is None else port,
        stack=scheme.stack,
    )


def _elsewhere(url: str, spoken: str, transport: str) -> ListenerAddress:
    """A Unix socket, or sockets that are there already."""
    if spoken not in SCHEMES:
        raise ConfigurationError(f"listener {url!r}: {_unknown(spoken)}")
    rest = url.partition(":")[2]
    where = rest.removeprefix("//")
    if transport == "systemd":
        if where == rest or not where.isprintable() or not where or "/" in where:
            raise ConfigurationError(f"listener {url!r}: write systemd://NAME")
        return ListenerAddress(url=url, name=where, stack=SCHEMES[spoken].stack)
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(f"listener {url!r}: this system has no Unix sockets")
    if where == rest or not where.startswith("/") or where.endswith("/"):
        raise ConfigurationError(f"listener {url!r}: write unix:///PATH, the whole path of a file")
    if not where.isprintable():
        raise ConfigurationError(f"listener {url!r}: this can't be the name of a file")
    return ListenerAddress(url=url, path=where, stack=SCHEMES[spoken].stack)


def _unknown(scheme: str) -> str:
    known = ", ".join(f"{name}://" for name in (*SCHEMES, *TRANSPORTS))
    what = f"unknown scheme {scheme!r}" if scheme else "no scheme"
    return f"{what}; there are {known}"


def bound_address(address: ListenerAddress, sock: socket.socket) -> BoundAddress:
    """Where a socket listens."""
    scheme, _, transport = address.url.partition(":")[0].lower().rpartition("+")
    if transport not in TRANSPORTS:
        scheme = transport
    name = sock.getsockname()
    if isinstance(name, str | bytes):  # of a Unix socket; bytes: in Linux's abstract namespace
        path = name if isinstance(name, str) else f"@{name[1:].decode(errors='replace')}"
        return BoundAddress(url=address.url, scheme=scheme or "mqtt", path=path, local=True)
    host, port = name[:2]
    return BoundAddress(
        url=address.url, scheme=scheme or "mqtt", host=host, port=port, local=is_loopback(host)
    )


def peer_address(name: tuple[object, ...]) -> tuple[str, int]:
    """A peer's address and port, from what the socket says; IPv4 as such on a dual-stack socket."""
    host, port = str(name[0]), name[1]
    assert isinstance(port, int)
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:") :]
    return host, port


def is_loopback(host: str) -> bool:
    """Whether an IP address, as the socket module writes it, is this machine's own."""
    return host == "::1" or host.startswith("127.")
