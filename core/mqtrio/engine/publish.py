"""The one way of every message: authorize, transform, retain, route, acknowledge (3.3, DESIGN 2).

A client's PUBLISH, a will, a message of this process, of a bridge or of the broker itself: they
differ in `origin` and in who is told what became of them.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from mqtrio.engine.convert import event_of, is_text, message_from
from mqtrio.engine.pressure import Behind
from mqtrio.engine.router import SLICE
from mqtrio.engine.steps import Steps, detach
from mqtrio.engine.weights import RECEIPT
from mqtrio.errors import ProtocolError
from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow, Close, Deny, Drop, Permissions, Reject
from mqtrio.hooks.events import Origin, PublishEvent
from mqtrio.hooks.manager import default_allows_publish
from mqtrio.reasons import ReasonCode
from mqtrio.state.message import Message, message_of
from mqtrio.store.batch import COMMITTED, Batch, BatchState
from mqtrio.wire.encoder import acknowledgement, encode_within
from mqtrio.wire.packets import PubAck, Publish, PubRec

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core
    from mqtrio.engine.route import Route

log = logging.getLogger("mqtrio.publish")

PUBACK: Final = 4
PUBREC: Final = 5


class Outcome:
    """What became of a message: its reason code, and what the acknowledgement waits for.

    `close`: the publisher's connection ends with the reason code. `unanswered`: an MQTT 3 publisher
    gets no acknowledgement, so that it sends the message again.
    """

    __slots__ = ("reason_code", "why", "batch", "close", "unanswered", "throttle")

    def __init__(
        self,
        reason_code: int = 0,
        why: str | None = None,
        batch: Batch = COMMITTED,
        *,
        close: bool = False,
        unanswered: bool = False,
    ) -> None:
        self.reason_code = reason_code
        self.why = why
        self.batch = batch
        self.close = close
        self.unanswered = unanswered
        self.throttle = 0.0

    @property
    def refused(self) -> bool:
        """Whether the message went nowhere because somebody said no."""
        return self.reason_code >= ReasonCode.UNSPECIFIED_ERROR


# -- from a client


def on_publish(connection: "Connection", packet: Publish) -> None:
    """A client's message [MQTT-3.3.4-1]."""
    core = connection.core
    _check(connection, packet)
    session = connection.session
    assert session is not None
    properties = packet.properties
    if properties is not None and properties.payload_format_indicator:
        if not is_text(packet.payload):
            _refuse_format(connection, packet)
            return
    if packet.qos == 2 and session.received and packet.packet_id in session.received:
        # [MQTT-4.3.3-10]: a repetition is acknowledged again and goes nowhere.
        data = acknowledgement(PUBREC, packet.packet_id, 0, connection.decoder.version)
        connection.reply(data, COMMITTED)
        return
    core.statistics.messages_received += 1
    if connection.asked:
        connection.start(_ask(connection, packet))
        return
    message = message_of(packet, connection.client_id, connection.username, core.now)
    route = core.router.route(packet.topic)
    if route.plain:
        _acknowledge(connection, packet, _accept(core, route, message, connection, packet))
    else:
        connection.start(_pass(connection, packet, message))


def deny(connection: "Connection", packet: Publish) -> None:
    """A client's message that must not be, whoever would allow it."""
    _check(connection, packet)
    _acknowledge(connection, packet, Outcome(ReasonCode.NOT_AUTHORIZED))


def _check(connection: "Connection", packet: Publish) -> None:
    """What the standard and the settings forbid; resolves the topic alias first."""
    core = connection.core
    if packet.properties is not None:
        connection.resolve_alias(packet)
    if packet.topic.count("/") >= core.limits.topic_levels:
        raise ProtocolError(ReasonCode.TOPIC_NAME_INVALID, "the topic has too many levels")
    if packet.retain and not core.settings.session.retain_available:
        raise ProtocolError(ReasonCode.RETAIN_NOT_SUPPORTED, "retained messages are not supported")
    if not packet.qos:
        return
    if packet.qos > connection.maximum_qos:  # [MQTT-3.2.2-11]
        raise ProtocolError(ReasonCode.QOS_NOT_SUPPORTED, "this QoS is not supported")
    if connection.receive_maximum:
        session = connection.session
        assert session is not None
        received = session.received or ()
        unfinished = connection.owed_pubacks + len(received)
        repeated = packet.qos == 2 and packet.packet_id in received
        if unfinished >= connection.receive_maximum and not repeated:  # [MQTT-3.3.4-7]
            raise ProtocolError(
                ReasonCode.RECEIVE_MAXIMUM_EXCEEDED, "more messages under way than announced"
            )


