"""The errors of mqtrio: theirs (a peer broke the protocol) and ours (what a caller can act on)."""

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
    """The broker refused what a caller in this process asked for, with the standard's reason code."""

    def __init__(self, reason_code: int, message: str) -> None:
        super().__init__(f"{message} (0x{reason_code:02X})")
        self.reason_code = ReasonCode(reason_code)


class ConfigurationError(MqtrioError):
    """The settings are wrong; the text says where and what is allowed."""


class PluginError(MqtrioError):
    """A plugin can't be used as it is; the text names it and says what to change."""


class StoreError(MqtrioError):
    """The store could not do what it was asked; nothing that was in the batch is promised."""


class BrokerStopped(MqtrioError):
    """The broker is stopping or has stopped."""
