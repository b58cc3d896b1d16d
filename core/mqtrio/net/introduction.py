"""Waiting for a proxy's word of whose connection this is."""

import logging
import socket

import trio

from mqtrio.engine.link import PeerFacts
from mqtrio.errors import ProtocolError
from mqtrio.net.proxy import LONGEST, ProxyLayer

logger = logging.getLogger("mqtrio.net")


async def introduced(sock: socket.socket, proxy: PeerFacts, timeout: float) -> PeerFacts | None:
    """Read the PROXY header off a non-blocking socket; who the client is.

    Not a byte more is read, so the socket is as if the client had connected to it. None, and a line
    in the log, where nothing comes of it in `timeout` seconds.
    """
    try:
        with trio.fail_after(timeout):
            return await _read(sock, proxy)
    except ProtocolError as error:
        logger.info("closed a connection of the proxy %s: %s", proxy, error)
    except trio.TooSlowError:
        logger.info("closed a connection of the proxy %s: no PROXY header came in time", proxy)
    except OSError as error:  # proxies look so whether somebody listens
        logger.debug("closed a connection of the proxy %s: %s", proxy, error)
    return None


async def _read(sock: socket.socket, proxy: PeerFacts) -> PeerFacts:
    layer = ProxyLayer()
    while not layer.handshake_done:
        try:
            ahead = sock.recv(LONGEST, socket.MSG_PEEK)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
            continue
        if not ahead:
            raise ConnectionError("it has ended before its PROXY header")
        layer.receive(sock.recv(layer.wanted(ahead)))
    return layer.describe(proxy)