def _refuse_format(connection: "Connection", packet: Publish) -> None:
    """Payload Format Indicator 1 promises UTF-8 (3.3.2.3.2)."""
    why = "the payload is not UTF-8 as it claims"
    if not packet.qos:
        raise ProtocolError(ReasonCode.PAYLOAD_FORMAT_INVALID, why)
    _acknowledge(connection, packet, Outcome(ReasonCode.PAYLOAD_FORMAT_INVALID, why))


def _ask(connection: "Connection", packet: Publish) -> Steps:
    """The whole way, with hooks."""
    core = connection.core
    event = PublishEvent(
        connection.client,
        packet.topic,
        packet.payload,
        packet.qos,
        packet.retain,
        packet.properties,
    )
    outcome = yield from submit(core, event, connection.permissions, connection, packet)
    if not connection.closed:
        _acknowledge(connection, packet, outcome)


def _pass(connection: "Connection", packet: Publish, message: Message) -> Steps:
    """The way of a message that no plugin must be asked about."""
    outcome = yield from submit_unasked(connection.core, message, connection, packet)
    if not connection.closed:
        _acknowledge(connection, packet, outcome)


def _acknowledge(connection: "Connection", packet: Publish, outcome: Outcome) -> None:
    """Answer by QoS, when what it promises is stored; and let the publisher feel the pressure."""
    core = connection.core
    if outcome.close:
        connection.close(outcome.reason_code, outcome.why or "closed by a plugin")
        return
    if packet.qos:
        _answer(connection, packet, outcome)
    if outcome.throttle:
        connection.throttle(outcome.throttle)
    if core.pressure.congested:
        core.pressure.stall(connection)
    if packet.retain and core.recorder.full:  # at QoS 0 no answer is held back
        connection.await_room()


def answer(connection: "Connection", packet: Publish, route: "Route", batch: Batch) -> None:
    """Acknowledge a message that was accepted."""
    code = 0 if route.weight else ReasonCode.NO_MATCHING_SUBSCRIBERS
    _answer(connection, packet, Outcome(code, None, batch))


def _answer(connection: "Connection", packet: Publish, outcome: Outcome) -> None:
    kind = PUBACK if packet.qos == 1 else PUBREC
    packet_id = packet.packet_id
    version = connection.decoder.version
    if kind == PUBACK and outcome.batch.state is BatchState.OPEN:
        connection.owe(
            acknowledgement(kind, packet_id, outcome.reason_code, version), outcome.batch
        )
        return
    if not connection.version5:
        if not outcome.unanswered:
            connection.reply(acknowledgement(kind, packet_id, 0, version), outcome.batch)
        return
    code = outcome.reason_code
    if outcome.refused and outcome.why and connection.problem_information:
        answer = (PubAck if kind == PUBACK else PubRec)(packet_id, code, outcome.why)
        data = encode_within(answer, version, connection.maximum_packet_size)
        if data is not None:
            connection.reply(data, COMMITTED)
        return
    data = acknowledgement(kind, packet_id, code, version)
    if outcome.batch is COMMITTED:
        connection.reply(data, COMMITTED)
        return
    failed = acknowledgement(kind, packet_id, ReasonCode.UNSPECIFIED_ERROR, version)
    settled = partial(_forget_refused, connection, packet_id) if kind == PUBREC else None
    connection.reply(data, outcome.batch, failed, settled)


def _forget_refused(connection: "Connection", packet_id: int, stored: bool) -> None:
    """After a PUBREC with a failure the identifier stands for nothing [MQTT-4.3.3-9]."""
    session = connection.session
    assert session is not None
    if not stored and session.end_receipt(packet_id):
        connection.core.memory -= RECEIPT


# -- from anybody


def ruled(
    connection: "Connection", packet: Publish, event: PublishEvent, answer: Deny | Steps
) -> Steps:
    """Go on with a client's message that was denied, or whose authorizers must be waited for."""
    core = connection.core
    rulings = connection.rulings
    allowed = answer if isinstance(answer, Deny) else (yield from answer)
    outcome = yield from _submit_ruled(core, event, allowed, rulings, connection, packet)
    if not connection.closed:
        _acknowledge(connection, packet, outcome)


