"""The PROXY protocol: the header, and what a network makes of it."""

import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from mqtrio import PeerCredentials, PeerFacts
from mqtrio.errors import ConfigurationError, ProtocolError
from mqtrio.net import network as network_module
from mqtrio.net.network import Network, open_network
from mqtrio.net.options import listener_address
from mqtrio.net.proxy import LONGEST, LONGEST_LINE, ProxyLayer, crc32c
from mqtrio.settings import Listener as Settings
from mqtrio.testing import check_layer
from tests.net.kit import Core, let_run, until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXY = PeerFacts(
    address="10.0.0.1", port=7, listener="x", local=True, credentials=PeerCredentials(1, 2, 3)
)
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 1883\r\n"


def binary(family: int, body: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def ip4(address: str = "203.0.113.7", port: int = 50123) -> bytes:
    return (
        socket.inet_aton(address) + socket.inet_aton("192.0.2.1") + struct.pack("!2H", port, 1883)
    )


def ip6(address: str) -> bytes:
    pair = socket.inet_pton(socket.AF_INET6, address) + bytes(15) + b"\1"
    return pair + struct.pack("!2H", 50123, 1883)


def with_checksum(body: bytes) -> bytes:
    """A header with the checksum that it must have."""
    header = binary(0x11, body + tlv(3, bytes(4)))
    return header[:-4] + crc32c(header).to_bytes(4, "big")


GOOD = [
    (LINE, "203.0.113.7:50123"),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0"),
    (b"PROXY TCP6 2001:db8::7 ::1 50123 1883\r\n", "[2001:db8::7]:50123"),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 50123 1883\r\n", "203.0.113.7:50123"),
    (b"PROXY UNKNOWN\r\n", "10.0.0.1:7"),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 anything\r\n", "10.0.0.1:7"),
    (binary(0x11, ip4()), "203.0.113.7:50123"),
    (binary(0x21, ip6("2001:db8::7")), "[2001:db8::7]:50123"),
    (binary(0x21, ip6("::ffff:203.0.113.7")), "203.0.113.7:50123"),
    (binary(0x31, b"/run/client".ljust(108, b"\0") + bytes(108)), "x"),
    (binary(0x00, b""), "10.0.0.1:7"),
    (binary(0x00, tlv(4, b"padding")), "10.0.0.1:7"),
    (binary(0x11, ip4(), command=0x20), "10.0.0.1:7"),
    (binary(0xFF, b"anything", command=0x20), "10.0.0.1:7"),
    (binary(0x11, ip4() + tlv(4, bytes(1000)) + tlv(0x20, b"\1" + bytes(4))), "203.0.113.7:50123"),
    (with_checksum(ip4() + tlv(5, b"id")), "203.0.113.7:50123"),
]

BAD = [
    (b"\x10\x0c\x00\x04MQTT", "there is none"),
    (b"\x16\x03\x01", "there is none"),
    (b"proxy TCP4", "there is none"),
    (b"\r\n\r\n\0\r\nQUIT\r", "there is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 50123\r\n", "another form"),
    (b"PROXY TCP4  203.0.113.7 192.0.2.1 50123 1883\r\n", "another form"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 1883 \r\n", "another form"),
    (b"PROXY TCP5 203.0.113.7 192.0.2.1 50123 1883\r\n", "another form"),
    (b"PROXY UNKNOWNS\r\n", "another form"),
    (b"PROXY \r\n", "another form"),
    (b"PROXY TCP4 203.0.113.300 192.0.2.1 50123 1883\r\n", "an address in it is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2 50123 1883\r\n", "an address in it is none"),
    (b"PROXY TCP4 ::1 ::1 50123 1883\r\n", "an address in it is none"),
    (b"PROXY TCP6 203.0.113.7 192.0.2.1 50123 1883\r\n", "an address in it is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 1883\r\n", "a port in it is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 050123 1883\r\n", "a port in it is none"),
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 1 0x1\r\n", "another form"),
    (b"PROXY UNKNOWN " + b"x" * LONGEST_LINE, "longer than 107"),
    (binary(0x11, ip4(), command=0x11), "unknown version or command"),
    (binary(0x11, ip4(), command=0x22), "unknown version or command"),
    (binary(0x41, ip4()), "unknown address family"),
    (binary(0x13, ip4()), "unknown address family"),
    (binary(0x12, ip4()), "not about a stream"),
    (binary(0x10, ip4()), "not about a stream"),
    (binary(0x11, ip4()[:-1]), "its addresses are cut off"),
    (binary(0x31, bytes(215)), "its addresses are cut off"),
    (binary(0x11, ip4() + b"\4\0"), "its last field is cut off"),
    (binary(0x11, ip4() + b"\4\0\5abcd"), "its last field is cut off"),
    (binary(0x11, ip4() + tlv(3, bytes(4))), "its checksum is wrong"),
    (binary(0x11, ip4() + tlv(3, b"")), "its checksum is wrong"),
    (with_checksum(ip4())[:-1] + b"\0", "its checksum is wrong"),
    (SIGNATURE + b"\x21\x11" + struct.pack("!H", LONGEST - 15), "longer than 16384"),
]


@pytest.mark.parametrize(("header", "client"), GOOD)
@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_good_headers(header: bytes, client: str, size: int) -> None:
    layer = ProxyLayer()
    data = header + b"\x10\x0cMQTT"
    inside = b""
    for at in range(0, len(data), size):
        inside += layer.receive(data[at : at + size])
        assert layer.handshake_done is (at + size >= len(header))
    assert inside == b"\x10\x0cMQTT"
    peer = layer.describe(PROXY)
    assert str(peer) == client
    assert not peer.local
    assert peer.credentials is None
    assert peer.via == ("" if client == "10.0.0.1:7" else "10.0.0.1")


def feed(layer: ProxyLayer, header: bytes, size: int) -> None:
    for at in range(0, len(header), size):
        assert layer.receive(header[at : at + size]) == b""


@pytest.mark.parametrize(("header", "says"), BAD)
@pytest.mark.parametrize("size", [1, 10_000])
def test_bad_headers(header: bytes, says: str, size: int) -> None:
    layer = ProxyLayer()
    with pytest.raises(ProtocolError, match=f"PROXY header: .*{says}"):
        feed(layer, header, size)
    with pytest.raises(ProtocolError, match=says):
        layer.receive(b"")
    assert not layer.handshake_done


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_not_a_byte_more_is_wanted(header: bytes, client: str) -> None:
    layer = ProxyLayer()
    stream = header + b"\x10\x0c" * 100
    for size in (1, 5, 12, 17, 10_000, 10_000):
        if not layer.handshake_done:
            count = layer.wanted(stream[:size])
            assert count
            layer.receive(stream[:count])
            stream = stream[count:]
    assert layer.handshake_done
    assert stream == b"\x10\x0c" * 100
    assert not layer.wanted(stream)


@given(st.binary(max_size=300))
@example(b"PROXY UNKNOWN\r\n\r\n")
def test_anything_is_a_header_or_a_fault(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x20"):
        layer = ProxyLayer()
        try:
            layer.receive(start + data)
        except ProtocolError:
            continue
        assert not layer.describe(PROXY).local


class Client:
    """The other end: says the header, then lets everything through."""

    bound = 1000
    eof = False
    handshake_done = True
    handshake_work = 0
    weight = 1000

    def __init__(self, header: bytes) -> None:
        self.header = header

    def receive(self, data: bytes) -> bytes:
        return data

    def send(self, data: bytes) -> bytes:
        header, self.header = self.header, b""
        return header + data

    def close(self) -> bytes:
        self.header = b""
        return b""

    def describe(self, peer: PeerFacts) -> PeerFacts:
        return peer


@pytest.mark.parametrize("header", [LINE, with_checksum(ip4())])
def test_it_keeps_the_contract_of_layers(header: bytes) -> None:
    check_layer(ProxyLayer, lambda: Client(header))


def test_crc32c() -> None:
    """The examples of RFC 3720, B.4, and the usual check value."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(b"123456789") == 0xE3069283


# -- options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"proxy_protocol": True}, "proxy_protocol needs trusted_proxies"),
        ({"trusted_proxies": ("::1",)}, "trusted_proxies means nothing without proxy_protocol"),
        ({"proxy_protocol": True, "trusted_proxies": ("10.0.0.1/8",)}, "a network that is none"),
        ({"proxy_protocol": True, "trusted_proxies": ("localhost",)}, "a network that is none"),
        (
            {"url": "unix:///run/x", "proxy_protocol": True, "trusted_proxies": ("::/0",)},
            'trusted_proxies must have "unix" here',
        ),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        listener_address(Settings(**{"url": "mqtt://127.0.0.1", **options}))


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_who_is_trusted(address: str, trusted: bool) -> None:
    named = ("10.0.0.0/8", "2001:db8::/32")
    settings = Settings(url="mqtt://:1", proxy_protocol=True, trusted_proxies=named)
    proxies = listener_address(settings).proxies
    assert proxies is not None
    assert proxies.trust(PeerFacts(address=address, listener="x")) is trusted


# -- on the network


class Rig:
    def __init__(self, core: Core, network: Network) -> None:
        self.core = core
        self.network = network
        self.port = network.listeners[0].port

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


async def opened(trusted: str, **limits: int) -> AsyncIterator[Rig]:
    core = Core(**limits)
    settings = Settings(url="mqtt://127.0.0.1:0", proxy_protocol=True, trusted_proxies=(trusted,))
    async with open_network(core, [listener_address(settings)]) as network:
        network.accept()
        yield Rig(core, network)


@pytest.fixture(params=["socket", "stream"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the poller and without."""
    if request.param == "stream":
        monkeypatch.setattr(network_module, "AVAILABLE", False)
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def rig(kind: str) -> AsyncIterator[Rig]:
    async for made in opened("127.0.0.0/8"):
        yield made


@pytest.mark.parametrize("header", [LINE, binary(0x11, ip4())])
async def test_the_engine_knows_the_client(rig: Rig, header: bytes) -> None:
    async with await rig.connect() as stream:
        await stream.send_all(header + b"echo one\necho two\n")
        assert await stream.receive_some() == b"one\ntwo\n"
        (connection,) = rig.core.accepted
        assert str(connection.link.peer) == "203.0.113.7:50123"
        assert not connection.link.peer.local
        await stream.send_all(b"echo three\n")
        assert await stream.receive_some() == b"three\n"
    await until(lambda: not rig.network.connections)
    assert not rig.network._open


async def test_a_header_a_byte_at_a_time(rig: Rig) -> None:
    async with await rig.connect() as stream:
        for byte in LINE:
            assert not rig.core.accepted
            await stream.send_all(bytes((byte,)))
            await let_run()
        await stream.send_all(b"echo x\n")
        assert await stream.receive_some() == b"x\n"


@pytest.mark.parametrize("data", [b"echo x\n", b"PROXY nonsense\r\necho x\n", LINE[:20]])
async def test_without_a_header_the_engine_learns_of_nothing(rig: Rig, data: bytes) -> None:
    async with await rig.connect() as stream:
        try:
            await stream.send_all(data)
            await stream.send_eof()
            assert await stream.receive_some() == b""
        except trio.BrokenResourceError:
            pass  # reset, as what it sent was not read
    await until(lambda: not rig.network.connections)
    assert not rig.core.accepted


async def test_the_header_has_a_deadline(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async for made in opened("127.0.0.1"):
        with caplog.at_level(logging.INFO, "mqtrio.net"):
            async with await made.connect() as stream:
                await stream.send_all(LINE[:10])
                await until(lambda: made.network.connections)  # noqa: B023 - called at once
                mock_clock.jump(made.core.settings.limits.connect_timeout - 0.1)
                await let_run()
                assert made.network.connections
                mock_clock.jump(0.2)
                await until(lambda: not made.network.connections)  # noqa: B023
        assert "no PROXY header came in time" in caplog.text
        assert not made.core.accepted


async def test_who_waits_for_a_header_counts(kind: str) -> None:
    async for made in opened("127.0.0.1", connections=2):
        waiting = [await made.connect() for _ in range(2)]
        await until(lambda: made.network.connections == 2)  # noqa: B023 - called at once
        async with await made.connect() as third:
            assert await third.receive_some() == b""
        await made.network.stop(made.core.goodbye, 60.0)  # which waits for none of them
        for stream in waiting:
            assert await stream.receive_some() == b""
            await stream.aclose()


async def test_others_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async for made in opened("10.0.0.0/8"):
        with caplog.at_level(logging.WARNING, "mqtrio.net"):
            for _ in range(3):
                async with await made.connect() as stream:
                    assert await stream.receive_some() == b""
        assert not made.core.accepted
        (record,) = caplog.records
        assert "accepts trusted_proxies only, not 127.0.0.1:" in record.getMessage()


async def test_a_proxy_at_a_unix_socket(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    settings = Settings(url=f"unix://{path}", proxy_protocol=True, trusted_proxies=("unix",))
    core = Core()
    async with open_network(core, [listener_address(settings)]) as network:
        network.accept()
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(LINE + b"echo x\n")
            assert await stream.receive_some() == b"x\n"
            peer = core.accepted[0].link.peer
            assert (peer.address, peer.local, peer.credentials) == ("203.0.113.7", False, None)
