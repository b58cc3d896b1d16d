"""`mqtrio serve` below systemd: sockets that it gets, and what it tells."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.serving import CONNACK, CONNECT, PATIENCE, Server, connect

#: Starts a program with sockets as systemd does, at the first connection.
ACTIVATE = shutil.which("systemd-socket-activate")


class Supervisor:
    """Stands in for systemd: hears what it is told."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def hear(self) -> str:
        """The next that is told, apart from signs of life."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            told = self._sock.recv(1000).decode()
            if told != "WATCHDOG=1":
                return told

    async def sign_of_life(self) -> None:
        """Wait until a new one has come."""
        self.forget()
        await trio.lowlevel.wait_readable(self._sock)
        assert self._sock.recv(1000) == b"WATCHDOG=1"

    def forget(self) -> None:
        """Have heard all that was told so far."""
        try:
            while True:
                self._sock.recv(1000)
        except BlockingIOError:
            pass


@asynccontextmanager
async def serve(
    command: list[str], folder: Path, **environment: str
) -> AsyncIterator[tuple[Server, Supervisor]]:
    """Run a command with somebody to be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, trio.fail_after(PATIENCE):
        sock.bind(str(folder / "notify"))
        sock.setblocking(False)
        process = await trio.lowlevel.open_process(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), **environment},
        )
        try:
            yield Server(process), Supervisor(sock)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()


async def test_it_says_how_it_is(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text('[[listener]]\nurl = "mqtt://127.0.0.1:0"\n')
    command = [sys.executable, "-m", "mqtrio", "serve", str(config)]
    async with serve(command, tmp_path, WATCHDOG_USEC="100000") as (server, supervisor):
        assert await supervisor.hear() == "READY=1"
        await (await connect(await server.address())).aclose()  # ready means: listening
        await supervisor.sign_of_life()
        await supervisor.sign_of_life()
        server.process.send_signal(signal.SIGHUP)
        assert (await supervisor.hear()).startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert await supervisor.hear() == "READY=1"
        config.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        assert (await supervisor.hear()).startswith("RELOADING=1")
        assert await supervisor.hear() == "READY=1"
        server.process.send_signal(signal.SIGTERM)
        assert await supervisor.hear() == "STOPPING=1"
        assert await server.end() == 0


BLOCKING = """
import time, trio
from mqtrio.cli import main
from mqtrio.broker import Broker

async def wait_stopped(self):
    await trio.sleep(0.2)
    print("blocked", file=__import__("sys").stderr, flush=True)
    time.sleep(600)

Broker.wait_stopped = wait_stopped
main(["serve", "--listen", "mqtt://127.0.0.1:0"])
"""


async def test_a_loop_that_is_blocked_gives_no_sign_of_life(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BLOCKING]
    async with serve(command, tmp_path, WATCHDOG_USEC="50000") as (server, supervisor):
        assert await supervisor.hear() == "READY=1"
        await supervisor.sign_of_life()
        await server.wait_for("blocked")
        supervisor.forget()
        with trio.move_on_after(0.5) as waited:
            await supervisor.sign_of_life()
        assert waited.cancelled_caught


@pytest.mark.skipif(ACTIVATE is None, reason="missing: systemd-socket-activate (Debian: systemd)")
async def test_sockets_of_systemd(tmp_path: Path) -> None:
    assert ACTIVATE is not None
    path = tmp_path / "clients"
    command = [ACTIVATE, "--listen", str(path), "--fdname=clients", "-E", "NOTIFY_SOCKET"]
    command += [sys.executable, "-m", "mqtrio", "serve", "--listen", "systemd://clients"]
    async with serve(command, tmp_path) as (server, supervisor):
        await server.wait_for("Listening on")
        # What has connected before the broker was there is served, too.
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(CONNECT)
            assert await stream.receive_some() == CONNACK
            assert await supervisor.hear() == "READY=1"
            await server.wait_for(f"listening on unix://{path}")
        server.process.terminate()
        assert await supervisor.hear() == "STOPPING=1"
        assert await server.end() == 0
    assert path.exists(), "it is systemd's"


@pytest.mark.skipif(ACTIVATE is None, reason="missing: systemd-socket-activate (Debian: systemd)")
@pytest.mark.parametrize(("name", "code"), [("others", 2), (None, 0)])
async def test_sockets_that_nobody_uses(tmp_path: Path, name: str | None, code: int) -> None:
    assert ACTIVATE is not None
    path = tmp_path / "clients"
    url = "mqtt://127.0.0.1:0" if name is None else f"systemd://{name}"
    command = [ACTIVATE, "--listen", str(path), "--fdname=clients", "-E", "NOTIFY_SOCKET"]
    command += [sys.executable, "-m", "mqtrio", "serve", "--listen", url]
    async with serve(command, tmp_path) as (server, supervisor):
        await server.wait_for("Listening on")
        async with await trio.open_unix_socket(path):
            if name is None:
                await server.wait_for("'clients' were passed, and no listener is systemd://clients")
                assert await supervisor.hear() == "READY=1"
                server.process.terminate()
            assert await server.end() == code
    if name is not None:
        assert "no sockets of that name were passed; there are: clients" in server.log
