"""Mosquitto's acl_file: the rules of mosquitto.conf(5), as Mosquitto 2.0 applies them."""

from pathlib import Path

import pytest

from mqtrio import ConfigurationError
from mqtrio_plugins.acl import AclRule
from mqtrio_plugins.acl.policy import Policy
from tests.plugins.acl.kit import may, policy

EXAMPLE = """\
# This affects access control for clients with no username.
topic read $SYS/#
topic read news of today/#

user ann
topic foo/bar
topic  readwrite   two spaces/#
topic deny ann/secret
topic readwrite ann/#

user bob smith
topic write %c/%u

# This affects all clients.
pattern write $SYS/broker/connection/%c/state
pattern readwrite home/%u/#
pattern deny ann/never
pattern deny home/%u/never
"""


@pytest.fixture
def rules(tmp_path: Path) -> Policy:
    file = tmp_path / "acl"
    file.write_text(EXAMPLE)
    return policy(acl_file=file)


@pytest.mark.parametrize(
    ("user", "what", "topic", "answer"),
    [
        (None, "read", "$SYS/broker/load", True),
        (None, "publish", "$SYS/broker/load", False),
        (None, "read", "news of today/x", True),
        ("ann", "read", "$SYS/broker/load", False),  # the first lines are for the anonymous only
        ("ann", "publish", "foo/bar", True),
        ("ann", "read", "foo/bar", True),
        ("ann", "publish", "two spaces/x", True),
        (None, "publish", "foo/bar", False),
        ("ann", "publish", "ann/secret", False),  # a deny stands first wherever it is written
        ("ann", "publish", "ann/x", True),
        ("ann", "publish", "ann/never", True),  # the lines of a user go before the patterns
        ("bob smith", "publish", "%c/%u", True),  # only patterns have placeholders
        ("bob smith", "publish", "c/bob smith", False),
        ("ann", "publish", "$SYS/broker/connection/c/state", True),
        (None, "publish", "$SYS/broker/connection/c/state", True),
        (None, "publish", "$SYS/broker/connection/d/state", False),
        ("ann", "subscribe", "home/ann/+/x", True),
        ("ann", "publish", "home/ann/never", False),
        ("ann", "publish", "home/bob/x", False),
        (None, "publish", "home//x", False),
        ("a/b", "publish", "home/a/b", False),
        ("a/b", "publish", "$SYS/broker/connection/c/state", True),
        ("#", "publish", "$SYS/broker/connection/c/state", False),  # no pattern for such names
        ("#", "publish", "home/x", False),
    ],
)
def test_what_a_line_grants(
    rules: Policy, user: str | None, what: str, topic: str, answer: bool
) -> None:
    assert may(rules, what, topic, "c", user) is answer


def test_a_client_identifier_with_wildcards_gets_nothing_of_patterns(rules: Policy) -> None:
    for name in ("+", "#", "a+b"):
        assert not may(rules, "publish", "home/ann/x", name, "ann")
        assert may(rules, "publish", "foo/bar", name, "ann")


def test_rules_of_the_settings_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "acl"
    file.write_text("topic deny a\ntopic read b\n")
    both = policy(AclRule(read=("a",), deny=("b",)), acl_file=file)
    assert may(both, "read", "a", user=None)
    assert not may(both, "read", "b", user=None)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("topic", "a topic filter must not be empty"),
        ("topic foo bar", "'foo' is no access; allowed: read, write, readwrite, deny"),
        ("topic read a/#/b", "# must be the whole last level"),
        ("user", "a username is missing"),
        ("users ann", "'users' is unknown; allowed: user, topic, pattern, # comment"),
        ("topic \xff", "not UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "acl"
    file.write_bytes(f"# comment\n\n{line}\n".encode("latin-1"))
    with pytest.raises(ConfigurationError) as caught:
        policy(acl_file=file)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert why in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"acl: No such file"):
        policy(acl_file=tmp_path / "acl")
