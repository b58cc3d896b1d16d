from typing import get_args

import attrs
import pytest

from mqtrio.store.changes import (
    CHANGES,
    Change,
    MessagePut,
    QueuedPut,
    RetainedPut,
    SessionRemoved,
    WillPut,
    publish_properties,
    stored_properties,
    touched,
)
from mqtrio.wire.packets import PublishProperties

SECRET = b"s3cret"
USER_PROPERTIES = (("unit", "cleartext"),)
STORED = (1, "text/plain", "answers", b"id", USER_PROPERTIES)


def test_the_table_is_the_union() -> None:
    assert set(CHANGES.values()) == set(get_args(Change))


@pytest.mark.parametrize("kind", CHANGES.values(), ids=CHANGES)
def test_changes_are_slotted_and_documented(kind: type[Change]) -> None:
    # attrs would put the signature there.
    assert kind.__doc__
    assert not kind.__doc__.startswith(kind.__name__)
    assert "__dict__" not in dir(kind)


@pytest.mark.parametrize(
    "change",
    [
        MessagePut(1, "a", SECRET, 1, False, STORED),
        RetainedPut("a", SECRET, 1, STORED),
        WillPut("c", None, "a", SECRET, 1, False, 5, 60, STORED),
    ],
    ids=lambda change: type(change).__name__,
)
def test_a_repr_shows_neither_payload_nor_properties(change: Change) -> None:
    assert "s3cret" not in repr(change)
    assert "cleartext" not in repr(change)
    assert repr(change).startswith(type(change).__name__)


def test_equal_values_are_equal_changes() -> None:
    assert QueuedPut("c", 1, 2, 1) == QueuedPut("c", 1, 2, 1)
    assert QueuedPut("c", 1, 2, 1) != QueuedPut("c", 1, 2, 2)
    assert MessagePut(1, "a", b"x", 1, False) != MessagePut(1, "a", b"y", 1, False)


def test_every_change_with_a_client_id_touches_it() -> None:
    for kind in CHANGES.values():
        names = [field.name for field in attrs.fields(kind)]
        change = kind(*["c"] * len(names))  # type: ignore[arg-type]  # the types don't matter here
        assert touched(change) == ("c" if names[0] == "client_id" else None)
    assert touched(SessionRemoved("other")) == "other"


def test_properties_survive_the_store() -> None:
    properties = PublishProperties(1, 60, "text/plain", "answers", b"id", USER_PROPERTIES)
    assert stored_properties(properties) == STORED
    assert publish_properties(STORED, 60) == properties


def test_what_belongs_to_one_connection_is_not_stored() -> None:
    transient = PublishProperties(
        message_expiry_interval=60, subscription_identifiers=(7,), topic_alias=3
    )
    assert stored_properties(transient) is None
    assert stored_properties(None) is None


def test_no_properties_are_none_again() -> None:
    assert publish_properties(None) is None
    assert publish_properties(None, 9) == PublishProperties(message_expiry_interval=9)
