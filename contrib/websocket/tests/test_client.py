"""The client's end, against a server that is not ours."""

from typing import Any

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

import mqtrio
from mqtrio_websocket import WebSocketClientSettings
from mqtrio_websocket.client import client_factory


def client(host: str = "broker.example", **settings: Any) -> mqtrio.Layer:
    return client_factory(WebSocketClientSettings(**settings), host)()


def accepted(layer: mqtrio.Layer, *subprotocols: str) -> tuple[Request, ServerProtocol, bytes]:
    """What a server of the library makes of its request, and answers."""
    server = ServerProtocol(subprotocols=[Subprotocol(each) for each in subprotocols] or None)
    server.receive_data(layer.send(b""))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return request, server, b"".join(server.data_to_send())


def test_a_conversation() -> None:
    layer = client(path="/mqtt?a=b", origin="https://example.org")
    request, server, answer = accepted(layer, "mqtt")
    assert request.path == "/mqtt?a=b"
    assert request.headers["Host"] == "broker.example"
    assert request.headers["Origin"] == "https://example.org"
    assert request.headers["Sec-WebSocket-Protocol"] == "mqtt"
    assert layer.send(b"CONNECT") == b""  # waits for the answer
    assert layer.receive(answer[:50]) == b""
    assert layer.receive(answer[50:]) == b""
    assert layer.handshake_done
    server.receive_data(layer.send(b""))
    server.send_binary(b"CONNACK")
    server.send_ping(b"?")
    assert layer.receive(b"".join(server.data_to_send())) == b"CONNACK"
    server.receive_data(layer.send(b""))
    frames = [(each.opcode.name, bytes(each.data)) for each in server.events_received()]  # type: ignore[union-attr]
    assert frames == [("BINARY", b"CONNECT"), ("PONG", b"?")]
    large = bytes(70_000)
    first, second = layer.send(large), layer.send(large)
    assert first != second  # each frame has a mask of its own
    server.receive_data(first + second + layer.close())
    assert [len(each.data) for each in server.events_received()] == [70_000, 70_000, 2]  # type: ignore[union-attr]
    assert layer.receive(b"".join(server.data_to_send())) == b""
    assert layer.eof


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot here\n",
            "answered '404 Not Found'",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "no valid handshake"),
        (b"HTTP/1.1 200\r\n\r\n", "answered '200'"),
        (b"HTTP/1.1\r\n\r\n", "answered ''"),
        (b"\x20\x02\x00\x00", "speaks no HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 101 x\r\n" + b"a" * 20_000, "more than 16384 bytes"),
    ],
)
def test_wrong_answers(answer: bytes, words: str) -> None:
    layer = client()
    layer.send(b"")
    with pytest.raises(mqtrio.ProtocolError) as caught:
        layer.receive(answer)
    assert str(caught.value).startswith("websocket: ")
    assert words in str(caught.value)
    assert layer.close() == b""


def test_a_server_without_mqtt() -> None:
    layer = client()
    _, _, answer = accepted(layer)
    with pytest.raises(mqtrio.ProtocolError, match="does not speak MQTT here"):
        layer.receive(answer)


def test_a_masked_frame_from_a_server(kit: Any) -> None:
    layer = client()
    _, _, answer = accepted(layer, "mqtt")
    layer.receive(answer)
    with pytest.raises(mqtrio.ProtocolError, match="wrong masking"):
        layer.receive(kit.frame(0x82, b"x"))


def test_an_ipv6_host() -> None:
    assert b"\r\nHost: [2001:db8::1]\r\n" in client("2001:db8::1").send(b"")


@pytest.mark.parametrize("path", ["mqtt", "/mqtt#part"])
def test_wrong_paths(path: str) -> None:
    with pytest.raises(mqtrio.ConfigurationError, match=r"^path "):
        client(path=path)
