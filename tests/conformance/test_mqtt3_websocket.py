"""MQTT 3.1.1: WebSocket as a transport (6)."""

from tests.conformance import raw, websocket
from tests.conformance.peer import Peers, unique
from tests.conformance.rules import needs, rule


def connect() -> bytes:
    return raw.connect(raw.text(unique()), level=4, property_list=None)


@rule("MQTT-6.0.0-1")
@needs("websocket")
async def test_a_text_frame_ends_the_connection(peer: Peers) -> None:
    await websocket.refuses_text(peer, connect())


@rule("MQTT-6.0.0-2")
@needs("websocket")
async def test_packets_and_frames_are_not_aligned(peer: Peers) -> None:
    await websocket.does_not_align(peer, connect())


@rule("MQTT-6.0.0-3")
@needs("websocket")
async def test_the_subprotocol_must_be_offered(peer: Peers) -> None:
    await websocket.wants_mqtt(peer)


@rule("MQTT-6.0.0-4")
@needs("websocket")
async def test_the_server_names_the_subprotocol(peer: Peers) -> None:
    await websocket.names_mqtt(peer)
