"""Every setting of a broker, with its default. Durations in seconds, sizes in bytes.

The engine reads these classes; config.py fills them from TOML; docs/limits.md and
docs/configuration.md describe them. Making one with a value of the wrong type or out of range
raises ConfigurationError.
"""

from typing import Final, Literal

from attrs import Factory, define, field

from mqtrio.fields import GIB as GIB
from mqtrio.fields import KIB as KIB
from mqtrio.fields import MIB as MIB
from mqtrio.fields import required_setting, setting

#: The largest packet the standard can express: one byte, four of length, 268,435,455 (2.1.4).
LARGEST_PACKET: Final = 268_435_460

#: The largest two byte integer: packet identifiers, topic aliases, receive maximum, keep alive.
TWO_BYTES: Final = 65_535


@define(frozen=True, kw_only=True)
class Listener:
    """One address that clients connect to."""

    url: str = required_setting(
        "where to listen: mqtt://HOST[:PORT], mqtts:// (TLS), ws:// (WebSocket), wss:// (both), "
        "unix:///PATH or systemd://NAME; port 0: any free one"
    )
    allow_anonymous: bool | None = setting(
        None, "let clients in that nobody authenticated; default: on loopback only"
    )
    authenticate: tuple[str, ...] | None = setting(
        None,
        "names of the enabled plugins that are asked to authenticate its clients, in their order; "
        "default: all",
    )
    max_connections: int | None = setting(
        None, "connections open on it at one time; default: limits.connections only", minimum=1
    )
    mount_point: str = setting(
        "", "what is put before the topics of its clients, and taken off what they get: a/ or a/b/"
    )
    mode: str | None = setting(
        None, 'of unix://: permissions of the file, three octal digits; default: "660"'
    )
    owner: str | None = setting(
        None, "of unix://: user that the file shall belong to; default: the broker's"
    )
    group: str | None = setting(
        None, "of unix://: group that the file shall belong to; default: the broker's"
    )
    reuse_port: bool = setting(
        False, "let other processes of the same user listen on the same port (SO_REUSEPORT)"
    )
    # Options of layers: a table, or what the layer's own class makes of it.
    tls: object = setting(None, "options of TLS, for mqtts:// and wss:// (mqtrio-tls)", secret=True)
    websocket: object = setting(
        None, "options of WebSocket, for ws:// and wss:// (mqtrio-websocket)", secret=True
    )
    proxy_protocol: bool = setting(
        False, "a proxy says first for whom it connects (PROXY protocol, version 1 or 2)"
    )
    trusted_proxies: tuple[str, ...] = setting(
        (), 'networks of the proxies that are believed: "10.0.0.0/8"; "unix" for a Unix socket\'s'
    )