def submit(
    core: "Core",
    event: PublishEvent,
    permissions: Permissions | None = None,
    connection: "Connection | None" = None,
    packet: Publish | None = None,
) -> Steps:
    """Authorize, transform and publish one message; returns its Outcome."""
    if connection is not None and connection.remembers(event.topic):
        return (yield from _submit_allowed(core, event, connection, packet))
    rulings = 0 if connection is None else connection.rulings
    allowed = yield from combine.authorize_publish(core.hooks, event, permissions)
    return (yield from _submit_ruled(core, event, allowed, rulings, connection, packet))


def _submit_ruled(
    core: "Core",
    event: PublishEvent,
    allowed: Allow | Deny,
    rulings: int,
    connection: "Connection | None",
    packet: Publish | None,
) -> Steps:
    """`submit`, once the authorizers have decided; `rulings` as it stood when they were asked."""
    if isinstance(allowed, Deny):
        log.debug("denied %r to publish to %r: %s", event.client_id, event.topic, allowed.why)
        return Outcome(allowed.reason_code, allowed.reason_string)
    if allowed.remember and connection is not None:
        connection.remember(event.topic, rulings)
    return (yield from _submit_allowed(core, event, connection, packet))


def _submit_allowed(
    core: "Core", event: PublishEvent, connection: "Connection | None", packet: Publish | None
) -> Steps:
    """Transform and publish one message."""
    hooks = core.hooks
    if hooks.transform_publish:
        changed = yield from combine.transform_publish(hooks, event, core.limits.topic_levels)
        if not isinstance(changed, PublishEvent):
            return _refused(core, event, changed, connection, packet)
    else:
        changed = event
    message = message_from(changed, core.now)
    outcome: Outcome = yield from _route(core, message, connection, packet, changed)
    outcome.throttle = event.throttle
    return outcome


def submit_unasked(
    core: "Core",
    message: Message,
    connection: "Connection | None" = None,
    packet: Publish | None = None,
) -> Steps:
    """`submit` where there is neither a plugin nor a permission to be asked: no event is made."""
    origin: Origin = message.origin  # type: ignore[assignment]  # set by the engine only
    if not default_allows_publish(message.topic, origin):
        log.debug("denied %r to publish to %r", message.client_id, message.topic)
        return Outcome(ReasonCode.NOT_AUTHORIZED)
    return (yield from _route(core, message, connection, packet))


def _route(
    core: "Core",
    message: Message,
    connection: "Connection | None",
    packet: Publish | None,
    event: PublishEvent | None = None,
) -> Steps:
    """Publish a message that was allowed; returns its Outcome."""
    route = core.router.route(message.topic)
    if message.retain and not core.settings.session.retain_available:
        message.retain = False
    if route.weight > SLICE:
        return (yield from _accept_slowly(core, route, message, connection, packet, event))
    return _accept(core, route, message, connection, packet, event)


def _refused(
    core: "Core",
    event: PublishEvent,
    answer: Drop | Reject | Close,
    connection: "Connection | None",
    packet: Publish | None,
) -> Outcome:
    if isinstance(answer, Drop):
        core.statistics.dropped["transform"] += 1
        core.observers.dropped_for_all(event)
        return Outcome(0, None, _receive(core, connection, packet))
    if isinstance(answer, Close):
        return Outcome(answer.reason_code, close=True)
    return Outcome(answer.reason_code, answer.reason_string)


def _accept(
    core: "Core",
    route: "Route",
    message: Message,
    connection: "Connection | None",
    packet: Publish | None,
    event: PublishEvent | None = None,
) -> Outcome:
    """Nobody objects: keep it where it is retained, hand it to all who want it."""
    refusal = _no_room(core, route, message)
    if refusal is not None:
        return refusal
    batch = _begin(core, message, connection, packet)
    delivered = core.router.deliver(route, message)
    if message.retain:
        message.frames = None  # as long as its payload, and it is kept for long
    return _accepted(core, route, message, batch if delivered is COMMITTED else delivered, event)


