"""Runs of plain QoS 0 messages, about which plugins are asked and told many at a time.

The same is shown for single messages and other QoS elsewhere; here are runs that change their way
somewhere in the middle.
"""

from typing import Any

import pytest
import trio

from mqtrio import Allow, Deny, MessageSlot, PublishEvent, hookimpl
from mqtrio.testing import Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import PingReq, PingResp, Publish

COUNT = 40
ALLOW, REMEMBER = Allow(), Allow(remember=True)


def number_of(event: PublishEvent) -> int:
    return int(event.payload)


async def publish_run(harness: Harness) -> tuple[Peer, list[int]]:
    """Publish a run in one write; returns the publisher, and what a subscriber got of it."""
    subscriber = await harness.connect("subscriber", version=4)
    await subscriber.subscribe("a")
    peer = await harness.connect("peer", version=4)
    await peer.send(*(Publish("a", b"%d" % number) for number in range(COUNT)), PingReq())
    await peer.settle()
    await subscriber.settle()
    return peer, [int(packet.payload) for packet in await subscriber.arrived()]  # type: ignore[attr-defined]


class Guard:
    """Answers as it is told, by the number of the message."""

    def __init__(self, special: Any, at: int = 7) -> None:
        self.special = special
        self.at = at
        self.asked: list[int] = []

    @hookimpl
    def authorize_publish(self, event: PublishEvent) -> Any:
        number = number_of(event)
        self.asked.append(number)
        if number != self.at:
            return ALLOW
        return self.special(event) if callable(self.special) else self.special


def raises(event: PublishEvent) -> None:
    raise LookupError("no")


async def denies_later(event: PublishEvent) -> Deny:
    await trio.sleep(1)
    return Deny()


async def allows_later(event: PublishEvent) -> Allow:
    await trio.sleep(1)
    return ALLOW


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize(
    ("special", "failures"),
    [
        (Deny(), 0),
        (None, 0),
        (raises, 1),
        ("nonsense", 1),
        (denies_later, 0),
        (allows_later, 0),
        (Allow(max_qos=0), 0),
    ],
)
async def test_one_message_of_a_run_is_judged_by_itself(
    special: Any, failures: int, others: int, autojump_clock: object
) -> None:
    """Whatever its answer is, it is asked once, counted once, and holds for this message only."""
    guard = Guard(special)
    recorder = HookRecorder("published")
    more = [HookRecorder(answers={"authorize_publish": ALLOW})] * others
    async with open_harness(plugins=[guard, *more, recorder]) as harness:
        peer, got = await publish_run(harness)
        with trio.fail_after(10):
            await peer.expect(PingResp)
        told = [number_of(event) for event in recorder.of("published")]
        [counted] = [each for each in harness.broker.statistics().plugins if each.plugin == "Guard"]
    assert guard.asked == list(range(COUNT))
    allowed = isinstance(special, Allow) or special is allows_later or (special is None and others)
    assert told == [number for number in range(COUNT) if number != 7 or allowed]
    assert got == told or special in (denies_later, allows_later)
    assert (counted.calls, counted.failures) == (COUNT, failures)


async def test_what_is_remembered_is_asked_about_once() -> None:
    guard = Guard(REMEMBER, at=0)
    recorder = HookRecorder("published")
    async with open_harness(plugins=[guard, recorder]) as harness:
        _, got = await publish_run(harness)
    assert guard.asked == [0]
    assert got == list(range(COUNT))
    assert [number_of(event) for event in recorder.of("published")] == list(range(COUNT))


async def test_an_event_that_was_kept_stays_as_it_was() -> None:
    """Whoever keeps every third one finds it unchanged; the others may serve again."""
    kept: list[PublishEvent] = []

    class Keeper:
        @hookimpl
        def published(self, event: PublishEvent) -> None:
            if number_of(event) % 3 == 0:
                kept.append(event)

    async with open_harness(plugins=[Keeper()]) as harness:
        await publish_run(harness)
    assert [number_of(event) for event in kept] == list(range(0, COUNT, 3))


async def test_notes_of_authorizers_reach_observers() -> None:
    slot = MessageSlot[list[int]](list)
    seen: list[list[int]] = []

    class Noting:
        @hookimpl
        def authorize_publish(self, event: PublishEvent) -> Allow:
            if number_of(event) % 2:
                slot.get(event).append(number_of(event))
            return ALLOW

        @hookimpl
        def published(self, event: PublishEvent) -> None:
            seen.append([number_of(event), *slot.get(event)])

    async with open_harness(plugins=[Noting()]) as harness:
        await publish_run(harness)
    assert seen == [[n, n] if n % 2 else [n] for n in range(COUNT)]


async def test_an_authorizer_that_ends_the_connection_ends_the_run() -> None:
    def disconnect(event: PublishEvent) -> Allow:
        harness.broker.disconnect("peer")
        return ALLOW

    guard = Guard(disconnect)
    async with open_harness(plugins=[guard]) as harness:
        _, got = await publish_run(harness)
    assert guard.asked == list(range(8))
    assert got == list(range(8))


async def test_rules_that_change_in_a_run_hold_for_the_rest_of_it() -> None:
    """The guard leaves at message 7: who stays decides about the others."""
    stays = HookRecorder(answers={"authorize_publish": ALLOW})

    class Leaving(Guard):
        @hookimpl
        def authorize_publish(self, event: PublishEvent) -> Any:
            if number_of(event) == 7:
                harness.broker._core.hooks.remove("guard")
            return super().authorize_publish(event)

    guard = Leaving(ALLOW)
    async with open_harness(plugins=[stays]) as harness:
        await harness.broker.add_plugin(guard, "guard")
        _, got = await publish_run(harness)
    assert guard.asked == list(range(8))
    assert len(stays.calls) == COUNT
    assert got == list(range(COUNT))
