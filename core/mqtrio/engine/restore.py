"""Sessions, wills and retained messages from the store: at start, and after a failed commit."""

import logging
from typing import TYPE_CHECKING, Final

from mqtrio.engine.rows import message_of_row
from mqtrio.engine.weights import RECEIPT
from mqtrio.engine.wills import PendingWill
from mqtrio.errors import StoreError
from mqtrio.hooks.ruling import Ruled
from mqtrio.reasons import ReasonCode
from mqtrio.state.index import Subscription
from mqtrio.state.session import ENDED_PREFIX, Session
from mqtrio.store.changes import WillPut, publish_properties
from mqtrio.store.journal import Failure
from mqtrio.store.protocol import LoadedSession, Store
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
                core.retention.restore(message_of_row(core, row, True))
            after = page[-1].topic
            if len(page) < PAGE:
                break
        loaded = await self.store.load()
        core.recorder.continue_after(loaded.highest_message_id)
        core.recorder.references.restore(loaded)
        for each in loaded.sessions.values():
            self._session(each)
        for client_id, will in loaded.wills.items():
            self._will(client_id, will)
        log.info(
            "restored %d sessions and %d retained messages",
            len(core.sessions.by_id),
            len(core.retained),
        )

    # -- after a failed commit

    def failed(self, failure: Failure) -> None:
        """Memory is ahead of the store: the sessions concerned are closed and stay unusable."""
        core = self.core
        core.recorder.commit_failed(failure)
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
            core.ended.lost(client_id)
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
        core.recorder.journal.recovered()
        for client_id in client_ids:
            session = core.sessions.by_id.get(client_id)
            if session is not None:
                core.sessions.forget(session)
            core.sessions.reloading.discard(client_id)
        for each in loaded.sessions.values():
            self._session(each)
        for client_id in client_ids:
            if client_id in loaded.wills:
                self._will(client_id, loaded.wills[client_id])
        core.recorder.messages_known(loaded)
        core.flush()

    # -- parts

    def _session(self, loaded: LoadedSession) -> None:
        """Make a session with its subscriptions, and let its expiry interval run.

        Its queue stays in the store until its client comes.
        """
        core = self.core
        record = loaded.session
        if record.client_id.startswith(ENDED_PREFIX):
            core.ended.restored(loaded)
            return
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
        core.pages.restored(session, loaded)
        left = core.now
        if loaded.closed_at is not None:
            left = core.clock.to_monotonic(loaded.closed_at)
        else:  # its connection ended with the broker: a broker that dies often must not keep it
            core.recorder.session_left(session)
        core.sessions.wait_for_client(session, left)

    def _will(self, client_id: str, row: WillPut) -> None:
        core = self.core
        properties = publish_properties(row.properties, row.message_expiry_interval)
        will = Will(row.topic, row.payload, row.qos, row.retain, row.delay_interval, properties)
        # The permissions went with the connection, what they have said of it did not.
        permissions = Ruled(row.ruling) if row.ruling else None
        pending = PendingWill(will, client_id, row.username, permissions, row.ruling)
        if row.due is None:
            due = core.now + row.delay_interval
        else:
            due = core.clock.to_monotonic(row.due)
        core.recorder.will_restored(client_id)
        core.wills.schedule(pending, due)
