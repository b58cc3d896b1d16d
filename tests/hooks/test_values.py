"""Answers and events as values: what they refuse to be, what they never show, what they share."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from mqtrio.hooks import answers, events
from mqtrio.hooks.answers import (
    Allow,
    Challenge,
    ClientLimits,
    Close,
    Deny,
    Drop,
    Reject,
    Throttle,
)
from mqtrio.hooks.client import ClientFacts, ConnectionSlot, MessageSlot
from mqtrio.hooks.events import (
    AuthenticateEvent,
    ClientConnectedEvent,
    ClientEvent,
    DeliveredEvent,
    Event,
    PublishEvent,
    RetainedChangedEvent,
    SubscribeEvent,
)
from mqtrio.reasons import ReasonCode
from mqtrio.wire.packets import Will
from tests.hooks.driver import CLIENT, EVENTS, publish_event

IMPOSSIBLE: list[Callable[[], object]] = [
    lambda: Deny(0),
    lambda: Deny(0x10),
    lambda: Deny(0x77),
    lambda: Reject(0),
    lambda: Close(ReasonCode.SUCCESS),
    lambda: Allow(max_qos=3),
    lambda: Throttle(0),
    lambda: Throttle(-1),
    lambda: Throttle(math.nan),
    lambda: Throttle(math.inf),
    lambda: ClientLimits(receive_maximum=0),
    lambda: ClientLimits(queue_bytes=-1),
]


@pytest.mark.parametrize("make", IMPOSSIBLE)
def test_an_answer_that_can_not_be_right_is_not_made(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


def test_a_plain_number_is_a_reason_code_too() -> None:
    assert Deny(0x8A).reason_code is ReasonCode.BANNED
    assert Deny().reason_code is ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize(
    "answer", [Allow(), Deny(), Challenge(), Drop(), Reject(), Close(), Throttle(1)]
)
def test_answers_are_frozen_and_say_why(answer: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        answer.why = "x"
    assert attrs.evolve(answer, why="rule 7").why == "rule 7"


SECRETS = [
    Allow(authentication_data=b"hunter2"),
    Challenge(b"hunter2"),
    AuthenticateEvent(CLIENT, b"hunter2"),
    AuthenticateEvent(CLIENT, data=b"hunter2"),
    AuthenticateEvent(CLIENT, will=Will("a", b"hunter2")),
    publish_event(payload=b"hunter2"),
    publish_event().changed(payload=b"hunter2"),
    DeliveredEvent(CLIENT, "a", b"hunter2"),
    RetainedChangedEvent(CLIENT, "a", b"hunter2"),
]


@pytest.mark.parametrize("value", SECRETS)
def test_secrets_and_payloads_are_not_shown(value: object) -> None:
    assert "hunter2" not in repr(value)


@pytest.mark.parametrize("make", EVENTS.values(), ids=EVENTS)
def test_events_have_no_room_for_other_attributes(make: Callable[[], Event]) -> None:
    event: Any = make()
    # A frozen class says so; a slotted one has no such attribute.
    with pytest.raises((AttributeError, attrs.exceptions.FrozenInstanceError)):
        event.surprise = 1
    assert not hasattr(event, "__dict__")


@pytest.mark.parametrize(
    "make", [make for make in EVENTS.values() if isinstance(make(), ClientEvent)]
)
def test_events_of_a_connection_know_its_client(make: Callable[[], Any]) -> None:
    event = make()
    assert (event.client_id, event.username, event.address) == (
        "sensor-1",
        "ann",
        "192.0.2.7:50123",
    )
    assert (event.protocol_version, event.listener, event.tls) == (
        5,
        "mqtt://127.0.0.1:1883",
        None,
    )


def test_every_class_of_the_modules_is_an_event_or_an_answer() -> None:
    made = [
        value
        for value in vars(events).values()
        if isinstance(value, type) and issubclass(value, Event)
    ]
    base = {Event, ClientEvent}
    assert {type(make()) for make in EVENTS.values()} <= set(made)
    assert all(cls.__name__.endswith("Event") for cls in set(made) - {events.ChangedMessage})
    assert all(cls.__doc__ for cls in made)
    assert base < set(made)
    assert answers.Allow.__doc__ is not None


def test_what_is_not_named_stays_in_a_changed_message() -> None:
    event = publish_event(qos=2, retain=True)
    made = event.changed()
    assert made is not event
    for name in ("client", "topic", "payload", "qos", "retain", "properties", "origin"):
        assert getattr(made, name) is getattr(event, name)
    request = SubscribeEvent(CLIENT, "a/#", 1, no_local=True, identifier=3)
    assert request.changed() == request


# -- slots


def test_a_connection_slot_is_shared_by_all_events_of_a_connection() -> None:
    slot: ConnectionSlot[Counter[str]] = ConnectionSlot(Counter)
    client = ClientFacts("a")
    slot.get(PublishEvent(client, "t", b""))["messages"] += 1
    slot.get(ClientConnectedEvent(client))["connects"] += 1
    assert slot.get(SubscribeEvent(client, "t")) == {"messages": 1, "connects": 1}
    assert slot.get(PublishEvent(ClientFacts("a"), "t", b"")) == {}


def test_slots_of_two_plugins_do_not_mix() -> None:
    first, second = ConnectionSlot(list[int]), ConnectionSlot(list[int])
    event = publish_event()
    first.set(event, [1])
    second.get(event).append(2)
    assert (first.get(event), second.get(event)) == ([1], [2])
    fresh = ClientConnectedEvent(ClientFacts())
    second.set(fresh, [3])
    assert (first.get(fresh), second.get(fresh)) == ([], [3])


def test_a_message_slot_goes_with_the_message_through_changes() -> None:
    before, after = MessageSlot(list[int]), MessageSlot(list[int])
    event = publish_event()
    before.get(event).append(1)
    made = event.changed(topic="x").changed(payload=b"")
    after.set(made, [2])
    assert before.get(made) == [1]
    assert after.get(event) == [2]
    assert before.get(publish_event()) == []
    late = publish_event()
    after.set(late, [5])
    assert after.get(late) == [5]
