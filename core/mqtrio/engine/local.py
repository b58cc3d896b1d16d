"""Publishing and subscribing from the broker's own process: the same way as clients', no bytes."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import trio

from mqtrio.engine.publish import Outcome, submit, submit_unasked
from mqtrio.engine.steps import complete
from mqtrio.engine.subscribe import Granted, wants_retained
from mqtrio.engine.subscriber import Subscriber
from mqtrio.errors import RefusedError, StoreError
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import Origin, PublishEvent
from mqtrio.reasons import ReasonCode
from mqtrio.state.message import message_of
from mqtrio.state.session import Session
from mqtrio.store.batch import COMMITTED, wait_committed
from mqtrio.wire.packets import (
    MQTT_5,
    NEVER_EXPIRES,
    Publish,
    PublishProperties,
    SubscriptionRequest,
)

if TYPE_CHECKING:
    from mqtrio.engine.core import Core


class Publisher:
    """A program that publishes, where it must wait for subscribers that are behind."""

    __slots__ = ("stalls", "event")

    def __init__(self) -> None:
        self.stalls = 0
        self.event = trio.Event()

    def stall(self) -> None:
        """It waits by itself, in `publish`."""

    def unstall(self) -> None:
        """The subscribers have caught up, or are given up."""
        self.event.set()


async def publish(
    core: "Core",
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool,
    properties: PublishProperties | None,
    origin: Origin = "local",
    client: ClientFacts | None = None,
) -> int:
    """Publish one message and wait for what its acknowledgement would wait for.

    Returns the reason code. Raises RefusedError, or StoreError if it could not be stored.
    """
    await trio.lowlevel.checkpoint()
    core.tick()
    client = client or ClientFacts()
    if core.hooks.publish_is_plain:
        packet = Publish(topic, payload, qos, retain, properties=properties)
        message = message_of(packet, client.client_id, client.username, core.now)
        message.origin = origin
        steps = submit_unasked(core, message)
    else:
        event = PublishEvent(client, topic, payload, qos, retain, properties, origin)
        steps = submit(core, event)
    try:
        outcome: Outcome = await complete(core, steps)
        stalled = _stalled(core)
    finally:
        core.flush()
    if outcome.refused:
        raise RefusedError(outcome.reason_code, outcome.why or "the message was refused")
    if qos and outcome.batch is not COMMITTED:
        await wait_committed(outcome.batch)
    if stalled is not None:
        await stalled.event.wait()
    return outcome.reason_code


def _stalled(core: "Core") -> Publisher | None:
    if not core.pressure.congested:
        return None
    publisher = Publisher()
    core.pressure.stall(publisher)
    return publisher if publisher.stalls else None


def payload_bytes(payload: object) -> bytes:
    """The bytes of what a program gives as payload; raises TypeError."""
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    raise TypeError(f"a payload is bytes or str, not {type(payload).__name__}")


def properties_of(
    payload_format_indicator: int | None,
    message_expiry_interval: int | None,
    content_type: str | None,
    response_topic: str | None,
    correlation_data: bytes | None,
    user_properties: Iterable[tuple[str, str]] | Mapping[str, str],
) -> PublishProperties | None:
    """The properties of a message that a program publishes, None for none; raises ValueError."""
    if message_expiry_interval is not None and not 0 <= message_expiry_interval < 1 << 32:
        raise ValueError("message_expiry_interval must be 0 to 4,294,967,295 seconds")
    pairs = user_properties.items() if isinstance(user_properties, Mapping) else user_properties
    properties = PublishProperties(
        payload_format_indicator,
        message_expiry_interval,
        content_type,
        response_topic,
        correlation_data,
        tuple((str(name), str(value)) for name, value in pairs),
    )
    return None if properties == PublishProperties() else properties


async def join(
    core: "Core",
    client_id: str,
    topic_filters: Iterable[str],
    qos: int,
    size: int,
    timeout: float | None,
    *,
    durable: bool,
    retained: bool,
) -> Subscriber:
    """Subscribe; the messages come out of the Subscriber. Raises RefusedError, StoreError."""
    session, new = _claim(core, client_id) if durable else (Session(client_id, None, MQTT_5), True)
    subscriber = core.sessions.local[session] = Subscriber(core, session, size, timeout)
    core.sessions.set_bounds(session, None)
    client = ClientFacts(client_id, None, protocol_version=MQTT_5)
    batch = COMMITTED
    if durable and new:
        batch = core.recorder.session_opened_locally(session)
    elif durable:
        core.router.forget_session(session)
    replays = []
    try:
        for topic_filter in topic_filters:
            wanted = SubscriptionRequest(topic_filter, qos, retain_handling=1)
            limit = core.limits.subscriptions_per_session
            granted: Granted = await complete(
                core,
                core.subscriptions.request(session, client, wanted, limit, origin="local"),
            )
            if granted.subscription is None:
                raise RefusedError(granted.reason_code, f"{topic_filter!r} was refused")
            if granted.batch is not COMMITTED:
                batch = granted.batch
            if retained and wants_retained(granted.subscription, granted.new):
                replays.append(granted.subscription)
        await wait_committed(batch)
    except BaseException:
        leave(core, subscriber, durable=durable and not new)
        raise
    core.tick()
    session.outlet = subscriber
    core.deliveries.resume(session)
    for subscription in replays:
        core.subscriptions.replay(subscription)
    core.flush()
    return subscriber


def _claim(core: "Core", client_id: str) -> tuple[Session, bool]:
    """The durable session of this name, which nobody else may use now."""
    if client_id in core.sessions.reloading:
        raise StoreError("the session is being restored")
    session = core.sessions.by_id.get(client_id)
    if session is None:
        session = Session(client_id, None, MQTT_5)
        session.expiry_interval = NEVER_EXPIRES
        core.sessions.add(session)
        return session, True
    if session in core.sessions.local:
        raise RefusedError(ReasonCode.PACKET_IDENTIFIER_IN_USE, "this session is in use")
    return session, False


def leave(core: "Core", subscriber: Subscriber, *, durable: bool) -> None:
    """The program has stopped listening; a durable session goes on collecting messages."""
    session = subscriber.session
    session.outlet = None
    core.sessions.local.pop(session, None)
    subscriber.leave()
    core.tick()
    if subscriber.stalled is not None:
        core.pressure.release(subscriber)
    if durable:
        session.disconnected(core.now)
        core.pages.trim(session)
    elif core.sessions.by_id.get(session.client_id) is session:
        core.sessions.remove(session)
    else:
        for topic_filter in list(session.subscriptions):
            core.router.remove(session, topic_filter)
        core.sessions.empty(session)
    core.flush()
