"""From a topic to its subscriptions: the index answers as `topic_matches` does, and forgets all."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtrio.state.index import ShareGroup, Subscription, SubscriptionIndex
from mqtrio.state.session import Session
from mqtrio.state.topics import ANY_LEVELS, InvalidTopicFilter, topic_matches

LEVELS = st.sampled_from(["", "a", "b", "$s"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda share, levels, end: share + ("/".join([*levels, *end]) or "/"),
    st.sampled_from(["", "", "$share/g/", "$share/h/"]),
    st.lists(st.one_of(LEVELS, st.just("+")), max_size=4),
    st.sampled_from([[], ["#"]]),
)
#: (add or remove, which session, topic filter)
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 3), FILTERS), max_size=40)


def make_session(client_id: str = "c") -> Session:
    return Session(client_id, None, 5)


def is_empty(index: SubscriptionIndex) -> bool:
    return len(index) == 0 and not index._entries and index._root.empty() and index._wildcards == 0


def filters_for(index: SubscriptionIndex, topic: str) -> list[str]:
    """The topic filters that a topic leads to, of plain subscriptions and of group members."""
    match = index.match(topic)
    found = [subscription.topic_filter for subscription in match.subscriptions]
    for group in match.groups:
        found.extend(member.topic_filter for member in group.members.values())
    return sorted(found)


def test_subscription_knows_its_parts() -> None:
    session = make_session()
    plain = Subscription(session, "a/+", 1, True, True, 2, 7)
    assert (plain.session, plain.topic_filter, plain.pattern, plain.group) == (
        session,
        "a/+",
        "a/+",
        None,
    )
    assert (plain.qos, plain.no_local, plain.retain_as_published) == (1, True, True)
    assert (plain.retain_handling, plain.identifier, plain.deliver) == (2, 7, None)
    shared = Subscription(session, "$share/g/a/+")
    assert (shared.topic_filter, shared.pattern, shared.group) == ("$share/g/a/+", "a/+", "g")
    with pytest.raises(InvalidTopicFilter):
        Subscription(session, "$share/g")


def test_repr_shows_the_filter_and_nothing_of_the_session() -> None:
    subscription = Subscription(make_session("hidden"), "$share/g/a", 1)
    assert repr(subscription) == "Subscription('$share/g/a', qos=1)"


@pytest.mark.parametrize("topic_filter", ["a/b", "a/+", "a/#", "$share/g/a/b", "$share/g/a/+"])
def test_same_session_and_filter_replaces(topic_filter: str) -> None:
    """[MQTT-3.8.4-3]: the new options count, and there is one copy."""
    index = SubscriptionIndex()
    session = make_session()
    first = Subscription(session, topic_filter, 0)
    second = Subscription(session, topic_filter, 2)
    assert index.add(first) is None
    assert index.add(second) is first
    assert len(index) == 1
    match = index.match("a/b")
    members = [sub for group in match.groups for sub in group.members.values()]
    assert [*match.subscriptions, *members] == [second]
    assert index.remove(session, topic_filter) is second
    assert is_empty(index)


def test_the_shared_form_is_another_filter() -> None:
    """X-5-SHARED-4: leaving a group needs the full text, and leaves plain subscriptions alone."""
    index = SubscriptionIndex()
    session = make_session()
    for topic_filter in ("a", "$share/g/a", "$share/h/a"):
        assert index.add(Subscription(session, topic_filter)) is None
    assert len(index) == 3
    match = index.match("a")
    assert len(match.subscriptions) == 1
    assert {group.name for group in match.groups} == {"g", "h"}
    assert index.remove(session, "$share/i/a") is None
    assert index.remove(session, "a") is not None
    assert filters_for(index, "a") == ["$share/g/a", "$share/h/a"]
    assert index.remove(session, "$share/g/a") is not None
    assert filters_for(index, "a") == ["$share/h/a"]
    assert index.remove(session, "$share/h/a") is not None
    assert is_empty(index)


def test_remove_takes_the_text_exactly() -> None:
    """[MQTT-3.10.4-1]: a wildcard in UNSUBSCRIBE is only a character."""
    index = SubscriptionIndex()
    session, other = make_session(), make_session()
    index.add(Subscription(session, "a/b"))
    index.add(Subscription(session, "a/+"))
    assert index.remove(session, "a/#") is None
    assert index.remove(session, "#") is None
    assert index.remove(session, "+/b") is None
    assert index.remove(other, "a/b") is None
    assert index.remove(other, "a/+") is None
    assert filters_for(index, "a/b") == ["a/+", "a/b"]
    with pytest.raises(InvalidTopicFilter):
        index.remove(session, "$share//a/b")


def test_sessions_are_told_apart_by_identity() -> None:
    index = SubscriptionIndex()
    one, another = make_session("same"), make_session("same")
    index.add(Subscription(one, "a"))
    index.add(Subscription(another, "a"))
    assert len(index) == 2
    found = [subscription.session for subscription in index.match("a").subscriptions]
    assert len(found) == 2
    assert found[0] is one
    assert found[1] is another


def test_overlapping_filters_are_all_found() -> None:
    index = SubscriptionIndex()
    session = make_session()
    for topic_filter in ("a/b", "a/+", "a/#", "#", "+/b", "+/+", "a/b/#", "b/#", "a/+/c"):
        index.add(Subscription(session, topic_filter))
    assert filters_for(index, "a/b") == ["#", "+/+", "+/b", "a/#", "a/+", "a/b", "a/b/#"]


def test_a_match_belongs_to_its_caller() -> None:
    index = SubscriptionIndex()
    index.add(Subscription(make_session(), "a"))
    index.match("a").subscriptions.clear()
    assert len(index.match("a").subscriptions) == 1


@pytest.mark.parametrize("share", ["", "$share/g/"])
@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("$SYS", ["$SYS/#"]),
        ("$SYS/a", ["$SYS/#", "$SYS/+", "$SYS/a"]),
        ("$SYS/a/b", ["$SYS/#", "$SYS/+/b"]),
        ("$OTHER/a", []),
        ("$", []),
        ("a", ["#", "+", "+/#"]),
        ("S/a", ["#", "+/#", "+/+", "+/a"]),
        ("/$SYS", ["#", "+/#", "+/+"]),
    ],
)
def test_dollar_topics_need_their_first_level_spelled_out(
    share: str, topic: str, expected: list[str]
) -> None:
    """[MQTT-4.7.2-1], for shared subscriptions too."""
    index = SubscriptionIndex()
    patterns = ["#", "+", "+/#", "+/+", "+/a", "$SYS/#", "$SYS/+", "$SYS/+/b", "$SYS/a"]
    for pattern in patterns:
        index.add(Subscription(make_session(), share + pattern))
    assert filters_for(index, topic) == sorted(share + pattern for pattern in expected)


def test_interest_is_told_once_per_pattern() -> None:
    told: list[tuple[str, bool]] = []
    index = SubscriptionIndex(lambda pattern, wanted: told.append((pattern, wanted)))
    one, another = make_session(), make_session()
    index.add(Subscription(one, "a/+"))
    assert told == [("a/+", True)]
    index.add(Subscription(one, "a/+", 2))
    index.add(Subscription(another, "a/+"))
    index.add(Subscription(another, "$share/g/a/+"))
    index.remove(one, "a/+")
    index.remove(one, "a/+")
    index.remove(another, "a/+")
    assert told == [("a/+", True)]
    index.remove(another, "$share/g/a/+")
    assert told == [("a/+", True), ("a/+", False)]
    index.add(Subscription(one, "$share/g/a"))
    assert told[2:] == [("a", True)]


def test_interest_is_told_after_the_change() -> None:
    seen: list[int] = []
    index = SubscriptionIndex(lambda pattern, wanted: seen.append(len(index)))
    session = make_session()
    index.add(Subscription(session, "a"))
    index.remove(session, "a")
    assert seen == [1, 0]


def test_the_deepest_filter_needs_no_recursion() -> None:
    index = SubscriptionIndex()
    session = make_session()
    deepest = "+/" * 32_000 + "#"
    topic = "/" * (ANY_LEVELS - 1)
    index.add(Subscription(session, deepest))
    assert filters_for(index, topic) == [deepest]
    index.remove(session, deepest)
    assert is_empty(index)


def test_removal_keeps_what_others_need() -> None:
    index = SubscriptionIndex()
    session = make_session()
    filters = ["a/+/c", "a/+/c/#", "a/+", "a/#", "a/b/+/d", "+/b/c", "#", "+"]
    for gone in filters:
        for topic_filter in filters:
            index.add(Subscription(session, topic_filter))
        index.remove(session, gone)
        for topic in ("a", "a/b", "a/b/c", "a/b/c/d", "x/b/c"):
            assert filters_for(index, topic) == sorted(
                each for each in filters if each != gone and topic_matches(each, topic)
            )
    for topic_filter in filters:
        index.remove(session, topic_filter)
    assert is_empty(index)


@settings(max_examples=150)
@given(STEPS, st.lists(TOPICS, min_size=1, max_size=8))
def test_index_agrees_with_matches(steps: list[tuple[bool, int, str]], topics: list[str]) -> None:
    """After any adds and removes: what is matched, returned, counted and told is as in a dict."""
    interest: set[str] = set()

    def on_interest(pattern: str, wanted: bool) -> None:
        assert wanted is not (pattern in interest)
        interest.symmetric_difference_update({pattern})

    index = SubscriptionIndex(on_interest)
    sessions = [make_session(str(number)) for number in range(4)]
    model: dict[tuple[int, str], Subscription] = {}
    for adding, number, topic_filter in steps:
        if adding:
            subscription = Subscription(sessions[number], topic_filter)
            assert index.add(subscription) is model.get((number, topic_filter))
            model[number, topic_filter] = subscription
        else:
            removed = index.remove(sessions[number], topic_filter)
            assert removed is model.pop((number, topic_filter), None)
    assert len(index) == len(model)
    assert index.shared == sum(name.startswith("$share/") for _, name in model)
    assert interest == {subscription.pattern for subscription in model.values()}
    for topic in topics:
        match = index.match(topic)
        expected = [sub for sub in model.values() if topic_matches(sub.pattern, topic)]
        plain = [sub for sub in expected if sub.group is None]
        assert Counter(map(id, match.subscriptions)) == Counter(map(id, plain))
        members = [sub for group in match.groups for sub in group.members.values()]
        shared = [sub for sub in expected if sub.group is not None]
        assert Counter(map(id, members)) == Counter(map(id, shared))
        names = [(group.name, group.pattern) for group in match.groups]
        assert len(names) == len(set(names))
    for number, topic_filter in list(model):
        index.remove(sessions[number], topic_filter)
    assert is_empty(index)
    assert not interest


# -- shared groups


def group_of(size: int) -> tuple[SubscriptionIndex, ShareGroup, list[Session]]:
    index = SubscriptionIndex()
    sessions = [make_session(str(number)) for number in range(size)]
    for session in sessions:
        index.add(Subscription(session, "$share/g/a"))
    (group,) = index.match("a").groups
    return index, group, sessions


def pick(group: ShareGroup, *unable: Session) -> Session | None:
    member = group.next_member(lambda subscription: subscription.session not in unable)
    return None if member is None else member.session


def test_members_take_turns() -> None:
    _, group, sessions = group_of(3)
    assert list(group.members) == sessions
    assert [pick(group) for _ in range(7)] == [*sessions, *sessions, sessions[0]]


def test_a_member_that_is_not_able_is_passed_over() -> None:
    _, group, sessions = group_of(3)
    a, b, c = sessions
    assert [pick(group, b) for _ in range(4)] == [a, c, a, c]
    assert pick(group, a, b, c) is None
    assert pick(group) is a  # nobody lost a turn by that


def test_a_replaced_member_keeps_its_place() -> None:
    index, group, sessions = group_of(3)
    renewed = Subscription(sessions[1], "$share/g/a", 2)
    index.add(renewed)
    assert [pick(group) for _ in range(4)] == [*sessions, sessions[0]]
    assert group.next_member(lambda subscription: True) is renewed


def test_leaving_takes_nobody_elses_turn() -> None:
    index, group, sessions = group_of(5)
    a, b, c, d, e = sessions
    assert [pick(group), pick(group)] == [a, b]
    index.remove(a, "$share/g/a")
    index.remove(c, "$share/g/a")
    assert pick(group) is d
    index.remove(d, "$share/g/a")  # now the holes are closed
    assert [pick(group) for _ in range(3)] == [e, b, e]


def test_a_member_may_leave_and_come_back() -> None:
    index, group, sessions = group_of(2)
    a, b = sessions
    gone = index.remove(a, "$share/g/a")
    assert gone is not None
    index.add(gone)
    assert Counter(pick(group) for _ in range(4)) == {a: 2, b: 2}


def test_members_that_come_and_go_leave_no_waste() -> None:
    index, group, (a, b) = group_of(2)
    for _ in range(100):
        index.remove(a, "$share/g/a")
        assert pick(group) is b
        index.add(Subscription(a, "$share/g/a"))
        assert pick(group) is a
        assert len(group._order) <= 4


def test_the_last_to_leave_ends_the_group() -> None:
    index, group, sessions = group_of(2)
    for session in sessions:
        index.remove(session, "$share/g/a")
    assert index.match("a").groups == []
    assert group.next_member(lambda subscription: True) is None
    index.add(Subscription(sessions[0], "$share/g/a"))
    assert index.match("a").groups[0] is not group


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "pick"]), st.integers(0, 5))))
def test_a_round_reaches_every_member_once(steps: list[tuple[str, int]]) -> None:
    index = SubscriptionIndex()
    sessions = [make_session(str(number)) for number in range(6)]
    keeper = make_session("keeper")
    index.add(Subscription(keeper, "$share/g/a"))
    (group,) = index.match("a").groups
    present = {keeper}
    for action, number in steps:
        session = sessions[number]
        if action == "join":
            index.add(Subscription(session, "$share/g/a"))
            present.add(session)
        elif action == "leave":
            index.remove(session, "$share/g/a")
            present.discard(session)
        else:
            assert pick(group) in present
    assert Counter(pick(group) for _ in range(len(present))) == Counter(present)
    assert len(group._order) <= 2 * len(present)
