"""What systemd passes on, and what it is told."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mqtrio.errors import ConfigurationError
from mqtrio.net import systemd
from mqtrio.net.systemd import Supervisor, passed_sockets

ME = str(os.getpid())


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Three sockets whose descriptors follow each other, where those of systemd would be."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    first = 500
    for index, sock in enumerate(sockets):
        os.dup2(sock.fileno(), first + index)
        sock.close()
    monkeypatch.setattr(systemd, "FIRST", first)
    yield first
    for index in range(3):
        try:
            os.close(first + index)
        except OSError:
            pass  # the test has closed it


def environment(**more: str) -> dict[str, str]:
    return {"LISTEN_PID": ME, "LISTEN_FDS": "3", "HOME": "/", **more}


def test_sockets_come_by_name(descriptors: int) -> None:
    variables = environment(LISTEN_FDNAMES="a:b:a")
    found = passed_sockets(variables)
    assert {name: [each.fileno() for each in found[name]] for name in found} == {
        "a": [descriptors, descriptors + 2],
        "b": [descriptors + 1],
    }
    assert variables == {"HOME": "/"}
    for sock in (*found["a"], *found["b"]):
        assert not sock.get_inheritable()
        sock.close()


def test_sockets_without_names(descriptors: int) -> None:
    (sockets,) = passed_sockets(environment()).values()
    assert len(sockets) == 3
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("pid", ["", "1"])
def test_what_is_for_another_process_is_left_alone(descriptors: int, pid: str) -> None:
    variables = environment(LISTEN_PID=pid)
    assert passed_sockets(variables) == {}
    assert variables == {"HOME": "/"}
    os.fstat(descriptors)


def test_what_is_passed_must_be_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(systemd, "FIRST", reader)
    with pytest.raises(ConfigurationError, match=r"descriptor \d+ \(x\) was passed and is no"):
        passed_sockets(environment(LISTEN_FDS="1", LISTEN_FDNAMES="x"))
    with pytest.raises(ConfigurationError, match="LISTEN_FDS must be a number, not 'many'"):
        passed_sockets(environment(LISTEN_FDS="many"))
    os.close(reader)
    os.close(writer)


@pytest.fixture(params=["file", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"\0mqtrio-{ME}" if request.param == "abstract" else str(tmp_path / "notify")
        sock.bind(name)
        sock.setblocking(False)
        yield sock


def address(sock: socket.socket) -> str:
    name = sock.getsockname()
    return f"@{name[1:].decode()}" if isinstance(name, bytes) else str(name)


def test_what_is_told(listening: socket.socket) -> None:
    variables = {"NOTIFY_SOCKET": address(listening), "HOME": "/"}
    supervisor = Supervisor(variables)
    supervisor.tell("READY=1")
    assert listening.recv(1000) == b"READY=1"
    supervisor.tell_reloading()
    word, _, stamp = listening.recv(1000).partition(b"\n")
    assert word == b"RELOADING=1"
    assert stamp.startswith(b"MONOTONIC_USEC=")
    assert stamp[len(b"MONOTONIC_USEC=") :].isdigit()
    assert variables == {"HOME": "/"}
    assert supervisor.watchdog is None


def test_nobody_asks() -> None:
    supervisor = Supervisor({"WATCHDOG_USEC": "1000000"})
    supervisor.tell("READY=1")
    assert supervisor.watchdog is None


def test_who_asks_may_be_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with caplog.at_level(logging.WARNING, "mqtrio.net"):
        supervisor.tell("READY=1")
    assert "can't tell the supervisor READY=1: " in caplog.text


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": ME}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog(variables: dict[str, str], seconds: float | None) -> None:
    assert Supervisor({"NOTIFY_SOCKET": "@x", **variables}).watchdog == seconds


async def test_it_is_reassured_while_the_loop_turns(
    listening: socket.socket, autojump_clock: MockClock
) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": address(listening), "WATCHDOG_USEC": "2000000"})
    with trio.move_on_after(4.5):
        await supervisor.reassure()
    for _ in range(5):
        assert listening.recv(1000) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        listening.recv(1000)
