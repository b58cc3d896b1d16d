"""What a store is: five methods and one attribute.

A store keeps what `commit` gave it and hands it back. It decides nothing, counts nothing and knows
no MQTT. Its methods are called by one broker, `commit` never twice at the same time; reading may
overlap with a commit and then sees the state before or after it, nothing between.

An error of a store is a `StoreError` with a text for the operator (no payloads), a `StoreFull` if
all that it lacks is room.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from attrs import define

from mqtrio.store.changes import (
    Change,
    MessagePut,
    RetainedPut,
    SessionPut,
    SubscriptionPut,
    WillPut,
)


@define(frozen=True)
class LoadedSession:
    """A session as the store has it, without the messages of its queue."""

    session: SessionPut
    #: When its connection ended; None: it had one when the broker died.
    closed_at: float | None
    subscriptions: tuple[SubscriptionPut, ...]
    #: Packet identifiers of incoming QoS 2 messages that wait for PUBREL.
    received: tuple[int, ...]
    #: Messages in its queue, how long their payloads (in bytes) and topics (in characters) are
    #: together, and the highest sequence (0: empty).
    queued: int
    queued_bytes: int
    highest_sequence: int
    #: When the first of them expires, None: none does.
    earliest_expiry: float | None = None


@define(frozen=True)
class Loaded:
    """What a broker starts from, or what it gets back after a failed commit."""

    sessions: Mapping[str, LoadedSession]
    wills: Mapping[str, WillPut]
    #: Message id -> number of queue entries, for messages that don't have exactly one.
    references: Mapping[int, int]
    #: New messages get ids above this.
    highest_message_id: int
    #: Messages that queue entries refer to, and how long their payloads are together, in bytes.
    queued_messages: int
    queued_payloads: int


@define(frozen=True)
class QueuedRow:
    """One entry of a session's queue, with its message."""

    sequence: int
    message: MessagePut
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    #: Packet identifier it was sent with, 0: never sent.
    packet_id: int
    #: PUBREC came: what is resent is PUBREL.
    released: bool
    #: The shared subscription that chose the session, "" if none did.
    shared: str


class Store(Protocol):
    """Keeps sessions, messages, retained messages and wills."""

    @property
    def durable(self) -> bool:
        """Whether `commit` means anything. False: no change is ever built or committed."""
        ...

    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        """Sessions, wills and counters, but no queue; None: all, else of these client identifiers.

        `references` and all below it are always those of the whole store. An unknown
        client identifier is no error. Loading everything is the first call of a run; it drops
        messages that nothing refers to.
        """
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Apply all changes in order, or none; durable when it returns.

        If it raises, nothing of it has happened. It is cancelled only when the broker gives up on
        it while stopping, and must then return soon (abandon a worker thread); whether a cancelled
        commit has happened is open.
        """
        ...

    async def queued(
        self, client_id: str, after: int, limit: int, size: int | None = None
    ) -> list[QueuedRow]:
        """Up to `limit` entries of a queue whose sequence is above `after`, in their order.

        The last one is that with which the payloads have `size` bytes or more together, None: their
        bytes don't matter. Fewer than both allow means that there are no more. An unknown session
        has none.
        """
        ...

    async def retained(
        self, topic_filter: str | None, after: str | None, limit: int
    ) -> list[RetainedPut]:
        """Up to `limit` retained messages that match, in the order of their topics, above `after`.

        None as filter means all of them ($-topics too); None as `after` means from the first.
        Topics are ordered by code points, which is also the order of their UTF-8 bytes.
        """
        ...

    async def close(self) -> None:
        """Release files and threads. Called once, after the last commit, failed ones included."""
        ...
