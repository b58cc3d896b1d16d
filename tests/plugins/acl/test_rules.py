"""What rules grant, to whom, and what they deny."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtrio import Allow, ConfigurationError, topic_matches
from mqtrio_plugins.acl import AclRule, AclSettings
from mqtrio_plugins.acl.plugin import read_policy
from mqtrio_plugins.acl.policy import KNOWN, LONGEST_KNOWN
from tests.plugins.acl.kit import may, policy


def test_nothing_is_allowed_without_a_rule() -> None:
    empty = policy()
    assert not any(may(empty, what, "a") for what in ("publish", "read", "subscribe"))


@pytest.mark.parametrize(
    ("access", "publish", "read"),
    [("read", False, True), ("write", True, False), ("readwrite", True, True)],
)
def test_access(access: str, publish: bool, read: bool) -> None:
    rules = policy(AclRule(**{access: ("a/#", "b")}))  # type: ignore[arg-type]  # by name
    for topic in ("a", "a/b/c", "b"):
        assert may(rules, "publish", topic) is publish
        assert may(rules, "read", topic) is read
        assert may(rules, "subscribe", topic) is read
    assert not may(rules, "publish", "b/c")
    assert not may(rules, "read", "b/c")


def test_a_deny_beats_every_allow() -> None:
    rules = policy(AclRule(readwrite=("a/#", "a/b")), AclRule(users=("u",), deny=("a/b",)))
    assert may(rules, "publish", "a/c")
    assert not may(rules, "publish", "a/b")
    assert not may(rules, "read", "a/b")
    assert may(rules, "publish", "a/b", user="other")


@pytest.mark.parametrize(
    ("rule", "users", "clients"),
    [
        (AclRule(write=("t",)), ["ann", "bob", None], ["1", "2"]),
        (AclRule(write=("t",), users=("ann",)), ["ann"], ["1", "2"]),
        (AclRule(write=("t",), anonymous=True), [None], ["1", "2"]),
        (AclRule(write=("t",), users=("bob",), anonymous=True), ["bob", None], ["1", "2"]),
        (AclRule(write=("t",), client_ids=("2",)), ["ann", "bob", None], ["2"]),
        (AclRule(write=("t",), users=("ann",), client_ids=("1",)), ["ann"], ["1"]),
    ],
)
def test_whom_a_rule_is_for(rule: AclRule, users: list[str | None], clients: list[str]) -> None:
    rules = policy(rule)
    for user in ("ann", "bob", None):
        for client in ("1", "2"):
            expected = user in users and client in clients
            assert may(rules, "publish", "t", client, user) is expected


@pytest.mark.parametrize(
    ("granted", "asked", "answer"),
    [
        ("a/#", "a/+/c", True),
        ("a/#", "a/#", True),
        ("a/+", "a/b", True),
        ("a/+", "a/#", False),
        ("#", "+/x", True),
        ("#", "$SYS/#", False),
        ("$SYS/#", "$SYS/broker/+", True),
        ("a/b", "a/+", False),
        ("a/b", "#", False),
    ],
)
def test_a_subscription_must_lie_inside_of_a_grant(granted: str, asked: str, answer: bool) -> None:
    assert may(policy(AclRule(read=(granted,))), "subscribe", asked) is answer


def test_a_denied_part_does_not_refuse_a_subscription() -> None:
    rules = policy(AclRule(read=("#",), deny=("secret/#", "x")))
    grants = rules.grants("c", "u")
    for asked, allowed, whole in (
        ("#", True, False),
        ("+/a", True, False),
        ("a/#", True, True),
        ("secret/#", False, True),  # nothing of it is left
        ("secret/a", False, True),
        ("x", False, True),
        ("+", True, False),
    ):
        answer, undisturbed = grants.read.covering(asked)
        assert (isinstance(answer, Allow), undisturbed) == (allowed, whole), asked


# -- placeholders


def test_placeholders_are_the_clients_own_names() -> None:
    rules = policy(AclRule(readwrite=("dev/%c/up", "home/%u/#", "x-%u-%c/y")))
    for topic in ("dev/c/up", "home/u", "home/u/a/b", "x-u-c/y"):
        assert may(rules, "publish", topic)
        assert may(rules, "subscribe", topic)
    for topic in ("dev/d/up", "home/v/a", "dev/%c/up"):
        assert not may(rules, "publish", topic)


@pytest.mark.parametrize("name", ["+", "#", "a/b", "/", "a+", "#a", ""])
def test_names_that_would_be_filters_match_nothing(name: str) -> None:
    rules = policy(AclRule(readwrite=("own/%c", "own/%c/#", "home/%u/#")))
    for topic in (f"own/{name}", f"home/{name}/x", "own/x", "home/x", "home/x/x", "own/a/b"):
        assert not may(rules, "publish", topic, client_id=name, user=name)
        assert not may(rules, "read", topic, client_id=name, user=name)
    assert not may(rules, "subscribe", f"own/{name}", client_id=name)
    # The other name is good all the same.
    assert may(rules, "publish", "home/u/x", client_id=name, user="u")


def test_the_anonymous_have_no_user() -> None:
    rules = policy(AclRule(readwrite=("home/%u", "dev/%c")))
    for topic in ("home/", "home/None", "home/%u"):
        assert not may(rules, "publish", topic, user=None)
    assert may(rules, "publish", "dev/c", user=None)


def test_a_client_called_like_a_placeholder() -> None:
    rules = policy(AclRule(readwrite=("own/%c",)))
    assert may(rules, "publish", "own/%u", client_id="%u", user="ann")
    assert not may(rules, "publish", "own/ann", client_id="%u", user="ann")


FILTERS = st.sampled_from(["a", "a/+", "a/#", "#", "+/b", "a/b", "b/#", "+"])
TOPICS = st.sampled_from(["a", "b", "a/b", "a/c", "b/b", "b/c/d", "c"])


@given(st.lists(FILTERS), st.lists(FILTERS), FILTERS, TOPICS)
def test_what_is_granted_is_what_the_filters_say(
    read: list[str], deny: list[str], asked: str, topic: str
) -> None:
    grants = policy(AclRule(read=tuple(read), deny=tuple(deny))).grants("c", "u")
    denied = any(topic_matches(each, topic) for each in deny)
    granted = any(topic_matches(each, topic) for each in read)
    assert isinstance(grants.read.find(topic), Allow) is (granted and not denied)
    answer, whole = grants.read.covering(asked)
    if isinstance(answer, Allow) and whole and topic_matches(asked, topic):
        assert granted
        assert not denied


# -- what is refused, and what is said


@pytest.mark.parametrize("wrong", ["", "a/#/b", "a+", "$share/g/a", "a\0"])
def test_bad_filters(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="write: "):
        AclRule(write=("good", wrong))


def test_answers_name_their_rule(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[[rules]]\nread = ["a"]\n[[rules]]\nusers = ["u"]\ndeny = ["b/#"]\n')
    rules = read_policy("door", AclSettings(rules=(AclRule(write=("x/%c",)),), file=file))
    grants = rules.grants("c", "u")
    said = [
        answer.why
        for answer in (grants.write.find("x/c"), grants.read.find("a"), grants.read.find("b/1"))
        if answer is not None
    ]
    assert said == [
        "door: rule 1: write x/%c",
        f"{file}: rule 1: read a",
        f"{file}: rule 2: deny b/#",
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('[[rules]]\nread = ["a"]\n[[rules]]\nread = ["a/#/b"]\n', 3, "read: "),
        ('[[rules]]\nread = "a"\n', 2, "rules"),
        ('[[rules]]\nraed = ["a"]\n', 2, "did you mean read"),
        ("[[rules]\n", 1, "TOML"),
    ],
)
def test_errors_of_a_file_name_file_and_line(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        policy(file=file)
    assert f"{file}:{line}: " in str(caught.value)
    assert what in str(caught.value)


def test_a_client_can_not_make_the_rules_remember_much() -> None:
    grants = policy(AclRule(write=("a/#",))).grants("c", "u")
    for number in range(5 * KNOWN):
        assert grants.write.find(f"a/{number}") is not None
        assert grants.write.find(f"b/{number}") is None
        assert len(grants.write._known) <= KNOWN
    before = len(grants.write._known)
    assert grants.write.find("a/" + "x" * LONGEST_KNOWN) is not None
    assert len(grants.write._known) == before
