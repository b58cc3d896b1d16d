"""Running combiners: the engine's driver in small, and events to run them with."""

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.combine import Steps
from mqtrio.hooks.events import (
    AcceptEvent,
    AcknowledgedEvent,
    AdmitEvent,
    AuthenticateEvent,
    ClientConnectedEvent,
    ClientDisconnectedEvent,
    ConnectionRefusedEvent,
    DeliveredEvent,
    DeliveryEvent,
    DroppedEvent,
    Event,
    PluginFailedEvent,
    PublishedEvent,
    PublishEvent,
    RetainedChangedEvent,
    SessionEndedEvent,
    SessionOpenedEvent,
    SubscribedEvent,
    SubscribeEvent,
    UnsubscribedEvent,
)
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.specs import hookimpl

T = TypeVar("T")

#: Seconds that a hook may take here.
DEADLINE = 5.0

CLIENT = ClientFacts("sensor-1", "ann", "192.0.2.7:50123", 5, "mqtt://127.0.0.1:1883")


async def drive(steps: Steps[T]) -> T:
    """Await what a combiner yields, each time under the deadline, and return its answer."""
    try:
        awaitable = next(steps)
        while True:
            error: Exception | None = None
            value = None
            try:
                with trio.fail_after(DEADLINE):
                    value = await awaitable
            except Exception as caught:  # noqa: BLE001 - thrown into the generator
                error = caught
            awaitable = steps.send(value) if error is None else steps.throw(error)
    except StopIteration as stop:
        answer: T = stop.value
        return answer


def at_once(steps: Steps[T]) -> T:
    """The answer of a combiner that must not wait for anything."""
    try:
        next(steps)
    except StopIteration as stop:
        answer: T = stop.value
        return answer
    raise AssertionError("it waits")


def plugin_of(hook: str, function: Callable[..., Any]) -> object:
    """An object with one marked method, made of a function of (self, event)."""
    return type("Made", (), {hook: hookimpl(function)})()


def manager_of(**hooks: Callable[[Any], Any]) -> HookManager:
    """A manager with one plugin, "made", that has these functions of (event) as its hooks."""
    methods = {name: hookimpl(_as_method(function)) for name, function in hooks.items()}
    manager = HookManager()
    manager.add(type("Made", (), methods)(), "made")
    return manager


def _as_method(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: object, event: Any) -> Any:
        return function(event)

    return method


def publish_event(topic: str = "a/b", **fields: Any) -> PublishEvent:
    """A client's message."""
    return PublishEvent(CLIENT, topic, fields.pop("payload", b"21.5"), **fields)


#: Hook -> an event for it.
EVENTS: dict[str, Callable[[], Event]] = {
    "accept": lambda: AcceptEvent(CLIENT),
    "authenticate": lambda: AuthenticateEvent(CLIENT, b"secret"),
    "admit": lambda: AdmitEvent(CLIENT),
    "authorize_publish": publish_event,
    "authorize_subscribe": lambda: SubscribeEvent(CLIENT, "a/#", 1),
    "transform_publish": publish_event,
    "transform_subscribe": lambda: SubscribeEvent(CLIENT, "a/#", 1),
    "compile_delivery": lambda: DeliveryEvent(CLIENT, "a/#"),
    "client_connected": lambda: ClientConnectedEvent(CLIENT),
    "client_disconnected": lambda: ClientDisconnectedEvent(CLIENT, 0x8E),
    "connection_refused": lambda: ConnectionRefusedEvent(CLIENT, 0x87),
    "session_opened": lambda: SessionOpenedEvent(CLIENT, resumed=False),
    "session_ended": lambda: SessionEndedEvent(CLIENT, "expired"),
    "subscribed": lambda: SubscribedEvent(CLIENT, "a/#"),
    "unsubscribed": lambda: UnsubscribedEvent(CLIENT, "a/#"),
    "published": lambda: PublishedEvent(CLIENT, "a/b", b"21.5"),
    "delivered": lambda: DeliveredEvent(CLIENT, "a/b", b"21.5"),
    "acknowledged": lambda: AcknowledgedEvent(CLIENT, "a/b", 1),
    "dropped": lambda: DroppedEvent(CLIENT, "a/b", 0, "outbox_full"),
    "retained_changed": lambda: RetainedChangedEvent(CLIENT, "a/b", b"21.5"),
    "plugin_failed": lambda: PluginFailedEvent("other", "published", "raised", "it raised"),
}
