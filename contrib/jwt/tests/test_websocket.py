"""Tokens of a WebSocket's request, from a real client through the real layer."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import mqtrio
from contrib.jwt.tests.kit import Kit
from mqtrio import Listener
from mqtrio_jwt import Jwt, JwtSettings

#: Place -> setting, and a request with a token there: path and headers.
PLACES: dict[str, tuple[dict[str, Any], Callable[[str], tuple[str, dict[str, str]]]]] = {
    "header": (
        {"header": "authorization"},
        lambda token: ("/mqtt", {"Authorization": f"Bearer {token}"}),
    ),
    "cookie": ({"cookie": "token"}, lambda token: ("/mqtt", {"Cookie": f"a=b; token={token}"})),
    "query": ({"query": "token"}, lambda token: (f"/mqtt?token={token}", {})),
}

#: MQTT 5, client identifier "c".
CONNECT = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c"


def attempt(port: int, path: str, headers: dict[str, str]) -> int:
    """Connect and go; returns the reason code of CONNACK."""
    with connect(
        f"ws://127.0.0.1:{port}{path}",
        additional_headers=headers,
        subprotocols=[Subprotocol("mqtt")],
        sock=socket.create_connection(("127.0.0.1", port)),  # and no proxy of the environment
    ) as client:
        client.send(CONNECT)
        connack = client.recv(timeout=30)
        assert isinstance(connack, bytes)
        return connack[3]


@pytest.mark.trio(run=trio.run)
@pytest.mark.parametrize("place", PLACES)
async def test_places(place: str, folder: Path, kit: Kit) -> None:
    given, _ = PLACES[place]
    settings = JwtSettings(
        algorithms=("ES256",),
        public_keys=(folder / "ES256.pem",),
        **given,
    )
    plugin = Jwt(settings, name="jwt")
    listener = Listener(url="ws://127.0.0.1:0", allow_anonymous=False)
    async with mqtrio.open_broker([listener], plugins=[plugin]) as broker:
        port = broker.listeners[0].port

        async def code(token: bytes, where: str) -> int:
            path, headers = PLACES[where][1](token.decode())
            return await trio.to_thread.run_sync(attempt, port, path, headers)

        assert await code(kit.token(), place) == 0
        assert await code(kit.token(lifetime=-60), place) == 0x87
        for other in PLACES:
            if other != place:  # it was not asked to look there
                assert await code(kit.token(), other) != 0
