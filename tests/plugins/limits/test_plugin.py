"""Who is refused, who is slowed down, and that whatever is counted is counted back."""

import gc
import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mqtrio import Allow, Deny, ReasonCode, ReconfigureEvent
from mqtrio.testing import FaultyStore, Harness, HookRecorder, Peer, check_plugin, open_harness
from mqtrio.wire.packets import ConnAck, PingReq, PingResp, Publish, SubAck, Subscribe
from mqtrio.wire.packets import SubscriptionRequest as Request
from mqtrio_plugins.limits import Bounds, ClientBounds, Limiter, LimitsSettings

QUOTA = ReasonCode.QUOTA_EXCEEDED
RATE = ReasonCode.CONNECTION_RATE_EXCEEDED


def limiter(**settings: Any) -> Limiter:
    return Limiter(LimitsSettings(**settings), name="limits")


def users(**answers: Any) -> HookRecorder:
    """Lets everybody in by the name that is said."""
    answers["authenticate"] = lambda event: Allow(username=event.username)
    return HookRecorder("connection_refused", answers=answers)


async def code(harness: Harness, client_id: str, user: str | None = None, **fields: Any) -> int:
    """What a CONNECT is answered."""
    peer = harness.peer(client_id)
    await peer.send(peer.connect_packet(username=user, **fields))
    return (await peer.expect(ConnAck)).reason_code


async def subscribe(peer: Peer, *filters: str) -> list[int]:
    await peer.send(Subscribe(9, tuple(Request(each, 0) for each in filters)))
    return list((await peer.answer(SubAck)).reason_codes)


def nothing_is_counted(plugin: Limiter) -> bool:
    tables = (plugin._clients, plugin._users, plugin._addresses)
    return not any(usage.there for table in tables for usage in table._usages.values())


async def test_the_contract() -> None:
    await check_plugin(
        Limiter,
        LimitsSettings(user=Bounds(connections=10, message_rate=1000.0)),
        other_settings=LimitsSettings(client=ClientBounds(message_rate=500.0)),
    )


# -- connections


async def test_connections_of_an_address(autojump_clock: MockClock) -> None:
    plugin, told = limiter(address=Bounds(connections=2)), HookRecorder("connection_refused")
    async with open_harness(plugins=[plugin, told]) as harness:
        first = await harness.connect("1")
        silent = harness.peer("silent")  # counts, though it says nothing
        await silent.settle()
        third = harness.peer("3")
        await third.expect_closed()
        assert [event.why for event in told.of("connection_refused")] == [
            "address: more than 2 connections"
        ]
        other = harness.peer("4", address="192.0.2.8")
        await other.connect()
        await silent.drop()
        await harness.connect("5")
        await first.disconnect()
        await harness.connect("6")
    assert nothing_is_counted(plugin)


async def test_connections_of_a_user(autojump_clock: MockClock) -> None:
    plugin = limiter(user=Bounds(connections=2))
    async with open_harness(plugins=[users(), plugin]) as harness:
        assert [await code(harness, each, "ann") for each in ("1", "2", "3")] == [0, 0, QUOTA]
        assert await code(harness, "2", "ann") == 0  # takes over from itself
        assert await code(harness, "4", "bob") == 0
        assert [await code(harness, each) for each in ("5", "6", "7")] == [0, 0, 0]
        harness.broker.disconnect("1")
        assert await code(harness, "8", "ann") == 0
        assert await code(harness, "9", "ann") == QUOTA
    assert nothing_is_counted(plugin)


@pytest.mark.parametrize("kind", ["client", "user"])
async def test_the_rate_of_connections(kind: str, autojump_clock: MockClock) -> None:
    kinds = {"client": ClientBounds, "user": Bounds}
    bounds = kinds[kind](connection_rate=0.1, connection_burst=2)
    told = users()
    async with open_harness(plugins=[told, limiter(**{kind: bounds})]) as harness:
        assert [await code(harness, "1", "ann") for _ in range(3)] == [0, 0, RATE]
        await trio.sleep(10)
        assert [await code(harness, "1", "ann") for _ in range(2)] == [0, RATE]
        assert await code(harness, "2", "bob") == 0
    assert told.of("connection_refused")[0].why == f"{kind}: more than 0.1 connections a second"


async def test_the_rate_of_connections_of_an_address(autojump_clock: MockClock) -> None:
    plugin = limiter(address=Bounds(connection_rate=1.0))
    async with open_harness(plugins=[plugin]) as harness:
        await harness.connect("1")
        await harness.peer("2").expect_closed()
        await trio.sleep(1)
        await harness.connect("3")


