"""The errors of mqtrio: theirs (a peer broke the protocol) and ours (what a caller can act on)."""

from collections.abc import Iterator

from mqtrio.reasons import ReasonCode


class MqtrioError(Exception):
    """Base of every error that mqtrio raises on purpose."""


class ProtocolError(MqtrioError):
    """The peer broke the standard: its connection ends with `reason_code`, nobody else notices.

    `reason_code` is the MQTT 5 code for a DISCONNECT or CONNACK; `message` goes to the log and,
    for MQTT 5, into the reason string. It never holds payloads, passwords or tokens.
    """

    def __init__(self, reason_code: int, message: str) -> None:
        super().__init__(message)
        self.reason_code = ReasonCode(reason_code)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} (0x{self.reason_code:02X})"


class MalformedPacket(ProtocolError):
    """Bytes that can't be parsed by the rules of the standard (4.13.1, reason code 0x81)."""

    def __init__(self, message: str) -> None:
        super().__init__(ReasonCode.MALFORMED_PACKET, message)


class RefusedError(MqtrioError):
    """The broker refused what its own program asked for, with the standard's reason code."""

    def __init__(self, reason_code: int, message: str) -> None:
        super().__init__(f"{message} (0x{reason_code:02X})")
        self.reason_code = ReasonCode(reason_code)


class ConfigurationError(MqtrioError):
    """The settings are wrong; the text says where and what is allowed."""


class PluginError(MqtrioError):
    """A plugin can't be used as it is; the text names it and says what to change."""


class PluginFailed(MqtrioError):
    """A plugin that the broker can't do without has failed for good, so the broker has stopped."""


class StoreError(MqtrioError):
    """The store could not do what it was asked; nothing that was in the batch is promised."""


class StoreFull(StoreError):
    """The store has no room for what it was asked to keep; for less, or later, it may have."""


class BrokerStopped(MqtrioError):
    """The broker is stopping or has stopped."""


def sole_error(
    group: BaseExceptionGroup[BaseException], inner: BaseException | None = None
) -> BaseException | None:
    """The one exception that nurseries have wrapped into `group`; None if there are several.

    `inner` is what the caller's own code raised: if there is nothing else, it is the one, also
    where it is a group by itself.
    """
    leaves = list(_leaves(group))
    if inner is not None and [*map(id, leaves)] == [*map(id, _leaves(inner))]:
        return inner
    return leaves[0] if len(leaves) == 1 else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
