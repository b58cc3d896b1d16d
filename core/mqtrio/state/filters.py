"""Values by topic filter: what a rule table is made of, fast for thousands of filters.

Filters stand in a trie of levels, which is walked without recursion, those without wildcards in a
dict as well: what a look-up costs depends on the levels of the topic, not on the number of filters.
The answers are those of topic_matches, filter_covers and filters_overlap in topics.py.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

from mqtrio.state.topics import has_wildcards

V = TypeVar("V")


class _Node(Generic[V]):
    """What may follow one way through the levels of the filters."""

    __slots__ = ("children", "plus", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.plus: _Node[V] | None = None  # the child for +
        self.here: V | None = None  # of the filter that ends with this level
        self.rest: V | None = None  # of the filter that ends with # below this level


class FilterMap(Generic[V]):
    """A value, not None, for each of some topic filters; made once and then only asked.

        rules = FilterMap([("a/b", "exact"), ("a/#", "wide")])
        rules.find("a/b") == "exact"; rules.find("a/x/y") == "wide"; rules.find("b") is None

    The filters are valid patterns (`check_topic_filter`, without `$share/NAME/`); of two values for
    one filter the first stays.
    """

    __slots__ = ("_exact", "_root", "_wild", "_size")

    def __init__(self, pairs: Iterable[tuple[str, V]] = ()) -> None:
        self._exact: dict[str, V] = {}
        self._root: _Node[V] = _Node()
        self._wild = False
        self._size = 0
        for pattern, value in pairs:
            self._add(pattern, value)

    def __len__(self) -> int:
        """The number of filters."""
        return self._size

    def find(self, topic: str) -> V | None:
        """The value of a filter that matches the topic: the exact one, else any; None for none."""
        value = self._exact.get(topic)
        if value is not None or not self._wild:
            return value
        for value in self._matching(topic):
            return value
        return None

    def find_all(self, topic: str) -> list[V]:
        """The values of all filters that match the topic, in no order."""
        if self._wild:
            return self._matching(topic)
        value = self._exact.get(topic)
        return [] if value is None else [value]

    def covering(self, pattern: str) -> V | None:
        """The value of one filter that matches every topic that `pattern` matches, or None."""
        value = self._exact.get(pattern)
        if value is not None or not self._wild:
            return value
        levels = ["+", "#"] if pattern == "#" else pattern.split("/")
        nodes = self._begin(levels)
        for level in levels:
            following: list[_Node[V]] = []
            for node in nodes:
                if node.rest is not None:
                    return node.rest
                child = None if level == "+" else node.children.get(level)
                if child is not None:
                    following.append(child)
                if node.plus is not None and level != "#":
                    following.append(node.plus)
            if not following:
                return None
            nodes = following
        for node in nodes:
            if node.rest is not None:
                return node.rest
            if node.here is not None:
                return node.here
        return None

    def overlaps(self, pattern: str) -> bool:
        """Whether one of the filters and `pattern` have a topic in common."""
        levels = ["+", "#"] if pattern == "#" else pattern.split("/")
        nodes = [self._root]
        for depth, level in enumerate(levels):
            if level == "#":  # what is here, and whatever is below
                return bool(nodes)
            following: list[_Node[V]] = []
            for node in nodes:
                dollar = depth == 0 and level.startswith("$")
                if node.rest is not None and not dollar:
                    return True
                if node.plus is not None and not dollar:
                    following.append(node.plus)
                if level == "+":
                    following += [
                        child
                        for name, child in node.children.items()
                        if depth or not name.startswith("$")
                    ]
                else:
                    child = node.children.get(level)
                    if child is not None:
                        following.append(child)
            nodes = following
        return any(node.here is not None or node.rest is not None for node in nodes)

    def _add(self, pattern: str, value: V) -> None:
        node = self._root
        levels = pattern.split("/")
        if has_wildcards(pattern):
            self._wild = True
        else:
            self._exact.setdefault(pattern, value)
        for level in levels:
            if level == "#":
                break
            child = node.plus if level == "+" else node.children.get(level)
            if child is None:
                child = _Node()
                if level == "+":
                    node.plus = child
                else:
                    node.children[level] = child
            node = child
        if levels[-1] == "#":
            if node.rest is None:
                node.rest = value
                self._size += 1
        elif node.here is None:
            node.here = value
            self._size += 1

    def _begin(self, levels: list[str]) -> list["_Node[V]"]:
        """Where to begin with these levels, the first of which is taken if it starts with `$`."""
        if not levels[0].startswith("$"):
            return [self._root]
        # Only a filter that spells the first level out matches there [MQTT-4.7.2-1].
        first = self._root.children.get(levels.pop(0))
        return [] if first is None else [first]

    def _matching(self, topic: str) -> list[V]:
        """The values of the filters that match a topic."""
        found: list[V] = []
        levels = topic.split("/")
        nodes = self._begin(levels)
        for level in levels:
            following: list[_Node[V]] = []
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
