"""Mount points: all topics of a listener's clients lie below a prefix, which they never see.

A client of the mount point `site-a/` that publishes to `t` publishes to `site-a/t`; that is what
plugins, other clients and the store see. A connection to such a listener is a MountedConnection
with handlers of its own, so that the others pay nothing for it.
"""

from typing import TYPE_CHECKING, Final

from mqtrio.engine import publish, subscribe
from mqtrio.engine.connection import Connection, Handler
from mqtrio.engine.handlers import CONNECTED
from mqtrio.errors import ProtocolError
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import PublishEvent
from mqtrio.reasons import ReasonCode
from mqtrio.state.message import Message
from mqtrio.state.session import Delivery, NotTaken
from mqtrio.state.topics import (
    MAXIMUM_BYTES,
    InvalidTopicFilter,
    check_topic_filter,
    split_shared,
)
from mqtrio.wire.packets import (
    Publish,
    PublishProperties,
    Subscribe,
    Unsubscribe,
    Will,
)

if TYPE_CHECKING:
    from mqtrio.engine.core import Core
    from mqtrio.engine.link import Link


class MountPoint:
    """A prefix, and the ways into it and out of it."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._message: Message | None = None
        self._copy: Message | None = None

    def topic(self, inner: str) -> str:
        """What a client's topic stands for; raises ProtocolError if it gets too long."""
        topic = self.prefix + inner
        if len(topic) > MAXIMUM_BYTES // 4 and len(topic.encode()) > MAXIMUM_BYTES:
            raise ProtocolError(ReasonCode.TOPIC_NAME_INVALID, "the topic is too long here")
        return topic

    def topic_filter(self, inner: str) -> str:
        """What a client's topic filter stands for; one that can't be stays so, to be refused."""
        try:
            check_topic_filter(inner)
            name, pattern = split_shared(inner)
        except InvalidTopicFilter:
            return inner
        pattern = self.topic(pattern)
        return pattern if name is None else f"$share/{name}/{pattern}"

    def enter(self, properties: PublishProperties | None) -> None:
        """Put a message's response topic below the prefix."""
        if properties is not None and properties.response_topic:
            properties.response_topic = self.topic(properties.response_topic)

    def enter_will(self, will: Will) -> None:
        """Put a will below the prefix; raises ProtocolError if it can't be there."""
        if will.topic.startswith("$"):
            raise ProtocolError(ReasonCode.NOT_AUTHORIZED, "will: this topic is not for clients")
        if will.topic:
            will.topic = self.topic(will.topic)
        self.enter(will.properties)

    def inner(self, topic: str) -> str:
        """What clients call a topic; empty if they can't see it.

        It lies elsewhere (the subscription is an older one, made by another door), is the level
        above (`site-a`, which `site-a/#` matches), or would begin with `$`, which wildcards never
        match [MQTT-4.7.2-1].
        """
        if not topic.startswith(self.prefix):
            return ""
        inner = topic[len(self.prefix) :]
        return "" if inner.startswith("$") else inner

    def filter(self, message: PublishEvent) -> PublishEvent | None:
        """Let through what clients can see: the filter of a subscription made by another door."""
        return message if self.inner(message.topic) else None

    def seen(self, message: Message) -> Message:
        """A message as the clients see it, who are able to; one copy for all of them."""
        copy = self._copy
        if copy is None or self._message is not message:
            copy = Message(
                self.inner(message.topic),
                message.payload,
                message.qos,
                message.retain,
                self._seen_properties(message.properties),
                expires_at=message.expires_at,
            )
            self._message, self._copy = message, copy
        return copy

    def _seen_properties(self, properties: PublishProperties | None) -> PublishProperties | None:
        if properties is None or not properties.response_topic:
            return properties
        inner = self.inner(properties.response_topic)
        if not inner:
            return properties  # an answer goes elsewhere, where these clients can't publish
        fields = properties.fields()
        seen = PublishProperties(*fields)  # type: ignore[arg-type]  # its own fields, in order
        seen.response_topic = inner
        return seen


class MountedConnection(Connection):
    """A connection whose client lives below a prefix."""

    __slots__ = ("mount",)

    mount: MountPoint

    def __init__(
        self, core: "Core", link: "Link", mount: MountPoint, client: ClientFacts | None = None
    ) -> None:
        super().__init__(core, link, client)
        self.mount = mount

    def connected_handlers(self) -> dict[type, Handler]:
        """What handles packets once it is let in: handlers that translate topics first."""
        return MOUNTED

    def ask_again(self) -> None:
        """Never take the short way, which passes on frames as they came."""
        super().ask_again()
        self.shortly = False

    def pass_on(
        self, message: Message, retain: bool, identifiers: tuple[int, ...]
    ) -> NotTaken | None:
        """Write a message at QoS 0, if the client can see its topic."""
        inner = self.mount.inner(message.topic)
        if not inner:
            return "mount_point"
        refused = super().pass_on(message, retain, identifiers)
        if refused == "outbox_full" and self.outgoing_aliases is not None:
            self.outgoing_aliases.forget(inner)  # the packet may have brought its alias
        return refused

    def transmit(self, delivery: Delivery) -> NotTaken | None:
        """Write a message at QoS 1 or 2, if the client can see its topic."""
        if not self.mount.inner(delivery.message.topic):
            return "mount_point"
        return super().transmit(delivery)

    def _frame(
        self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...], dup: bool
    ) -> tuple[bytes, bytes] | None:
        return super()._frame(self.mount.seen(message), qos, retain, identifiers, dup)


def _mount_of(connection: Connection) -> MountPoint:
    assert isinstance(connection, MountedConnection)
    return connection.mount


def on_publish(connection: Connection, packet: Publish) -> None:
    """A client's message: its alias is resolved first, so that aliases stand for its own names."""
    mount = _mount_of(connection)
    connection.resolve_alias(packet)
    if packet.topic.startswith("$"):
        publish.deny(connection, packet)
        return
    packet.topic = mount.topic(packet.topic)
    mount.enter(packet.properties)
    publish.on_publish(connection, packet)


def on_subscribe(connection: Connection, packet: Subscribe) -> None:
    """SUBSCRIBE, with the filters that are meant."""
    mount = _mount_of(connection)
    for request in packet.requests:
        request.topic_filter = mount.topic_filter(request.topic_filter)
    subscribe.on_subscribe(connection, packet)


def on_unsubscribe(connection: Connection, packet: Unsubscribe) -> None:
    """UNSUBSCRIBE, with the filters that are meant."""
    mount = _mount_of(connection)
    packet.topic_filters = tuple(map(mount.topic_filter, packet.topic_filters))
    subscribe.on_unsubscribe(connection, packet)


#: The handlers of CONNECTED, those that meet topics replaced.
MOUNTED: Final[dict[type, Handler]] = {
    **CONNECTED,
    Publish: on_publish,
    Subscribe: on_subscribe,
    Unsubscribe: on_unsubscribe,
}
