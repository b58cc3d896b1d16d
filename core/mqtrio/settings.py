"""Every setting of a broker, with its default. Durations in seconds, sizes in bytes.

The engine reads these classes; config.py fills them from TOML; docs/limits.md and
docs/configuration.md describe them.
"""

from typing import Literal

from attrs import Factory, define, field

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@define(frozen=True, kw_only=True)
class Listener:
    """One address that clients connect to."""

    url: str = field(metadata={"help": "where to listen: mqtt://HOST[:PORT] (port 0: any free one)"})
    allow_anonymous: bool | None = field(
        default=None,
        metadata={"help": "let clients in that nobody authenticated; default: on loopback only"},
    )


@define(frozen=True, kw_only=True)
class Limits:
    """Bounds on what clients may make the broker hold or do."""

    maximum_packet_size: int = field(
        default=16 * MIB, metadata={"help": "largest packet accepted from a client", "size": True}
    )
    connect_packet_size: int = field(
        default=512 * KIB,
        metadata={"help": "largest packet accepted before the client is let in", "size": True},
    )
    connect_timeout: float = field(
        default=10.0, metadata={"help": "time for a complete CONNECT to arrive", "duration": True}
    )
    authentication_timeout: float = field(
        default=30.0,
        metadata={"help": "time for an exchange of AUTH packets to end", "duration": True},
    )
    receive_maximum: int = field(
        default=1024, metadata={"help": "unfinished QoS 1 and 2 messages a client may have under way to us"}
    )
    maximum_inflight: int = field(
        default=1000, metadata={"help": "unfinished QoS 1 and 2 messages we have under way to a client"}
    )
    topic_alias_maximum: int = field(
        default=64, metadata={"help": "topic aliases a client may use towards us"}
    )
    outgoing_topic_aliases: int = field(
        default=64, metadata={"help": "topic aliases we use towards a client that allows them"}
    )
    topic_levels: int = field(default=128, metadata={"help": "levels a topic or topic filter may have"})
    subscriptions_per_session: int = field(
        default=250_000, metadata={"help": "subscriptions a session may hold"}
    )
    queue_messages: int = field(
        default=100_000, metadata={"help": "messages that may wait for one session"}
    )
    queue_bytes: int = field(
        default=64 * MIB, metadata={"help": "bytes that may wait for one session", "size": True}
    )
    overflow: Literal["reject", "drop_oldest", "drop_newest"] = field(
        default="reject",
        metadata={"help": "what happens to a QoS 1 or 2 message that finds a session's queue full"},
    )
    backpressure: Literal["progress", "bounded", "off"] = field(
        default="progress",
        metadata={"help": "how publishers are slowed for a subscriber that is behind"},
    )
    stall_time: float = field(
        default=0.05,
        metadata={"help": "a subscriber without progress for so long stalls nobody", "duration": True},
    )
    stall_messages: int = field(
        default=5000, metadata={"help": "waiting messages at which publishers are slowed"}
    )
    outbox_soft: int = field(
        default=1 * MIB, metadata={"help": "unsent bytes at which publishers are slowed", "size": True}
    )
    outbox_hard: int = field(
        default=2 * MIB,
        metadata={"help": "unsent bytes beyond which QoS 0 messages are dropped", "size": True},
    )
    write_timeout: float = field(
        default=30.0,
        metadata={"help": "a client that takes no byte for so long is disconnected", "duration": True},
    )
    memory: int = field(
        default=1 * GIB, metadata={"help": "bytes held for all clients together", "size": True}
    )
    retained_messages: int = field(default=1_000_000, metadata={"help": "retained messages kept"})
    sessions: int = field(default=1_000_000, metadata={"help": "sessions kept, connected or not"})
    connections: int = field(default=100_000, metadata={"help": "connections open at one time"})
    accept_rate: int = field(
        default=5000, metadata={"help": "connections accepted a second on one listener"}
    )
    turn_budget: int = field(
        default=12_000, metadata={"help": "work done before other tasks get their turn"}
    )
    hook_deadline: float = field(
        default=5.0, metadata={"help": "time a hook may take to answer", "duration": True}
    )
    uncommitted_bytes: int = field(
        default=4 * MIB,
        metadata={"help": "bytes waiting for the store at which reading pauses", "size": True},
    )
    stop_grace: float = field(
        default=5.0, metadata={"help": "time for goodbyes when the broker stops", "duration": True}
    )


@define(frozen=True, kw_only=True)
class SessionRules:
    """What sessions may be."""

    owner: Literal["user", "any"] = field(
        default="user",
        metadata={"help": 'who may resume a session: the username that opened it, or "any"'},
    )
    maximum_expiry_interval: int | None = field(
        default=None,
        metadata={"help": "longest time a session is kept without a connection; default: for ever", "duration": True},
    )
    maximum_keep_alive: int | None = field(
        default=None,
        metadata={"help": "longest keep alive; clients that ask for more (or none) are given this", "duration": True},
    )
    maximum_qos: Literal[0, 1, 2] = field(default=2, metadata={"help": "highest QoS for publishers"})
    retain_available: bool = field(default=True, metadata={"help": "keep retained messages"})


@define(frozen=True, kw_only=True)
class Log:
    """What the server writes to its log."""

    level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata={"help": "least severe record that is written"}
    )
    format: Literal["text", "json"] = field(
        default="text", metadata={"help": "one line of text, or one JSON object, for each record"}
    )


@define(frozen=True, kw_only=True)
class Settings:
    """All settings of one broker."""

    listener: tuple[Listener, ...] = field(
        default=(), metadata={"help": "addresses to listen on; none: mqtt://127.0.0.1:1883"}
    )
    limits: Limits = Factory(Limits)
    session: SessionRules = Factory(SessionRules)
    log: Log = Factory(Log)
