"""A link over any trio.abc.Stream, served by three tasks.

For in-memory streams (tests in virtual time), streams that an embedding program brings, and systems
without the poller. It costs a task switch for each read and each write, which the poller does not.
"""

from collections.abc import Callable
from typing import Final

import trio

from mqtrio.engine.link import NO_LINK, LinkCore, PeerFacts
from mqtrio.net.layers import Layer
from mqtrio.net.link import (
    BYTES_PER_WORK,
    CLOSING,
    GONE,
    LINGER,
    LINGERING,
    OPEN,
    PARTING,
    BaseLink,
    reraise,
)

#: Most bytes taken from a stream in one go.
CHUNK: Final = 64 * 1024

#: Most bytes given to a stream in one go; progress is counted after each.
PIECE: Final = 64 * 1024


class StreamLink(BaseLink):
    """One stream. `run` serves it until it is over; cancelling `run` ends the connection."""

    __slots__ = ("_asked", "_deaf", "_ended", "_input", "_output", "_over", "_scope", "_stream")

    def __init__(
        self, core: LinkCore, peer: PeerFacts, layer: Layer | None, stream: trio.abc.Stream
    ) -> None:
        super().__init__(core, peer, layer)
        self._stream = stream
        # The connection may have input; it has output; it asks for a turn.
        self._input = trio.Event()
        self._output = trio.Event()
        self._asked = trio.Event()
        self._scope = trio.CancelScope()
        # The stream has ended; there is no more input for the connection (a layer may end first).
        self._ended = False
        self._over = False
        self._deaf = False

    # -- what the engine asks for

    def flush(self) -> None:
        """Let the writer send the outbox."""
        self._output.set()

    def again(self) -> None:
        """Go on soon."""
        self._asked.set()

    def resume(self) -> None:
        """Read again."""
        self._input.set()

    def close(self) -> None:
        """End in good order; see engine.link.Link."""
        if self.state == OPEN:
            self.state = CLOSING
            self._scope.deadline = trio.current_time() + LINGER
            self._input.set()
            self._output.set()

    def abort(self) -> None:
        """Let go now."""
        self._scope.cancel()

    def transmit(self, data: bytes) -> None:
        """Let the writer send what a layer has to say."""
        self.said += data
        self._output.set()

    # -- the tasks

    async def run(self) -> None:
        """Serve the connection until it is over."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._go_on)
                    self._turn(self.begin)
        finally:
            self.state = GONE
            if not self.conn.closed:
                self._turn(self.conn.lost)
            self.discard()
            self.conn.link = NO_LINK
            await trio.aclose_forcefully(self._stream)

    def _turn(self, function: Callable[..., object], *args: object) -> None:
        """Let the engine do something, as the poller does it: guarded, and flushed afterwards."""
        core = self.core
        core.tick()
        core.guard(self.conn, function, *args)
        core.flush()

    async def _go_on(self) -> None:
        """Give the connection the turns that it asks for."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await trio.lowlevel.checkpoint()
            if not self.conn.closed:
                self._turn(self.conn.proceed)

    async def _read(self) -> None:
        """Bring what arrives, while the connection may go on with it; after the end, discard."""
        while True:
            if self.state == OPEN and (self.conn.hold or self._over):
                self._input = trio.Event()
                await self._input.wait()
            elif self._ended:
                break
            else:
                await self._receive()
        if self.state == LINGERING:
            self._scope.cancel()

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self._ended = self._over = True
        if self.state != OPEN:
            return  # discarded, so that closing doesn't reset
        if data:
            self._turn(self._take_in, bytes(data))
        else:
            self._turn(self.conn.end_of_input)

    def _take_in(self, data: bytes) -> None:
        self.core.work += len(data) >> BYTES_PER_WORK
        if self.feed(data):
            self._over = True
            self.conn.end_of_input()

    async def _write(self) -> None:
        """Send what there is; when the connection has closed, part."""
        conn = self.conn
        while True:
            if conn.out or self.said:
                await self._send()
            elif self.state == CLOSING:
                break
            else:
                self._output = trio.Event()
                await self._output.wait()
        await self._part()

    async def _send(self) -> None:
        conn = self.conn
        data, self.said = self.said, b""
        if conn.out:
            try:
                data += self.encode()
            except Exception as error:  # noqa: BLE001 (the engine judges it)
                self._turn(reraise, error)
        conn.blocked = True
        self.unsent(len(data))
        await self._send_all(data)
        if not conn.out and not self.said:
            conn.blocked = False
            self.unsent(0)
            self._turn(conn.drained)

    async def _send_all(self, data: bytes) -> None:
        """Send, and note the progress; where nothing can be sent, reading will find the end."""
        if self._deaf:
            return
        conn = self.conn
        view = memoryview(data)
        try:
            for start in range(0, len(data), PIECE):
                piece = view[start : start + PIECE]
                await self._stream.send_all(piece)
                conn.progress += len(piece)
                self.unsent(conn.queued - len(piece))
                self.core.statistics.bytes_sent += len(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._deaf = True

    async def _part(self) -> None:
        """The outbox is empty: the layers' farewell, our end, and then the peer's."""
        self.state = PARTING
        if self.layer is not None:
            try:
                farewell = self.layer.close()
            except Exception as error:  # noqa: BLE001 (the engine judges it)
                self._turn(reraise, error)
            else:
                await self._send_all(farewell)
        self._scope.deadline = trio.current_time() + LINGER
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            # Nothing but closing can tell the peer that we have ended.
            await self._stream.aclose()
            self._scope.cancel()
            return
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._scope.cancel()
            return
        self.state = LINGERING
        if self._ended:
            self._scope.cancel()
