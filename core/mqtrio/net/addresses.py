"""Listener URLs, and the addresses that came of them."""

import socket
from typing import Final
from urllib.parse import urlsplit

from attrs import define

from mqtrio.errors import ConfigurationError
from mqtrio.net.layers import LayerFactory

#: Scheme -> the layers between the socket and MQTT, the outermost first.
SCHEMES: Final[dict[str, tuple[LayerFactory, ...]]] = {"mqtt": ()}

#: Schemes with a meaning that this version can't serve.
FUTURE_SCHEMES: Final = ("mqtts", "ws", "wss", "unix")

DEFAULT_PORT: Final = 1883


@define(frozen=True, kw_only=True)
class ListenerAddress:
    """A listener URL, taken apart."""

    url: str
    #: A host name or an address; empty: all addresses of this machine, IPv4 and IPv6.
    host: str
    #: 0: any free one.
    port: int
    layers: tuple[LayerFactory, ...] = ()


@define(frozen=True, kw_only=True)
class BoundAddress:
    """An address on which the broker listens."""

    #: The URL from which it came, as it was configured.
    url: str
    scheme: str
    #: An IP address; "::" stands for all of IPv4 as well when the URL named no host.
    host: str
    port: int
    #: Whether only this machine can connect to it.
    local: bool

    def __str__(self) -> str:
        return f"{self.scheme}://{join(self.host, self.port)}"


def join(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listener(url: str) -> ListenerAddress:
    """Take a listener URL apart: mqtt://HOST[:PORT], mqtt://[IPV6][:PORT], mqtt://:PORT.

    The default port is 1883. HOST may be empty or "*" for all addresses; "0.0.0.0" is all of IPv4
    and "[::]" all of IPv6. Raises ConfigurationError.
    """
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
    host = parts.hostname or ""
    if host.isdigit():
        raise ConfigurationError(f"listener {url!r}: a port stands behind a colon: mqtt://:{host}")
    return ListenerAddress(
        url=url,
        host="" if host == "*" else host,
        port=DEFAULT_PORT if port is None else port,
        layers=SCHEMES[parts.scheme],
    )


def _unknown(scheme: str) -> str:
    known = " and ".join(f"{name}://" for name in SCHEMES)
    if scheme in FUTURE_SCHEMES:
        return f"this version can't serve {scheme}:// yet, only {known}"
    future = ", ".join(f"{name}://" for name in FUTURE_SCHEMES)
    what = f"unknown scheme {scheme!r}" if scheme else "no scheme"
    return f"{what}; this version serves {known} (there are {future} as well, but not yet)"


def bound_address(address: ListenerAddress, sock: socket.socket) -> BoundAddress:
    """Where a socket listens."""
    host, port = sock.getsockname()[:2]
    scheme = address.url.partition(":")[0].lower()
    return BoundAddress(
        url=address.url, scheme=scheme, host=host, port=port, local=is_loopback(host)
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
