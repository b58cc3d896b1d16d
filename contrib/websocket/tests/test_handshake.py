"""Which requests open a WebSocket, what the others are told, and what is known afterwards."""

from typing import Any

import pytest

import mqtrio
from mqtrio_websocket import WebSocketSettings
from mqtrio_websocket.server import server_factory

PEER = mqtrio.PeerFacts(address="192.0.2.7", port=4711, listener="ws://127.0.0.1:80")


def test_a_request_opens_it(kit: Any) -> None:
    layer = kit.server()
    layer.receive(kit.request())
    answer = layer.send(b"").decode()
    assert answer.startswith("HTTP/1.1 101 Switching Protocols\r\n")
    assert f"Sec-WebSocket-Accept: {kit.accept}\r\n" in answer
    assert "Sec-WebSocket-Protocol: mqtt\r\n" in answer
    assert "Sec-WebSocket-Extensions" not in answer
    assert layer.handshake_done
    assert layer.send(b"") == b""


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ("mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("mqttv3.1, mqtt", "mqtt"),
        ("chat, mqttv3.1", "mqttv3.1"),
    ],
)
def test_subprotocols(kit: Any, offered: str, agreed: str) -> None:
    layer = kit.server()
    layer.receive(kit.request(sec_websocket_protocol=offered))
    assert f"Sec-WebSocket-Protocol: {agreed}\r\n".encode() in layer.send(b"")
    http = layer.describe(PEER).http
    assert http is not None
    assert http.subprotocol == agreed


@pytest.mark.parametrize("offered", [None, "chat", "MQTT"])
def test_no_subprotocol_of_mqtt(kit: Any, offered: str | None) -> None:
    status, answer, said = kit.refused(kit.request(sec_websocket_protocol=offered))
    assert status == 400
    assert answer.endswith("The subprotocol must be mqtt.\n")
    assert said == "websocket: 400, the client offers no subprotocol of MQTT"


def test_a_plain_request_is_told_what_this_is(kit: Any) -> None:
    status, answer, _ = kit.refused(b"GET /mqtt HTTP/1.1\r\nHost: broker\r\n\r\n")
    assert status == 426
    assert "\r\nUpgrade: websocket\r\n" in answer
    body = answer.split("\r\n\r\n")[1]
    assert body == "This is an MQTT broker: open a WebSocket with the subprotocol mqtt.\n"
    assert f"\r\nContent-Length: {len(body)}\r\n" in answer


@pytest.mark.parametrize(
    ("paths", "target", "status"),
    [
        (("/mqtt", "/"), "/mqtt", 101),
        (("/mqtt", "/"), "/", 101),
        (("/mqtt", "/"), "/mqtt?token=1", 101),
        (("/mqtt", "/"), "/mqtt/", 404),
        (("/mqtt", "/"), "/MQTT", 404),
        (("/mqtt", "/"), "//mqtt", 404),
        (("/mqtt", "/"), "/%6dqtt", 404),
        (("/a",), "/", 404),
        (("*",), "/whatever", 101),
    ],
)
def test_paths(kit: Any, paths: tuple[str, ...], target: str, status: int) -> None:
    request = kit.request(target)
    if status == 101:
        layer = kit.server(paths=paths)
        layer.receive(request)
        assert layer.handshake_done
    else:
        assert kit.refused(request, paths=paths)[0] == status


PAGE = "https://example.org"


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ((), None, 101),
        ((), PAGE, 403),
        ((), "null", 403),
        ((PAGE,), None, 101),
        ((PAGE,), PAGE, 101),
        ((PAGE,), "http://example.org", 403),
        ((PAGE,), "https://example.org.evil.example", 403),
        ((PAGE,), "https://example.org:8443", 403),
        (("null",), "null", 101),
        (("*",), "https://anything.example", 101),
        (("*",), None, 101),
        (("same",), "http://broker.example", 101),
        (("same",), "https://broker.example", 101),
        (("same",), "https://broker.example:8443", 403),
        (("same",), "https://example.org", 403),
        (("*", "same"), "null", 101),
    ],
)
def test_origins(kit: Any, origins: tuple[str, ...], origin: str | None, status: int) -> None:
    request = kit.request(origin=origin)
    if status == 101:
        layer = kit.server(origins=origins)
        layer.receive(request)
        assert layer.handshake_done
        assert layer.describe(PEER).http.origin == origin
    else:
        assert kit.refused(request, origins=origins)[0] == status


