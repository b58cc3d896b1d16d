"""What a listener's settings say of its sockets, checked against its URL."""

import re
import socket
from collections.abc import Mapping
from typing import Final

import attrs

from mqtrio.errors import ConfigurationError
from mqtrio.net.addresses import DEFAULT_MODE, ListenerAddress, parse_listener
from mqtrio.settings import Listener

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
    )


def _check_reuse(listener: Listener, address: ListenerAddress) -> None:
    if address.path or address.name:
        raise _wrong(listener, "reuse_port", "is for TCP ports only")
    if not hasattr(socket, "SO_REUSEPORT"):
        raise _wrong(listener, "reuse_port", "can't be had on this system")


def _wrong(listener: Listener, option: str, text: str) -> ConfigurationError:
    return ConfigurationError(f"listener {listener.url}: {option} {text}")
