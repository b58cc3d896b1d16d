"""Run `python -m mqtrio` as its users do: as a process of its own."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

#: Seconds that anything here may take on a busy machine.
PATIENCE = 30

CONNECT = bytes.fromhex("10 0c 0004 4d515454 04 02 003c 0000")
CONNACK = bytes.fromhex("20 02 00 00")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "mqtrio", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


class Server:
    """A running `mqtrio serve`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.log = ""

    async def wait_for(self, pattern: str) -> re.Match[str]:
        """Read the log until a line has `pattern`."""
        assert self.process.stderr is not None
        while True:
            complete = self.log[: self.log.rfind("\n") + 1]
            found = re.search(pattern, complete)
            if found:
                return found
            data = await self.process.stderr.receive_some()
            assert data, f"ended without {pattern!r}:\n{self.log}"
            self.log += data.decode()

    async def address(self) -> tuple[str, int]:
        """Wait until it listens, and where."""
        found = await self.wait_for(r"listening on mqtt://([\d.]+):(\d+)")
        return found[1], int(found[2])

    async def end(self) -> int:
        """Wait for the end of the log and the exit code."""
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.log += data.decode()
        return await self.process.wait()


@asynccontextmanager
async def serve(
    *arguments: str | Path, command: tuple[str, ...] = ("serve",)
) -> AsyncIterator[Server]:
    """Run a server for the length of a block; whatever is left of it then is killed."""
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "mqtrio", *command, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            yield Server(process)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()


async def connect(address: tuple[str, int]) -> trio.SocketStream:
    """Open a connection and be let in as an MQTT 3.1.1 client."""
    stream = await trio.open_tcp_stream(*address)
    await stream.send_all(CONNECT)
    answer = b""
    while len(answer) < len(CONNACK):
        data = await stream.receive_some()
        assert data, "closed instead of CONNACK"
        answer += data
    assert answer == CONNACK
    return stream
