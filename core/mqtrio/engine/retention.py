"""The retained messages of a broker, and the end of their lifetimes (3.3.1.3)."""

from typing import TYPE_CHECKING, Final

from mqtrio.engine.timers import Timer
from mqtrio.state.message import Message
from mqtrio.store.batch import COMMITTED, Batch

if TYPE_CHECKING:
    from mqtrio.engine.core import Core

#: What keeping a message costs of a turn's budget.
RETAIN_WORK: Final = 32


class Retention:
    """Keeps, replaces and removes what core.retained holds."""

    __slots__ = ("core", "_timers")

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._timers: dict[str, Timer] = {}

    def keep(self, message: Message) -> Batch:
        """Make a message its topic's retained one; an empty payload ends that.

        [MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-7]
        """
        core = self.core
        core.work += RETAIN_WORK
        topic = message.topic
        if not message.payload:
            if not self._remove(topic):
                return COMMITTED
            core.observers.retained_changed(message, removed=True)
            return core.recorder.unretained(topic, lazy=not message.qos)
        self.restore(message)
        core.observers.retained_changed(message, removed=False)
        return core.recorder.retained(message)

    def restore(self, message: Message) -> None:
        """Put a message in its place without telling anybody."""
        core = self.core
        self._remove(message.topic)
        core.deliveries.hold(message)
        core.retained.set(message)
        if message.expires_at >= 0:
            self._timers[message.topic] = core.timers.call_at(
                message.expires_at, lambda now: self._expire(message.topic)
            )

    def _remove(self, topic: str) -> bool:
        old = self.core.retained.remove(topic)
        if old is None:
            return False
        self.core.deliveries.let_go(old)
        timer = self._timers.pop(topic, None)
        if timer is not None:
            self.core.timers.cancel(timer)
        return True

    def _expire(self, topic: str) -> None:
        if self._remove(topic):
            self.core.recorder.unretained(topic, lazy=True)
