"""What a broker tells its program about itself: plain values, as they are at one moment."""

from collections.abc import Mapping

from attrs import define, field

from mqtrio.hooks.calls import CallStatistics
from mqtrio.reasons import ReasonCode


@define(frozen=True)
class PublishResult:
    """A message was accepted: the reason code that a client would have been told (3.4.2.1)."""

    reason_code: ReasonCode

    @property
    def matched(self) -> bool:
        """Whether anybody is subscribed to the topic."""
        return self.reason_code != ReasonCode.NO_MATCHING_SUBSCRIBERS


@define(frozen=True)
class ClientInfo:
    """A connected client. `idle` is the time since its last packet, in seconds."""

    client_id: str
    username: str | None
    address: str
    listener: str
    protocol_version: int
    keep_alive: float
    idle: float
    unsent_bytes: int


@define(frozen=True)
class SessionInfo:
    """A session, connected or not. `expiry_interval` in seconds (0xFFFFFFFF: never)."""

    client_id: str
    username: str | None
    connected: bool
    expiry_interval: int
    subscriptions: tuple[str, ...]
    inflight: int
    waiting: int
    waiting_bytes: int
    dropped: int


@define(frozen=True)
class BrokerStatistics:
    """What the broker holds now, and what it has done since it started; see docs/embedding.md."""

    uptime: float
    clients: int
    sessions: int
    subscriptions: int
    shared_subscriptions: int
    retained: int
    messages_held: int
    payload_bytes_held: int
    memory: int
    bytes_received: int
    bytes_sent: int
    packets_received: int
    packets_sent: int
    messages_received: int
    messages_sent: int
    sockets_accepted: int
    connections_opened: int
    connections_closed: int
    crashes: int
    stalls: int
    dropped: Mapping[str, int] = field(factory=dict)
    refused: Mapping[str, int] = field(factory=dict)
    plugins: tuple[CallStatistics, ...] = ()
