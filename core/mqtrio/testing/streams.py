"""A stream that treats what passes as badly as a network may: splits, delays, merges, breaks."""

from collections.abc import Sequence
from itertools import cycle

import trio


class TornStream(trio.abc.HalfCloseableStream):
    """Wraps one end of a stream. What is sent through it, and what is received, is torn.

        ann = await harness.client("ann", wrap=partial(TornStream, split=1))

    - `split`: pieces of so many bytes at most, or of these sizes in turn; None: as they come.
    - `delay`: seconds before each piece, of (virtual) time.
    - `merge`: what is sent is held until it is at least so many bytes, or until `release`.
    - `break_after`: after so many bytes were sent the connection breaks: the rest is lost, the
      other end sees the end of the stream, and this end `trio.BrokenResourceError`. `break_now`
      does so at once.

    Bytes are never lost before the break, nor put in another order.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        *,
        split: int | Sequence[int] | None = None,
        delay: float = 0.0,
        merge: int = 0,
        break_after: int | None = None,
    ) -> None:
        sizes = (split,) if isinstance(split, int) else split
        if sizes is not None and (not sizes or min(sizes) < 1):
            raise ValueError("split must be 1 or more")
        self.stream = stream
        self.delay = delay
        self.merge = merge
        self.break_after = break_after
        #: Bytes sent so far; what is held is not among them.
        self.sent = 0
        self.broken = False
        self._sizes = None if sizes is None else (cycle(sizes), cycle(sizes))
        self._held = b""
        self._rest = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, piece by piece, or hold what is to be merged."""
        self._check()
        self._held += bytes(data)
        if len(self._held) < self.merge:
            await trio.lowlevel.checkpoint()
            return
        await self.release()

    async def release(self) -> None:
        """Send what was held to be merged."""
        data, self._held = self._held, b""
        while data:
            size = len(data) if self._sizes is None else next(self._sizes[0])
            piece, data = data[:size], data[size:]
            await self._send(piece)

    async def _send(self, piece: bytes) -> None:
        if self.delay:
            await trio.sleep(self.delay)
        self._check()
        left = len(piece) if self.break_after is None else self.break_after - self.sent
        if left > 0:
            await self.stream.send_all(piece[:left])
            self.sent += min(left, len(piece))
        if left < len(piece) or self.sent == self.break_after:
            await self.break_now()
            raise trio.BrokenResourceError("the connection was torn")

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        self._check()
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """A piece of what has come, b"" at the end."""
        self._check()
        if not self._rest:
            self._rest = bytes(await self.stream.receive_some(max_bytes))
        size = len(self._rest) if self._sizes is None else next(self._sizes[1])
        size = size if max_bytes is None else min(size, max_bytes)
        if self.delay and self._rest:
            await trio.sleep(self.delay)
        else:
            await trio.lowlevel.checkpoint()
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    async def break_now(self) -> None:
        """Break the connection; what is held or on its way is lost."""
        self.broken = True
        self._held = self._rest = b""
        await trio.aclose_forcefully(self.stream)

    async def send_eof(self) -> None:
        """Send what is held, and then the end."""
        await self.release()
        await self.stream.send_eof()

    async def aclose(self) -> None:
        """Send what is held, if that can be, and close."""
        try:
            if not self.broken:
                await self.release()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await self.stream.aclose()

    def _check(self) -> None:
        if self.broken:
            raise trio.BrokenResourceError("the connection was torn")