async def test_what_others_refuse_is_counted_back(autojump_clock: MockClock) -> None:
    """Before this plugin and behind it, at each step."""
    for hook in ("accept", "authenticate", "admit"):
        no = HookRecorder(answers={hook: Deny()})
        for before in (True, False):
            plugin = limiter(address=Bounds(connections=1), user=Bounds(connections=1))
            plugins = [users(), plugin] if hook != "authenticate" else [plugin]
            plugins = [no, *plugins] if before else [*plugins, no]
            async with open_harness(plugins=plugins) as harness:
                for _ in range(3):
                    peer = harness.peer("1")
                    await peer.send(peer.connect_packet(username="ann"))
                    await peer.expect_closed(None if hook == "accept" else 0x87)
                assert nothing_is_counted(plugin), (hook, before)


async def test_an_explanation_counts_for_nothing(autojump_clock: MockClock) -> None:
    plugin = limiter(address=Bounds(connections=1), user=Bounds(connections=1))
    async with open_harness(plugins=[users(), plugin]) as harness:
        for _ in range(3):
            await harness.broker.explain(
                client_id="1", username="ann", publish="a", address="192.0.2.7"
            )
        gc.collect()
        assert nothing_is_counted(plugin)


# -- messages


async def received(harness: Harness, peer: Peer, count: int, size: int = 0) -> float:
    """The seconds that it takes until so many messages have been read from a client."""
    begin = trio.current_time()
    await peer.send(*(Publish("t", bytes(size), 0) for _ in range(count)), PingReq())
    await peer.answer(PingResp)
    return trio.current_time() - begin


@pytest.mark.parametrize(
    ("bounds", "seconds"),
    [
        ({"message_rate": 10.0, "message_burst": 5}, 1.5),
        ({"message_rate": 10.0}, 1.0),
        ({"byte_rate": 100, "byte_burst": 500}, 15.0),
        ({"message_rate": 10.0, "message_burst": 5, "byte_rate": 100, "byte_burst": 500}, 15.0),
        ({"message_rate": 1000.0}, 0.0),
        ({}, 0.0),
    ],
)
@pytest.mark.parametrize("kind", ["client", "user", "address"])
async def test_a_fast_publisher_is_slowed_down(
    kind: str, bounds: dict[str, Any], seconds: float, autojump_clock: MockClock
) -> None:
    made = ClientBounds(**bounds) if kind == "client" else Bounds(**bounds)
    async with open_harness(plugins=[users(), limiter(**{kind: made})]) as harness:
        ann = await harness.connect("ann", username="ann")
        assert await received(harness, ann, 20, 99) == pytest.approx(seconds, abs=0.2)


async def test_a_user_shares_its_rate_and_others_have_theirs(autojump_clock: MockClock) -> None:
    plugin = limiter(user=Bounds(message_rate=1.0, message_burst=10))
    async with open_harness(plugins=[users(), plugin]) as harness:
        one = await harness.connect("1", username="ann")
        two = await harness.connect("2", username="ann")
        bob = await harness.connect("3", username="bob")
        assert await received(harness, one, 10) == 0
        assert await received(harness, bob, 10) == 0
        assert await received(harness, two, 5) == pytest.approx(5, abs=0.2)
        await trio.sleep(100)
        assert await received(harness, one, 10) == 0


async def test_nothing_is_lost_and_others_go_on(autojump_clock: MockClock) -> None:
    plugin = limiter(client=ClientBounds(message_rate=1.0))
    async with open_harness(plugins=[plugin]) as harness:
        reader = await harness.connect("reader")
        await reader.subscribe("#")
        fast = await harness.connect("fast")
        slow = await harness.connect("slow")
        await fast.send(*(Publish("t", b"%d" % number, 0) for number in range(10)))
        await slow.publish("s", b"at once")
        await harness.broker.publish("local", b"at once")  # the program's own is not bounded
        await reader.settle()
        await trio.sleep(30)
        got = [packet.payload for packet in await reader.arrived() if isinstance(packet, Publish)]
        assert [each for each in got if each != b"at once"] == [b"%d" % n for n in range(10)]
        assert got[:4].count(b"at once") == 2


async def test_the_longest_pause(autojump_clock: MockClock) -> None:
    plugin = limiter(client=ClientBounds(byte_rate=1), longest_pause=7.0)
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        assert await received(harness, ann, 1, 1000) == pytest.approx(7, abs=0.2)


# -- subscriptions


