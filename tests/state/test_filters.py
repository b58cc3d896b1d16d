"""Which filter lies inside which, and values by filter: both against the naive definition."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtrio.state.filters import FilterMap
from mqtrio.state.topics import check_topic_filter, filter_covers, filters_overlap, topic_matches

NAMES = ["a", "b", "", "$a"]
LEVELS = 3

# All topics of one level more than a pattern has, with a name that stands in no pattern: whatever
# sets two patterns apart, one of these topics does. The empty one is none, and counts here.
TOPICS = [
    "/".join(levels)
    for count in range(1, LEVELS + 2)
    for levels in product([*NAMES, "z"], repeat=count)
]


def _pattern(levels: list[str], rest: bool) -> str:
    return "/".join([*levels, "#"] if rest else levels)


PATTERNS = st.builds(
    _pattern,
    st.lists(st.sampled_from([*NAMES, "+", "+"]), max_size=LEVELS),
    st.booleans(),
).filter(bool)


def matched(pattern: str) -> set[str]:
    return {topic for topic in TOPICS if topic_matches(pattern, topic)}


@settings(max_examples=400)
@given(PATTERNS, PATTERNS)
def test_covering_and_overlapping_are_what_matching_says(one: str, other: str) -> None:
    check_topic_filter(one)
    first, second = matched(one), matched(other)
    assert filter_covers(one, other) is (second <= first)
    assert filters_overlap(one, other) is bool(first & second)
    assert filters_overlap(other, one) is bool(first & second)


@pytest.mark.parametrize(
    ("wide", "narrow", "answer"),
    [
        ("a/#", "a/+/c", True),
        ("a/#", "a", True),
        ("a/+", "a/#", False),
        ("#", "+/a", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/+/load", True),
        ("+/#", "#", True),
        ("+/+/#", "#", False),
        ("a/+/c", "a/b/c", True),
        ("a/b/c", "a/+/c", False),
    ],
)
def test_covering(wide: str, narrow: str, answer: bool) -> None:
    assert filter_covers(wide, narrow) is answer


@settings(max_examples=400)
@given(st.lists(PATTERNS, max_size=8, unique=True), PATTERNS)
def test_a_map_of_filters_answers_as_they_do_one_by_one(filters: list[str], asked: str) -> None:
    rules = FilterMap([(each, each) for each in filters])
    assert len(rules) == len(filters)
    assert rules.overlaps(asked) is any(filters_overlap(each, asked) for each in filters)
    cover = rules.covering(asked)
    assert (cover is not None) is any(filter_covers(each, asked) for each in filters)
    assert cover is None or filter_covers(cover, asked)


@settings(max_examples=200)
@given(st.lists(PATTERNS, max_size=8, unique=True), st.sampled_from(TOPICS))
def test_a_map_of_filters_finds_what_matches(filters: list[str], topic: str) -> None:
    rules = FilterMap([(each, each) for each in filters])
    expected = sorted(each for each in filters if topic_matches(each, topic))
    assert sorted(rules.find_all(topic)) == expected
    found = rules.find(topic)
    assert (found is not None) is bool(expected)
    assert found is None or found in expected
    if topic in filters:
        assert found == topic


def test_the_first_value_of_a_filter_stays() -> None:
    rules = FilterMap([("a", 1), ("a", 2), ("a/#", 3), ("a/#", 4)])
    assert len(rules) == 2
    assert rules.find("a") == 1
    assert rules.find("a/b") == 3
