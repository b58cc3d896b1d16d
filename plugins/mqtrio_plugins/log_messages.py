"""Write to the log what passes through the broker: an example of a plugin that observes."""

import logging
from collections.abc import Callable
from typing import Literal

from attrs import define

from mqtrio import (
    ClientConnectedEvent,
    ClientDisconnectedEvent,
    ConfigurationError,
    ConnectionRefusedEvent,
    DroppedEvent,
    Plugin,
    PublishedEvent,
    ReconfigureEvent,
    check_topic_filter,
    hookimpl,
    setting,
    topic_matches,
)

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


@define(frozen=True, kw_only=True)
class LogMessagesSettings:
    """What is written."""

    topics: tuple[str, ...] = setting(("#",), "topic filters of the messages that are written")
    level: Literal["debug", "info", "warning"] = setting("info", "level of the records")
    connections: bool = setting(False, "write who connects, disconnects and is refused, too")
    payload: bool = setting(False, "write the payloads, too: they may hold secrets")
    payload_size: int = setting(
        100, "bytes of a payload that are written at most", minimum=1, unit="bytes"
    )

    def __attrs_post_init__(self) -> None:
        for topic_filter in self.topics:
            try:
                check_topic_filter(topic_filter)
            except ValueError as error:
                raise ConfigurationError(f"topics: {topic_filter!r}: {error}") from None


class LogMessages(Plugin[LogMessagesSettings]):
    """Logs messages that were accepted or dropped, to the logger `mqtrio.plugins.NAME`."""

    api = 1

    def __init__(self, settings: LogMessagesSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.log = logging.getLogger(f"mqtrio.plugins.{name}")

    @hookimpl
    def reconfigure(self, event: ReconfigureEvent) -> Callable[[], None]:
        """Put new settings in the place of the old ones; there is nothing else to change."""

        def put_in_force() -> None:
            self.settings = event.settings

        return put_in_force

    # Clients choose topics, identifiers and payloads: %r keeps them from making lines of their own.

    @hookimpl
    def published(self, event: PublishedEvent) -> None:
        """A message was accepted."""
        if not self._wanted(event.topic):
            return
        payload = ""
        if self.settings.payload:
            payload = f": {event.payload[: self.settings.payload_size]!r}"
            if len(event.payload) > self.settings.payload_size:
                payload += "..."
        self._write(
            "%r published %d bytes to %r at QoS %d%s%s",
            event.client_id or event.origin,
            len(event.payload),
            event.topic,
            event.qos,
            ", retained" if event.retain else "",
            payload,
        )

    @hookimpl
    def dropped(self, event: DroppedEvent) -> None:
        """A message did not reach somebody."""
        if self._wanted(event.topic):
            self._write("%r dropped for %r: %s", event.topic, event.client_id, event.reason)

    @hookimpl
    def client_connected(self, event: ClientConnectedEvent) -> None:
        """A client was let in."""
        if self.settings.connections:
            self._write("%r connected from %s", event.client_id, event.address)

    @hookimpl
    def client_disconnected(self, event: ClientDisconnectedEvent) -> None:
        """A client is gone."""
        if self.settings.connections:
            self._write("%r disconnected: %s", event.client_id, event.why)

    @hookimpl
    def connection_refused(self, event: ConnectionRefusedEvent) -> None:
        """A client was not let in."""
        if self.settings.connections:
            self._write("%r from %s was refused: %s", event.client_id, event.address, event.why)

    def _wanted(self, topic: str) -> bool:
        # Whether anybody reads it comes first: it costs least.
        return self.log.isEnabledFor(_LEVELS[self.settings.level]) and any(
            topic_matches(topic_filter, topic) for topic_filter in self.settings.topics
        )

    def _write(self, text: str, *values: object) -> None:
        self.log.log(_LEVELS[self.settings.level], text, *values)
