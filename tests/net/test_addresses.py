import socket

import pytest

from mqtrio.engine.link import PeerFacts
from mqtrio.errors import ConfigurationError
from mqtrio.net.addresses import (
    BoundAddress,
    bound_address,
    is_loopback,
    join,
    parse_listener,
    peer_address,
)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884),
        ("mqtt://127.0.0.1", "127.0.0.1", 1883),
        ("mqtt://127.0.0.1:0", "127.0.0.1", 0),
        ("mqtt://[::1]:1884", "::1", 1884),
        ("mqtt://[::1]", "::1", 1883),
        ("mqtt://[::]", "", 1883),
        ("mqtt://0.0.0.0", "0.0.0.0", 1883),
        ("mqtt://broker.example:1", "broker.example", 1),
        ("MQTT://Broker.Example/", "broker.example", 1883),
        ("mqtt://:1884", "", 1884),
        ("mqtt://", "", 1883),
        ("mqtt://*", "", 1883),
        ("mqtt://*:0", "", 0),
    ],
)
def test_good_urls(url: str, host: str, port: int) -> None:
    address = parse_listener(url)
    assert (address.host, address.port, address.url) == (host, port, url)
    assert (address.stack, address.layers) == ((), ())


@pytest.mark.parametrize(
    ("url", "port", "stack"),
    [
        ("mqtts://127.0.0.1", 8883, ("tls",)),
        ("mqtts://127.0.0.1:1", 1, ("tls",)),
        ("ws://127.0.0.1", 80, ("websocket",)),
        ("wss://127.0.0.1", 443, ("tls", "websocket")),
    ],
)
def test_a_scheme_names_a_stack(url: str, port: int, stack: tuple[str, ...]) -> None:
    address = parse_listener(url)
    assert (address.port, address.stack) == (port, stack)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("unix://run/mqtt", r"write unix:///PATH, the whole path"),
        ("unix:/run/mqtt", r"write unix:///PATH, the whole path"),
        ("unix:///run/", r"write unix:///PATH, the whole path"),
        ("unix://", r"write unix:///PATH, the whole path"),
        ("unix:///run/a\nb", r"can't be the name of a file"),
        ("nonsense+unix:///run/mqtt", r"unknown scheme 'nonsense'"),
        ("systemd://", r"write systemd://NAME"),
        ("systemd:name", r"write systemd://NAME"),
        ("systemd://a/b", r"write systemd://NAME"),
        ("ws://0.0.0.0/mqtt", r"nothing may follow the port"),
        ("mqtts://8883", r"a port stands behind a colon: mqtts://:8883"),
        ("tcp://0.0.0.0", r"unknown scheme 'tcp'.*mqtt://, mqtts://, ws://, wss://.*unix://"),
        ("127.0.0.1:1883", r"no scheme|unknown scheme"),
        ("localhost:1883", r"unknown scheme 'localhost'"),
        ("", r"no scheme"),
        ("mqtt:1883", r"write mqtt://HOST:PORT"),
        ("mqtt://1883", r"a port stands behind a colon: mqtt://:1883"),
        ("mqtt://host:99999", r"out of range"),
        ("mqtt://host:-1", r"mqtt://host:-1"),
        ("mqtt://host:x", r"mqtt://host:x"),
        ("mqtt://[::1", r"Invalid IPv6"),
        ("mqtt://host/path", r"nothing may follow the port"),
        ("mqtt://host?a=b", r"nothing may follow the port"),
        ("mqtt://host#x", r"nothing may follow the port"),
    ],
)
def test_bad_urls(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse_listener(url)


@pytest.mark.parametrize("scheme", ["", "mqtt+"])
def test_what_is_not_tcp(scheme: str) -> None:
    address = parse_listener(f"{scheme}unix:///run/a dir/mqtt?%20#@.sock")
    assert (address.path, address.name) == ("/run/a dir/mqtt?%20#@.sock", "")
    address = parse_listener(f"{scheme}systemd://mqtrio.socket")
    assert (address.path, address.name) == ("", "mqtrio.socket")
    assert (address.host, address.port, address.layers) == ("", 0, ())


@pytest.mark.parametrize("scheme", ["mqtt", "amqp"])
def test_a_password_is_never_shown(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match="no user name or password") as caught:
        parse_listener(f"{scheme}://me:secret@host:x")
    assert "secret" not in str(caught.value)


def test_bound_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        bound = bound_address(parse_listener("mqtt://127.0.0.1:0"), sock)
        port = sock.getsockname()[1]
    assert bound == BoundAddress(
        url="mqtt://127.0.0.1:0", scheme="mqtt", host="127.0.0.1", port=port, local=True
    )
    assert str(bound) == f"mqtt://127.0.0.1:{port}"


def test_addresses_as_text() -> None:
    assert join("::1", 7) == "[::1]:7"
    assert join("127.0.0.1", 7) == "127.0.0.1:7"
    assert str(PeerFacts(address="::1", port=7, listener="x")) == "[::1]:7"
    assert str(PeerFacts(address="10.0.0.1", port=7, listener="x")) == "10.0.0.1:7"
    assert str(PeerFacts(address="", listener="a stream")) == "a stream"


def test_ipv4_peers_of_a_dual_stack_socket() -> None:
    assert peer_address(("::ffff:192.0.2.7", 80, 0, 0)) == ("192.0.2.7", 80)
    assert peer_address(("::ffff:1", 80, 0, 0)) == ("::ffff:1", 80)
    assert peer_address(("2001:db8::1", 80, 0, 0)) == ("2001:db8::1", 80)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local
