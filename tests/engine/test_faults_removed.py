"""A plugin that is removed in the middle of a call: it has its say, and nothing behind it waits."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mqtrio import Allow, Deny, Reject, hookimpl
from mqtrio.testing import open_harness
from mqtrio.wire.packets import (
    ConnAck,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
)

DEADLINE = 5


class Thinking:
    """A plugin with one hook, which thinks until the test lets it answer."""

    def __init__(self, hook: str, answer: Callable[[], Any]) -> None:
        self.go = trio.Event()
        self.asked: list[float] = []
        self.notes: list[str] = []

        async def think(event: Any) -> Any:
            self.asked.append(trio.current_time())
            await self.go.wait()
            self.notes.append("answered")
            return answer()

        setattr(self, hook, hookimpl(think))

    @hookimpl
    def stop(self, event: Any) -> None:
        self.notes.append("stopped")


def fails() -> Any:
    raise LookupError


#: Hook -> what it answers for yes and for no, and the packet that brings each to the client, with
#: the one that a failure brings.
HOOKS: dict[str, tuple[Any, Any, Packet, int, int]] = {
    "authorize_publish": (Allow(), Deny(0x97), PubAck(1, 0x10), 0x97, 0x87),
    "transform_publish": (None, Reject(0x97), PubAck(1, 0x10), 0x97, 0x83),
    "authorize_subscribe": (Allow(), Deny(0x97), SubAck(1, (1,)), 0x97, 0x87),
    "transform_subscribe": (None, Reject(0x97), SubAck(1, (1,)), 0x97, 0x83),
}

SAYS = ["yes", "no", "raises", "hangs"]


def _behaviour(hook: str, says: str) -> Callable[[], Any]:
    yes, no = HOOKS[hook][:2] if hook in HOOKS else (Allow(), Deny(0x97))
    return {"yes": lambda: yes, "no": lambda: no}.get(says, fails)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("says", SAYS)
async def test_removed_while_it_thinks_about_a_packet(hook: str, says: str) -> None:
    """The client's connection waits in the middle of its buffer, and goes on there."""
    thinking = Thinking(hook, _behaviour(hook, says))
    subscribes = hook.endswith("subscribe")
    _, _, good, refused, failed = HOOKS[hook]
    async with open_harness() as harness, trio.open_nursery() as nursery:
        bystander = await harness.connect("bystander")
        peer = await harness.connect("peer")
        await harness.broker.add_plugin(thinking, "thinking")
        first: Packet
        second: Packet
        if subscribes:
            first = Subscribe(1, (SubscriptionRequest("a", 1),))
            second = Subscribe(2, (SubscriptionRequest("b", 1),))
        else:
            first, second = (Publish("a", b"x", 1, True, packet_id=number) for number in (1, 2))
        await peer.send(first, second, PingReq())
        await peer.nothing()
        nursery.start_soon(harness.broker.remove_plugin, "thinking")
        await wait_all_tasks_blocked()
        assert list(harness.broker.plugins) == []
        await bystander.publish("elsewhere", b"x", 1)
        await peer.nothing()
        if says != "hangs":
            thinking.go.set()
        expected = good
        if says != "yes":
            code = refused if says == "no" else failed
            expected = SubAck(1, (code,)) if subscribes else PubAck(1, code)
        assert await peer.receive() == expected
        assert await peer.receive() == (SubAck(2, (1,)) if subscribes else PubAck(2, 0x10))
        await peer.expect(PingResp)
        assert trio.current_time() == (DEADLINE if says == "hangs" else 0)
        assert len(thinking.asked) == 1
    assert thinking.notes == (["stopped"] if says == "hangs" else ["answered", "stopped"])


@pytest.mark.parametrize("hook", ["authenticate", "admit"])
@pytest.mark.parametrize("says", SAYS)
async def test_removed_while_it_thinks_about_a_client(hook: str, says: str) -> None:
    """Whoever was knocking is not let in by the plugin's going away."""
    thinking = Thinking(hook, _behaviour(hook, says))
    async with open_harness(plugins=[]) as harness, trio.open_nursery() as nursery:
        await harness.broker.add_plugin(thinking, "thinking")
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(), Publish("a", b"x", 1, True, packet_id=1), PingReq())
        await peer.nothing()
        nursery.start_soon(harness.broker.remove_plugin, "thinking")
        await wait_all_tasks_blocked()
        await peer.nothing()
        if says != "hangs":
            thinking.go.set()
        if says == "yes":
            await peer.expect(ConnAck, reason_code=0)
            await peer.expect(PubAck, packet_id=1)
            await peer.expect(PingResp)
        else:
            await peer.expect_closed(0x97 if says == "no" else 0x87)
            assert harness.broker.sessions() == []
            assert harness.broker.retained() == []
        assert trio.current_time() == (DEADLINE if says == "hangs" else 0)
    assert thinking.notes[-1] == "stopped"


async def test_a_client_whose_judges_have_all_gone_is_judged_by_the_brokers_rules() -> None:
    """What it had been remembered for is forgotten, and $ topics are closed to it."""

    class Generous:
        @hookimpl
        def authorize_publish(self, event: Any) -> Allow:
            return Allow(remember=True)

    async with open_harness() as harness:
        await harness.broker.add_plugin(Generous(), "generous")
        peer = await harness.connect("peer")
        await peer.publish("$x/1", b"x", 1)
        await harness.broker.remove_plugin("generous")
        await peer.send(Publish("$x/1", b"x", 1, packet_id=7))
        await peer.expect(PubAck, packet_id=7, reason_code=0x87)
