"""A broker on Unix sockets: who gets in, by which rules, and what a reload changes."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from mqtrio import (
    Allow,
    ConfigurationError,
    Deny,
    PeerCredentials,
    ReasonCode,
    load_config,
    open_broker,
)
from mqtrio.testing import HookRecorder, Peer
from mqtrio.wire.packets import ConnAck


async def reason(where: Path | int, client_id: str = "me") -> int:
    """Connect and leave; the return code of CONNACK."""
    stream = (
        await trio.open_unix_socket(where)
        if isinstance(where, Path)
        else await trio.open_tcp_stream("127.0.0.1", where)
    )
    async with stream:
        peer = Peer(stream, client_id=client_id)
        await peer.send(peer.connect_packet())
        return int((await peer.expect(ConnAck)).reason_code)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_anonymous_clients_are_let_in_as_on_loopback(tmp_path: Path) -> None:
    """Only this machine can connect, and of its users only those whom the file lets."""
    path = tmp_path / "s"
    seen: list[Any] = []
    plugin = HookRecorder(answers={"accept": seen.append, "client_connected": seen.append})
    with trio.fail_after(20):
        async with open_broker(f"unix://{path}", plugins=[plugin]) as broker:
            assert await reason(path) == ReasonCode.SUCCESS
            (bound,) = broker.listeners
            assert str(bound) == f"unix://{path}"
        assert not path.exists()
    assert len(seen) == 2
    for event in seen:
        assert event.credentials == PeerCredentials(os.getpid(), os.getuid(), os.getgid())
        assert (event.address, event.listener) == ("", f"unix://{path}")


class Tools(HookRecorder):
    """Authenticates at one listener."""


class Others(HookRecorder):
    """Authenticates at the other one."""


async def test_two_listeners_with_chains_of_their_own(tmp_path: Path) -> None:
    """A local socket for root's tools, which the system vouches for, and a port for the others."""

    def by_credentials(event: Any) -> Allow | Deny:
        if event.credentials is not None and event.credentials.uid == os.getuid():
            return Allow(username="tool")
        return Deny()

    path = tmp_path / "s"
    config = {
        "listener": [
            {"url": f"unix://{path}", "authenticate": ["Tools"]},
            {"url": "mqtt://127.0.0.1:0", "authenticate": ["Others"]},
        ]
    }
    plugins = [
        Tools(answers={"authenticate": by_credentials}),
        Others(answers={"authenticate": Deny(reason_code=ReasonCode.BANNED)}),
    ]
    with trio.fail_after(20):
        async with open_broker(config=config, plugins=plugins) as broker:
            port = broker.listeners[1].port
            assert await reason(path) == ReasonCode.SUCCESS
            assert await reason(port) == ReasonCode.BANNED
            config["listener"][0]["authenticate"] = ["Others"]
            config["listener"][1]["authenticate"] = ["Tools"]
            await broker.reload(config)
            assert await reason(path) == ReasonCode.BANNED
            assert await reason(port) == ReasonCode.NOT_AUTHORIZED


async def test_a_reload_changes_the_file_or_nothing(tmp_path: Path) -> None:
    path, other = tmp_path / "s", tmp_path / "t"

    def config(**options: object) -> dict[str, Any]:
        return {"listener": [{"url": f"unix://{path}", **options}]}

    with trio.fail_after(20):
        async with open_broker(config=config(mode="600")) as broker:
            before = path.stat().st_ino
            await broker.reload(config(mode="606"))
            assert (mode_of(path), path.stat().st_ino) == (0o606, before)
            assert await reason(path) == ReasonCode.SUCCESS
            # What fails later takes the file back, and what fails with it leaves it.
            bad = config(mode="600")
            bad["listener"].append({"url": "unix:///nonexistent/s"})
            with pytest.raises(OSError, match="can't listen on unix:///nonexistent/s"):
                await broker.reload(bad)
            assert mode_of(path) == 0o606
            with pytest.raises(OSError, match="there is no user"):
                await broker.reload(config(mode="600", owner="nobody-such"))
            assert mode_of(path) == 0o606
            await broker.reload({"listener": [{"url": f"unix://{other}"}]})
            assert not path.exists()
            assert await reason(other) == ReasonCode.SUCCESS
        assert not other.exists()


async def test_reuse_port_cannot_change(tmp_path: Path) -> None:
    with trio.fail_after(20), socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        url = f"mqtt://127.0.0.1:{other.getsockname()[1]}"
        config: dict[str, Any] = {"listener": [{"url": url, "reuse_port": True}]}
        async with open_broker(config=config) as broker:
            assert [str(each) for each in broker.listeners] == [url]
            with pytest.raises(ConfigurationError, match="reuse_port can't change"):
                await broker.reload({"listener": [{"url": url}]})
            await broker.reload(config)


async def test_sockets_that_the_program_has_stay_open_over_reloads() -> None:
    with trio.fail_after(20), socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        named: dict[str, Any] = {"listener": [{"url": "systemd://clients"}]}
        async with open_broker(config=named, sockets={"clients": [given]}) as broker:
            assert await reason(port) == ReasonCode.SUCCESS
            await broker.reload({"listener": [{"url": "mqtt://127.0.0.1:0"}]})
            await broker.reload(named)
            assert await reason(port) == ReasonCode.SUCCESS


def test_wrong_options_are_told_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(
        '[[listener]]\nurl = "mqtt://127.0.0.1"\n\n[[listener]]\n'
        'url = "mqtt://[::1]"\nmode = "660"\n'
    )
    with pytest.raises(ConfigurationError, match=r"broker.toml:4.*mode is for unix:// only"):
        load_config(file)


async def test_a_proxy_brings_clients_from_elsewhere() -> None:
    """So its listener is no local one, wherever it listens."""
    listener = {
        "url": "mqtt://127.0.0.1:0",
        "proxy_protocol": True,
        "trusted_proxies": ["127.0.0.1"],
    }
    with trio.fail_after(20):
        with pytest.raises(ConfigurationError, match="other machines can reach it"):
            async with open_broker(config={"listener": [listener]}):
                pass
        seen: list[Any] = []
        plugin = HookRecorder(answers={"accept": seen.append, "authenticate": Allow()})
        async with open_broker(config={"listener": [listener]}, plugins=[plugin]) as broker:
            stream = await trio.open_tcp_stream("127.0.0.1", broker.listeners[0].port)
            async with stream:
                await stream.send_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 1883\r\n")
                peer = Peer(stream, client_id="me")
                await peer.connect()
                (client,) = broker.clients()
                assert client.address == "203.0.113.7:50123"
            (event,) = seen
            assert (event.address, event.client.via) == ("203.0.113.7", "127.0.0.1")
            # What is turned on by a reload holds for the connections that come after it.
            plain = {"url": listener["url"]}
            await broker.reload({"listener": [plain]})
            assert await reason(broker.listeners[0].port) == ReasonCode.SUCCESS
            with pytest.raises(ConfigurationError, match="needs trusted_proxies"):
                await broker.reload({"listener": [{**plain, "proxy_protocol": True}]})
