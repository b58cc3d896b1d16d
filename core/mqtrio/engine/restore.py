"""Sessions, wills and retained messages from the store: at start, and after a failed commit."""

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from mqtrio.engine.weights import RECEIPT
from mqtrio.engine.wills import PendingWill
from mqtrio.errors import StoreError
from mqtrio.reasons import ReasonCode
from mqtrio.state.index import ShareGroup, Subscription
from mqtrio.state.message import NEVER, Message
from mqtrio.state.session import Delivery, Session
from mqtrio.store.changes import MessagePut, RetainedPut, WillPut, publish_properties
from mqtrio.store.journal import Failure
from mqtrio.store.protocol import Loaded, LoadedSession, QueuedRow, Store
from mqtrio.wire.packets import Will

if TYPE_CHECKING:
    from mqtrio.engine.core import Core

log = logging.getLogger("mqtrio.store")

#: Rows asked of the store at a time.
PAGE: Final = 1000


class Restorer:
    """Brings memory into agreement with the store."""

    __slots__ = ("core", "store")

    def __init__(self, core: "Core", store: Store) -> None:
        self.core = core
        self.store = store

    # -- at start

    async def start(self) -> None:
        """Load everything before the first client comes."""
        if not self.store.durable:
            return
        core = self.core
        after: str | None = None
        while page := await self.store.retained(None, after, PAGE):
            for row in page:
                core.retention.restore(self._retained(row))
            after = page[-1].topic
            if len(page) < PAGE:
                break
        loaded = await self.store.load()
        core.recorder.continue_after(loaded.highest_message_id)
        await self._sessions(loaded, loaded.sessions)
        for client_id, will in loaded.wills.items():
            self._will(client_id, will)
        log.info(
            "restored %d sessions and %d retained messages",
            len(core.sessions.by_id),
            len(core.retained),
        )

    def _retained(self, row: RetainedPut) -> Message:
        message = self._message(
            row.topic, row.payload, row.qos, True, row.properties, row.expires_at
        )
        message.client_id = row.publisher
        message.username = row.username
        message.origin = row.origin
        message.node = row.node
        return message

    # -- after a failed commit

    def failed(self, failure: Failure) -> None:
        """Memory is ahead of the store: the sessions concerned are closed and stay unusable."""
        core = self.core
        core.recorder.messages_lost(failure.message_ids, failure.kept_ids)
        core.sessions.reloading |= failure.client_ids
        for client_id in failure.client_ids:
            session = core.sessions.by_id.get(client_id)
            holder = core.sessions.holders.get(client_id)
            if session is not None:
                session.reloading = True
                session.stored = False
                core.sessions.close_local(session, StoreError("the store failed"))
            if holder is not None:
                holder.forget_will()
                if holder.announced:
                    holder.close(ReasonCode.UNSPECIFIED_ERROR, "the store failed")
                else:
                    core.refuse(holder, ReasonCode.SERVER_UNAVAILABLE, "the store failed")
            if session is not None:
                core.sessions.empty(session)
            core.wills.forget(client_id)
        if not core.sessions.reloading:
            core.recorder.messages_known()
        if core.settings.session.on_store_failure == "stop":
            self._stop(failure.error)

    def _stop(self, error: Exception) -> None:
        """End the broker as if it had died before that commit: the next one starts from there.

        All connections are closed before anybody is told of the failure, so no answer goes out.
        """
        core = self.core
        core.recorder.journal.give_up()
        for connection in core.connections:
            if connection.session is not None and connection.session.stored:
                connection.forget_will()  # it is in the store, and the next broker publishes it
        core.goodbye()
        failure = StoreError(f'the store failed, and on_store_failure is "stop": {error}')
        failure.__cause__ = error
        core.fail(failure)

    async def recover(self, client_ids: frozenset[str]) -> None:
        """Load these sessions again. Raises StoreError if the store can't yet."""
        core = self.core
        loaded = await self.store.load(client_ids)
        rows = {
            client_id: await self._queue(client_id)
            for client_id in client_ids
            if client_id in loaded.sessions
        }
        for client_id in client_ids:
            session = core.sessions.by_id.get(client_id)
            if session is not None:
                core.sessions.forget(session)
            core.sessions.reloading.discard(client_id)
        for client_id in rows:
            self._session(loaded.sessions[client_id])
        for client_id in rows:
            self._fill(loaded.sessions[client_id], rows[client_id])
        for client_id in client_ids:
            if client_id in loaded.wills:
                self._will(client_id, loaded.wills[client_id])
        core.recorder.messages_known()
        core.flush()

    # -- parts

    async def _sessions(self, loaded: Loaded, client_ids: Collection[str]) -> None:
        # All subscriptions first: a queued message may belong to one that others share.
        for client_id in client_ids:
            self._session(loaded.sessions[client_id])
        for client_id in client_ids:
            rows = await self._queue(client_id) if loaded.sessions[client_id].queued else []
            self._fill(loaded.sessions[client_id], rows)

    async def _queue(self, client_id: str) -> list[QueuedRow]:
        rows: list[QueuedRow] = []
        after = 0
        while page := await self.store.queued(client_id, after, PAGE):
            rows += page
            after = page[-1].sequence
            if len(page) < PAGE:
                break
        return rows

    def _session(self, loaded: LoadedSession) -> None:
        """Make a session with its subscriptions."""
        core = self.core
        record = loaded.session
        session = Session(record.client_id, record.username, record.version)
        session.expiry_interval = record.expiry_interval
        session.epoch = record.epoch
        session.stored = True
        core.sessions.set_bounds(session, None)
        session.received = set(loaded.received) or None
        core.memory += RECEIPT * len(loaded.received)
        session.continue_sequence(loaded.highest_sequence)
        core.sessions.add(session)
        for row in loaded.subscriptions:
            core.router.add(
                Subscription(
                    session,
                    row.topic_filter,
                    row.qos,
                    row.no_local,
                    row.retain_as_published,
                    row.retain_handling,
                    row.identifier,
                    sent=row.sent,
                )
            )
        core.subscriptions.compile_again(session, "resume")

    def _fill(self, loaded: LoadedSession, rows: list[QueuedRow]) -> None:
        """Give a session its queue, and let its expiry interval run."""
        core = self.core
        session = core.sessions.by_id[loaded.session.client_id]
        for queued in rows:
            self._queued(session, queued, self._stored(queued.message))
        left = core.now
        if loaded.closed_at is not None:
            left = core.clock.to_monotonic(loaded.closed_at)
        else:  # its connection ended with the broker: a broker that dies often must not keep it
            core.recorder.session_left(session)
        core.sessions.wait_for_client(session, left)

    def _queued(self, session: Session, row: QueuedRow, message: Message) -> None:
        group = self._group(row.shared) if row.shared else None
        delivery = Delivery(message, row.qos, row.retain, row.identifiers, group)
        delivery.sequence = row.sequence
        delivery.packet_id = row.packet_id
        delivery.sent = bool(row.packet_id)
        delivery.released = row.released
        self.core.deliveries.hold(message)
        if row.packet_id:
            session.open_flight(delivery)
        else:
            session.enqueue(delivery)

    def _group(self, topic_filter: str) -> ShareGroup | None:
        return self.core.router.index.group_of(topic_filter)

    def _stored(self, row: MessagePut) -> Message:
        """The message of a row: the one that memory has, if it does, so that each exists once."""
        messages = self.core.recorder.messages
        if row.message_id in messages:
            return messages[row.message_id]
        message = self._message(
            row.topic, row.payload, row.qos, row.retain, row.properties, row.expires_at
        )
        message.client_id = row.publisher
        message.username = row.username
        message.origin = row.origin
        message.node = row.node
        message.message_id = row.message_id
        messages[row.message_id] = message
        return message

    def _message(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        stored: tuple[int | None, str | None, str | None, bytes | None, tuple[tuple[str, str], ...]]
        | None,
        expires_at: float | None,
    ) -> Message:
        interval: int | None = None
        moment = NEVER
        if expires_at is not None:
            moment = max(self.core.clock.to_monotonic(expires_at), 0.0)
            interval = max(0, int(moment - self.core.now + 0.999))
        message = Message(topic, payload, qos, retain, publish_properties(stored, interval))
        message.expires_at = moment
        return message

    def _will(self, client_id: str, row: WillPut) -> None:
        core = self.core
        properties = publish_properties(row.properties, row.message_expiry_interval)
        will = Will(row.topic, row.payload, row.qos, row.retain, row.delay_interval, properties)
        pending = PendingWill(will, client_id, row.username, None)
        if row.due is None:
            due = core.now + row.delay_interval
        else:
            due = core.clock.to_monotonic(row.due)
        core.recorder.will_restored(client_id)
        core.wills.schedule(pending, due)
