"""Fetching a small document by HTTP, bounded in time and size; runs in a thread."""

import socket
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

#: The largest document.
LARGEST: Final = 1024 * 1024

_CHUNK: Final = 65_536


class FetchError(Exception):
    """The document can't be had; the text says why."""


def fetch(url: str, timeout: float) -> bytes:
    """Get a document; all of it must have come within `timeout` seconds. Raises FetchError.

    There are no redirections, no proxies and no cookies: a server of keys needs none. Certificates
    are checked against the system's authorities.
    """
    deadline = time.monotonic() + timeout
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.connect()
        sock = connection.sock  # which the connection forgets when the server wants to close it
        connection.request("GET", path, headers={"Accept": "application/json"})
        with connection.getresponse() as response:
            return _body(sock, response, deadline)
    except (OSError, HTTPException) as error:
        raise FetchError(f"{url}: {type(error).__name__}: {error}") from None
    except FetchError as error:
        raise FetchError(f"{url}: {error}") from None
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None, timeout: float) -> HTTPConnection:
    if scheme == "http":
        return HTTPConnection(host, port, timeout=timeout)
    return HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())


def _body(sock: socket.socket, response: HTTPResponse, deadline: float) -> bytes:
    if response.status != 200:
        raise FetchError(f"the server answers with status {response.status}")
    data = bytearray()
    while not response.isclosed():  # it closes itself behind its last byte
        left = deadline - time.monotonic()
        if left <= 0:
            raise FetchError("the answer takes too long")
        sock.settimeout(left)
        chunk = response.read1(_CHUNK)
        if not chunk:
            break
        data += chunk
        if len(data) > LARGEST:
            raise FetchError(f"the answer is larger than {LARGEST} bytes")
    if response.length:
        raise FetchError("the answer breaks off")
    return bytes(data)
