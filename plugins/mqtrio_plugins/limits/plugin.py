"""The plugin: counts, refuses what is too much, and slows down who publishes too fast."""

import weakref
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

import trio

from mqtrio import (
    AcceptEvent,
    AdmitEvent,
    ClientConnectedEvent,
    ClientDisconnectedEvent,
    ClientFacts,
    ConnectionRefusedEvent,
    ConnectionSlot,
    Deny,
    Plugin,
    PublishEvent,
    ReasonCode,
    ReconfigureEvent,
    Reject,
    RunEvent,
    SessionEndedEvent,
    SubscribedEvent,
    SubscribeEvent,
    Throttle,
    UnsubscribedEvent,
    hookimpl,
)
from mqtrio_plugins.limits.settings import LimitsSettings
from mqtrio_plugins.limits.usage import Table, Usage


class _Connection:
    """What one connection is counted for, until it ends."""

    __slots__ = ("entered", "usages", "address", "subscriptions")

    def __init__(self) -> None:
        #: What it has entered, and under which name.
        self.entered: list[tuple[Usage, object]] = []
        #: What its messages are counted for.
        self.usages: list[Usage] | None = None
        self.address: Usage | None = None
        #: The subscriptions that its address is charged with because of it.
        self.subscriptions = 0

    def enter(self, usage: Usage, who: object) -> None:
        """Count it."""
        usage.enter(who)
        self.entered.append((usage, who))

    def leave_address(self) -> None:
        """Count it no more for the address that it came from."""
        for usage, who in self.entered:
            if usage is self.address:
                usage.leave(who)
        self.entered = [each for each in self.entered if each[0] is not self.address]

    def charge(self, subscriptions: int) -> None:
        """More (or fewer) subscriptions are held by way of this connection."""
        if self.address is not None and self.entered:
            self.address.subscriptions += subscriptions
            self.subscriptions += subscriptions

    def end(self) -> None:
        """Count it no more, however often this is called."""
        self.charge(-self.subscriptions)
        while self.entered:
            usage, who = self.entered.pop()
            usage.leave(who)


