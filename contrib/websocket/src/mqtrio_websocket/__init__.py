"""MQTT over WebSocket for the broker mqtrio: the layer of ws:// and wss://."""

from mqtrio_websocket.client import ClientLayer
from mqtrio_websocket.plugin import WebSocketPlugin
from mqtrio_websocket.server import ServerLayer
from mqtrio_websocket.settings import WebSocketClientSettings, WebSocketSettings

__all__ = [
    "ClientLayer",
    "ServerLayer",
    "WebSocketClientSettings",
    "WebSocketPlugin",
    "WebSocketSettings",
]
