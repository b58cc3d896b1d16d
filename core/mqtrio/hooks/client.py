"""The client that an event is about, and the places where plugins keep what belongs to it."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field

from mqtrio.hooks.credentials import PeerCredentials
from mqtrio.hooks.peer import HttpFacts, PeerFacts, TlsFacts

T = TypeVar("T")


@define(eq=False)
class ClientFacts:
    """What is known of one connection; all events of the connection share this object.

    `client_id` is "" until the client has one, `username` the one that it said and, once it is let
    in, the one it was given. `address` is where it comes from ("192.0.2.7", "" for none), `via` the
    address of the proxy that says so ("" for none), `listener` the URL it came by ("" for a program
    inside of the broker's own process), `protocol_version` 3, 4 or 5 (0 before CONNECT). `tls`
    holds what TLS knows of the peer, `http` the request by which a WebSocket was opened,
    `credentials` the process at the other end of a Unix socket: each None where there is no such
    thing. `scratch` is for ConnectionSlot.

    For a will and for a message from the store the connection is gone: the identity is right,
    the rest may be empty.
    """

    client_id: str = ""
    username: str | None = None
    address: str = ""
    protocol_version: int = 0
    listener: str = ""
    tls: TlsFacts | None = None
    credentials: PeerCredentials | None = None
    scratch: dict[object, Any] | None = field(default=None, repr=False)
    http: HttpFacts | None = None
    via: str = ""

    @classmethod
    def of(cls, peer: PeerFacts) -> "ClientFacts":
        """What is known of a client before it has said who it is."""
        client = cls(listener=peer.listener)
        client.introduce(peer)
        return client

    def introduce(self, peer: PeerFacts) -> None:
        """Take over what the network knows."""
        self.address = peer.address
        self.via = peer.via
        self.tls = peer.tls
        self.http = peer.http
        self.credentials = peer.credentials


class HasClient(Protocol):
    """An event of a connection."""

    @property
    def client(self) -> ClientFacts: ...


class HasScratch(Protocol):
    """An event of a message."""

    scratch: dict[object, Any] | None


class ConnectionSlot(Generic[T]):
    """A plugin's own value for each connection, typed; it lives as long as the connection.

    A plugin makes one in its `__init__` (`self.seen = ConnectionSlot(Counter)`) and uses it with
    any event of a connection: `self.seen.get(event)`. The first `get` makes the value by `factory`.
    """

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], T]) -> None:
        self.factory = factory

    def get(self, event: HasClient) -> T:
        """The value for the connection of this event."""
        client = event.client
        scratch = client.scratch
        if scratch is None:
            scratch = client.scratch = {}
        try:
            value: T = scratch[self]
        except KeyError:
            value = scratch[self] = self.factory()
        return value

    def set(self, event: HasClient, value: T) -> None:
        """Put another value in the place of the connection's."""
        client = event.client
        if client.scratch is None:
            client.scratch = {}
        client.scratch[self] = value


class MessageSlot(Generic[T]):
    """A plugin's own value for each message on its way through the hooks, typed.

    What `authorize_publish` puts there, `transform_publish`, the delivery filters and `published`
    find again, also when a transform has changed the message. It isn't stored with the message.
    """

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], T]) -> None:
        self.factory = factory

    def get(self, event: HasScratch) -> T:
        """The value for the message of this event."""
        scratch = event.scratch
        if scratch is None:
            scratch = event.scratch = {}
        try:
            value: T = scratch[self]
        except KeyError:
            value = scratch[self] = self.factory()
        return value

    def set(self, event: HasScratch, value: T) -> None:
        """Put another value in the place of the message's."""
        if event.scratch is None:
            event.scratch = {}
        event.scratch[self] = value
