"""Topic aliases of both directions (3.3.2.3.4)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtrio.errors import ProtocolError
from mqtrio.reasons import ReasonCode
from mqtrio.state.aliases import IncomingAliases, OutgoingAliases

INVALID = ReasonCode.TOPIC_ALIAS_INVALID
PROTOCOL = ReasonCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("maximum", "topic", "alias", "code"),
    [
        # [MQTT-3.3.2-8], X-5-ALIAS-2: 0 is no alias
        (2, "a", 0, INVALID),
        (2, "", 0, INVALID),
        # [MQTT-3.3.2-9], [MQTT-3.2.2-17]
        (2, "a", 3, INVALID),
        (2, "", 3, INVALID),
        (2, "a", 65_535, INVALID),
        # [MQTT-3.2.2-18]: none was offered
        (0, "a", 1, INVALID),
        (0, "", 1, INVALID),
        # X-5-ALIAS-3
        (2, "", None, PROTOCOL),
        (0, "", None, PROTOCOL),
        (2, "", 2, PROTOCOL),
    ],
)
def test_refused(maximum: int, topic: str, alias: int | None, code: ReasonCode) -> None:
    aliases = IncomingAliases(maximum)
    if maximum:
        aliases.resolve("known", 1)
    with pytest.raises(ProtocolError) as caught:
        aliases.resolve(topic, alias)
    assert caught.value.reason_code is code


def test_an_alias_means_its_last_topic() -> None:
    """X-5-ALIAS-4."""
    aliases = IncomingAliases(3)
    assert aliases.resolve("plain", None) == "plain"
    assert aliases.resolve("a", 1) == "a"
    assert aliases.resolve("c", 3) == "c"
    assert aliases.resolve("", 1) == "a"
    assert aliases.resolve("b", 1) == "b"
    assert aliases.resolve("", 1) == "b"
    assert aliases.resolve("", 3) == "c"
    assert aliases.resolve("", 3) == "c"


def test_a_refused_alias_maps_nothing() -> None:
    aliases = IncomingAliases(1)
    for alias in (0, 2):
        with pytest.raises(ProtocolError):
            aliases.resolve("a", alias)
        with pytest.raises(ProtocolError) as caught:
            aliases.resolve("", alias)
        assert caught.value.reason_code is INVALID
    with pytest.raises(ProtocolError) as caught:
        aliases.resolve("", 1)
    assert caught.value.reason_code is PROTOCOL


def test_an_error_does_not_repeat_the_topic() -> None:
    with pytest.raises(ProtocolError) as caught:
        IncomingAliases(1).resolve("secret", 2)
    assert "secret" not in str(caught.value)


def test_outgoing_aliases_stay_within_the_maximum() -> None:
    """[MQTT-3.1.2-26], [MQTT-3.3.2-11], -12: all of 1 to the maximum, and no other."""
    aliases = OutgoingAliases(2)
    assert aliases.use("a") == (1, True)
    assert aliases.use("a") == (1, False)
    assert aliases.use("b") == (2, True)
    assert aliases.use("c") == (0, False)
    assert aliases.use("c") == (0, False)
    assert aliases.use("b") == (2, False)
    assert aliases.use("a") == (1, False)


def test_no_aliases_for_a_peer_that_allows_none() -> None:
    """[MQTT-3.1.2-27]."""
    aliases = OutgoingAliases(0)
    assert aliases.use("a") == (0, False)
    assert aliases.use("a") == (0, False)


def test_a_forgotten_alias_is_new_again() -> None:
    aliases = OutgoingAliases(2)
    aliases.use("a")
    aliases.use("b")
    aliases.forget("a")
    aliases.forget("never used")
    assert aliases.use("c") == (1, True)
    assert aliases.use("a") == (0, False)
    aliases.forget("b")
    assert aliases.use("b") == (2, True)


@settings(max_examples=150)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["sent", "sent", "lost"]))),
)
def test_the_peer_always_understands(maximum: int, steps: list[tuple[str, str]]) -> None:
    """What one end writes, the other reads as it was meant, though some packets are never sent."""
    ours, theirs = OutgoingAliases(maximum), IncomingAliases(maximum)
    for topic, fate in steps:
        alias, new = ours.use(topic)
        if fate == "lost":
            if new:
                ours.forget(topic)
            continue
        written = "" if alias and not new else topic
        assert theirs.resolve(written, alias or None) == topic
