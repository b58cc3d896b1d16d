"""Random changes that fit a state, for comparing stores with the reference."""

from collections.abc import Callable
from random import Random
from typing import Final

from mqtrio.store.apply import apply
from mqtrio.store.changes import (
    Change,
    MessagePut,
    MessageRemoved,
    Properties,
    QueuedPut,
    QueuedReleased,
    QueuedRemoved,
    QueuedSent,
    ReceivedPut,
    ReceivedRemoved,
    RetainedPut,
    RetainedRemoved,
    SessionClosed,
    SessionPut,
    SessionRemoved,
    SessionSetAside,
    SubscriptionPut,
    SubscriptionRemoved,
    WillPut,
    WillRemoved,
)
from mqtrio.store.stored import StoredState

_CLIENTS: Final = ("a", "b", "ä/ö", "x" * 200)
_TOPICS: Final = ("t", "t/1", "t/ä", "$x", "/", "t//\U0001f600")
_FILTERS: Final = ("#", "t/+", "$share/g/t/#", "t")


def random_batch(random: Random, state: StoredState) -> list[Change]:
    """One to twelve changes which can be applied to `state` in their order; it stays as it is."""
    after = state.copy()
    batch: list[Change] = []
    while len(batch) < 12 and (not batch or random.random() < 0.9):
        for change in random.choice(_MAKERS)(random, after):
            apply(after, change)
            batch.append(change)
    return batch


def _session(random: Random, state: StoredState) -> list[Change]:
    client_id = random.choice(_CLIENTS)
    put = SessionPut(
        client_id,
        random.choice((None, "user")),
        random.choice((3, 4, 5)),
        random.choice((0, 60, 0xFFFFFFFF)),
        random.randrange(1, 1 << 40),
        random.random() * 2e9,
        random.choice((None, 2e9 + 0.125)),
    )
    if client_id not in state.sessions:
        return [put]
    changes: list[Change] = [put, put, SessionClosed(client_id, 1.5e9), SessionRemoved(client_id)]
    if "$ended/1" not in state.sessions:
        changes.append(SessionSetAside(client_id, "$ended/1"))
    return [random.choice(changes)]


def _subscription(random: Random, state: StoredState) -> list[Change]:
    if not state.sessions:
        return []
    client_id = random.choice([*state.sessions])
    topic_filter = random.choice(_FILTERS)
    if topic_filter in state.subscriptions[client_id] and random.random() < 0.5:
        return [SubscriptionRemoved(client_id, topic_filter)]
    return [
        SubscriptionPut(
            client_id,
            topic_filter,
            random.randrange(3),
            random.random() < 0.5,
            random.random() < 0.5,
            random.randrange(3),
            random.choice((0, 1, 268_435_455)),
        )
    ]


def _queue(random: Random, state: StoredState) -> list[Change]:
    """A message for some sessions."""
    if not state.sessions:
        return []
    # Ids are not used again, not even when the message is gone.
    message_id = max(state.highest_message_id, random.randrange(1 << 40)) + 1
    changes: list[Change] = [
        MessagePut(
            message_id,
            random.choice(_TOPICS),
            random.randbytes(random.choice((0, 1, 2000))),
            random.choice((1, 2)),
            random.random() < 0.5,
            _properties(random),
            random.choice(("", "publisher")),
            random.choice((None, "user")),
            random.choice((None, 2e9)),
            random.choice(("client", "will", "local")),
            random.choice(("", "node")),
        )
    ]
    for client_id in random.sample([*state.sessions], random.randint(1, len(state.sessions))):
        sequence = state.highest_sequence(client_id) + random.randint(1, 5)
        changes.append(
            QueuedPut(
                client_id,
                sequence,
                message_id,
                random.choice((1, 2)),
                random.random() < 0.5,
                random.choice(((), (1,), (5, 268_435_455))),
                random.choice((0, 0, sequence % 65535 + 1)),
                random.choice(("", "$share/g/t")),
            )
        )
    return changes


def _queue_step(random: Random, state: StoredState) -> list[Change]:
    """One step of a queued message, and the end of the message with the last of its entries."""
    entries = [(c, s, e) for c, queue in state.queues.items() for s, e in queue.items()]
    if not entries:
        return []
    client_id, sequence, entry = random.choice(entries)
    if not entry.packet_id:
        return [QueuedSent(client_id, sequence, random.randint(1, 65535))]
    if entry.qos == 2 and not entry.released:
        return [QueuedReleased(client_id, sequence)]
    last = state.references[entry.message_id] == 1
    removed = QueuedRemoved(client_id, sequence)
    return [removed, MessageRemoved(entry.message_id)] if last else [removed]


def _received(random: Random, state: StoredState) -> list[Change]:
    if not state.sessions:
        return []
    client_id = random.choice([*state.sessions])
    packet_id = random.choice((1, 2, 65535))
    known = packet_id in state.received[client_id]
    return [(ReceivedRemoved if known else ReceivedPut)(client_id, packet_id)]


def _retained(random: Random, state: StoredState) -> list[Change]:
    topic = random.choice(_TOPICS)
    if random.random() < 0.3:
        return [RetainedRemoved(topic)]
    payload = random.randbytes(random.choice((0, 3, 500)))
    return [
        RetainedPut(topic, payload, random.randrange(3), _properties(random), "p", None, 2e9 + 0.5)
    ]


def _will(random: Random, state: StoredState) -> list[Change]:
    client_id = random.choice(_CLIENTS)
    if client_id in state.wills and random.random() < 0.5:
        return [WillRemoved(client_id)]
    due = random.choice((None, 1.25e9))
    values = (b"\x00gone", 1, True, 30, random.choice((None, 60)), _properties(random), due)
    ruling = random.choice(("", "allow", "none"))
    return [WillPut(client_id, None, random.choice(_TOPICS), *values, ruling)]


def _properties(random: Random) -> Properties | None:
    pairs = (("k", "1"), ("k", "ä"), ("", ""))
    return random.choice(
        (None, (1, None, None, None, ()), (0, "text/plain", "answer", b"\x00\xff", pairs))
    )


_MAKERS: Final[tuple[Callable[[Random, StoredState], list[Change]], ...]] = (
    *(_session, _subscription, _queue, _queue, _queue_step, _queue_step, _queue_step),
    *(_received, _retained, _will),
)
