"""What a store holds, as plain dicts.

`StoredState` is the reference for every store: MemoryStore is made of it, contract tests compare
other stores with it, and the engine's tests compare live sessions with it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from attrs import astuple, define

from mqtrio.store.changes import MessagePut, RetainedPut, SessionPut, SubscriptionPut, WillPut

_MISSING: Final = object()


@define(frozen=True)
class StoredSession:
    """A session's own record; `closed_at` is None while it has a connection."""

    session: SessionPut
    closed_at: float | None = None


@define(frozen=True)
class StoredEntry:
    """One entry of a session's queue; see QueuedPut, QueuedSent and QueuedReleased."""

    message_id: int
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    packet_id: int
    shared: str
    released: bool = False


class StoredState:
    """Everything that a store holds. Two states are equal when they hold the same.

    `subscriptions`, `queues` and `received` have a dict for every session, maybe an empty one.
    Queues are in the order of their sequences. `references` counts the queue entries of every
    message that has any; it follows from the queues.
    """

    __slots__ = (
        "sessions",
        "subscriptions",
        "queues",
        "received",
        "messages",
        "references",
        "retained",
        "wills",
        "_undo",
    )

    def __init__(self) -> None:
        self.sessions: dict[str, StoredSession] = {}
        self.subscriptions: dict[str, dict[str, SubscriptionPut]] = {}
        self.queues: dict[str, dict[int, StoredEntry]] = {}
        self.received: dict[str, dict[int, None]] = {}
        self.messages: dict[int, MessagePut] = {}
        self.references: dict[int, int] = {}
        self.retained: dict[str, RetainedPut] = {}
        self.wills: dict[str, WillPut] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] | None = None

    # --- reading

    @property
    def highest_message_id(self) -> int:
        """The highest message id in use, 0 for none."""
        return max(self.messages, default=0)

    def highest_sequence(self, client_id: str) -> int:
        """The highest sequence in a session's queue, 0 where it is empty or unknown."""
        return next(reversed(self.queues.get(client_id, {})), 0)

    def unreferenced(self) -> list[int]:
        """Messages that no queue entry refers to."""
        return [message_id for message_id in self.messages if message_id not in self.references]

    # --- comparing

    def tables(self) -> dict[str, dict[Any, Any]]:
        """All that counts when two states are compared, by the name of the table."""
        return {
            "sessions": self.sessions,
            "subscriptions": self.subscriptions,
            "queues": self.queues,
            "received": self.received,
            "messages": self.messages,
            "retained": self.retained,
            "wills": self.wills,
        }

    def differences(self, other: "StoredState") -> list[str]:
        """Where two states differ, as "table: key"; payloads are compared but not shown."""
        found: list[str] = []
        theirs = other.tables()
        for name, table in self.tables().items():
            found += [
                f"{name}: {key!r}"
                for key in {**table, **theirs[name]}
                if table.get(key, _MISSING) != theirs[name].get(key, _MISSING)
            ]
        return found

    def fingerprint(self) -> str:
        """A digest of the whole content: the same for equal states."""
        digest = hashlib.sha256()
        for name, table in self.tables().items():
            digest.update(f"{name}\n".encode())
            for key in sorted(table):
                digest.update(f"{key!r} {_canonical(table[key])!r}\n".encode())
        return digest.hexdigest()

    def copy(self) -> "StoredState":
        """The same content; changes to one don't show in the other."""
        other = StoredState()
        for name, table in self.tables().items():
            content = {k: dict(v) if isinstance(v, dict) else v for k, v in table.items()}
            setattr(other, name, content)
        other.references = dict(self.references)
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredState) and self.tables() == other.tables()

    __hash__ = None  # type: ignore[assignment]  # a state changes

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(table)} {name}" for name, table in self.tables().items())
        return f"<StoredState: {sizes}>"

    # --- writing: put and remove are the only ways, so that all of it can be undone

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Write one value of a table."""
        if self._undo is not None:
            self._undo.append((table, key, table.get(key, _MISSING)))
        table[key] = value

    def remove(self, table: dict[Any, Any], key: Any) -> None:
        """Remove one value, which must be there."""
        old = table.pop(key)
        if self._undo is not None:
            self._undo.append((table, key, old))

    def refer(self, message_id: int, count: int) -> None:
        """Count the references to a message up or down."""
        count += self.references.get(message_id, 0)
        if count:
            self.put(self.references, message_id, count)
        else:
            self.remove(self.references, message_id)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is written inside the block is undone if the block raises."""
        undo = self._undo = []
        try:
            yield
        except BaseException:
            self._roll_back(undo)
            raise
        finally:
            self._undo = None

    def _roll_back(self, undo: list[tuple[dict[Any, Any], Any, Any]]) -> None:
        for table, key, old in reversed(undo):
            if old is _MISSING:
                del table[key]
            else:
                table[key] = old
        # What came back stands at the end of its dict, and the order of queues matters.
        for client_id, queue in self.queues.items():
            self.queues[client_id] = dict(sorted(queue.items()))


def _canonical(value: Any) -> Any:
    """Plain tuples in one order, for the digest."""
    if isinstance(value, dict):
        return [(key, _canonical(value[key])) for key in sorted(value)]
    return None if value is None else astuple(value)