class Limiter(Plugin[LimitsSettings]):
    """Bounds clients, users and addresses; see docs/plugins/limits.md.

    It never answers Allow: who may do what is for others to say.
    """

    api = 1

    def __init__(self, settings: LimitsSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self._clients = Table("client", settings.client, settings.tracked)
        self._users = Table("user", settings.user, settings.tracked)
        self._addresses = Table("address", settings.address, settings.tracked)
        self._connections = ConnectionSlot(_Connection)

    @hookimpl
    def reconfigure(self, event: ReconfigureEvent) -> Callable[[], None]:
        """Use other bounds from now on, for those who are there as well."""
        settings: LimitsSettings = event.settings

        def put_in_force() -> None:
            now = trio.current_time()
            self.settings = settings
            self._clients.bound(settings.client, settings.tracked, now)
            self._users.bound(settings.user, settings.tracked, now)
            self._addresses.bound(settings.address, settings.tracked, now)

        return put_in_force

    # -- connections

    @hookimpl
    def accept(self, event: AcceptEvent) -> Deny | None:
        """Count a connection for its address, and see whether it is one too many."""
        now = trio.current_time()
        address = self._address_of(event.client, now)
        if address is None:
            return None
        connection = self._connections.get(event)
        connection.address = address
        return self._enter(event, address, id(connection), now)

    @hookimpl
    def admit(self, event: AdmitEvent) -> Deny | None:
        """The same for the user and the client; one that takes over from another counts once."""
        now = trio.current_time()
        denied = self._readdress(event, now)
        for usage in self._identity(event.client, now):
            denied = denied or self._enter(event, usage, event.client_id, now)
        return denied

    def _readdress(self, event: AdmitEvent, now: float) -> Deny | None:
        """Count it for its own address, if the one before was that of a proxy."""
        connection = self._connections.get(event)
        address = self._address_of(event.client, now)
        if address is None or address is connection.address:
            return None
        connection.leave_address()
        connection.address = address
        return self._enter(event, address, id(connection), now)

    def _enter(
        self, event: AcceptEvent | AdmitEvent, usage: Usage, who: object, now: float
    ) -> Deny | None:
        """Count a connection until it ends, also one that is refused, and see what is exceeded."""
        connection = self._connections.get(event)
        if not connection.entered:
            # What was only asked about (`mqtrio explain`) has no other end than to be forgotten.
            weakref.finalize(event.client, connection.end).atexit = False
        connection.enter(usage, who)
        if usage.too_many_connections is not None:
            return Deny(ReasonCode.QUOTA_EXCEEDED, why=usage.too_many_connections)
        if usage.arrivals is not None and not usage.arrivals.take_one(now):
            return Deny(ReasonCode.CONNECTION_RATE_EXCEEDED, why=usage.arrivals.why)
        return None

    @hookimpl
    def client_connected(self, event: ClientConnectedEvent) -> None:
        """Charge the address with what the client's session has subscribed to before."""
        session = self._clients.get(event.client_id, trio.current_time())
        self._connections.get(event).charge(len(session.filters))

    @hookimpl
    def client_disconnected(self, event: ClientDisconnectedEvent) -> None:
        """A connection has ended that was let in."""
        self._connections.get(event).end()

    @hookimpl
    def connection_refused(self, event: ConnectionRefusedEvent) -> None:
        """A connection has ended that was not."""
        self._connections.get(event).end()

    # -- messages

    @hookimpl
    def transform_publish(self, event: PublishEvent) -> Throttle | None:
        """Take a message from the buckets, and pause its client for as long as they are in debt."""
        if event.origin != "client":
            return None
        connection = self._connections.get(event)
        usages = connection.usages
        if usages is None:
            usages = connection.usages = self._usages(event.client)
        longest, why = 0.0, ""
        size = len(event.topic) + len(event.payload)
        now = trio.current_time()
        for usage in usages:
            for bucket in usage.meters:
                pause = bucket.take(size if bucket.of_bytes else 1, now)
                if pause > longest:
                    longest, why = pause, bucket.why
        return Throttle(min(longest, self.settings.longest_pause), why=why) if longest else None

    # -- subscriptions

    @hookimpl
    def transform_subscribe(self, event: SubscribeEvent) -> Reject | None:
        """Refuse a subscription that is one too many; those that exist may be made again.

        An authorize_subscribe would have to answer Allow to what it has nothing against, and so
        allow what others leave undecided.
        """
        if event.origin != "client":
            return None
        client, *others = self._usages(event.client)
        if event.topic_filter not in client.filters:
            for usage in (client, *others):
                if usage.subscriptions_used_up is not None:
                    return Reject(ReasonCode.QUOTA_EXCEEDED, why=usage.subscriptions_used_up)
        return None

    @hookimpl
    def subscribed(self, event: SubscribedEvent) -> None:
        """Count a subscription, unless it is the program's own (which came by no listener)."""
        if event.listener and self._subscribed(event.client, event.topic_filter):
            self._connections.get(event).charge(1)

    @hookimpl
    def unsubscribed(self, event: UnsubscribedEvent) -> None:
        """Count it no more."""
        client = self._clients.get(event.client_id, trio.current_time())
        if event.topic_filter in client.filters:
            client.filters.remove(event.topic_filter)
            _charge(client, -1)
            self._connections.get(event).charge(-1)

    @hookimpl
    def session_ended(self, event: SessionEndedEvent) -> None:
        """All subscriptions of a session are gone; its connection, if there is one, ends too."""
        client = self._clients.get(event.client_id, trio.current_time())
        _charge(client, -len(client.filters))
        client.filters.clear()
        client.owner = None

    @hookimpl
    async def run(self, event: RunEvent) -> None:
        """Count the subscriptions that there were before this plugin: those from the store."""
        for session in event.broker.sessions():
            for topic_filter in session.subscriptions:
                self._subscribed(ClientFacts(session.client_id, session.username), topic_filter)
            await trio.lowlevel.checkpoint()

    def _subscribed(self, client: ClientFacts, topic_filter: str) -> bool:
        """Count a subscription; False if it is counted already."""
        usage, *user = self._identity(client, trio.current_time())
        if topic_filter in usage.filters:
            return False
        if not usage.filters:
            usage.owner = user[0] if user else None
        usage.filters.add(topic_filter)
        _charge(usage, 1)
        return True

    # -- who it is

    def _identity(self, client: ClientFacts, now: float) -> list[Usage]:
        """The usages of a client and, if it has one, its user."""
        found = [self._clients.get(client.client_id, now)]
        if client.username is not None:
            found.append(self._users.get(client.username, now))
        return found

    def _usages(self, client: ClientFacts) -> list[Usage]:
        """The usages that a client counts for, its own first."""
        now = trio.current_time()
        address = self._address_of(client, now)
        return [*self._identity(client, now), *([] if address is None else [address])]

    def _address_of(self, client: ClientFacts, now: float) -> Usage | None:
        """The usage of an address; None for a client that comes from none."""
        if not client.address:
            return None
        return self._addresses.get(network_of(client.address, self.settings.ipv6_prefix), now)


def _charge(client: Usage, subscriptions: int) -> None:
    """A client's session has more subscriptions, or fewer; its user with it."""
    client.subscriptions += subscriptions
    if client.owner is not None:
        client.owner.subscriptions += subscriptions


def network_of(address: str, ipv6_prefix: int) -> str:
    """The name under which an address is counted: for IPv6 the network that it is in."""
    try:
        read = ip_address(address)
    except ValueError:
        return address
    if not isinstance(read, IPv6Address):
        return address
    if read.ipv4_mapped is not None:
        return str(read.ipv4_mapped)
    bare = IPv6Address(int(read))  # without a zone
    return str(ip_network((bare, ipv6_prefix), strict=False))
