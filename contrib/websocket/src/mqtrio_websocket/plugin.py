"""The plugin: brings the layer `websocket`."""

from collections.abc import Mapping

import mqtrio
from mqtrio_websocket.client import client_factory
from mqtrio_websocket.server import server_factory
from mqtrio_websocket.settings import WebSocketClientSettings, WebSocketSettings


class WebSocketPlugin(mqtrio.Plugin[None]):
    """Lets listeners have ws:// and wss://."""

    api = 1

    @classmethod
    @mqtrio.hookimpl
    def layers(cls, event: mqtrio.LayersEvent) -> Mapping[str, mqtrio.LayerProvider]:
        """Bring `websocket`, for both ends."""
        return {
            "websocket": mqtrio.LayerProvider(
                settings=WebSocketSettings,
                server=server_factory,
                client_settings=WebSocketClientSettings,
                client=client_factory,
            )
        }