@define(frozen=True, kw_only=True)
class Limits:
    """Bounds on what clients may make the broker hold or do."""

    maximum_packet_size: int = setting(
        16 * MIB,
        "largest packet accepted from a client",
        minimum=16,
        maximum=LARGEST_PACKET,
        unit="bytes",
    )
    connect_packet_size: int = setting(
        512 * KIB,
        "largest packet accepted before the client is let in",
        minimum=16,
        maximum=LARGEST_PACKET,
        unit="bytes",
    )
    connect_timeout: float = setting(
        10.0, "time for a complete CONNECT to arrive", minimum=0.001, unit="seconds"
    )
    authentication_timeout: float = setting(
        30.0, "time for an exchange of AUTH packets to end", minimum=0.001, unit="seconds"
    )
    receive_maximum: int = setting(
        1024,
        "unfinished QoS 1 and 2 messages a client may have under way to us",
        minimum=1,
        maximum=TWO_BYTES,
    )
    maximum_inflight: int = setting(
        1000,
        "unfinished QoS 1 and 2 messages we have under way to a client",
        minimum=1,
        maximum=TWO_BYTES,
    )
    topic_alias_maximum: int = setting(
        64, "topic aliases a client may use towards us", minimum=0, maximum=TWO_BYTES
    )
    outgoing_topic_aliases: int = setting(
        64, "topic aliases we use towards a client that allows them", minimum=0, maximum=TWO_BYTES
    )
    topic_levels: int = setting(
        128, "levels a topic or topic filter may have", minimum=1, maximum=TWO_BYTES + 1
    )
    subscriptions_per_session: int = setting(250_000, "subscriptions a session may hold", minimum=0)
    queue_messages: int = setting(100_000, "messages that may wait for one session", minimum=1)
    queue_bytes: int = setting(
        64 * MIB, "bytes that may wait for one session", minimum=1, unit="bytes"
    )
    window_messages: int = setting(
        20_000,
        "messages of a connected client's queue held in memory; what is behind them is only in the "
        "store, if that keeps the session",
        minimum=1,
    )
    window_bytes: int = setting(
        16 * MIB, "bytes of a connected client's queue held in memory", minimum=1, unit="bytes"
    )
    page_messages: int = setting(
        1000,
        "messages of a queue read from the store at a time, and held in memory for a client that "
        "is away",
        minimum=1,
    )
    page_bytes: int = setting(
        256 * KIB,
        "bytes of a queue read from the store at a time, and held in memory for a client that is "
        "away",
        minimum=1,
        unit="bytes",
    )
    overflow: Literal["reject", "drop_oldest", "drop_newest"] = setting(
        "reject", "what happens to a QoS 1 or 2 message that finds a session's queue full"
    )
    backpressure: Literal["progress", "bounded", "off"] = setting(
        "progress", "how publishers are slowed for a subscriber that is behind"
    )
    stall_time: float = setting(
        0.05,
        "a subscriber without progress for so long stalls nobody",
        minimum=0.001,
        unit="seconds",
    )
    stall_floor: int = setting(
        16 * KIB,
        "bytes a second that a subscriber must take or acknowledge, or it stalls nobody",
        minimum=0,
        unit="bytes",
    )
    stall_messages: int = setting(
        5000, "waiting messages at which publishers are slowed", minimum=1
    )
    outbox_soft: int = setting(
        1 * MIB, "unsent bytes at which publishers are slowed", minimum=1, unit="bytes"
    )
    outbox_hard: int = setting(
        2 * MIB, "unsent bytes beyond which QoS 0 messages are dropped", minimum=1, unit="bytes"
    )
    write_timeout: float = setting(
        30.0,
        "a client that takes no byte for so long is disconnected",
        minimum=0.001,
        unit="seconds",
    )
    memory: int = setting(1 * GIB, "bytes held for all clients together", minimum=1, unit="bytes")
    retained_messages: int = setting(1_000_000, "retained messages kept", minimum=0)
    sessions: int = setting(1_000_000, "sessions kept, connected or not", minimum=1)
    connections: int = setting(100_000, "connections open at one time", minimum=1)
    accept_rate: int = setting(5000, "connections accepted a second on one listener", minimum=1)
    turn_budget: int = setting(12_000, "work done before other tasks get their turn", minimum=1)
    hook_deadline: float = setting(
        5.0, "time a hook may take to answer", minimum=0.001, unit="seconds"
    )
    plugin_restarts: int = setting(
        10,
        "restarts in a row of a plugin's background task that crashes, before it is given up",
        minimum=0,
    )
    hook_budget: float = setting(
        0.1,
        "time a synchronous hook may block everybody without a word in the log",
        minimum=0.001,
        unit="seconds",
    )
    uncommitted_bytes: int = setting(
        4 * MIB, "bytes waiting for the store at which reading pauses", minimum=1, unit="bytes"
    )
    stop_grace: float = setting(
        5.0, "time for goodbyes when the broker stops", minimum=0, unit="seconds"
    )


@define(frozen=True, kw_only=True)
class SessionRules:
    """What sessions may be."""

    owner: Literal["user", "any"] = setting(
        "user", 'who may resume a session: the username that opened it, or "any"'
    )
    maximum_expiry_interval: int | None = setting(
        None,
        "longest time a session is kept without a connection; default: for ever",
        minimum=0,
        maximum=0xFFFF_FFFE,  # 0xFFFFFFFF means for ever (3.1.2.11.2), which is the default
        unit="seconds",
    )
    maximum_keep_alive: int | None = setting(
        None,
        "longest keep alive; MQTT 5 clients that ask for more, or none, are given this",
        minimum=1,
        maximum=TWO_BYTES,
        unit="seconds",
    )
    maximum_qos: Literal[0, 1, 2] = setting(2, "highest QoS for publishers")
    retain_available: bool = setting(True, "keep retained messages")
    on_store_failure: Literal["reject", "stop"] = setting(
        "reject",
        "what a failed commit means; reject: what it held is refused, and the broker goes on; "
        "stop: the broker ends with an error, and acknowledges nothing more",
    )


@define(frozen=True, kw_only=True)
class Log:
    """What the server writes to its log."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "least severe record that is written"
    )
    format: Literal["text", "json"] = setting(
        "text", "one line of text, or one JSON object, for each record"
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
