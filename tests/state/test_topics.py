"""Which topics and filters are valid, and what matches what (4.7, 4.8.2)."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtrio.reasons import ReasonCode
from mqtrio.state.topics import (
    ANY_LEVELS,
    MAXIMUM_BYTES,
    InvalidTopicFilter,
    InvalidTopicName,
    check_topic,
    check_topic_filter,
    has_wildcards,
    split_shared,
    topic_matches,
)

GOOD_TOPICS = [
    "a",
    "/",
    "//",
    "a/b",
    "/a",
    "a/",
    " ",
    "a b/c d",
    "$SYS/uptime",
    "$share/g/a",  # reserved for filters, yet no rule forbids it as a topic
    "é/😀",
    "\ufeff",  # a byte order mark is a character like others [MQTT-1.5.4-3]
    "a" * MAXIMUM_BYTES,
    "/" * MAXIMUM_BYTES,
    "😀" * (MAXIMUM_BYTES // 4),
]
BAD_TEXTS = [
    ("", "must not be empty"),
    ("\0", "zero character"),
    ("a/\0b", "zero character"),
    ("\ud800", "surrogates"),
    ("a/\udfff", "surrogates"),
    ("a" * (MAXIMUM_BYTES + 1), "65535 bytes"),
    ("é" * (MAXIMUM_BYTES // 2 + 1), "65535 bytes"),
]
GOOD_FILTERS = [
    *GOOD_TOPICS[:9],
    "#",
    "+",
    "+/+",
    "/+",
    "+/",
    "/#",
    "a/#",
    "a/+/#",
    "+/a/#",
    "$SYS/#",
    "$share",  # without a slash it is a name like any other
    "$Share/+",
    "$share/g/a",
    "$share/g/#",
    "$share/g//",
    "$share/g/+/a",
    "$share/$g/$SYS/#",
    "$share/g/$share/h/a",
]
BAD_FILTERS = [
    ("a#", "#"),
    ("a/b#", "#"),
    ("#a", "#"),
    ("##", "#"),
    ("#/", "#"),
    ("#/a", "#"),
    ("a/#/b", "#"),
    ("a/#/#", "#"),
    ("a#/#", "#"),
    ("+#", "#"),
    ("a+", "+"),
    ("+a", "+"),
    ("++", "+"),
    ("a/b+", "+"),
    ("a/+b/c", "+"),
    ("a+/#", "+"),
    ("$share/", "topic filter after"),
    ("$share//", "share name"),
    ("$share//a", "share name"),
    ("$share/g", "topic filter after"),
    ("$share/g/", "topic filter after"),
    ("$share/+/a", "share name"),
    ("$share/#/a", "share name"),
    ("$share/g+/a", "share name"),
    ("$share/a#b/a", "share name"),
    ("$share/g/a#", "#"),
    ("$share/g/+a", "+"),
    ("$share/g\0/a", "zero character"),
]
MATCHES = [
    # pattern, topic, answer
    ("a", "a", True),
    ("a", "A", False),
    ("a", "a/", False),
    ("a", "/a", False),
    ("a/b", "a/b", True),
    ("a/b", "a/b/c", False),
    ("a/b/c", "a/b", False),
    ("a//b", "a//b", True),
    ("a//b", "a/b", False),
    ("+", "a", True),
    ("+", "/", False),
    ("+", "a/b", False),
    ("+/+", "/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("a/+", "a/", True),
    ("a/+", "a", False),
    ("a/+", "a/b/c", False),
    ("a/+/c", "a/b/c", True),
    ("a/+/c", "a//c", True),
    ("a/+/c", "a/b/d", False),
    ("+/b", "a/b", True),
    ("+/b", "a/b/c", False),
    ("#", "a", True),
    ("#", "/", True),
    ("#", "a/b/c", True),
    ("a/#", "a", True),
    ("a/#", "a/", True),
    ("a/#", "a/b/c", True),
    ("a/#", "ab", False),
    ("a/#", "b/a", False),
    ("a/b/#", "a", False),
    ("/#", "/", True),
    ("/#", "/a/b", True),
    ("/#", "a", False),
    ("+/#", "a", True),
    ("+/#", "a/b/c", True),
    ("+/+/#", "a", False),
    ("a/+/#", "a", False),
    ("a/+/#", "a/b", True),
    # composed and decomposed are different texts [MQTT-4.7.3-4]
    ("caf\u00e9", "caf\u00e9", True),
    ("caf\u00e9", "cafe\u0301", False),
    ("+/\u00e9", "a/e\u0301", False),
    (" a", "a", False),
    ("\ufeffa", "a", False),
]
DOLLAR_MATCHES = [
    ("#", "$SYS", False),
    ("#", "$SYS/uptime", False),
    ("#", "$", False),
    ("+", "$SYS", False),
    ("+/uptime", "$SYS/uptime", False),
    ("+/#", "$SYS/uptime", False),
    ("+/+", "$SYS/uptime", False),
    ("$SYS", "$SYS", True),
    ("$SYS/#", "$SYS", True),
    ("$SYS/#", "$SYS/uptime", True),
    ("$SYS/#", "$sys/uptime", False),
    ("$SYS/+", "$SYS/uptime", True),
    ("$SYS/+", "$OTHER/uptime", False),
    ("$SYS/uptime", "$SYS/uptime", True),
    # the rule is about the first level only
    ("a/#", "a/$b", True),
    ("a/+", "a/$b", True),
    ("#", "a/$b", True),
    ("#", "/$b", True),
    ("+/$b", "a/$b", True),
]

LEVELS = st.sampled_from(["", "a", "b", "$s", "é"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)
PATTERNS = (
    st.tuples(st.lists(st.one_of(LEVELS, st.just("+")), max_size=5), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join([*parts[0], *parts[1]]))
    .filter(bool)
)


@pytest.mark.parametrize("topic", GOOD_TOPICS, ids=lambda topic: ascii(topic[:12]))
def test_good_topic(topic: str) -> None:
    check_topic(topic)


@pytest.mark.parametrize(("topic", "why"), BAD_TEXTS, ids=lambda text: ascii(text[:12]))
def test_bad_topic(topic: str, why: str) -> None:
    with pytest.raises(InvalidTopicName, match=re.escape(why)) as caught:
        check_topic(topic)
    assert caught.value.reason_code is ReasonCode.TOPIC_NAME_INVALID


@pytest.mark.parametrize("topic", ["+", "#", "a/+", "a/#", "a+b", "a#", "$share/g/#"])
def test_a_topic_has_no_wildcards(topic: str) -> None:
    """[MQTT-3.3.2-2], [MQTT-4.7.0-1]."""
    with pytest.raises(InvalidTopicName, match="wildcards"):
        check_topic(topic)


@pytest.mark.parametrize("topic_filter", GOOD_FILTERS, ids=lambda text: ascii(text[:20]))
def test_good_filter(topic_filter: str) -> None:
    check_topic_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "why"), [*BAD_TEXTS, *BAD_FILTERS], ids=lambda text: ascii(text[:20])
)
def test_bad_filter(topic_filter: str, why: str) -> None:
    with pytest.raises(InvalidTopicFilter, match=re.escape(why)) as caught:
        check_topic_filter(topic_filter)
    assert caught.value.reason_code is ReasonCode.TOPIC_FILTER_INVALID


def test_an_error_does_not_repeat_the_topic() -> None:
    with pytest.raises(InvalidTopicName) as caught:
        check_topic("secret/#")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "levels"), [("a", 1), ("/", 2), ("a/b/c", 3), ("a//", 3), ("$SYS/a", 2)]
)
def test_level_limit(text: str, levels: int) -> None:
    check_topic(text, levels)
    check_topic_filter(text, levels)
    check_topic_filter(f"$share/g/{text}", levels)
    with pytest.raises(InvalidTopicName, match="levels"):
        check_topic(text, levels - 1)
    with pytest.raises(InvalidTopicFilter, match="levels"):
        check_topic_filter(text, levels - 1)
    with pytest.raises(InvalidTopicFilter, match="levels"):
        check_topic_filter(f"$share/g/{text}", levels - 1)


def test_wildcards_count_as_levels() -> None:
    check_topic_filter("a/+/#", 3)
    with pytest.raises(InvalidTopicFilter, match="levels"):
        check_topic_filter("a/+/#", 2)


def test_the_default_level_limit_never_strikes() -> None:
    longest = "/" * MAXIMUM_BYTES
    assert len(longest.split("/")) == ANY_LEVELS
    check_topic(longest)


@pytest.mark.parametrize(
    ("topic_filter", "group", "pattern"),
    [
        ("a/b", None, "a/b"),
        ("$share", None, "$share"),
        ("$shared/g/a", None, "$shared/g/a"),
        ("$SHARE/g/a", None, "$SHARE/g/a"),
        ("/$share/g/a", None, "/$share/g/a"),
        ("$share/g/a", "g", "a"),
        ("$share/g//a", "g", "/a"),
        ("$share/g//", "g", "/"),
        ("$share/my group/#", "my group", "#"),
        ("$share/g/$SYS/+", "g", "$SYS/+"),
    ],
)
def test_split_shared(topic_filter: str, group: str | None, pattern: str) -> None:
    assert split_shared(topic_filter) == (group, pattern)


@pytest.mark.parametrize(
    "topic_filter", [text for text, why in BAD_FILTERS if "share name" in why or "after" in why]
)
def test_split_shared_refuses(topic_filter: str) -> None:
    """[MQTT-4.8.2-1], [MQTT-4.8.2-2]."""
    with pytest.raises(InvalidTopicFilter):
        split_shared(topic_filter)


@pytest.mark.parametrize(("pattern", "topic", "answer"), MATCHES)
def test_matches(pattern: str, topic: str, answer: bool) -> None:
    assert topic_matches(pattern, topic) is answer


@pytest.mark.parametrize(("pattern", "topic", "answer"), DOLLAR_MATCHES)
def test_dollar_topics_are_kept_from_leading_wildcards(
    pattern: str, topic: str, answer: bool
) -> None:
    """[MQTT-4.7.2-1]."""
    assert topic_matches(pattern, topic) is answer


def test_the_tables_hold_valid_texts() -> None:
    for pattern, topic, _ in [*MATCHES, *DOLLAR_MATCHES]:
        check_topic_filter(pattern)
        check_topic(topic)


def _expression(pattern: str) -> str:
    """The pattern as a regular expression: a second, independent reading of section 4.7."""
    text = re.escape(pattern).replace(r"\+", "[^/]*")
    if pattern == "#":
        text = ".*"
    elif pattern.endswith("/#"):
        text = text[: -len(r"/\#")] + "(/.*)?"
    return text if pattern[0] not in "+#" else r"(?!\$)" + text


@settings(max_examples=300)
@given(PATTERNS, TOPICS)
def test_matches_agrees_with_a_regular_expression(pattern: str, topic: str) -> None:
    assert topic_matches(pattern, topic) == (re.fullmatch(_expression(pattern), topic) is not None)


@settings(max_examples=300)
@given(st.text(max_size=12))
def test_any_text_is_judged(text: str) -> None:
    """Nothing but the two errors comes out, and a topic is a filter that matches itself only."""
    try:
        check_topic(text)
    except InvalidTopicName:
        return
    assert not has_wildcards(text)
    assert topic_matches(text, text)
    if not text.startswith("$share/"):
        check_topic_filter(text)


@settings(max_examples=300)
@given(st.text(alphabet="a/+#$", max_size=8))
def test_filters_are_judged_level_by_level(text: str) -> None:
    levels = text.split("/")
    good = bool(text) and all(
        level in ("+", "#") or not set(level) & {"+", "#"} for level in levels
    )
    good = good and "#" not in levels[:-1]
    if good:
        check_topic_filter(text)
    else:
        with pytest.raises(InvalidTopicFilter):
            check_topic_filter(text)
