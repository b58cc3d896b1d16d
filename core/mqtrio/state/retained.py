"""Retained messages: the last one of each topic, kept for later subscribers (3.3.1.3).

They stand in a trie with a node for each level of a topic. A new subscription to `#` may match
100,000 of them, so a match is a lazy generator that its caller takes in slices, while others go on
publishing and removing. Each node's children are copied when the walk gets there; the walk thereby
stays whole without a copy of everything.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mqtrio.state.topics import has_wildcards

if TYPE_CHECKING:
    from mqtrio.state.message import Message

#: Nodes that RetainedMessages.scan looks at without a hit before it yields None.
STRIDE: Final = 512


class _Node:
    """One level of the topics that hold a message, or have a longer one that does."""

    __slots__ = ("children", "message")

    def __init__(self) -> None:
        self.children: dict[str, _Node] | None = None  # most nodes are leaves: no dict for them
        self.message: Message | None = None

    def empty(self) -> bool:
        """Whether nothing needs this node any more."""
        return self.message is None and self.children is None


class RetainedMessages:
    """All retained messages of a broker, by topic.

    `bytes` is the sum of their `size`. Topics are valid (see topics.py).
    """

    __slots__ = ("bytes", "_root", "_size")

    def __init__(self) -> None:
        self.bytes = 0
        self._root = _Node()
        self._size = 0

    def __len__(self) -> int:
        """The number of messages, which is that of topics."""
        return self._size

    def get(self, topic: str) -> "Message | None":
        """Return the message that a topic retains."""
        node = self._find(topic)
        return None if node is None else node.message

    def set(self, message: "Message") -> "Message | None":
        """Retain a message in the place of its topic's earlier one [MQTT-3.3.1-5]; return that.

        One with an empty payload removes the earlier and is not kept [MQTT-3.3.1-6, -7].
        """
        if not message.payload:
            return self.remove(message.topic)
        node = self._root
        for level in message.topic.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        replaced = node.message
        node.message = message
        self.bytes += message.size
        if replaced is None:
            self._size += 1
        else:
            self.bytes -= replaced.size
        return replaced

    def remove(self, topic: str) -> "Message | None":
        """Forget what a topic retains; return it."""
        levels = topic.split("/")
        way: list[_Node] = []
        node = self._root
        for level in levels:
            child = None if node.children is None else node.children.get(level)
            if child is None:
                return None
            way.append(node)
            node = child
        removed = node.message
        if removed is None:
            return None
        node.message = None
        self.bytes -= removed.size
        self._size -= 1
        while way and node.empty():
            node = way.pop()
            children = node.children
            assert children is not None  # it has the child that we came from
            del children[levels[len(way)]]
            if not children:
                node.children = None
        return removed

    def match(self, pattern: str) -> "Iterator[Message]":
        """Yield the retained messages whose topics match a pattern, each topic once at most.

        The messages may change between two steps. A topic that holds a message all the time is
        yielded with its newest, one that is removed before the walk gets to it is not. A topic that
        is set meanwhile may be yielded or not: whoever subscribed before has it as a live message.
        """
        for message in self.scan(pattern):
            if message is not None:
                yield message

    def scan(self, pattern: str) -> "Iterator[Message | None]":
        """Yield like match, and None after every STRIDE nodes in a row that held nothing.

        A pattern like `+/+/x` may pass over a million topics between two hits; with this, a caller
        that must not block can count the None as work done, and pause there.
        """
        if not has_wildcards(pattern):
            message = self.get(pattern)
            if message is not None:
                yield message
            return
        levels = pattern.split("/")
        end = len(levels)
        # Nodes still to be visited, the next one last, beside the number of levels passed before
        # them. A node whose turn is `#` hands its children on with the same number.
        frames: list[tuple[list[_Node], int]] = [([self._root], 0)]
        misses = 0
        while frames:
            nodes, depth = frames[-1]
            if not nodes:
                frames.pop()
                continue
            node = nodes.pop()
            level = levels[depth] if depth < end else ""
            if depth == end or level == "#":
                # Read now, not when the copy was made: it may be gone or replaced.
                if node.message is not None:
                    misses = 0
                    yield node.message
                else:
                    misses += 1
            else:
                misses += 1
            if misses >= STRIDE:
                misses = 0
                yield None
            children = node.children
            if children is None or depth == end:
                continue
            if level != "+" and level != "#":
                child = children.get(level)
                if child is not None:
                    frames.append(([child], depth + 1))
                continue
            if node is self._root:  # a leading wildcard leaves $-topics alone [MQTT-4.7.2-1]
                following = [child for name, child in children.items() if name[:1] != "$"]
            else:
                following = list(children.values())
            following.reverse()
            frames.append((following, depth if level == "#" else depth + 1))

    def _find(self, topic: str) -> _Node | None:
        node = self._root
        for level in topic.split("/"):
            child = None if node.children is None else node.children.get(level)
            if child is None:
                return None
            node = child
        return node
