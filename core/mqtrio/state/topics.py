"""Topic names and topic filters: what is valid, and what matches what (MQTT 5 sections 4.7, 4.8.2).

Words used in this layer:

- topic: the name that a message is published to. It has levels, separated by `/`, and no wildcards.
- topic filter: what a client sends in SUBSCRIBE, a shared one with its `$share/NAME/` in front.
- pattern: a topic filter without `$share/NAME/`: the part that is compared with topics.

Levels may be empty and count all the same: `/a` has two levels and `a/` is not `a`. Text is
compared as it stands, code point by code point: nothing is normalised, case matters [MQTT-4.7.3-4].

Everybody who takes a topic or a filter from outside checks it here once; the other modules of this
layer rely on that.
"""

from typing import Final

from mqtrio.reasons import ReasonCode

#: Bytes that a topic or a topic filter may take in UTF-8 [MQTT-4.7.3-3].
MAXIMUM_BYTES: Final = 65_535

#: More levels than a text of MAXIMUM_BYTES can have: the limit that never strikes.
ANY_LEVELS: Final = 65_536

_SHARE: Final = "$share/"


class InvalidTopic(ValueError):
    """Base of both errors below; `reason_code` is what MQTT 5 calls the mistake.

    The text names the rule and never the topic: that may be long, and is the peer's.
    """

    def __init__(self, reason_code: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class InvalidTopicName(InvalidTopic):
    """A topic that nothing can be published to (0x90)."""

    def __init__(self, message: str) -> None:
        super().__init__(ReasonCode.TOPIC_NAME_INVALID, message)


class InvalidTopicFilter(InvalidTopic):
    """A topic filter that nobody can subscribe to (0x8F)."""

    def __init__(self, message: str) -> None:
        super().__init__(ReasonCode.TOPIC_FILTER_INVALID, message)


def check_topic(topic: str, maximum_levels: int = ANY_LEVELS) -> None:
    """Raise InvalidTopicName unless a message may be published to `topic`.

    A topic is not empty, has no wildcards [MQTT-4.7.0-1], no zero character, at most 65,535 bytes.
    """
    fault = _fault_of_text(topic)
    if fault is not None:
        raise InvalidTopicName(f"a topic {fault}")
    if has_wildcards(topic):
        raise InvalidTopicName("a topic must not contain the wildcards + and #")
    if topic.count("/") >= maximum_levels:
        raise InvalidTopicName(f"a topic must not have more than {maximum_levels} levels")


def check_mount_point(prefix: str) -> None:
    """Raise InvalidTopicName unless `prefix` may stand before topics: empty, or whole levels.

    Without the `/` at its end `a` would hold what belongs to `ab/`, and `a#` were no filter.
    """
    if prefix:
        check_topic(prefix)
        if not prefix.endswith("/"):
            raise InvalidTopicName("a mount point must end with /")
    if prefix.startswith("$share/"):
        raise InvalidTopicName("a mount point must not begin with $share/")


def check_topic_filter(topic_filter: str, maximum_levels: int = ANY_LEVELS) -> None:
    """Raise InvalidTopicFilter unless a client may subscribe to `topic_filter`, shared or not.

    It is not empty; `#` is the whole last level or absent [MQTT-4.7.1-1], `+` is a whole level
    [MQTT-4.7.1-2]; no zero character, at most 65,535 bytes. A shared one has the form
    `$share/NAME/pattern` [MQTT-4.8.2-1, -2], of which only the pattern's levels are counted.
    """
    fault = _fault_of_text(topic_filter)
    if fault is not None:
        raise InvalidTopicFilter(f"a topic filter {fault}")
    _, pattern = split_shared(topic_filter)
    if pattern.count("/") >= maximum_levels:
        raise InvalidTopicFilter(f"a topic filter must not have more than {maximum_levels} levels")
    if not has_wildcards(pattern):
        return
    levels = pattern.split("/")
    if "#" in pattern and (pattern.count("#") > 1 or levels[-1] != "#"):
        raise InvalidTopicFilter("the wildcard # must be the whole last level of a topic filter")
    for level in levels:
        if "+" in level and level != "+":
            raise InvalidTopicFilter("the wildcard + must be a whole level of a topic filter")


def split_shared(topic_filter: str) -> tuple[str | None, str]:
    """Return the share name and the pattern of a topic filter; the name is None if it isn't shared.

    Raises InvalidTopicFilter for `$share/…` without a good name and a pattern after it
    [MQTT-4.8.2-1, -2]. The pattern itself is not looked at. `$share` alone is an ordinary filter.
    """
    if not topic_filter.startswith(_SHARE):
        return None, topic_filter
    end = topic_filter.find("/", len(_SHARE))
    if end < 0 or end + 1 == len(topic_filter):
        raise InvalidTopicFilter("a shared subscription needs a topic filter after its share name")
    name = topic_filter[len(_SHARE) : end]
    if not name:
        raise InvalidTopicFilter("a share name must not be empty")
    if has_wildcards(name):
        raise InvalidTopicFilter("a share name must not contain the wildcards + and #")
    return name, topic_filter[end + 1 :]


def has_wildcards(text: str) -> bool:
    """Return True if a (valid) pattern or topic filter matches more than one topic."""
    return "+" in text or "#" in text


def topic_matches(pattern: str, topic: str) -> bool:
    """Return True if a message published to `topic` belongs to a subscription to `pattern`.

    Both are valid. A wildcard in the first level never matches a topic that starts with `$`
    [MQTT-4.7.2-1]; `a/#` matches `a` too (4.7.1.2); `a/+` matches `a/` but not `a` (4.7.1.3).

    This is the definition: SubscriptionIndex and RetainedMessages give the same answers, faster for
    many patterns or topics.
    """
    if not has_wildcards(pattern):
        return pattern == topic
    if topic.startswith("$") and pattern.startswith(("+", "#")):
        return False
    wanted = pattern.split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


def filter_covers(wide: str, narrow: str) -> bool:
    """Return True if every topic that the pattern `narrow` matches is matched by `wide` too.

    Both are valid patterns: `a/#` covers `a`, `a/+/c` and itself; `#` covers `+/a` but not `$SYS/a`
    [MQTT-4.7.2-1]. `+/#` and `#` cover each other: a topic has one level at least. (`/#` and
    `/+/#` don't, though only the empty topic, to which nobody can publish, makes the difference.)
    """
    if narrow.startswith("$") and wide.startswith(("+", "#")):
        return False
    have, open_ended = _prefix(wide)
    want, unbounded = _prefix(narrow)
    if open_ended:
        if len(want) < len(have):
            return False
    elif unbounded or len(want) != len(have):
        return False
    return all(one in ("+", other) for one, other in zip(have, want, strict=False))


def filters_overlap(one: str, other: str) -> bool:
    """Return True if there is a topic that both patterns match. Both are valid."""
    for first, second in ((one, other), (other, one)):
        if first.startswith("$") and second.startswith(("+", "#")):
            return False
    here, here_open = _prefix(one)
    there, there_open = _prefix(other)
    if (len(here) < len(there) and not here_open) or (len(there) < len(here) and not there_open):
        return False
    return all(a == b or "+" in (a, b) for a, b in zip(here, there, strict=False))


def _prefix(pattern: str) -> tuple[list[str], bool]:
    """The levels of a pattern before `#`, and whether there is one; `#` is the same as `+/#`."""
    levels = pattern.split("/")
    if levels[-1] != "#":
        return levels, False
    levels.pop()
    return levels or ["+"], True


def _fault_of_text(text: str) -> str | None:
    """Say what is wrong with `text` as a text field of MQTT (1.5.4, 4.7.3), or None."""
    if not text:
        return "must not be empty"  # [MQTT-4.7.3-1]
    if "\0" in text:
        return "must not contain a zero character"  # [MQTT-4.7.3-2]
    size = len(text)
    if not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return "must not contain surrogates"  # [MQTT-1.5.4-1]
    if size > MAXIMUM_BYTES:
        return f"must not take more than {MAXIMUM_BYTES} bytes"
    return None