def test_of_two_hosts_none_is_the_same(kit: Any) -> None:
    request = kit.request(origin="http://broker.example", host="other\r\nHost: broker.example")
    assert kit.refused(request, origins=("same",))[0] == 403


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"method": "POST"}, 405, "Allow: GET"),
        ({"sec_websocket_key": None}, 400, "Sec-WebSocket-Key"),
        ({"sec_websocket_key": "short"}, 400, "Sec-WebSocket-Key"),
        ({"sec_websocket_version": "8"}, 426, "Sec-WebSocket-Version"),
        ({"upgrade": "h2c"}, 426, "This is an MQTT broker"),
        ({"connection": "close"}, 426, "This is an MQTT broker"),
        ({"origin": "a\r\nOrigin: b"}, 400, "Origin"),
        ({"content_length": "5"}, 400, "no valid HTTP"),
        ({"transfer_encoding": "chunked"}, 400, "no valid HTTP"),
    ],
)
def test_wrong_requests(kit: Any, changes: dict[str, str | None], status: int, words: str) -> None:
    got, answer, said = kit.refused(kit.request(**changes))
    assert (got, said[:15]) == (status, f"websocket: {status},")
    assert words in answer
    if "sec_websocket_version" in changes:
        assert "\r\nSec-WebSocket-Version: 13\r\n" in answer


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x10\x0c\x00\x04MQTT", "MQTT without WebSocket: use mqtt://"),
        (b"\x16\x03\x01\x02\x00", "TLS: use wss://"),
        (b"\x00", "no HTTP request"),
    ],
)
def test_who_speaks_something_else_is_named(kit: Any, data: bytes, words: str) -> None:
    status, _, said = kit.refused(data)
    assert status == 400
    assert said == f"websocket: 400, the peer speaks {words}"


@pytest.mark.parametrize(
    "data",
    [
        b"HELLO\r\n\r\n",
        b"GET /mqtt HTTP/1.1\n\n",
        b"GET /mqtt HTTP/2\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
    ],
)
def test_no_http(kit: Any, data: bytes) -> None:
    assert kit.refused(data)[0] == 400


def test_headers_are_bounded_in_bytes(kit: Any) -> None:
    fits = kit.request(x="")
    room = 1000 - len(fits)
    layer = kit.server(max_header_size=1000)
    layer.receive(kit.request(x="x" * room))
    assert layer.handshake_done
    status, _, said = kit.refused(kit.request(x="x" * (room + 1)), max_header_size=1000)
    assert status == 431
    assert said == "websocket: 431, headers of more than 1000 bytes"
    # Without an end, too, and byte for byte.
    layer = kit.server(max_header_size=1000)
    for _ in range(1000):
        assert layer.receive(b"A") == b""
    with pytest.raises(mqtrio.ProtocolError, match="431"):
        layer.receive(b"A")


def test_headers_are_bounded_in_number(kit: Any) -> None:
    there = kit.request().count(b"\r\n") - 2
    more = {f"x-{number}": "" for number in range(20 - there)}
    layer = kit.server(max_headers=20)
    layer.receive(kit.request(**more))
    assert layer.handshake_done
    status, _, said = kit.refused(kit.request(y="", **more), max_headers=20)
    assert status == 431
    assert said == "websocket: 431, more than 20 headers"


def test_what_hooks_see(kit: Any) -> None:
    layer = kit.server(origins=("*",))
    layer.receive(kit.request("/mqtt?token=secret", origin=PAGE, cookie="a=b"))
    facts = layer.describe(PEER)
    http = facts.http
    assert http is not None
    assert (http.path, http.query, http.origin) == ("/mqtt", "token=secret", PAGE)
    assert http.header("Cookie") == "a=b"
    assert ("host", "broker.example") in http.headers
    assert "secret" not in repr(facts)
    assert "a=b" not in repr(facts)
    assert (facts.address, facts.port, facts.via) == ("192.0.2.7", 4711, "")


@pytest.mark.parametrize("target", ["/nowhere?token=secret", "/mqtt?token=secret"])
def test_query_strings_are_told_nobody(
    kit: Any, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    _, answer, said = kit.refused(kit.request(target, sec_websocket_protocol=None))
    assert "secret" not in answer + said
    layer = kit.server()
    layer.receive(kit.request("/mqtt?token=secret"))
    layer.close()
    assert caplog.records == []


def test_nothing_follows_before_the_answer(kit: Any) -> None:
    """What a server sends early waits; what a client sends early comes out behind it."""
    layer = kit.server()
    assert layer.send(b"early") == b""
    assert layer.receive(kit.request() + kit.frame(0x82, b"also early")) == b"also early"
    assert layer.send(b"").endswith(b"\r\n\r\n\x82\x05early")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("paths", "mqtt", 'must begin with "/"'),
        ("paths", "/mqtt?a=b", 'must begin with "/"'),
        ("origins", "example.org", 'must look like "https://example.org"'),
        ("origins", "https://example.org/", "without a path"),
        ("origins", "https://Example.org", "lower case"),
        ("trusted_proxies", "proxy", "'proxy' does not appear to be"),
        ("trusted_proxies", "10.0.0.1/8", "has host bits set"),
    ],
)
def test_wrong_options(option: str, value: str, words: str) -> None:
    given: dict[str, Any] = {option: (value,)}
    with pytest.raises(mqtrio.ConfigurationError) as caught:
        server_factory(WebSocketSettings(**given))
    assert str(caught.value).startswith(f"{option}: ")
    assert words in str(caught.value)
