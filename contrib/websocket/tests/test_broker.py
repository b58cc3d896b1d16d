"""A broker that listens on ws://: what hooks see, what the peer and the log are told, the ends."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import mqtrio
from mqtrio_plugins.limits import Bounds, Limiter, LimitsSettings
from mqtrio_websocket import WebSocketPlugin, WebSocketSettings

CONNECT = bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 63")
CONNACK = bytes.fromhex("20 02 00 00")
PINGREQ, PINGRESP = bytes.fromhex("c0 00"), bytes.fromhex("d0 00")
DISCONNECT = bytes.fromhex("e0 00")
ANSWER = b"HTTP/1.1 101 "


class Watching:
    """Notes what hooks see."""

    def __init__(self) -> None:
        self.seen: list[mqtrio.ClientFacts] = []
        self.refused: list[str] = []

    @mqtrio.hookimpl
    def authenticate(self, event: mqtrio.AuthenticateEvent) -> mqtrio.Allow:
        self.seen.append(event.client)
        return mqtrio.Allow()

    @mqtrio.hookimpl
    def connection_refused(self, event: mqtrio.ConnectionRefusedEvent) -> None:
        self.refused.append(event.why)


@asynccontextmanager
async def serving(watching: Watching, **options: Any) -> AsyncIterator[trio.SocketStream]:
    """A connection to a broker that listens with these options."""
    listener = mqtrio.Listener(url="ws://127.0.0.1:0", websocket=WebSocketSettings(**options))
    plugins = [WebSocketPlugin(None, name="websocket"), watching]
    with trio.fail_after(10):
        async with mqtrio.open_broker(listener, plugins=plugins) as broker:
            address = broker.listeners[0]
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                yield stream


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    """What comes until the end."""
    return b"".join([bytes(piece) async for piece in stream])


async def head(stream: trio.SocketStream) -> bytes:
    """The answer to a request, to its last byte."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await stream.receive_some(1)
    return answer


async def exactly(stream: trio.SocketStream, wanted: bytes) -> None:
    got = b""
    while len(got) < len(wanted):
        got += await stream.receive_some(len(wanted) - len(got))
    assert got == wanted


async def test_a_conversation(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    watching = Watching()
    async with serving(watching, origins=("https://example.org",)) as stream:
        await stream.send_all(kit.request("/mqtt?token=secret", origin="https://example.org"))
        assert (await head(stream)).startswith(ANSWER)
        # Packets and frames are not aligned, and there is a ping between.
        await stream.send_all(
            kit.frame(0x02, CONNECT[:3])
            + kit.frame(0x89, b"?")
            + kit.frame(0x80, CONNECT[3:] + PINGREQ + PINGREQ[:1])
        )
        await exactly(stream, kit.frame(0x8A, b"?", None))
        # All that a flush has goes into one frame.
        await exactly(stream, kit.frame(0x82, CONNACK + PINGRESP, None))
        await stream.send_all(kit.frame(0x82, PINGREQ[1:]))
        await exactly(stream, kit.frame(0x82, PINGRESP, None))
        await stream.send_all(kit.frame(0x82, DISCONNECT))
        assert await all_of(stream) == b"\x88\x02\x03\xe8"
    (client,) = watching.seen
    assert client.http is not None
    assert (client.http.path, client.http.query) == ("/mqtt", "token=secret")
    assert client.http.origin == "https://example.org"
    assert client.http.header("host") == "broker.example"
    assert "secret" not in caplog.text + repr(client)


async def test_the_client_closes(kit: Any) -> None:
    async with serving(Watching()) as stream:
        await stream.send_all(kit.request() + kit.frame(0x82, CONNECT))
        await head(stream)
        await exactly(stream, kit.frame(0x82, CONNACK, None))
        await stream.send_all(kit.frame(0x82, PINGREQ) + kit.frame(0x88, b"\x03\xe9"))
        got = await all_of(stream)
    # What the last packets asked for stands before the answer.
    assert got == kit.frame(0x82, PINGRESP, None) + b"\x88\x02\x03\xe9"


async def test_the_broker_stops(kit: Any) -> None:
    async def last_words(stream: trio.SocketStream) -> None:
        async with stream:
            assert await all_of(stream) == b"\x88\x02\x03\xe8"

    listener = mqtrio.Listener(url="ws://127.0.0.1:0")
    plugins = [WebSocketPlugin(None, name="websocket"), Watching()]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with mqtrio.open_broker(listener, plugins=plugins) as broker:
                address = broker.listeners[0]
                stream = await trio.open_tcp_stream(address.host, address.port)
                await stream.send_all(kit.request() + kit.frame(0x82, CONNECT))
                await head(stream)
                await exactly(stream, kit.frame(0x82, CONNACK, None))
                nursery.start_soon(last_words, stream)


@pytest.mark.parametrize(
    ("request_", "status", "why"),
    [
        (b"GET /mqtt HTTP/1.1\r\n\r\n", b"426", "a plain HTTP request"),
        (b"GET /x?token=secret HTTP/1.1\r\n\r\n", b"404", "no path '/x'"),
        (CONNECT, b"400", "the peer speaks MQTT without WebSocket: use mqtt://"),
    ],
)
async def test_who_is_turned_away(
    caplog: pytest.LogCaptureFixture, request_: bytes, status: bytes, why: str
) -> None:
    caplog.set_level(logging.INFO)
    watching = Watching()
    async with serving(watching) as stream:
        await stream.send_all(request_)
        got = await all_of(stream)
    assert got.startswith(b"HTTP/1.1 " + status)
    assert got.endswith(b".\n")
    assert watching.refused == [f"websocket: {status.decode()}, {why}"]
    assert why in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("first", "payload", "code"),
    [(0x81, b"text", 1003), (0x83, b"", 1002), (0x82, b"x" * 2000, 1009)],
)
async def test_faults_are_told(kit: Any, first: int, payload: bytes, code: int) -> None:
    async with serving(Watching(), max_frame_size=1024) as stream:
        await stream.send_all(kit.request() + kit.frame(0x82, CONNECT))
        await head(stream)
        await exactly(stream, kit.frame(0x82, CONNACK, None))
        await stream.send_all(kit.frame(first, payload))
        got = await all_of(stream)
    assert got[0] == 0x88
    assert int.from_bytes(got[2:4], "big") == code


