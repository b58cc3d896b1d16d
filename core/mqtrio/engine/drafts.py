"""Changes of the open batch that may still come to nothing, and so are not written down yet."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mqtrio.state.message import Message
from mqtrio.state.session import Delivery, Session
from mqtrio.store.batch import Batch, BatchState
from mqtrio.store.changes import Change, MessagePut, QueuedPut, QueuedSent, stored_properties
from mqtrio.store.journal import Journal

if TYPE_CHECKING:
    from mqtrio.clock import Clock

#: What an entry of a queue counts for, in bytes, beside its message.
ENTRY: Final = 64


class Drafts:
    """Messages, entries of queues and packet identifiers that the store doesn't know yet.

    A subscriber that is there acknowledges most messages before the batch that they came with is
    closed. Then there is nothing to store: no change is built, and none is sent to the store.
    What is left when the batch is closed becomes changes, with the packet identifiers of then.

    All of them belong to the journal's open batch. They may stand behind any other change of it
    but those that begin or end a session, before which they are written down (`write`).
    """

    __slots__ = ("journal", "clock", "_messages", "_entries", "_sent")

    def __init__(self, journal: Journal, clock: "Clock") -> None:
        self.journal = journal
        self.clock = clock
        self._messages: dict[Message, None] = {}
        self._entries: dict[Delivery, str] = {}
        self._sent: dict[Delivery, str] = {}
        journal.complete = self._complete

    def put(self, session: Session, delivery: Delivery, number: Callable[[Message], None]) -> Batch:
        """A message joins a queue; `number` gives it its number, if it has none yet."""
        message = delivery.message
        fresh = not message.message_id
        client_id = session.client_id
        batch = self.journal.promise(client_id, message.size + ENTRY if fresh else ENTRY)
        if batch.state is BatchState.OPEN:
            if fresh:
                number(message)
                self._messages[message] = None
            self._entries[delivery] = client_id
        return batch

    def sent(self, session: Session, delivery: Delivery) -> None:
        """An entry has its packet identifier, and nobody waits for the store to know that."""
        if delivery not in self._entries:
            client_id = session.client_id
            if self.journal.promise(client_id, ENTRY, lazy=True).state is BatchState.OPEN:
                self._sent[delivery] = client_id

    def holds(self, delivery: Delivery) -> bool:
        """Whether an entry is not written down yet: its packet identifier goes with it."""
        return delivery in self._entries

    def removed(self, delivery: Delivery) -> bool:
        """An entry is finished; True if the store never needs to know of it."""
        if self._entries.pop(delivery, None) is not None:
            self.journal.withdraw(ENTRY)
            return True
        if self._sent and self._sent.pop(delivery, None) is not None:
            self.journal.withdraw(ENTRY)
        return False

    def gone(self, message: Message) -> bool:
        """Nobody holds a message any more; True if the store never needs to know of it."""
        if message in self._messages:
            del self._messages[message]
            self.journal.withdraw(message.size)
            return True
        return False

    def write(self) -> None:
        """Write down what there is: what follows must stand behind it."""
        if self._messages or self._entries or self._sent:
            self.journal.write(self._complete())

    def _complete(self) -> list[Change]:
        """Give everything as changes, and forget it."""
        to_wall = self.clock.to_wall
        changes: list[Change] = [
            MessagePut(
                message.message_id,
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                None if message.properties is None else stored_properties(message.properties),
                message.client_id,
                message.username,
                to_wall(message.expires_at) if message.expires_at >= 0 else None,
                message.origin,
                message.node,
            )
            for message in self._messages
        ]
        changes += [
            QueuedPut(
                client_id,
                delivery.sequence,
                delivery.message.message_id,
                delivery.qos,
                delivery.retain,
                delivery.identifiers,
                delivery.packet_id,
                "" if (group := delivery.group) is None else f"$share/{group.name}/{group.pattern}",
            )
            for delivery, client_id in self._entries.items()
        ]
        changes += [
            QueuedSent(client_id, delivery.sequence, delivery.packet_id)
            for delivery, client_id in self._sent.items()
        ]
        self._messages.clear()
        self._entries.clear()
        self._sent.clear()
        return changes
