"""How often the unread parts of queues refer to stored messages.

A message is removed from the store with the last entry that refers to it, so entries that aren't in
memory must be counted. Nearly all messages have one: only other numbers are written down.
"""

from collections.abc import Collection, Mapping

from mqtrio.state.message import Message
from mqtrio.store.protocol import Loaded


class References:
    """Unread entries by message.

    `counts` has a message that memory holds if it has unread entries at all, any other one if it
    has more than one. `away` is the number of those that memory doesn't hold, `away_bytes` how long
    their payloads are together.

    After a failed commit it isn't known what the unread parts of the lost sessions refer to; it is
    found out from the store (`lost`, then `known`). In between `counts` are differences only, and
    what is `away` isn't exact.
    """

    __slots__ = ("counts", "away", "away_bytes", "_held", "_highest")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.away = 0
        self.away_bytes = 0
        self._held: dict[int, int] | None = None
        self._highest = 0

    def restore(self, loaded: Loaded) -> None:
        """At start, while memory holds no message that the store has for a queue."""
        self.counts = dict(loaded.references)
        self.away = loaded.queued_messages
        self.away_bytes = loaded.queued_payloads

    def unread(self, message_id: int) -> None:
        """A message that memory holds has one more unread entry."""
        self.counts[message_id] = self.counts.get(message_id, 0) + 1

    def read(self, message_id: int, held: bool, size: int) -> None:
        """An unread entry is in memory now, which `held` its message before, or has not.

        `size` is the length of its payload.
        """
        counts = self.counts
        if not held:
            self.away -= 1
            self.away_bytes -= size
        if self._held is not None:
            counts[message_id] = counts.get(message_id, 0) - 1
            return
        left = counts.pop(message_id, 0 if held else 1) - 1
        if left:
            counts[message_id] = left

    def let_go(self, message_id: int, size: int) -> bool:
        """Memory holds a message no longer; whether unread entries still need it.

        `size` is the length of its payload.
        """
        left = self.counts.get(message_id, 0)
        if left == 1:
            del self.counts[message_id]
        if left <= 0:
            return False
        self.away += 1
        self.away_bytes += size
        return True

    def lost(self, held: dict[int, int], highest: int) -> None:
        """Sessions are to be loaded again, with unread queues.

        `held`: how often queues in memory of all the others refer to messages, of which nothing
        is under way to the store. Newer messages have ids above `highest`.
        """
        self.counts = {}
        self._held = held
        self._highest = highest

    def known(self, loaded: Loaded, in_memory: Mapping[int, Message]) -> None:
        """The store's numbers are there."""
        held = self._held
        references = loaded.references
        assert held is not None
        changed, self.counts, self._held = self.counts, {}, None
        for message_id in {*references, *changed, *in_memory}:
            stored = references.get(message_id, 1) if message_id <= self._highest else 0
            left = stored - held.get(message_id, 0) + changed.get(message_id, 0)
            if left != (0 if message_id in in_memory else 1):
                self.counts[message_id] = left
        self.away = loaded.queued_messages
        self.away_bytes = loaded.queued_payloads
        for message_id, message in in_memory.items():
            if message_id <= self._highest and references.get(message_id, 1):
                self.away -= 1
                self.away_bytes -= len(message.payload)

    def unneeded(self, in_memory: Collection[int]) -> list[int]:
        """After `known`: the messages of the store that nobody needs, neither here nor there."""
        found = [number for number, left in self.counts.items() if not left]
        for number in found:
            del self.counts[number]
        return [number for number in found if number not in in_memory]
