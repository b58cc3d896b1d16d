"""Lets only JSON through."""

import json
from collections.abc import Callable

import attrs
import mqtrio


@attrs.define(frozen=True, kw_only=True)
class JsonGuardSettings:
    """The settings of the plugin, as they stand in the table [plugin.json-guard]."""

    topic_filters: tuple[str, ...] = mqtrio.setting(("#",), "topics whose messages must be JSON")
    mistakes: int = mqtrio.setting(
        10, "a client is disconnected at its mistake of this number; 0: never", minimum=0
    )

    def __attrs_post_init__(self) -> None:
        """Refuse topic filters that can't be: the error says where they stand."""
        for topic_filter in self.topic_filters:
            mqtrio.check_topic_filter(topic_filter)


class JsonGuardPlugin(mqtrio.Plugin[JsonGuardSettings]):
    """Refuses messages that are no JSON, and disconnects clients that go on sending them."""

    api = 1

    def __init__(self, settings: JsonGuardSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self._mistakes = mqtrio.ConnectionSlot[list[str]](list)

    @mqtrio.hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Callable[[], None]:
        """Return what puts the new settings in force; they were checked when they were read."""
        settings: JsonGuardSettings = event.settings

        def put_in_force() -> None:
            self.settings = settings

        return put_in_force

    @mqtrio.hookimpl
    def transform_publish(self, event: mqtrio.PublishEvent) -> mqtrio.Reject | mqtrio.Close | None:
        """Refuse what is no JSON. An empty payload passes: it removes what was retained."""
        if not event.payload or not self._guards(event.topic) or _is_json(event.payload):
            return None
        mistakes = self._mistakes.get(event)
        mistakes.append(event.topic)
        if event.origin == "client" and len(mistakes) == self.settings.mistakes:
            return TOO_MANY
        return NO_JSON

    def _guards(self, topic: str) -> bool:
        return any(mqtrio.topic_matches(each, topic) for each in self.settings.topic_filters)


NO_JSON = mqtrio.Reject(mqtrio.ReasonCode.PAYLOAD_FORMAT_INVALID, reason_string="it is no JSON")
TOO_MANY = mqtrio.Close(
    mqtrio.ReasonCode.PAYLOAD_FORMAT_INVALID, why="it went on sending what is no JSON"
)


def _is_json(payload: bytes) -> bool:
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return True
