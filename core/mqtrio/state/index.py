"""Who is subscribed to what: from a topic to its subscriptions and shared groups (4.7, 4.8.2).

One dict holds an entry for each pattern, so an exact pattern is found by one look-up of the topic.
Patterns with wildcards stand in a trie of levels as well, which is walked level by level, without
recursion: the cost of a match depends on the levels and on the branches that fit, not on the number
of filters. Nodes go away with the last filter that needs them.

Topics and filters given to the index are valid (see topics.py). It knows of sessions only that they
are who they are: it uses them as keys, by identity, and never looks inside.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mqtrio.state.topics import has_wildcards, split_shared

if TYPE_CHECKING:
    from mqtrio.state.session import Session


class Subscription:
    """One topic filter of one session, with its options (3.8.3.1).

    topic_filter        what is subscribed to, with `$share/NAME/` if it is shared
    sent                the topic filter as the client sent it, by which it knows the subscription:
                        another one where a plugin has changed it
    pattern, group      what split_shared makes of it: the part to match, and the share name or None
    qos                 the QoS granted
    identifier          the subscription identifier, 0 for none
    deliver             the delivery filter that the hooks compiled for it, or None for everything
    withheld            the client's present credentials don't allow it: nothing is delivered

    Raises InvalidTopicFilter if the topic filter's `$share` part is malformed.
    """

    __slots__ = (
        "session",
        "topic_filter",
        "sent",
        "pattern",
        "group",
        "qos",
        "no_local",
        "retain_as_published",
        "retain_handling",
        "identifier",
        "deliver",
        "withheld",
    )

    def __init__(
        self,
        session: "Session",
        topic_filter: str,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        identifier: int = 0,
        deliver: Callable[..., Any] | None = None,
        sent: str = "",
    ) -> None:
        self.session = session
        self.topic_filter = topic_filter
        self.sent = sent or topic_filter
        self.group, self.pattern = split_shared(topic_filter)
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.retain_handling = retain_handling
        self.identifier = identifier
        self.deliver = deliver
        self.withheld = False

    def __repr__(self) -> str:
        return f"Subscription({self.topic_filter!r}, qos={self.qos})"


class ShareGroup:
    """The subscriptions to one shared topic filter: each message goes to one of them (4.8.2).

    `members` is for reading; it changes through the index. next_member is the one place where a
    member is chosen.
    """

    __slots__ = ("name", "pattern", "members", "_order", "_places", "_turn")

    def __init__(self, name: str, pattern: str) -> None:
        self.name = name
        self.pattern = pattern
        self.members: dict[Session, Subscription] = {}
        # The order of turns, each member's place in it, and the place whose turn is next. A member
        # that leaves makes a hole; the holes are closed when they are as many as the members, so
        # leaving a group of 100,000 is cheap and nobody loses a turn.
        self._order: list[Subscription | None] = []
        self._places: dict[Session, int] = {}
        self._turn = 0

    def next_member(self, able: Callable[[Subscription], bool]) -> Subscription | None:
        """Return the next subscription in turn for which `able` is true, or None if there is none.

        `able` must not change the group.
        """
        order = self._order
        size = len(order)
        turn = self._turn
        for _ in range(size):
            if turn >= size:
                turn = 0
            subscription = order[turn]
            turn += 1
            if subscription is not None and able(subscription):
                self._turn = turn
                return subscription
        return None

    def _add(self, subscription: Subscription) -> Subscription | None:
        session = subscription.session
        replaced = self.members.get(session)
        self.members[session] = subscription
        if replaced is None:
            self._places[session] = len(self._order)
            self._order.append(subscription)
        else:
            self._order[self._places[session]] = subscription
        return replaced

    def _remove(self, session: "Session") -> Subscription | None:
        removed = self.members.pop(session, None)
        if removed is not None:
            self._order[self._places.pop(session)] = None
            if len(self._order) > 2 * len(self.members):
                self._close_holes()
        return removed

    def _close_holes(self) -> None:
        order: list[Subscription | None] = []
        turn = 0
        for place, subscription in enumerate(self._order):
            if place == self._turn:
                turn = len(order)
            if subscription is not None:
                self._places[subscription.session] = len(order)
                order.append(subscription)
        self._order = order
        self._turn = turn

    def __repr__(self) -> str:
        return f"ShareGroup({self.name!r}, {self.pattern!r}, {len(self.members)} members)"


class Match:
    """What a topic leads to: a list of the plain subscriptions and one of the shared groups.

    A session whose filters overlap is in `subscriptions` once for each of them (3.3.4): whoever
    delivers decides between one copy and several. The lists belong to the caller.
    """

    __slots__ = ("subscriptions", "groups")

    def __init__(self, subscriptions: list[Subscription], groups: list[ShareGroup]) -> None:
        self.subscriptions = subscriptions
        self.groups = groups


class _Entry:
    """All subscriptions to one pattern; never empty while it is in the index."""

    __slots__ = ("plain", "groups")

    def __init__(self) -> None:
        self.plain: dict[Session, Subscription] = {}
        self.groups: dict[str, ShareGroup] | None = None


class _Node:
    """What may follow one way through the levels of the patterns with wildcards."""

    __slots__ = ("children", "plus", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.plus: _Node | None = None  # the child for +
        self.here: _Entry | None = None  # the pattern that ends with this level
        self.rest: _Entry | None = None  # the pattern that ends with # below this level

    def empty(self) -> bool:
        """Whether nothing needs this node any more."""
        return not self.children and self.plus is None and self.here is None and self.rest is None


class SubscriptionIndex:
    """All subscriptions of a broker; `shared` is the number of the shared ones among them.

    `on_interest(pattern, wanted)` is called when a pattern gets its first subscription (True) and
    when it has lost its last (False), plain and shared counted together, after the change. It must
    not change the index itself.
    """

    __slots__ = ("_on_interest", "_entries", "_root", "_wildcards", "_size", "shared")

    def __init__(self, on_interest: Callable[[str, bool], None] | None = None) -> None:
        self._on_interest = on_interest
        self._entries: dict[str, _Entry] = {}
        self._root = _Node()
        self._wildcards = 0  # patterns in the trie
        self._size = 0
        self.shared = 0

    def __len__(self) -> int:
        """The number of subscriptions."""
        return self._size

    def add(self, subscription: Subscription) -> Subscription | None:
        """Add a subscription; return the one that it replaces, if any.

        It replaces that of the same session with the same topic filter [MQTT-3.8.4-3].
        """
        pattern = subscription.pattern
        entry = self._entries.get(pattern)
        new = entry is None
        if entry is None:
            entry = self._entries[pattern] = _Entry()
            if has_wildcards(pattern):
                self._plant(pattern, entry)
        replaced: Subscription | None
        if subscription.group is None:
            replaced = entry.plain.get(subscription.session)
            entry.plain[subscription.session] = subscription
        else:
            if entry.groups is None:
                entry.groups = {}
            group = entry.groups.get(subscription.group)
            if group is None:
                group = entry.groups[subscription.group] = ShareGroup(subscription.group, pattern)
            replaced = group._add(subscription)
        if replaced is None:
            self._size += 1
            self.shared += subscription.group is not None
        if new and self._on_interest is not None:
            self._on_interest(pattern, True)
        return replaced

    def remove(self, session: "Session", topic_filter: str) -> Subscription | None:
        """Remove a session's subscription to exactly this topic filter [MQTT-3.10.4-1]; return it.

        Returns None if there is none. Raises InvalidTopicFilter for a malformed `$share`.
        """
        name, pattern = split_shared(topic_filter)
        entry = self._entries.get(pattern)
        if entry is None:
            return None
        removed: Subscription | None = None
        if name is None:
            removed = entry.plain.pop(session, None)
        elif entry.groups is not None:
            group = entry.groups.get(name)
            if group is not None:
                removed = group._remove(session)
                if not group.members:
                    del entry.groups[name]
        if removed is None:
            return None
        self._size -= 1
        self.shared -= name is not None
        if not entry.plain and not entry.groups:
            del self._entries[pattern]
            if has_wildcards(pattern):
                self._uproot(pattern)
            if self._on_interest is not None:
                self._on_interest(pattern, False)
        return removed

    def group_of(self, topic_filter: str) -> ShareGroup | None:
        """The group of a shared topic filter (`$share/NAME/FILTER`), None if it has no members."""
        name, pattern = split_shared(topic_filter)
        entry = self._entries.get(pattern)
        if name is None or entry is None or entry.groups is None:
            return None
        return entry.groups.get(name)

    def match(self, topic: str) -> Match:
        """Return all plain subscriptions and all shared groups that a topic leads to."""
        subscriptions: list[Subscription] = []
        groups: list[ShareGroup] = []
        entry = self._entries.get(topic)
        if entry is not None:
            subscriptions.extend(entry.plain.values())
            if entry.groups is not None:
                groups.extend(entry.groups.values())
        if self._wildcards:
            for entry in self._matching(topic):
                subscriptions.extend(entry.plain.values())
                if entry.groups is not None:
                    groups.extend(entry.groups.values())
        return Match(subscriptions, groups)

    def _matching(self, topic: str) -> list[_Entry]:
        """Return the entries of the patterns with wildcards that match a topic."""
        found: list[_Entry] = []
        levels = topic.split("/")
        nodes = [self._root]
        if topic.startswith("$"):
            # Only a pattern that spells the first level out may match [MQTT-4.7.2-1].
            first = self._root.children.get(levels.pop(0))
            nodes = [] if first is None else [first]
        for level in levels:
            following: list[_Node] = []
            for node in nodes:
                if node.rest is not None:
                    found.append(node.rest)
                child = node.children.get(level)
                if child is not None:
                    following.append(child)
                if node.plus is not None:
                    following.append(node.plus)
            if not following:
                return found
            nodes = following
        for node in nodes:
            if node.here is not None:
                found.append(node.here)
            if node.rest is not None:  # a/# matches a
                found.append(node.rest)
        return found

    def _plant(self, pattern: str, entry: _Entry) -> None:
        """Make the way to a pattern with wildcards."""
        self._wildcards += 1
        node = self._root
        for level in pattern.split("/"):
            if level == "#":
                node.rest = entry
                return
            child = node.plus if level == "+" else node.children.get(level)
            if child is None:
                child = _Node()
                if level == "+":
                    node.plus = child
                else:
                    node.children[level] = child
            node = child
        node.here = entry

    def _uproot(self, pattern: str) -> None:
        """Take a pattern out of the trie, with the nodes that nothing else needs."""
        self._wildcards -= 1
        levels = pattern.split("/")
        node = self._root
        way: list[_Node] = []
        for level in levels:
            if level == "#":
                break
            way.append(node)
            node = node.children[level] if level != "+" else _present(node.plus)
        if levels[-1] == "#":
            node.rest = None
        else:
            node.here = None
        for i in range(len(way) - 1, -1, -1):
            if not node.empty():
                return
            node = way[i]
            if levels[i] == "+":
                node.plus = None
            else:
                del node.children[levels[i]]


def _present(node: _Node | None) -> _Node:
    assert node is not None  # _plant made it
    return node
