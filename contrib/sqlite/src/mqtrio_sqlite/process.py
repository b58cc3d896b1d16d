"""A writer in a process of its own: the broker's loop and SQLite never wait for one interpreter."""

import logging
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from mqtrio import Change, StoreError, StoreFull
from mqtrio_sqlite.database import Options
from mqtrio_sqlite.frames import HEADER, frame, unframe
from mqtrio_sqlite.records import records

log = logging.getLogger("mqtrio.store")

#: Changes that are written as one frame; the broker's other tasks get a turn between two.
_PART: Final = 500

_RECEIVE: Final = 256 * 1024


class ProcessWriter:
    """A child process with the database, and the one request at a time that it gets.

    A child that dies is replaced at the next request. If it died within a commit, the new one tells
    whether that commit has happened.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = trio.Lock()
        self._process: trio.Process | None = None
        # Not one of Trio's: each of its calls costs a turn of all tasks, also when it needn't wait.
        self._socket: socket.socket | None = None
        self._received = bytearray()
        #: The number of the last commit that is known to have happened.
        self._commits = 0
        # Answers to requests whose callers have gone away.
        self._unread = 0

    async def open(self) -> None:
        """Start the process and let it open the database. Raises StoreError."""
        async with self._lock:
            await self._start()

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of Database. Raises StoreError."""
        async with self._lock:
            if self._socket is None:
                await self._start()
            return await self._ask((method, arguments))

    async def commit(self, changes: Sequence[Change]) -> None:
        """Commit changes. Raises StoreError; then nothing of it has happened."""
        async with self._lock:
            if self._socket is None:
                await self._start()
            try:
                last = max(0, len(changes) - 1) // _PART * _PART
                for begin in range(0, last, _PART):
                    await self._send(
                        frame(("part", records(changes[begin : begin + _PART]))), last=False
                    )
                self._commits = await self._ask(("commit", records(changes[last:])))
            except _WriterDied:
                before = self._commits
                await self._start()
                if self._commits == before:
                    raise
                log.warning("the last commit before the end of the writer has happened")

    async def close(self) -> None:
        """Let the process close the database, and wait for its end."""
        async with self._lock:
            try:
                if self._socket is not None:
                    await self._ask(("close", ()))
            finally:
                await self._end()

    # -- the process

    async def _start(self) -> None:
        await self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # -P: what lies in the folder where somebody starts a broker is no module of ours.
                command = [sys.executable, "-P", "-m", "mqtrio_sqlite.child", str(theirs.fileno())]
                self._process = await trio.lowlevel.open_process(
                    command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours
        values = attrs.asdict(self._options) | {"path": str(self._options.path)}
        try:
            self._commits = await self._ask(("open", (values,)))
        except BaseException:
            await self._end()
            raise

    async def _end(self) -> None:
        """Let go of the process. It ends by itself, or is killed if this is cancelled."""
        self._hang_up()
        if self._process is not None:
            process, self._process = self._process, None
            try:
                await process.wait()
            except trio.Cancelled:
                process.kill()
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await process.wait()
                raise
        self._received.clear()
        self._unread = 0

    # -- requests

    async def _ask(self, request: Any) -> Any:
        await self._send(frame(request))
        self._unread += 1
        while True:
            fine, answer = await self._receive()
            self._unread -= 1
            if not self._unread:
                break
        if not fine:
            full, text = answer
            raise (StoreFull if full else StoreError)(text)
        return answer

    async def _send(self, data: bytes, *, last: bool = True) -> None:
        """Send a frame; if it isn't the last one, other tasks get their turn after it."""
        assert self._socket is not None
        rest = memoryview(data)
        try:
            while True:
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    pass
                if rest:
                    await trio.lowlevel.wait_writable(self._socket)
                    continue
                if not last:
                    await trio.lowlevel.checkpoint()
                return
        except OSError:
            raise await self._died() from None
        except trio.Cancelled:  # a part of a frame, or of a commit, may be on its way
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        if self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._socket = None

    async def _receive(self) -> tuple[bool, Any]:
        received = self._received
        wanted = HEADER.size
        while True:
            if len(received) >= HEADER.size:
                wanted = HEADER.size + HEADER.unpack_from(received)[0]
                if len(received) >= wanted:
                    break
            assert self._socket is not None
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                raise await self._died()
            received += data
        body = bytes(memoryview(received)[HEADER.size : wanted])
        del received[:wanted]
        fine, answer = unframe(body)
        return fine, answer

    async def _died(self) -> "_WriterDied":
        process = self._process
        await self._end()
        status = None if process is None else process.returncode
        return _WriterDied(f"{self._options.path}: its writer has ended with status {status}")


class _WriterDied(StoreError):
    """The child has gone away in the middle of a request."""
