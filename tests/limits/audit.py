"""What `limits.memory` counts, counted anew from everything that the broker holds."""

from mqtrio.broker import Broker
from mqtrio.engine import weights
from mqtrio.engine.core import Core
from mqtrio.engine.pages import Passed
from mqtrio.state.message import Message


def held(broker: Broker) -> dict[str, int]:
    """Bytes by kind; their sum must be `broker.statistics().memory` whenever nothing happens."""
    core = broker._core
    sessions = {*core.sessions.by_id.values(), *core.sessions.local}
    passed = _passed(core)
    messages = {
        id(delivery.message): delivery.message.size
        for session in sessions
        for delivery in session.deliveries()
    } | {id(message): message.size for message in core.retained.match("#")}
    messages |= {id(message): message.size for message in core.retained.match("$own/#")}
    messages |= {id(message): message.size for message in passed}
    return {
        "unsent": sum(each.queued for each in core.connections),
        "undecoded": sum(each.undecoded for each in core.connections),
        "connections": sum(each.weight for each in core.connections),
        "sessions": sum(weights.of_session(each) for each in core.sessions.by_id.values()),
        "subscriptions": sum(
            weights.of_subscription(subscription)
            for session in sessions
            for subscription in session.subscriptions.values()
        ),
        "wills": sum(
            weights.of_will(pending.will) for _, _, pending in core.wills.registry._pending.values()
        ),
        "messages": sum(messages.values()),
        "places": weights.PLACE
        * (
            len(core.retained)
            + len(passed)
            + sum(len(session.deliveries()) for session in sessions)
        ),
        "receipts": weights.RECEIPT * sum(len(session.received or ()) for session in sessions),
    }


def _passed(core: Core) -> list[Message]:
    """Messages that are for the store only, and are not there yet."""
    journal = core.recorder.journal
    batches = [batch for batch in (journal._committing, journal._open) if batch is not None]
    return [
        message
        for batch in batches
        for waiter in batch.waiters
        if isinstance(waiter, Passed)
        for message in waiter.messages
    ]


def check(broker: Broker) -> None:
    """The account is right, and so is what leads to the counted things."""
    counted = held(broker)
    memory = broker.statistics().memory
    assert memory == sum(counted.values()), f"{memory} are accounted for {counted}"
    core = broker._core
    for session in {*core.sessions.by_id.values(), *core.sessions.local}:
        waiting = session.queue or ()
        assert session.queue_bytes == sum(delivery.message.size for delivery in waiting)
        for delivery in session.deliveries():
            assert delivery.message.references > 0
    assert len(core.router.index) == sum(
        len(session.subscriptions)
        for session in {*core.sessions.by_id.values(), *core.sessions.local}
    )