def _accept_slowly(
    core: "Core",
    route: "Route",
    message: Message,
    connection: "Connection | None",
    packet: Publish | None,
    event: PublishEvent | None,
) -> Steps:
    """`_accept` for a message with very many targets: all get it, whatever the publisher does.

    It has a task of its own, because that of the publisher ends with its connection. A part of the
    targets would be left out then, at QoS 2 for good: its identifier says that all have it.
    """
    refusal = _no_room(core, route, message)
    if refusal is not None:
        return refusal
    outcome = Outcome(ReasonCode.UNSPECIFIED_ERROR, unanswered=True)
    behind: dict[Behind, None] = {}
    over = trio.Event()

    def steps() -> Steps:
        nonlocal outcome
        journal = core.recorder.journal
        try:
            yield journal.begin_action()
            try:
                if connection is None or not connection.closed:
                    outcome = yield from _deliver_slowly(
                        core, route, message, connection, packet, event, behind
                    )
            finally:
                journal.end_action()
        finally:
            over.set()

    detach(core, steps())
    while not over.is_set():
        try:
            yield over.wait()
        except trio.TooSlowError:
            pass  # the deadline is for hooks
    for outlet in behind:
        if outlet.stalled is not None:
            core.pressure.congested[outlet] = None
    return outcome


def _deliver_slowly(
    core: "Core",
    route: "Route",
    message: Message,
    connection: "Connection | None",
    packet: Publish | None,
    event: PublishEvent | None,
    behind: dict[Behind, None],
) -> Steps:
    core.deliveries.hold(message)
    try:
        batch = _begin(core, message, connection, packet)
        delivered = yield from core.router.deliver_slowly(route, message, behind)
    finally:
        core.deliveries.let_go(message)
        if message.retain:
            message.frames = None
    return _accepted(core, route, message, batch if delivered is COMMITTED else delivered, event)


def _no_room(core: "Core", route: "Route", message: Message) -> Outcome | None:
    """The bounds that refuse a message before anybody gets it."""
    code = core.router.refusal(route, message) if message.qos else 0
    if message.retain and message.payload and not code:
        full = len(core.retained) >= core.limits.retained_messages
        if (full and core.retained.get(message.topic) is None) or (
            core.memory > core.limits.memory
        ):
            code = ReasonCode.QUOTA_EXCEEDED
    if not code:
        return None
    core.statistics.dropped["refused"] += 1
    return Outcome(code, "the broker has no room for this message", unanswered=True)


def _begin(
    core: "Core", message: Message, connection: "Connection | None", packet: Publish | None
) -> Batch:
    """What is kept of a message before it is delivered."""
    batch = _receive(core, connection, packet)
    if message.retain:
        retained = core.retention.keep(message)
        if message.qos and retained is not COMMITTED:
            batch = retained
    return batch


def _receive(core: "Core", connection: "Connection | None", packet: Publish | None) -> Batch:
    """Note the identifier of a client's QoS 2 message, until its PUBREL [MQTT-4.3.3-10]."""
    if packet is None or packet.qos != 2 or connection is None:
        return COMMITTED
    session = connection.session
    assert session is not None
    if session.begin_receipt(packet.packet_id):
        core.memory += RECEIPT
    return core.recorder.receipt_begun(session, packet.packet_id) if session.stored else COMMITTED


def _accepted(
    core: "Core", route: "Route", message: Message, batch: Batch, event: PublishEvent | None
) -> Outcome:
    hooks = core.hooks
    if hooks.published:
        if event is None:
            event = event_of(core, message)
        hooks.notify(hooks.published, event)
    code = 0 if route.weight else ReasonCode.NO_MATCHING_SUBSCRIBERS
    return Outcome(code, None, batch)


# -- from the broker's side


def publish_detached(
    core: "Core", message: Message, permissions: Permissions | None = None
) -> None:
    """Publish a will or a $SYS message: the same way, with nobody to answer to."""

    def steps() -> Steps:
        if permissions is None and core.hooks.publish_is_plain:
            outcome = yield from submit_unasked(core, message)
        else:
            outcome = yield from submit(core, event_of(core, message), permissions)
        if outcome.refused:
            if not outcome.unanswered:  # else it is counted
                core.statistics.dropped["refused"] += 1
            core.observers.refused(message)
            log.warning(
                "%s message of %r to %r was refused: 0x%02X%s",
                message.origin,
                message.client_id,
                message.topic,
                outcome.reason_code,
                f" {outcome.why}" if outcome.why else "",
            )
        core.pressure.watch()

    detach(core, steps())
