"""A plugin subscribes clients to other filters than they sent; they know only what they sent."""

from typing import Any

import pytest
from trio.testing import MockClock

from mqtrio import Allow, ClientFacts, Deny, ReasonCode, SubscribeEvent
from mqtrio.testing import FaultyStore, HookRecorder, open_harness
from tests.engine.agreement import agree
from tests.limits import audit

pytestmark = pytest.mark.usefixtures("autojump_clock")

NONE = ReasonCode.NO_SUBSCRIPTION_EXISTED


class Names(HookRecorder):
    """Rewrites filters as `names` says."""

    def __init__(self, names: dict[str, str]) -> None:
        super().__init__("subscribed", "unsubscribed", answers={"transform_subscribe": self.new})
        self.names = names

    def new(self, event: SubscribeEvent) -> SubscribeEvent | None:
        name = self.names.get(event.topic_filter)
        return None if name is None else event.changed(topic_filter=name)

    def told(self, hook: str) -> list[str]:
        return [event.topic_filter for event in self.of(hook)]


async def codes(peer: Any, *filters: str) -> list[int]:
    return [(await peer.unsubscribe(each)).reason_codes[0] for each in filters]


async def test_a_client_ends_a_subscription_by_the_filter_it_sent() -> None:
    names = Names({"old/+": "new/+", "$share/g/old": "$share/g/new"})
    async with open_harness(plugins=[names]) as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("old/+")
        await peer.subscribe("$share/g/old")
        audit.check(harness.broker)
        await harness.broker.publish("new/1", b"x")
        await peer.message(b"x", topic="new/1")
        assert await codes(peer, "new/+", "old/+", "old/+") == [NONE, 0, NONE]
        assert await codes(peer, "$share/g/old") == [0]
        audit.check(harness.broker)
        await harness.broker.publish("new/1", b"y")
        await peer.nothing()
    assert names.told("subscribed") == ["new/+", "$share/g/new"]
    assert names.told("unsubscribed") == ["new/+", "$share/g/new"]


async def test_filters_that_change_places() -> None:
    names = Names({"a": "b", "b": "a"})
    async with open_harness(plugins=[names]) as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("a")
        await peer.subscribe("b")
        assert await codes(peer, "a") == [0]
        await harness.broker.publish("b", b"gone")
        await harness.broker.publish("a", b"here")
        await peer.message(b"here")
        assert await codes(peer, "a", "b") == [NONE, 0]


async def test_two_filters_that_become_one() -> None:
    names = Names({"old": "new"})
    async with open_harness(plugins=[names]) as harness:
        peer = await harness.connect("peer")
        await peer.subscribe("old")
        await peer.subscribe("new")  # takes the place of the first
        audit.check(harness.broker)
        assert await codes(peer, "old", "new") == [NONE, 0]
        await peer.subscribe("new")
        await peer.subscribe("old")
        assert await codes(peer, "new", "old") == [NONE, 0]
        audit.check(harness.broker)


async def test_a_filter_that_becomes_another_one_later() -> None:
    """[MQTT-3.8.4-3]."""
    names = Names({"old": "new"})
    store = FaultyStore()
    async with open_harness(plugins=[names], store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("old")
        for now in ("newer", "old"):
            names.names = {"old": now}
            await peer.subscribe("old")
            (session,) = harness.broker.sessions()
            assert session.subscriptions == (now,)
            await agree(harness, store)
        audit.check(harness.broker)
        assert await codes(peer, "old") == [0]
    assert names.told("unsubscribed") == ["new", "newer", "old"]


async def test_what_was_sent_is_known_after_a_restart() -> None:
    store = FaultyStore()
    async with open_harness(plugins=[Names({"old/+": "new/+"})], store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("old/+", 1)
        await agree(harness, store)
        await peer.drop()
    store = FaultyStore(store.state.copy())
    async with open_harness(store=store) as harness:
        peer = harness.peer("peer")
        await peer.connect(clean_start=False, session_present=True)
        await harness.broker.publish("new/1", b"x", qos=1)
        await peer.message(b"x")
        audit.check(harness.broker)
        assert await codes(peer, "new/+", "old/+") == [NONE, 0]
        await agree(harness, store)


async def test_what_accept_was_asked_about_is_told_when_it_ends(autojump_clock: MockClock) -> None:
    """Whatever becomes of a connection, its last event has the ClientFacts of its first."""
    first: list[ClientFacts] = []

    def accept(event: Any) -> Allow | Deny:
        first.append(event.client)
        return Allow() if event.address == "192.0.2.7" else Deny(why="not from there")

    recorder = HookRecorder("connection_refused", "client_disconnected", answers={"accept": accept})
    async with open_harness(plugins=[recorder]) as harness:
        refused = harness.peer("refused", address="192.0.2.8")
        await refused.expect_closed()
        silent = harness.peer("silent")
        await silent.drop()
        peer = await harness.connect("peer")
        await peer.disconnect()
    ended = [event.client for event in recorder.of("connection_refused")]
    ended += [event.client for event in recorder.of("client_disconnected")]
    assert [id(client) for client in ended] == [id(client) for client in first]
    assert recorder.of("connection_refused")[0].why == "not from there"
