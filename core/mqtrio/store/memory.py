"""The store of a broker that keeps nothing: complete, but its contents end with the process."""

from collections.abc import Collection, Sequence
from heapq import nsmallest
from itertools import islice

from mqtrio.state.topics import topic_matches
from mqtrio.store.apply import apply_all
from mqtrio.store.changes import Change, MessageRemoved, RetainedPut
from mqtrio.store.protocol import Loaded, LoadedSession, QueuedRow
from mqtrio.store.stored import StoredState


class MemoryStore:
    """A StoredState behind the Store protocol.

    `durable` is False: the broker then has no change to commit, and this store stays empty. A
    subclass with `durable = True` gets them all. `state` is what to start with; another store over
    the same state is what a restart looks like.
    """

    durable = False

    def __init__(self, state: StoredState | None = None) -> None:
        self.state = StoredState() if state is None else state

    async def load(self, client_ids: Collection[str] | None = None) -> Loaded:
        """See Store."""
        state = self.state
        if client_ids is None:
            apply_all(state, [MessageRemoved(message_id) for message_id in state.unreferenced()])
            sessions, wills = list(state.sessions), dict(state.wills)
        else:
            sessions = [client_id for client_id in client_ids if client_id in state.sessions]
            wills = {c: state.wills[c] for c in client_ids if c in state.wills}
        return Loaded(
            {client_id: self._session(client_id) for client_id in sessions},
            wills,
            {message_id: count for message_id, count in state.references.items() if count > 1}
            | dict.fromkeys(state.unreferenced(), 0),
            state.highest_message_id,
            len(state.references),
            sum(len(state.messages[message_id].payload) for message_id in state.references),
        )

    def _session(self, client_id: str) -> LoadedSession:
        state = self.state
        stored = state.sessions[client_id]
        queue = state.queues[client_id]
        messages = [state.messages[entry.message_id] for entry in queue.values()]
        return LoadedSession(
            stored.session,
            stored.closed_at,
            tuple(state.subscriptions[client_id].values()),
            tuple(state.received[client_id]),
            len(queue),
            sum(len(message.payload) + len(message.topic) for message in messages),
            state.highest_sequence(client_id),
            min((m.expires_at for m in messages if m.expires_at is not None), default=None),
        )

    async def commit(self, changes: Sequence[Change]) -> None:
        """See Store."""
        apply_all(self.state, changes)

    async def queued(
        self, client_id: str, after: int, limit: int, size: int | None = None
    ) -> list[QueuedRow]:
        """See Store."""
        queue = self.state.queues.get(client_id, {})
        later = ((sequence, entry) for sequence, entry in queue.items() if sequence > after)
        rows: list[QueuedRow] = []
        for sequence, entry in islice(later, limit):
            message = self.state.messages[entry.message_id]
            rows.append(
                QueuedRow(
                    sequence,
                    message,
                    entry.qos,
                    entry.retain,
                    entry.identifiers,
                    entry.packet_id,
                    entry.released,
                    entry.shared,
                )
            )
            if size is not None:
                size -= len(message.payload)
                if size <= 0:
                    break
        return rows

    async def retained(
        self, topic_filter: str | None, after: str | None, limit: int
    ) -> list[RetainedPut]:
        """See Store."""
        retained = self.state.retained
        topics = nsmallest(
            limit,
            (
                topic
                for topic in retained
                if (after is None or topic > after)
                and (topic_filter is None or topic_matches(topic_filter, topic))
            ),
        )
        return [retained[topic] for topic in topics]

    async def close(self) -> None:
        """See Store."""
