"""What clients, users and addresses use: counts, and token buckets. Time is an argument."""

from mqtrio_plugins.limits.settings import Bounds, ClientBounds


class Bucket:
    """Tokens that come in at a rate and are kept up to a burst; it may be in debt."""

    __slots__ = ("why", "of_bytes", "_rate", "_burst", "_tokens", "_since")

    def __init__(
        self, why: str, rate: float, burst: int | None, now: float, *, of_bytes: bool = False
    ) -> None:
        #: What to say when it is exceeded.
        self.why = why
        self.of_bytes = of_bytes
        self._rate = rate
        self._burst = max(1.0, rate) if burst is None else float(burst)
        self._tokens = self._burst
        self._since = now

    def take(self, amount: int, now: float) -> float:
        """Take tokens, on credit if need be; returns the seconds until the debt is paid."""
        self._tokens = self._level(now) - amount
        self._since = now
        return -self._tokens / self._rate if self._tokens < 0 else 0.0

    def take_one(self, now: float) -> bool:
        """Take a token if there is one."""
        level = self._level(now)
        if level < 1:
            return False
        self._tokens = level - 1
        self._since = now
        return True

    def full(self, now: float) -> bool:
        """Whether it is as if nothing had ever been taken."""
        return self._level(now) >= self._burst

    def _level(self, now: float) -> float:
        return min(self._burst, self._tokens + (now - self._since) * self._rate)


class Usage:
    """What one client, user or address (`kind`) uses, and its bounds.

    `connections` are the clients that are connected: client identifiers, for addresses the
    connections themselves; with their number, as one takes over from another. `filters` and `owner`
    are those of a client's session, `subscriptions` their number, of all clients together.
    """

    __slots__ = (
        "kind",
        "bounds",
        "connections",
        "subscriptions",
        "filters",
        "owner",
        "arrivals",
        "meters",
    )

    def __init__(self, kind: str, bounds: ClientBounds, now: float) -> None:
        self.kind = kind
        self.connections: dict[object, int] = {}
        self.subscriptions = 0
        self.filters: set[str] = set()
        self.owner: Usage | None = None
        self.bound(bounds, now)

    def bound(self, bounds: ClientBounds, now: float) -> None:
        """Put bounds in force; what was used of the rates is forgotten."""
        self.bounds = bounds
        self.arrivals: Bucket | None = None
        self.meters: list[Bucket] = []
        if bounds.connection_rate is not None:
            why = f"{self.kind}: more than {bounds.connection_rate:g} connections a second"
            self.arrivals = Bucket(why, bounds.connection_rate, bounds.connection_burst, now)
        if bounds.message_rate is not None:
            why = f"{self.kind}: more than {bounds.message_rate:g} messages a second"
            self.meters.append(Bucket(why, bounds.message_rate, bounds.message_burst, now))
        if bounds.byte_rate is not None:
            why = f"{self.kind}: more than {bounds.byte_rate} bytes a second"
            self.meters.append(Bucket(why, bounds.byte_rate, bounds.byte_burst, now, of_bytes=True))

    def enter(self, who: object) -> None:
        """A connection has come."""
        self.connections[who] = self.connections.get(who, 0) + 1

    def leave(self, who: object) -> None:
        """A connection has gone."""
        left = self.connections[who] - 1
        if left:
            self.connections[who] = left
        else:
            del self.connections[who]

    @property
    def too_many_connections(self) -> str | None:
        """What is exceeded, None for nothing."""
        allowed = self.bounds.connections if isinstance(self.bounds, Bounds) else None
        if allowed is None or len(self.connections) <= allowed:
            return None
        return f"{self.kind}: more than {allowed} connections"

    @property
    def subscriptions_used_up(self) -> str | None:
        """What one more subscription would exceed, None for nothing."""
        allowed = self.bounds.subscriptions
        if allowed is None or self.subscriptions < allowed:
            return None
        return f"{self.kind}: more than {allowed} subscriptions"

    @property
    def there(self) -> bool:
        """Whether something of it is in the broker."""
        return bool(self.connections or self.subscriptions)

    def forgettable(self, now: float) -> bool:
        """Whether it makes no difference to forget it."""
        buckets = self.meters if self.arrivals is None else [*self.meters, self.arrivals]
        return not self.there and all(bucket.full(now) for bucket in buckets)


class Table:
    """The usages of one kind by name: of those that are there, and for a while of the others."""

    def __init__(self, kind: str, bounds: ClientBounds, tracked: int) -> None:
        self.kind = kind
        self._bounds = bounds
        self._tracked = tracked
        self._usages: dict[str, Usage] = {}  # the last one used comes last

    def __len__(self) -> int:
        return len(self._usages)

    def get(self, name: str, now: float) -> Usage:
        """The usage of this name; a new one if it isn't known."""
        usage = self._usages.pop(name, None)
        if usage is None:
            usage = Usage(self.kind, self._bounds, now)
            self._forget(now)
        self._usages[name] = usage
        return usage

    def bound(self, bounds: ClientBounds, tracked: int, now: float) -> None:
        """Put other bounds in force for all."""
        self._bounds = bounds
        self._tracked = tracked
        for usage in self._usages.values():
            usage.bound(bounds, now)

    def _forget(self, now: float) -> None:
        """For each usage that comes look at the two that were not used for longest."""
        for name in [name for name, _ in zip(self._usages, range(2), strict=False)]:
            usage = self._usages.pop(name)
            over = len(self._usages) >= self._tracked and not usage.there
            if not (over or usage.forgettable(now)):
                self._usages[name] = usage  # not before the others have had their turn