@pytest.mark.parametrize("kind", ["client", "user", "address"])
async def test_subscriptions(kind: str, autojump_clock: MockClock) -> None:
    made = ClientBounds(subscriptions=3) if kind == "client" else Bounds(subscriptions=3)
    plugin = limiter(**{kind: made})
    async with open_harness(plugins=[users(), plugin]) as harness:
        ann = await harness.connect("1", username="ann")
        assert await subscribe(ann, "a", "b") == [0, 0]
        assert await subscribe(ann, "b", "c", "d") == [0, 0, QUOTA]
        assert await subscribe(ann, "a", "b", "c") == [0, 0, 0]  # again
        other = await harness.connect("2", username="ann")
        assert await subscribe(other, "x") == [0 if kind == "client" else QUOTA]
        assert (await ann.unsubscribe("a")).reason_codes == (0,)
        assert await subscribe(ann, "d") == [0]
        await ann.disconnect()
        assert await subscribe(other, "y", "z") == [0, 0]
        await other.disconnect()
        assert nothing_is_counted(plugin)


async def test_sessions_keep_their_subscriptions(autojump_clock: MockClock) -> None:
    """The client's and the user's count while it is away; the address's only while it is there."""
    bounds = Bounds(subscriptions=2)
    plugin = limiter(user=bounds, address=bounds)
    async with open_harness(plugins=[users(), plugin]) as harness:
        ann = await harness.connect("1", username="ann", session_expiry_interval=100)
        assert await subscribe(ann, "a", "b") == [0, 0]
        await ann.drop()
        bob = await harness.connect("2", username="bob")
        assert await subscribe(bob, "x") == [0]
        assert await subscribe(await harness.connect("3", username="ann"), "c") == [QUOTA]
        ann = harness.peer("1")
        await ann.connect(clean_start=False, session_present=True, username="ann")
        assert await subscribe(bob, "y") == [QUOTA]  # now by its address
        await ann.drop()
        await trio.sleep(200)
        assert await subscribe(bob, "y") == [0]
        harness.broker.disconnect("2")
        harness.broker.disconnect("3")
        assert nothing_is_counted(plugin)


async def test_subscriptions_from_the_store_count(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    async with open_harness(plugins=[users()], store=store) as harness:
        ann = await harness.connect("1", username="ann", session_expiry_interval=1000)
        assert await subscribe(ann, "a", "b") == [0, 0]
        await trio.sleep(1)
        await ann.drop()
    plugin = limiter(user=Bounds(subscriptions=2))
    async with open_harness(
        plugins=[users(), plugin], store=FaultyStore(store.state.copy())
    ) as harness:
        other = await harness.connect("2", username="ann")
        assert await subscribe(other, "c") == [QUOTA]
        assert harness.broker.end_session("1")
        assert await subscribe(other, "c") == [0]


async def test_it_does_not_allow_what_others_leave_undecided(autojump_clock: MockClock) -> None:
    acl = HookRecorder(answers={"authorize_subscribe": None, "authorize_publish": None})
    plugin = limiter(client=ClientBounds(subscriptions=3, message_rate=10.0))
    async with open_harness(plugins=[plugin, acl]) as harness:
        ann = await harness.connect("1")
        assert await subscribe(ann, "a") == [ReasonCode.NOT_AUTHORIZED]


async def test_the_programs_own_are_not_bounded(autojump_clock: MockClock) -> None:
    bounds = Bounds(subscriptions=0, message_rate=0.001, connections=0)
    plugin = limiter(client=ClientBounds(subscriptions=0), user=bounds, address=bounds)
    async with (
        open_harness(plugins=[plugin]) as harness,
        harness.broker.subscribe("a", "b") as messages,
    ):
        for _ in range(3):
            await harness.broker.publish("a", b"x")
            assert (await messages.receive()).payload == b"x"
    assert nothing_is_counted(plugin)


# -- settings that change


async def test_new_bounds_hold_for_those_who_are_there(autojump_clock: MockClock) -> None:
    plugin = limiter(client=ClientBounds(message_rate=1.0))
    async with open_harness(plugins=[users(), plugin]) as harness:
        ann = await harness.connect("1", username="ann")
        assert await received(harness, ann, 3) == pytest.approx(2, abs=0.2)
        plugin.reconfigure(ReconfigureEvent(LimitsSettings(user=Bounds(connections=1))))()
        assert await received(harness, ann, 100) == 0
        assert await code(harness, "2", "ann") == QUOTA
        plugin.reconfigure(ReconfigureEvent(LimitsSettings(address=Bounds(message_rate=10.0))))()
        assert await received(harness, ann, 20) == pytest.approx(1, abs=0.2)
        assert await code(harness, "2", "ann") == 0
    assert nothing_is_counted(plugin)


async def test_the_log_says_what_was_exceeded(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    async with open_harness(plugins=[users(), limiter(user=Bounds(connections=0))]) as harness:
        assert await code(harness, "1", "ann") == QUOTA
        await trio.sleep(1)
    assert "user: more than 0 connections" in caplog.text
