"""The short way of plain QoS 0 messages where plugins are asked or told about them.

It takes a run of messages to one topic at a time. What happens to each of them is what publish.py
says; only observers are told when the whole run is on its way. An event that no plugin has kept
serves for the next message, because making one costs as much as asking.
"""

import sys
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mqtrio.engine import publish
from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow
from mqtrio.hooks.calls import Calls, nobody, nonsense
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import PublishEvent

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection

#: What hooks have noted with a message, by its place in the run.
Notes = dict[int, dict[object, Any]]

#: Delivers the first messages of the run, as many as it is told.
Forward = Callable[[int], object]


def take(connection: "Connection", packets: list[Any], forward: Forward) -> int:
    """Handle the first of these messages and as many as go the same way; returns their number."""
    hooks = connection.core.hooks
    if not connection.remembers(packets[0].topic):
        authorizers = combine.publish_authorizers(hooks, connection.permissions)
        if authorizers:
            return _ask(connection, packets, forward, authorizers)
    count = len(packets)
    forward(count)
    _tell(connection, packets, count)
    return count


def _ask(
    connection: "Connection",
    packets: list[Any],
    forward: Forward,
    authorizers: Calls,
) -> int:
    """Ask about each, up to the first that is not allowed on the spot."""
    client = connection.client
    rulings = connection.rulings
    topic = packets[0].topic
    notes: Notes = {}
    event = PublishEvent(client, topic, b"")
    stopped: Any = None  # a Deny, or the steps to an answer that must be waited for
    taken = 0
    # The plain Allow of a single authorizer needs nobody to put answers together.
    single = authorizers[0] if len(authorizers) == 1 else None
    function = nobody if single is None else single.function
    ask = function if single is None or single.calls + 1 < single.due else single.sample
    for packet in packets:
        if references(event) == OWN and event.scratch is None:
            event.payload = packet.payload
            # A plugin that writes to events must not decide about the next message.
            event.client = client
            event.topic = topic
            event.qos = 0
            event.retain = False
            event.properties = None
            event.origin = "client"
        else:
            event = PublishEvent(client, topic, packet.payload)
        try:
            answer = ask(event)
            ask = function
        except Exception as error:  # noqa: BLE001 - a plugin's, reported
            stopped = combine.failed(authorizers[0], error)
            break
        if answer.__class__ is not Allow or answer.max_qos is not None:
            if single is None:
                answer = combine.authorize(authorizers, event)
            else:
                answer = combine.ruling(single, answer, event)
            if not isinstance(answer, Allow):
                stopped = answer
                break
        if event.scratch is not None:
            notes[taken] = event.scratch
        taken += 1
        if answer.remember:
            connection.remember(topic, rulings)
            break  # the others need not be asked about
        if connection.rulings != rulings or connection.closed:
            break  # whoever was asked has changed who is to be asked
    if single is not None:
        single.calls += taken + (stopped is not None)
    if taken:
        forward(taken)
        _tell(connection, packets, taken, notes)
    if stopped is not None:
        connection.start(publish.ruled(connection, packets[taken], event, stopped))
        taken += 1
    return taken


def _tell(
    connection: "Connection", packets: list[Any], count: int, notes: Notes | None = None
) -> None:
    """Tell observers of the first `count` messages, which are on their way."""
    hooks = connection.core.hooks
    calls = hooks.published
    if not calls:
        return
    client = connection.client
    topic = packets[0].topic
    if notes:
        for place in range(count):
            event = PublishEvent(client, topic, packets[place].payload)
            event.scratch = notes.get(place)
            hooks.notify(hooks.published, event)
        return
    event = PublishEvent(client, topic, packets[0].payload)
    hooks.notify(calls, event)  # which knows whether it is time to time them
    for packet in islice(packets, 1, count):
        if references(event) == OWN and event.scratch is None and event.topic is topic:
            event.payload = packet.payload
        else:
            event = PublishEvent(client, topic, packet.payload)
        for call in calls:
            try:
                answer = call.function(event)
            except Exception as error:  # noqa: BLE001 - a plugin's, reported
                hooks.observer_failed(call, error)
            else:
                if answer is not None:
                    hooks.observer_failed(call, nonsense(answer, "None"))
    calls[0].told += count - 1


def _no_count(event: object) -> int:
    return 0


def _references() -> int:
    """How many references to an event are counted where nobody but its maker has one."""
    event = PublishEvent(ClientFacts(), "", b"")
    return references(event)


#: Counts references; where the interpreter can't, every event counts as kept.
references: Final[Callable[[object], int]] = getattr(sys, "getrefcount", _no_count)
OWN: Final = _references() or -1
