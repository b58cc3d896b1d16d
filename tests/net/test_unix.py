"""Unix sockets: their files, who may use them, and who does."""

# ruff: noqa: ASYNC240 - it is about files in a temporary folder, and nobody else runs

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mqtrio import PeerCredentials
from mqtrio.errors import ConfigurationError
from mqtrio.net import network as network_module
from mqtrio.net import unix
from mqtrio.net.listeners import Listener
from mqtrio.net.network import open_network
from mqtrio.net.opening import open_listeners
from mqtrio.net.options import listener_address
from mqtrio.settings import Listener as Settings
from tests.net.kit import Core, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mqtrio.sock"


async def opened(path: Path, **options: Any) -> Listener:
    (listener,) = await open_listeners(listener_address(Settings(url=f"unix://{path}", **options)))
    return listener


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- the file


async def test_it_is_there_while_it_is_open(path: Path) -> None:
    listener = await opened(path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert mode_of(path) == 0o660, "whatever the umask is"
    assert (listener.bound.path, listener.bound.host, listener.bound.port) == (str(path), "", 0)
    assert listener.bound.local
    assert str(listener.bound) == f"unix://{path}"
    listener.close()
    assert not path.exists()
    listener.close()


async def test_mode_and_owner(path: Path) -> None:
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    listener = await opened(path, mode="0606", owner=user, group=group)
    assert mode_of(path) == 0o606
    assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
    listener.close()


async def test_nobody_can_connect_before_the_mode_is_right(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restrict = unix.SocketFile.restrict

    def look(file: unix.SocketFile, *arguments: Any) -> None:
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        restrict(file, *arguments)

    monkeypatch.setattr(unix.SocketFile, "restrict", look)
    (await opened(path)).close()


@pytest.mark.parametrize("who", ["user", "group"])
async def test_an_unknown_name_leaves_nothing(path: Path, who: str) -> None:
    option = "owner" if who == "user" else who
    with pytest.raises(OSError, match=f"unix://.*: there is no {who} 'nobody-such'"):
        await opened(path, **{option: "nobody-such"})
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "66"}, "mode must be three octal digits such as \"660\", not '66'"),
        ({"mode": "888"}, "mode must be three octal digits"),
        ({"mode": "0o660"}, "mode must be three octal digits"),
        ({"mode": "1777"}, "mode must be three octal digits"),
        ({"mode": "rw-rw----"}, "mode must be three octal digits"),
        ({"owner": ""}, "owner must be a name"),
        ({"reuse_port": True}, "reuse_port is for TCP ports only"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"listener unix:///run/x: {says}"):
        listener_address(Settings(url="unix:///run/x", **options))


@pytest.mark.parametrize("option", ["mode", "owner", "group"])
def test_options_of_files_are_for_files(option: str) -> None:
    said: dict[str, Any] = {option: "660"}
    with pytest.raises(ConfigurationError, match=f"{option} is for unix:// only"):
        listener_address(Settings(url="mqtt://127.0.0.1", **said))


# -- what is there already


def leave_stale(path: Path) -> None:
    """Leave what a process leaves that is killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


async def test_a_stale_socket_is_replaced(path: Path) -> None:
    leave_stale(path)
    listener = await opened(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


@pytest.mark.parametrize("backlog", [10, 0])
async def test_a_live_socket_is_left_alone(path: Path, backlog: int) -> None:
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(str(path))
        other.listen(backlog)
        client.connect(str(path))  # with a backlog of 0 that is all there is room for
        with pytest.raises(OSError, match=r"unix://.*: another process listens there") as caught:
            await opened(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a stale socket", "datagrams"])
async def test_nothing_else_is_ever_removed(path: Path, kind: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        if kind == "file":
            path.write_text("precious")
        elif kind == "folder":
            path.mkdir()
        elif kind == "datagrams":
            other.bind(str(path))
        else:
            leave_stale(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        with pytest.raises(OSError, match="can't listen on unix://"):
            await opened(path)
    assert path.lstat()
    if kind == "file":
        assert path.read_text() == "precious"


async def test_two_at_the_same_moment(path: Path) -> None:
    """One of them wins, whoever finds the stale file first."""
    leave_stale(path)
    won: list[Listener] = []
    lost: list[OSError] = []

    async def one() -> None:
        try:
            won.append(await opened(path))
        except OSError as error:
            lost.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert [error.errno for error in lost] == [errno.EADDRINUSE] * 4
    (listener,) = won
    listener.close()


async def test_a_folder_that_stays_locked(path: Path, autojump_clock: MockClock) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(OSError, match=r"another process keeps the folder .* locked"):
        await opened(path)
    assert trio.current_time() == pytest.approx(unix.AGAIN * unix.TRIES)
    os.close(folder)
    (await opened(path)).close()


async def test_a_file_of_somebody_else_is_not_removed_at_the_end(path: Path) -> None:
    listener = await opened(path)
    path.unlink()
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(path))
    listener.close()
    assert path.exists()
    other.close()


async def test_a_file_that_is_gone_at_the_end(path: Path) -> None:
    listener = await opened(path)
    path.unlink()
    listener.close()


async def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"can't listen on unix:///.*path too long"):
        await opened(tmp_path / ("x" * 108))


# -- who is there


@pytest.fixture(params=["socket", "stream"])
async def serving(
    request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Core]:
    """A network on a Unix socket, with the poller and without."""
    if request.param == "stream":
        monkeypatch.setattr(network_module, "AVAILABLE", False)
    core = Core()
    address = listener_address(Settings(url=f"unix://{path}"))
    async with open_network(core, [address]) as network:
        network.accept()
        yield core
        await network.stop(core.goodbye, 1.0)


async def test_who_connects_is_known(serving: Core, path: Path) -> None:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"echo hello\n")
        assert await stream.receive_some() == b"hello\n"
        peer = serving.accepted[0].link.peer
        assert (peer.address, peer.port, peer.local) == ("", 0, True)
        assert str(peer) == f"unix://{path}"
        assert peer.credentials == PeerCredentials(os.getpid(), os.getuid(), os.getgid())
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_where_the_system_does_not_tell(
    serving: Core, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED")
    async with await trio.open_unix_socket(path):
        await until(lambda: serving.accepted)
    assert serving.accepted[0].link.peer.credentials is None


# -- sockets that the program has already


async def test_given_sockets(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(path))
        local.listen()
        address = listener_address(Settings(url="systemd://clients"))
        found = await open_listeners(address, {"clients": [tcp, local]})
        port = tcp.getsockname()[1]
        assert [str(each.bound) for each in found] == [f"mqtt://127.0.0.1:{port}", f"unix://{path}"]
        assert all(each.bound.local for each in found)
        for each in found:
            each.close()
        assert path.exists(), "the file is not ours"
        socket.create_connection(("127.0.0.1", port)).close()  # it still listens: we had a copy
        with pytest.raises(OSError, match=r"systemd://clients: no sockets .*; there are: a, b"):
            await open_listeners(address, {"b": [tcp], "a": [local]})


@pytest.mark.parametrize("kind", ["connected", "datagrams"])
async def test_given_sockets_that_do_not_listen(kind: str) -> None:
    one, other = socket.socketpair()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    address = listener_address(Settings(url="systemd://x"))
    given = one if kind == "connected" else datagrams
    with pytest.raises(OSError, match="x is no stream socket that listens"):
        await open_listeners(address, {"x": [given]})
    for each in (one, other, datagrams):
        each.close()
