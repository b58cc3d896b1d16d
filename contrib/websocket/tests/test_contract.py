"""Both ends keep the contract of layers, with compression and without."""

import pytest

from mqtrio.testing import check_layer
from mqtrio_websocket import WebSocketClientSettings, WebSocketSettings
from mqtrio_websocket.client import client_factory
from mqtrio_websocket.server import server_factory


@pytest.mark.parametrize("compression", [False, True])
def test_both_ends(compression: bool) -> None:
    server = WebSocketSettings(compression=compression, max_frame_size=300_000)
    client = WebSocketClientSettings(compression=compression, max_frame_size=300_000)
    check_layer(server_factory(server), client_factory(client, "broker.example"))