async def test_a_request_without_an_end(kit: Any) -> None:
    """The deadline of CONNECT holds for the request, too."""
    listener = mqtrio.Listener(url="ws://127.0.0.1:0")
    plugins = [WebSocketPlugin(None, name="websocket"), Watching()]
    limits = mqtrio.Limits(connect_timeout=0.05)
    with trio.fail_after(10):
        async with mqtrio.open_broker(listener, plugins=plugins, limits=limits) as broker:
            address = broker.listeners[0]
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                await stream.send_all(kit.request()[:-2])
                assert await all_of(stream) == b""


async def test_behind_a_proxy(kit: Any) -> None:
    watching = Watching()
    async with serving(watching, trusted_proxies=("127.0.0.0/8",)) as stream:
        await stream.send_all(kit.request(x_forwarded_for="203.0.113.9"))
        await stream.send_all(kit.frame(0x82, CONNECT))
        await head(stream)
        await exactly(stream, kit.frame(0x82, CONNACK, None))
    (client,) = watching.seen
    assert (client.address, client.via) == ("203.0.113.9", "127.0.0.1")


async def test_no_address_behind_a_proxy(kit: Any) -> None:
    watching = Watching()
    async with serving(watching, trusted_proxies=("127.0.0.0/8",)) as stream:
        await stream.send_all(kit.request(x_forwarded_for="unknown"))
        await all_of(stream)
    assert watching.refused == [
        "websocket: a trusted proxy has sent an X-Forwarded-For without an address"
    ]


def test_the_options_stand_in_a_listener(tmp_path: Any) -> None:
    """A scheme enables the installed plugin by itself."""
    file = tmp_path / "mqtrio.toml"
    file.write_text(
        '[[listener]]\nurl = "ws://127.0.0.1:0"\n'
        'websocket = { paths = ["/x"], max_header_size = "8KiB" }\n'
        "[plugin.anonymous]\n"
    )
    config = mqtrio.load_config(file)
    (listener,) = config.settings.listener
    assert listener.websocket == WebSocketSettings(paths=("/x",), max_header_size=8192)


async def test_clients_behind_a_proxy_have_their_own_bounds(kit: Any) -> None:
    """By X-Forwarded-For they are known only after `accept`, where each is counted first."""
    watching = Watching()
    limits = Limiter(LimitsSettings(address=Bounds(connections=1)), name="limits")
    settings = WebSocketSettings(trusted_proxies=("127.0.0.1",))
    listener = mqtrio.Listener(url="ws://127.0.0.1:0", websocket=settings)
    plugins = [WebSocketPlugin(None, name="websocket"), limits, watching]
    with trio.fail_after(10):
        async with mqtrio.open_broker(listener, plugins=plugins) as broker:
            streams = []
            for number, address in enumerate(("203.0.113.1", "203.0.113.2", "203.0.113.2")):
                where = broker.listeners[0]
                stream = await trio.open_tcp_stream(where.host, where.port)
                streams.append(stream)
                connect = CONNECT[:-1] + b"%d" % number
                await stream.send_all(
                    kit.request(x_forwarded_for=address) + kit.frame(0x82, connect)
                )
                await head(stream)
                if number < 2:
                    await exactly(stream, kit.frame(0x82, CONNACK, None))
                else:
                    assert CONNACK not in await all_of(stream)
            for stream in streams:
                await stream.aclose()
    assert watching.refused == ["address: more than 1 connections"]
