"""The options of the layer, as they stand in a listener under `websocket`."""

from typing import Final

import attrs

import mqtrio

#: What a client may offer; the first that it does is agreed upon. [MQTT-6.0.0-3] asks for "mqtt",
#: "mqttv3.1" is what clients of MQTT 3.1 say.
SUBPROTOCOLS: Final = ("mqtt", "mqttv3.1")

_MAX_FRAME_SIZE: Final = 16 * 1024 * 1024
_LARGEST: Final = (1 << 31) - 1


@attrs.define(frozen=True, kw_only=True)
class WebSocketSettings:
    """Who may open a WebSocket at a listener, and what it may hold."""

    paths: tuple[str, ...] = mqtrio.setting(
        ("/mqtt", "/"), 'paths at which MQTT is served; "*" is any path'
    )
    origins: tuple[str, ...] = mqtrio.setting(
        (),
        'origins whose pages may connect, "https://example.org"; "same" is the one that the Host '
        'header names, "*" is any; who sends none, as most do that are no browsers, may always',
    )
    trusted_proxies: tuple[str, ...] = mqtrio.setting(
        (), "addresses and networks of the proxies whose X-Forwarded-For is believed"
    )
    max_header_size: int = mqtrio.setting(
        16 * 1024, "largest HTTP request that opens one", minimum=256, maximum=1 << 20, unit="bytes"
    )
    max_headers: int = mqtrio.setting(
        64, "headers that the request may have", minimum=8, maximum=128
    )
    max_frame_size: int = mqtrio.setting(
        _MAX_FRAME_SIZE,
        "largest payload of a frame; more that is sent goes into several",
        minimum=1024,
        maximum=_LARGEST,
        unit="bytes",
    )
    compression: bool = mqtrio.setting(
        False, "agree upon permessage-deflate with clients that offer it"
    )


@attrs.define(frozen=True, kw_only=True)
class WebSocketClientSettings:
    """How to open a WebSocket at somebody else's broker."""

    path: str = mqtrio.setting("/mqtt", "path, and query, at which the broker serves MQTT")
    origin: str | None = mqtrio.setting(None, "what is said as Origin; default: none")
    max_header_size: int = mqtrio.setting(
        16 * 1024, "largest HTTP response", minimum=256, maximum=1 << 20, unit="bytes"
    )
    max_frame_size: int = mqtrio.setting(
        _MAX_FRAME_SIZE,
        "largest payload of a frame; more that is sent goes into several",
        minimum=1024,
        maximum=_LARGEST,
        unit="bytes",
    )
    compression: bool = mqtrio.setting(False, "offer permessage-deflate")
