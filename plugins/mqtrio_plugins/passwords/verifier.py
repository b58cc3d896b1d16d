"""Checking passwords beside the loop: in few threads, with a bounded queue, and not twice.

A check takes tens of milliseconds on purpose. So a password that was right is known for a short
while (not itself, but a hash with a key that only this process has), and those that want the same
thing checked at the same time wait for one answer.
"""

import hashlib
import os

import trio

from mqtrio_plugins.passwords.hashes import Hash


class Busy(Exception):
    """Too many checks are waiting, or this one has waited too long."""


class _Check:
    """A check that is under way; `right` is None while (or because) it has no result."""

    def __init__(self, kept: Hash) -> None:
        self.kept = kept
        self.done = trio.Event()
        self.right: bool | None = None


class Verifier:
    """`threads` checks at a time, `queue` behind them, each waits `patience` seconds at most.

    What was right is remembered for `lifetime` seconds, of the last `size` users.
    """

    def __init__(
        self, *, threads: int, queue: int, patience: float, lifetime: float, size: int
    ) -> None:
        self._limiter = trio.CapacityLimiter(threads)
        self._room = threads + queue
        self._patience = patience
        self._lifetime = lifetime
        self._size = size
        self._key = os.urandom(32)
        self._running: dict[bytes, _Check] = {}
        #: Key -> until when it holds, and for which hash: a new one voids it. Oldest first.
        self._right: dict[bytes, tuple[float, Hash]] = {}

    def remembers(self, username: str, password: bytes, kept: Hash) -> bool:
        """Whether this was checked against this hash a short while ago, and right."""
        until, checked = self._right.get(self._digest(username, password), (0.0, None))
        return checked == kept and trio.current_time() < until

    async def check(self, username: str, password: bytes, kept: Hash) -> bool:
        """Whether the password is the one of the hash. Raises Busy."""
        key = self._digest(username, password)
        with trio.move_on_after(self._patience):
            while (other := self._running.get(key)) is not None and other.kept == kept:
                await other.done.wait()
                if other.right is not None:
                    return other.right
            return await self._check(key, password, kept)
        raise Busy

    async def _check(self, key: bytes, password: bytes, kept: Hash) -> bool:
        busy = self._limiter.statistics()
        if busy.borrowed_tokens + busy.tasks_waiting >= self._room:
            raise Busy
        check = self._running[key] = _Check(kept)
        try:
            async with self._limiter:
                # By Trio's own limiter, too: the broker gives way to threads that it counts.
                check.right = await trio.to_thread.run_sync(kept.verify, password)
        finally:
            if self._running.get(key) is check:
                del self._running[key]
            check.done.set()
        if check.right and self._lifetime:
            self._remember(key, kept)
        return check.right

    def _remember(self, key: bytes, kept: Hash) -> None:
        self._right.pop(key, None)
        while len(self._right) >= self._size:
            del self._right[next(iter(self._right))]
        self._right[key] = (trio.current_time() + self._lifetime, kept)

    def decoy(self, username: str, kept: Hash) -> Hash:
        """What to check the password of an unknown user against."""
        return kept.decoy(self.seed(username))

    def seed(self, username: str) -> bytes:
        """What is always the same for a name, and what nobody foresees."""
        return self._digest(username, b"")

    def pick(self, username: str, count: int) -> int:
        """A number below `count` that is always the same for a name, and that nobody foresees."""
        return int.from_bytes(self._digest(username, b"")[:8], "big") % count

    def _digest(self, username: str, password: bytes) -> bytes:
        name = username.encode()
        data = len(name).to_bytes(4, "big") + name + password
        return hashlib.blake2b(data, key=self._key, digest_size=32).digest()
