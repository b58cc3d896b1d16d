"""Wills: kept with the connection, published when it ends badly (3.1.2.5, 3.1.3.2.2)."""

from typing import TYPE_CHECKING

from mqtrio.engine.publish import publish_detached
from mqtrio.engine.timers import Timer
from mqtrio.engine.weights import of_will
from mqtrio.hooks.answers import Permissions
from mqtrio.state.message import NEVER, Message
from mqtrio.state.wills import WillRegistry
from mqtrio.wire.packets import Will

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core


class PendingWill:
    """A will and whose it is: enough to publish it after its connection has gone.

    `delay` is the will delay interval in seconds; `ruling` what the permissions have said of it,
    for a broker that has to publish it without them.
    """

    __slots__ = ("will", "client_id", "username", "permissions", "ruling", "delay", "timer")

    def __init__(
        self,
        will: Will,
        client_id: str,
        username: str | None,
        permissions: Permissions | None,
        ruling: str = "",
    ) -> None:
        self.will = will
        self.client_id = client_id
        self.username = username
        self.permissions = permissions
        self.ruling = ruling
        self.delay = will.delay_interval
        self.timer: Timer | None = None

    def message(self, now: float) -> Message:
        """The message to publish; its lifetime begins now (3.1.3.2.4)."""
        will = self.will
        properties = will.properties
        expires_at = NEVER
        if properties is not None and properties.message_expiry_interval is not None:
            expires_at = now + properties.message_expiry_interval
        return Message(
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            properties,
            self.client_id,
            self.username,
            "will",
            expires_at,
        )


class Wills:
    """The wills whose time has not come yet."""

    __slots__ = ("core", "registry")

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.registry: WillRegistry[PendingWill] = WillRegistry()

    def left(self, connection: "Connection", *, session_ends: bool) -> None:
        """A connection is gone: publish its will now, or when its delay or the session is over.

        [MQTT-3.1.2-8], [MQTT-3.1.2-10]; a normal DISCONNECT has removed it before [MQTT-3.14.4-3].
        """
        pending: PendingWill | None = connection.will
        connection.will = None
        if pending is None:
            return
        if session_ends or not pending.delay:
            self._publish(pending)
            return
        due = self.core.now + pending.delay
        self.core.recorder.will_waits(pending, due)
        self.schedule(pending, due)

    def schedule(self, pending: PendingWill, due: float) -> None:
        """Publish a will at `due` (monotonic seconds) unless it is cancelled before."""
        self.core.memory += of_will(pending.will)
        self.registry.schedule(pending.client_id, pending, due)
        pending.timer = self.core.timers.call_at(due, self._due)

    def cancel(self, client_id: str) -> None:
        """The session goes on, or a new one begins [MQTT-3.1.3-9]."""
        if self._take(client_id) is not None:
            self.core.recorder.will_gone(client_id)

    def _take(self, client_id: str) -> PendingWill | None:
        pending = self.registry.cancel(client_id)
        if pending is not None:
            self.core.memory -= of_will(pending.will)
            if pending.timer is not None:
                self.core.timers.cancel(pending.timer)
        return pending

    def forget(self, client_id: str) -> None:
        """Let go of a will that is loaded again from the store, if it is there."""
        self._take(client_id)
        self.core.recorder.will_lost(client_id)

    def session_ended(self, client_id: str) -> None:
        """With the session's end the delay is over too."""
        pending = self._take(client_id)
        if pending is not None:
            self._publish(pending)

    def _due(self, now: float) -> None:
        for _, pending in self.registry.due(now):
            self.core.memory -= of_will(pending.will)
            self._publish(pending)

    def _publish(self, pending: PendingWill) -> None:
        core = self.core
        core.recorder.will_gone(pending.client_id)
        publish_detached(core, pending.message(core.now), pending.permissions)
