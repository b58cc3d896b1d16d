"""What a listener's settings say of its sockets, checked against its URL."""

import re
import socket
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Final

import attrs

from mqtrio.errors import ConfigurationError
from mqtrio.net.addresses import DEFAULT_MODE, ListenerAddress, parse_listener
from mqtrio.net.proxy import TrustedProxies
from mqtrio.settings import Listener

#: In `trusted_proxies`: whoever may connect to a Unix socket.
LOCAL_PROXIES: Final = "unix"

_MODE: Final = re.compile(r"0?[0-7]{3}")

#: Options of the file of a Unix socket.
_OF_FILES: Final = ("mode", "owner", "group")


def listener_address(listener: Listener) -> ListenerAddress:
    """Where to listen, and how; raises ConfigurationError for options that can't be."""
    address = parse_listener(listener.url)
    said: Mapping[str, object] = attrs.asdict(listener, recurse=False)
    if not address.path:
        for name in _OF_FILES:
            if said[name] is not None:
                raise _wrong(listener, name, "is for unix:// only")
    for name in ("owner", "group"):
        if said[name] == "":
            raise _wrong(listener, name, "must be a name")
    mode = listener.mode
    if mode is not None and not _MODE.fullmatch(mode):
        raise _wrong(listener, "mode", f'must be three octal digits such as "660", not {mode!r}')
    if listener.reuse_port:
        _check_reuse(listener, address)
    return attrs.evolve(
        address,
        mode=DEFAULT_MODE if mode is None else int(mode, 8),
        owner=listener.owner or "",
        group=listener.group or "",
        reuse_port=listener.reuse_port,
        proxies=_proxies(listener, address),
    )


def _proxies(listener: Listener, address: ListenerAddress) -> TrustedProxies | None:
    """Who is believed, and nobody by default: what a header says decides about limits and rules."""
    named = listener.trusted_proxies
    if not listener.proxy_protocol:
        if named:
            raise _wrong(listener, "trusted_proxies", "means nothing without proxy_protocol")
        return None
    if not named:
        raise _wrong(listener, "proxy_protocol", "needs trusted_proxies: who is believed")
    unix = LOCAL_PROXIES in named
    if address.path and not unix:
        raise _wrong(listener, "trusted_proxies", f'must have "{LOCAL_PROXIES}" here')
    networks = []
    for name in named:
        try:
            if name != LOCAL_PROXIES:
                networks.append(ip_network(name))
        except ValueError as error:
            raise _wrong(
                listener, "trusted_proxies", f"has a network that is none: {error}"
            ) from None
    return TrustedProxies(tuple(networks), unix)


def _check_reuse(listener: Listener, address: ListenerAddress) -> None:
    if address.path or address.name:
        raise _wrong(listener, "reuse_port", "is for TCP ports only")
    if not hasattr(socket, "SO_REUSEPORT"):
        raise _wrong(listener, "reuse_port", "can't be had on this system")


def _wrong(listener: Listener, option: str, text: str) -> ConfigurationError:
    return ConfigurationError(f"listener {listener.url}: {option} {text}")
