"""Retained messages: set, replaced, removed, matched by `topic_matches`, walked while changing."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtrio.state.message import Message
from mqtrio.state.retained import STRIDE, RetainedMessages
from mqtrio.state.topics import ANY_LEVELS, topic_matches

LEVELS = st.sampled_from(["", "a", "b", "$s"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
PATTERNS = st.builds(
    lambda levels, end: "/".join([*levels, *end]) or "/",
    st.lists(st.one_of(LEVELS, st.just("+")), max_size=4),
    st.sampled_from([[], ["#"]]),
)
CHANGES = st.tuples(st.booleans(), TOPICS)  # set or remove


def message_to(topic: str, payload: bytes = b"x") -> Message:
    return Message(topic, payload, 0, True, None)


def retaining(*topics: str) -> RetainedMessages:
    retained = RetainedMessages()
    for topic in topics:
        retained.set(message_to(topic))
    return retained


def topics_of(retained: RetainedMessages, pattern: str) -> list[str]:
    return sorted(message.topic for message in retained.match(pattern))


def is_empty(retained: RetainedMessages) -> bool:
    return len(retained) == 0 and retained.bytes == 0 and retained._root.empty()


def test_set_get_remove() -> None:
    """[MQTT-3.3.1-5]: one message a topic, the newest."""
    retained = RetainedMessages()
    first, second = message_to("a/b", b"one"), message_to("a/b", b"second")
    assert retained.get("a/b") is None
    assert retained.set(first) is None
    assert retained.get("a/b") is first
    assert (len(retained), retained.bytes) == (1, first.size)
    assert retained.set(second) is first
    assert retained.get("a/b") is second
    assert (len(retained), retained.bytes) == (1, second.size)
    assert retained.remove("a/b") is second
    assert retained.get("a/b") is None
    assert retained.remove("a/b") is None
    assert is_empty(retained)


def test_bytes_grow_with_topic_and_payload() -> None:
    small, large = retaining("a"), RetainedMessages()
    large.set(message_to("a", b"x" * 1001))
    assert large.bytes - small.bytes == 1000


def test_an_empty_payload_erases_and_is_not_kept() -> None:
    """[MQTT-3.3.1-6], [MQTT-3.3.1-7]."""
    retained = RetainedMessages()
    kept = message_to("a")
    retained.set(kept)
    assert retained.set(message_to("a", b"")) is kept
    assert retained.set(message_to("a", b"")) is None
    assert is_empty(retained)


@pytest.mark.parametrize("topic", ["a", "a/b", "a/b/c/d", "b", "a/", "/a/b"])
def test_a_topic_beside_others_holds_nothing(topic: str) -> None:
    retained = retaining("a/b/c", "/a")
    assert retained.get(topic) is None
    assert retained.remove(topic) is None
    assert len(retained) == 2


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("#", ["/", "/a", "a", "a/", "a/$b", "a/b", "a/b/c", "b/b"]),
        ("+", ["a"]),
        ("+/+", ["/", "/a", "a/", "a/$b", "a/b", "b/b"]),
        ("a/#", ["a", "a/", "a/$b", "a/b", "a/b/c"]),
        ("a/+", ["a/", "a/$b", "a/b"]),
        ("+/b", ["a/b", "b/b"]),
        ("+/b/#", ["a/b", "a/b/c", "b/b"]),
        ("/#", ["/", "/a"]),
        ("a/b", ["a/b"]),
        ("b", []),
        ("b/+/+", []),
        ("$SYS/a", ["$SYS/a"]),
        ("$SYS/+", ["$SYS/a"]),
        ("$SYS/#", ["$SYS", "$SYS/a", "$SYS/a/b"]),
        ("+/a", ["/a"]),
        ("+/a/b", []),
        ("+/a/#", ["/a"]),
        ("$OTHER/#", []),
    ],
)
def test_match(pattern: str, expected: list[str]) -> None:
    """4.7, with [MQTT-4.7.2-1]: a leading wildcard gets no retained $-topic."""
    retained = retaining(
        *("a", "a/b", "a/b/c", "a/", "a/$b", "b/b", "/", "/a", "$SYS", "$SYS/a", "$SYS/a/b")
    )
    assert topics_of(retained, pattern) == expected


def test_messages_come_in_the_order_that_their_topics_came() -> None:
    topics = [f"a/{number}" for number in (3, 1, 2, 5, 4)]
    assert [message.topic for message in retaining(*topics).match("a/+")] == topics
    assert [message.topic for message in retaining(*topics).match("#")] == topics


@settings(max_examples=150)
@given(st.lists(CHANGES, max_size=40), st.lists(PATTERNS, min_size=1, max_size=8))
def test_retained_agrees_with_matches(changes: list[tuple[bool, str]], patterns: list[str]) -> None:
    retained = RetainedMessages()
    model: dict[str, Message] = {}
    for setting, topic in changes:
        if setting:
            message = message_to(topic, topic.encode() * 2)
            assert retained.set(message) is model.get(topic)
            model[topic] = message
        else:
            assert retained.remove(topic) is model.pop(topic, None)
    assert len(retained) == len(model)
    assert retained.bytes == sum(message.size for message in model.values())
    for topic, message in model.items():
        assert retained.get(topic) is message
    for pattern in patterns:
        expected = sorted(topic for topic in model if topic_matches(pattern, topic))
        assert topics_of(retained, pattern) == expected
    for topic in list(model):
        retained.remove(topic)
    assert is_empty(retained)


@settings(max_examples=200)
@given(
    st.sets(TOPICS, max_size=12),
    PATTERNS,
    st.lists(st.tuples(st.integers(0, 3), CHANGES), max_size=20),
)
def test_a_walk_stands_changes_between_its_steps(
    start: set[str], pattern: str, changes: list[tuple[int, tuple[bool, str]]]
) -> None:
    """What stays is yielded, once; what is yielded matches and is retained at that moment."""
    retained = retaining(*start)
    now = {topic: retained.get(topic) for topic in start}
    stayed = set(start)
    seen: list[str] = []
    walk = retained.match(pattern)

    def step() -> None:
        message = next(walk, None)
        if message is not None:
            assert now[message.topic] is message
            assert topic_matches(pattern, message.topic)
            seen.append(message.topic)

    for steps, (setting, topic) in changes:
        for _ in range(steps):
            step()
        if setting:
            message = message_to(topic)
            retained.set(message)
            now[topic] = message
        else:
            retained.remove(topic)
            now.pop(topic, None)
            stayed.discard(topic)
    for message in walk:
        assert now[message.topic] is message
        assert topic_matches(pattern, message.topic)
        seen.append(message.topic)
    assert len(seen) == len(set(seen))
    assert {topic for topic in stayed if topic_matches(pattern, topic)} <= set(seen)


def test_a_walk_sees_the_present() -> None:
    retained = retaining("a/1", "a/2", "a/3")
    walk = retained.match("#")
    assert next(walk).topic == "a/1"
    retained.remove("a/2")
    newer = message_to("a/3", b"newer")
    retained.set(newer)
    assert list(walk) == [newer]


def test_a_walk_is_lazy() -> None:
    """Slices of a large match: what was taken away in between is never touched."""
    retained = retaining(*(f"a/{number}" for number in range(1000)))
    walk = retained.match("a/#")
    taken = [next(walk).topic for _ in range(10)]
    assert len(set(taken)) == 10
    for number in range(1000):
        retained.remove(f"a/{number}")
    assert next(walk, None) is None
    assert is_empty(retained)


def _in_vain(scan: Iterator[Message | None]) -> int:
    return sum(1 for message in scan if message is None)


def test_scan_reports_what_it_passed_in_vain() -> None:
    """A walk over many topics that don't match is no single long step."""
    retained = retaining(*(f"{number}/a" for number in range(3 * STRIDE)))
    assert _in_vain(retained.scan("+/b")) == 3
    assert list(retained.match("+/b")) == []
    assert _in_vain(retained.scan("+/a")) == 0  # a hit now and then: the caller has those to count
    assert sum(1 for _ in retained.match("+/a")) == 3 * STRIDE
    assert _in_vain(retaining(*map(str, range(3 * STRIDE))).scan("#")) == 0
    assert _in_vain(retained.scan("1/a")) == 0


def test_the_deepest_topic_needs_no_recursion() -> None:
    topic = "/" * (ANY_LEVELS - 1)
    retained = retaining(topic)
    for pattern in ("#", "+/" * 32_000 + "#", topic):
        assert topics_of(retained, pattern) == [topic]
    retained.remove(topic)
    assert is_empty(retained)
