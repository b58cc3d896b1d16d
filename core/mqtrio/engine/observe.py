"""Telling the log and the observing plugins what happened."""

from typing import TYPE_CHECKING

from mqtrio import log
from mqtrio.hooks.answers import Deny
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import (
    AcknowledgedEvent,
    ClientDisconnectedEvent,
    ConnectionRefusedEvent,
    DeliveredEvent,
    DroppedEvent,
    DropReason,
    Origin,
    PublishEvent,
    RetainedChangedEvent,
)
from mqtrio.reasons import ReasonCode
from mqtrio.state.message import Message
from mqtrio.state.session import Delivery, Session

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core


class Observers:
    """Builds the events of observe hooks, only where somebody listens."""

    __slots__ = ("core",)

    def __init__(self, core: "Core") -> None:
        self.core = core

    def client_of(self, session: Session) -> ClientFacts:
        """What is known of a session's client, connected or not."""
        holder = self.core.sessions.holders.get(session.client_id)
        if holder is not None:
            return holder.client
        return ClientFacts(session.client_id, session.username, protocol_version=session.version)

    def publisher_of(self, message: Message) -> ClientFacts:
        """What is known of a message's publisher, connected or not."""
        holder = self.core.sessions.holders.get(message.client_id)
        if holder is not None and holder.username == message.username:
            return holder.client
        return ClientFacts(message.client_id, message.username)

    def disconnected(self, connection: "Connection", reason_code: int, why: str) -> None:
        """A connection has ended, let in or not."""
        hooks = self.core.hooks
        code = ReasonCode(reason_code)
        if not connection.announced:
            if connection.connect is not None or not (connection.ended or self.core.leaving):
                log.refused(
                    connection.client.client_id,
                    connection.client.username,
                    str(connection.peer),
                    code,
                    why,
                )
            if hooks.connection_refused:
                hooks.notify(
                    hooks.connection_refused, ConnectionRefusedEvent(connection.client, code, why)
                )
            return
        log.disconnected(connection.client_id, connection.username, str(connection.peer), code, why)
        if hooks.client_disconnected:
            hooks.notify(
                hooks.client_disconnected,
                ClientDisconnectedEvent(connection.client, code, why, connection.said_goodbye),
            )

    def not_accepted(self, client: ClientFacts, answer: Deny) -> None:
        """A plugin refused a connection before its first byte."""
        if self.core.hooks.connection_refused:
            self.core.hooks.notify(
                self.core.hooks.connection_refused,
                ConnectionRefusedEvent(client, answer.reason_code, answer.why),
            )

    def delivered(self, session: Session, message: Message, qos: int, retain: bool) -> None:
        """A message is on its way to a client."""
        self.core.hooks.notify(
            self.core.hooks.delivered,
            DeliveredEvent(
                self.client_of(session),
                message.topic,
                message.payload,
                qos,
                retain,
                message.properties,
                _origin(message),
            ),
        )

    def acknowledged(self, session: Session, delivery: Delivery, reason_code: int) -> None:
        """A client has taken, or refused, a QoS 1 or 2 message."""
        self.core.hooks.notify(
            self.core.hooks.acknowledged,
            AcknowledgedEvent(
                self.client_of(session), delivery.message.topic, delivery.qos, reason_code
            ),
        )

    def dropped(self, session: Session, message: Message, reason: DropReason) -> None:
        """A session does not get a message."""
        if self.core.hooks.dropped:
            self.core.hooks.notify(
                self.core.hooks.dropped,
                DroppedEvent(
                    self.client_of(session), message.topic, message.qos, reason, _origin(message)
                ),
            )

    def dropped_for_all(self, event: PublishEvent) -> None:
        """A plugin dropped a message before anybody got it."""
        if self.core.hooks.dropped:
            self.core.hooks.notify(
                self.core.hooks.dropped,
                DroppedEvent(event.client, event.topic, event.qos, "transform", event.origin),
            )

    def refused(self, message: Message) -> None:
        """A message of which nobody waits to hear was refused."""
        if self.core.hooks.dropped:
            self.core.hooks.notify(
                self.core.hooks.dropped,
                DroppedEvent(
                    self.publisher_of(message),
                    message.topic,
                    message.qos,
                    "refused",
                    _origin(message),
                ),
            )

    def retained_changed(self, message: Message, removed: bool) -> None:
        """The retained message of a topic is another one, or none."""
        if self.core.hooks.retained_changed:
            self.core.hooks.notify(
                self.core.hooks.retained_changed,
                RetainedChangedEvent(
                    self.publisher_of(message),
                    message.topic,
                    message.payload,
                    message.qos,
                    message.properties,
                    _origin(message),
                    removed,
                ),
            )


def _origin(message: Message) -> Origin:
    origin: Origin = message.origin  # type: ignore[assignment]  # set by the engine only
    return origin
