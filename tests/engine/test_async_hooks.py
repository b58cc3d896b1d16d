"""Hooks that wait: order, what is pipelined behind them, and what ends the waiting."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from mqtrio import Allow, Challenge, Deny, Throttle, serve_broker
from mqtrio.testing import HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    Auth,
    ConnAck,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    Will,
)

ALLOW = Allow()


class Gate:
    """A hook that answers when the test says so; it can be asked many times."""

    def __init__(self, answer: Any = ALLOW, only: Callable[[Any], bool] = lambda e: True) -> None:
        self.answer = answer
        self.only = only
        self.waiting: list[trio.Event] = []
        self.events: list[Any] = []
        self.asked = 0
        self.cancelled = 0

    def __call__(self, event: Any) -> Any:
        return self._wait(event) if self.only(event) else self.answer

    async def _wait(self, event: Any) -> Any:
        self.asked += 1
        go = trio.Event()
        self.waiting.append(go)
        self.events.append(event)
        try:
            await go.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return self.answer

    def open(self, number: int = 0) -> None:
        """Let one who waits have the answer."""
        del self.events[number]
        self.waiting.pop(number).set()


ASYNC_HOOKS = ["authenticate", "admit"]


# -- pipelining


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("split", [False, True])
async def test_what_follows_connect_waits_for_it(hook: str, version: int, split: bool) -> None:
    gate = Gate()
    async with open_harness(plugins=[HookRecorder(answers={hook: gate})]) as harness:
        peer = harness.peer("peer", version=version)
        packets: list[Packet] = [
            peer.connect_packet(),
            Subscribe(1, (SubscriptionRequest("a", 1),)),
            Publish("a", b"1"),
            Publish("a", b"2", 1, packet_id=2),
            Publish("a", b"3", 2, packet_id=3),
            PubRel(3),
            Unsubscribe(4, ("a",)),
            PingReq(),
        ]
        for part in ([packet] for packet in packets) if split else [packets]:
            await peer.send(*part)
        await peer.nothing()
        gate.open()
        got = await peer.arrived()
        assert isinstance(got[0], ConnAck)
        assert isinstance(got[1], SubAck)
        assert [packet.payload for packet in got if isinstance(packet, Publish)] == [
            *(b"1", b"2", b"3"),
        ]
        assert [type(packet).__name__ for packet in got if not isinstance(packet, Publish)] == [
            *("ConnAck", "SubAck", "PubAck", "PubRec", "PubComp", "UnsubAck", "PingResp"),
        ]


@pytest.mark.parametrize("hook", ["authorize_publish", "transform_publish"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_follows_a_publish_waits_for_it(hook: str, qos: int) -> None:
    gate = Gate(ALLOW if hook == "authorize_publish" else None, lambda e: e.payload == b"slow")
    async with open_harness(plugins=[HookRecorder(answers={hook: gate})]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("a", 2)
        peer = await harness.connect("peer")
        await peer.send(
            Publish("a", b"first", qos, packet_id=1 if qos else 0),
            Publish("a", b"slow", qos, packet_id=2 if qos else 0),
            Publish("a", b"last", qos, packet_id=3 if qos else 0),
            Unsubscribe(4, ("a",)),
            PingReq(),
        )
        assert len(await peer.arrived()) == (1 if qos else 0)
        await watcher.message(b"first")
        await watcher.nothing()
        await harness.broker.publish("a", b"somebody else's")
        await watcher.message(b"somebody else's")
        gate.open()
        await watcher.message(b"slow")
        await watcher.message(b"last")
        answers = await peer.arrived()
        assert [packet.packet_id for packet in answers if isinstance(packet, PubAck | PubRec)] == (
            [2, 3] if qos else []
        )
        assert [type(packet) for packet in answers[-2:]] == [UnsubAck, PingResp]


async def test_a_row_of_waits_keeps_the_order() -> None:
    gate = Gate()
    async with open_harness(plugins=[HookRecorder(answers={"authorize_publish": gate})]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("a")
        peer = await harness.connect("peer")
        payloads = [b"%d" % number for number in range(5)]
        await peer.send(*(Publish("a", payload) for payload in payloads), PingReq())
        for payload in payloads:
            await watcher.nothing()
            assert len(gate.waiting) == 1  # one at a time
            gate.open()
            await watcher.message(payload)
        await peer.expect(PingResp)


async def test_each_topic_filter_waits_for_itself() -> None:
    gate = Gate()
    recorder = HookRecorder("subscribed", answers={"authorize_subscribe": gate})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        requests = tuple(SubscriptionRequest(name, 1) for name in "abc")
        await peer.send(Subscribe(1, requests), PingReq())
        for number in range(3):
            await peer.nothing()
            assert len(recorder.of("subscribed")) == number
            gate.open()
        await peer.expect(SubAck, reason_codes=(1, 1, 1))
        await peer.expect(PingResp)


async def test_two_plugins_wait_one_after_the_other() -> None:
    first, second = Gate(), Gate()
    plugins = [HookRecorder(answers={"authorize_publish": gate}) for gate in (first, second)]
    async with open_harness(plugins=plugins) as harness:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x", 1, packet_id=1))
        await peer.nothing()
        assert (first.asked, second.asked) == (1, 0)
        first.open()
        await peer.nothing()
        assert (first.asked, second.asked) == (1, 1)
        second.open()
        await peer.expect(PubAck)


async def test_many_clients_wait_at_the_same_time() -> None:
    gate = Gate()
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": gate})]) as harness:
        peers = [harness.peer(f"peer{number}") for number in range(20)]
        for peer in peers:
            await peer.send(peer.connect_packet())
        await peers[0].nothing()
        assert len(gate.waiting) == 20
        for peer in reversed(peers):
            gate.open([event.client_id for event in gate.events].index(peer.client_id))
            await peer.let_in()


# -- the end while waiting


@pytest.mark.parametrize("goodbye", [True, False], ids=["DISCONNECT", "end of input"])
@pytest.mark.parametrize("hook", ["authorize_publish", "transform_publish"])
async def test_the_end_of_input_comes_behind_what_was_sent_before(hook: str, goodbye: bool) -> None:
    gate = Gate(ALLOW if hook == "authorize_publish" else None)
    recorder = HookRecorder("client_disconnected", answers={hook: gate})
    async with open_harness(plugins=[recorder]) as harness:
        async with harness.broker.subscribe("#") as messages:
            peer = await harness.connect("peer", will=Will("will", b"gone"))
            await peer.send(Publish("a", b"1"), Publish("a", b"2"))
            if goodbye:
                await peer.send(Disconnect())
            await peer.settle()
            await peer.drop()
            for number in (b"1", b"2"):
                assert harness.broker.clients() != []
                gate.open()
                assert (await messages.receive()).payload == number
                await trio.testing.wait_all_tasks_blocked()
            if not goodbye:
                gate.open()  # the will is asked about too
                assert (await messages.receive()).payload == b"gone"
        assert harness.broker.clients() == []
    (told,) = recorder.of("client_disconnected")
    assert told.by_client is goodbye


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
async def test_a_client_that_leaves_before_it_is_let_in(hook: str) -> None:
    gate = Gate()
    recorder = HookRecorder(answers={hook: gate})
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(will=Will("will", b"gone"), session_expiry_interval=9))
        await peer.settle()
        await peer.drop()
        gate.open()
        await trio.testing.wait_all_tasks_blocked()
        assert harness.broker.clients() == []
        assert [session.connected for session in harness.broker.sessions()] == [False]


@pytest.mark.parametrize(
    ("hook", "packet"),
    [
        ("authorize_publish", Publish("a", b"x", 1, packet_id=1)),
        ("transform_publish", Publish("a", b"x", 1, packet_id=1)),
        ("authorize_subscribe", Subscribe(1, (SubscriptionRequest("a"),))),
        ("transform_subscribe", Subscribe(1, (SubscriptionRequest("a"),))),
    ],
)
@pytest.mark.parametrize("how", ["takeover", "administrator", "both at once"])
async def test_who_is_thrown_out_is_not_waited_for(hook: str, packet: Packet, how: str) -> None:
    gate = Gate(ALLOW if hook.startswith("authorize") else None)
    recorder = HookRecorder("published", "subscribed", answers={hook: gate})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=0)
        await peer.send(packet, packet)
        await peer.nothing()
        if how == "takeover":
            other = harness.peer("peer")
            await other.connect(clean_start=False)
            await peer.expect_closed(0x8E)
        else:
            if how == "both at once":
                gate.open()  # the answer is there, and nobody has looked at it yet
            harness.broker.disconnect("peer")
            await peer.expect_closed(0x98)
        assert gate.cancelled == (0 if how == "both at once" else 1)
        assert gate.asked == 1
        assert len(harness.broker._core.router.index) == 0
    assert recorder.of("published") == []
    assert recorder.of("subscribed") == []


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
async def test_an_older_slower_connect_never_kicks_a_newer_one(hook: str) -> None:
    gate = Gate(only=lambda event: event.keep_alive == 1)
    async with open_harness(plugins=[HookRecorder(answers={hook: gate})]) as harness:
        older = harness.peer("peer")
        await older.send(older.connect_packet(keep_alive=1, will=Will("will", b"older")))
        await older.nothing()
        newer = await harness.connect("peer")
        await newer.subscribe("#")
        gate.open()
        await older.expect_closed(0x89)
        await newer.nothing()
        await newer.ping()


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
async def test_an_older_connect_may_have_what_the_newer_one_has_left(hook: str) -> None:
    gate = Gate(only=lambda event: event.keep_alive == 1)
    async with open_harness(plugins=[HookRecorder(answers={hook: gate})]) as harness:
        older = harness.peer("peer")
        await older.send(older.connect_packet(keep_alive=1, clean_start=False))
        await older.nothing()
        newer = await harness.connect("peer", session_expiry_interval=50)
        await newer.disconnect()
        gate.open()
        await older.let_in(session_present=True)


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
async def test_three_connects_the_newest_stays(hook: str) -> None:
    gate = Gate()
    async with open_harness(plugins=[HookRecorder(answers={hook: gate})]) as harness:
        peers = [harness.peer("peer") for _ in range(3)]
        for peer in peers:
            await peer.send(peer.connect_packet())
            await peer.nothing()
        gate.open(1)
        await peers[1].let_in()
        gate.open(1)
        await peers[2].let_in()
        await peers[1].expect_closed(0x8E)
        gate.open(0)
        await peers[0].expect_closed(0x89)
        await peers[2].ping()


# -- deadlines

#: Hook -> what comes when it doesn't answer in time, and when.
DEADLINES: dict[str, Packet] = {
    "authorize_publish": PubAck(1, 0x87),
    "transform_publish": PubAck(1, 0x83),
    "authorize_subscribe": SubAck(1, (0x87,)),
    "transform_subscribe": SubAck(1, (0x83,)),
}


@pytest.mark.parametrize("hook", list(DEADLINES))
async def test_a_deadline_that_passes_is_a_refusal(hook: str) -> None:
    gate = Gate()
    recorder = HookRecorder("plugin_failed", "published", "subscribed", answers={hook: gate})
    async with open_harness(plugins=[recorder], limits={"hook_deadline": 7.0}) as harness:
        peer = await harness.connect("peer")
        if hook.endswith("publish"):
            await peer.send(Publish("a", b"x", 1, True, packet_id=1))
        else:
            await peer.send(Subscribe(1, (SubscriptionRequest("a"),)))
        await peer.send(PingReq())
        assert await peer.receive() == DEADLINES[hook]
        assert trio.current_time() == 7
        await peer.expect(PingResp)
        assert gate.cancelled == 1
        assert harness.broker.retained() == []
    assert recorder.of("published") == recorder.of("subscribed") == []
    (failure,) = recorder.of("plugin_failed")
    assert (failure.hook, failure.kind) == (hook, "timeout")


@pytest.mark.parametrize("hook", ASYNC_HOOKS)
@pytest.mark.parametrize("version", [3, 4, 5])
async def test_a_deadline_that_passes_at_connect(hook: str, version: int) -> None:
    gate = Gate()
    async with open_harness(plugins=[HookRecorder(answers={hook: gate})]) as harness:
        peer = harness.peer("peer", version=version)
        await peer.send(peer.connect_packet(), PingReq())
        await peer.expect_closed(0x87 if version == 5 else 5)
        assert trio.current_time() == 5
        assert harness.broker.sessions() == []


async def test_each_wait_has_its_own_deadline() -> None:
    async def slow(event: Any) -> Allow:
        await trio.sleep(4)
        return ALLOW

    plugins = [HookRecorder(answers={"authorize_publish": slow}) for _ in range(3)]
    async with open_harness(plugins=plugins) as harness:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x", 1, packet_id=1))
        await peer.expect(PubAck, reason_code=0x10)
        assert trio.current_time() == 12


async def test_a_keep_alive_does_not_run_while_a_hook_thinks() -> None:
    async def slow(event: Any) -> Allow:
        await trio.sleep(4.9)
        return ALLOW

    recorder = HookRecorder(answers={"authorize_publish": slow})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", keep_alive=1)
        await peer.send(*(Publish("a", b"x", 1, packet_id=number) for number in (1, 2, 3)))
        for number in (1, 2, 3):
            await peer.expect(PubAck, packet_id=number)
        await trio.sleep(1.4)
        await peer.ping()
        await peer.expect_closed(0x8D)
        assert trio.current_time() == pytest.approx(3 * 4.9 + 1.4 + 1.5)


async def test_the_time_that_a_hook_took_counts() -> None:
    """A lifetime begins when a message is accepted; a throttle when it is asked for."""

    async def slow(event: Any) -> Any:
        await trio.sleep(4)
        return Throttle(3) if event.payload == b"throttled" else None

    recorder = HookRecorder(answers={"transform_publish": slow})
    async with open_harness(plugins=[recorder]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("a")
        peer = await harness.connect("peer")
        lifetime = PublishProperties(message_expiry_interval=2)
        await peer.send(Publish("a", b"x", properties=lifetime), Publish("a", b"throttled"))
        await watcher.message(b"x", properties=lifetime)
        await peer.send(PingReq())
        await peer.expect(PingResp)
        assert trio.current_time() == 4 + 4 + 3


async def test_a_challenge_stops_the_wait_for_a_connect_in_time() -> None:
    async def slow(event: Any) -> Any:
        await trio.sleep(4)
        return Challenge(b"?") if event.round < 2 else Deny()

    async with open_harness(plugins=[HookRecorder(answers={"authenticate": slow})]) as harness:
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(authentication_method="M"))
        for _ in range(2):
            await peer.expect(Auth, reason_code=0x18)
            await peer.send(Auth(0x18, "M", b"!"))
        await peer.expect_closed(0x87)
        assert trio.current_time() == 12


# -- the broker's end


async def test_the_broker_waits_for_hooks_when_it_stops() -> None:
    async def slow(event: Any) -> Allow:
        await trio.sleep(2)
        return ALLOW

    recorder = HookRecorder("published", answers={"authorize_publish": slow})
    async with trio.open_nursery() as nursery:
        broker = await nursery.start(partial(serve_broker, [], plugins=[recorder]))
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(broker.serve_stream, theirs)
        peer = Peer(ours, client_id="peer")
        await peer.connect()
        await peer.send(Publish("a", b"x", 1, packet_id=1), Publish("a", b"never", 1, packet_id=2))
        await peer.nothing()
        broker.stop()
        await peer.expect(PubAck, packet_id=1)
        await peer.expect_closed(0x8B)
    assert [event.payload for event in recorder.of("published")] == [b"x"]


async def test_a_hook_that_hangs_does_not_keep_the_broker() -> None:
    gate = Gate()
    settings = {"stop_grace": 3.0, "hook_deadline": 100.0}
    recorder = HookRecorder("published", answers={"authorize_publish": gate})
    async with trio.open_nursery() as nursery:
        broker = await nursery.start(partial(serve_broker, [], plugins=[recorder], limits=settings))
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(broker.serve_stream, theirs)
        peer = Peer(ours, client_id="peer")
        await peer.connect()
        await peer.send(Publish("a", b"x", 1, packet_id=1))
        await peer.nothing()
        broker.stop()
        await peer.expect_closed(0x8B)
    assert trio.current_time() <= 3 + 2
    assert gate.cancelled == 1
    assert recorder.of("published") == []
