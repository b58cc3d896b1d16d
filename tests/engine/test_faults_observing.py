"""Observers that fail: clients, and other observers, get the same as without them."""

from collections.abc import Callable
from typing import Any

import pytest

from mqtrio.hooks.specs import HOOKS, hookimpl
from mqtrio.testing import Harness, HookRecorder, open_harness
from mqtrio.wire.packets import Packet, PingReq, PubAck, Publish, SubAck, Subscribe
from mqtrio.wire.packets import SubscriptionRequest as Request

OBSERVING = [hook.name for hook in HOOKS.values() if hook.kind == "observe"]

#: What was told: hook, client, and what belongs to it.
Told = list[tuple[str, str, Any]]


class Cause:
    """Gives plugin_failed something to be told of."""

    @hookimpl
    def published(self, event: Any) -> None:
        if event.topic == "cause":
            raise LookupError


class Broken:
    """Fails in one hook, always, and counts how often it was called."""

    def __init__(self, hook: str, fault: Callable[[Any], Any]) -> None:
        self.calls = 0

        def failing(event: Any) -> Any:
            self.calls += 1
            return fault(event)

        setattr(self, hook, hookimpl(failing))


def raises(event: Any) -> Any:
    raise LookupError


def nonsense(event: Any) -> Any:
    return "thanks"


def awaitable(event: Any) -> Any:
    async def later() -> None:
        raise AssertionError("nobody awaits it")

    return later()


async def _everything(harness: Harness) -> list[list[Packet]]:
    """Let everything happen that is observed; returns what each client has got."""
    ann = await harness.connect("ann")
    await ann.subscribe("a", 2)
    small = await harness.connect("small", version=4, maximum_packet_size=None)
    await small.send(Subscribe(1, (Request("a", 1), Request("b", 0))))
    await small.expect(SubAck)
    for qos in (0, 1, 2):
        await ann.publish("a", b"%d" % qos, qos, retain=qos == 1)
        await ann.message(b"%d" % qos)
        await small.message(b"%d" % qos)
    await ann.publish("cause", b"x", 1)
    await ann.unsubscribe("a")
    bounded = await harness.connect("bounded", maximum_packet_size=20)
    await bounded.subscribe("big")
    await ann.publish("big", b"x" * 100)
    await bounded.send(PingReq())
    refused = harness.peer("refused")
    await refused.send(PingReq())  # no CONNECT
    await refused.expect_closed()
    await ann.send(Publish("a", b"", 1, True, packet_id=9))
    await ann.expect(PubAck, packet_id=9)
    await ann.disconnect()
    await small.drop()
    return [await peer.arrived() for peer in harness.peers]


async def _run(*plugins: object) -> tuple[Told, list[list[Packet]], dict[str, tuple[int, int]]]:
    """Everything, with these plugins in front of an observer of everything."""
    recorder = HookRecorder()
    async with open_harness(plugins=[*plugins, recorder, Cause()]) as harness:
        got = await _everything(harness)
        assert harness.broker.statistics().crashes == 0
        told = [
            (hook, getattr(event, "client_id", ""), getattr(event, "topic", None))
            for hook, event in recorder.calls
            if not (hook == "plugin_failed" and event.plugin == "Broken")
        ]
        rows = harness.broker._core.hooks.statistics()
        counted = {row.hook: (row.calls, row.failures) for row in rows if row.plugin == "Broken"}
    return told, got, counted


async def test_everything_that_is_observed_happens() -> None:
    """Or the comparisons below would compare nothing."""
    told, _, _ = await _run()
    assert {hook for hook, _, _ in told} == set(OBSERVING)


@pytest.mark.parametrize("hook", OBSERVING)
@pytest.mark.parametrize("fault", [raises, nonsense, awaitable])
async def test_nobody_else_notices(hook: str, fault: Callable[[Any], Any]) -> None:
    expected, packets, _ = await _run()
    broken = Broken(hook, fault)
    told, got, counted = await _run(broken)
    assert told == expected
    assert got == packets
    assert broken.calls > 0
    # Counted are all of them up to the moment at which it was looked; some come at the end.
    calls, failures = counted[hook]
    assert 0 < calls == failures <= broken.calls
