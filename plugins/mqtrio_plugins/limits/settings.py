"""What a configuration may bound."""

from attrs import define

from mqtrio import setting


@define(frozen=True, kw_only=True)
class ClientBounds:
    """Bounds of one client identifier; None: none. A rate may be exceeded for a burst."""

    connection_rate: float | None = setting(
        None, "connections a second, in the long run", minimum=0.001
    )
    connection_burst: int | None = setting(
        None, "connections at once; default: those of a second", minimum=1
    )
    message_rate: float | None = setting(
        None, "messages published a second, in the long run", minimum=0.001
    )
    message_burst: int | None = setting(
        None, "messages at once; default: those of a second", minimum=1
    )
    byte_rate: int | None = setting(
        None, "bytes of topic and payload published a second", minimum=1, unit="bytes"
    )
    byte_burst: int | None = setting(
        None, "bytes at once; default: those of a second", minimum=1, unit="bytes"
    )
    subscriptions: int | None = setting(None, "subscriptions, also of sessions", minimum=0)


@define(frozen=True, kw_only=True)
class Bounds(ClientBounds):
    """Bounds of one user, or of one address, for all its clients together."""

    connections: int | None = setting(None, "connections at one time", minimum=0)


@define(frozen=True, kw_only=True)
class LimitsSettings:
    """What is bounded, for each client, for each user and for each address."""

    client: ClientBounds = setting(ClientBounds(), "bounds of each client identifier")
    user: Bounds = setting(Bounds(), "bounds of each username")
    address: Bounds = setting(Bounds(), "bounds of each address")
    ipv6_prefix: int = setting(
        64, "bits of an IPv6 address that count: who has one has a network", minimum=1, maximum=128
    )
    longest_pause: float = setting(
        60.0, "longest pause after one message", minimum=0.001, unit="seconds"
    )
    tracked: int = setting(
        10_000, "clients, users and addresses remembered (of each) that are not there", minimum=1
    )
