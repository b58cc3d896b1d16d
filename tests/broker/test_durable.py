"""Durable sessions of the program: what is not acknowledged comes again."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mqtrio import Allow, ReasonCode, RefusedError, StoreError, SubscribeEvent, hookimpl
from mqtrio.testing import FaultyStore, Harness, open_harness
from tests.broker.test_subscribe import nothing_more, texts


async def test_unacknowledged_messages_come_again(
    harness: Harness, autojump_clock: MockClock
) -> None:
    broker = harness.broker
    async with broker.subscribe("a/#", session="worker") as messages:
        for number in range(4):
            await broker.publish(f"a/{number}", str(number), qos=1)
        first = await messages.receive()
        await first.ack()
        await messages.receive()  # taken, not acknowledged
        third = await messages.receive()
        await third.ack()
    await broker.publish("a/4", "4", qos=1)  # while nobody listens
    await broker.publish("a/5", "5", qos=0)
    async with broker.subscribe("a/#", session="worker") as messages:
        again = [await messages.receive() for _ in range(3)]
        assert [m.payload for m in again] == [b"1", b"3", b"4"]
        assert [m.qos for m in again] == [1, 1, 1]
        await nothing_more(messages)
        for message in again:
            await message.ack()
    async with broker.subscribe("a/#", session="worker") as messages:
        await nothing_more(messages)


@pytest.mark.parametrize("qos", [1, 2])
async def test_qos(harness: Harness, autojump_clock: MockClock, qos: int) -> None:
    broker = harness.broker
    for _ in range(3):
        async with broker.subscribe("a", session="s", qos=qos) as messages:
            if not broker.sessions()[0].inflight and not broker.sessions()[0].waiting:
                await broker.publish("a", b"x", qos=2)
            message = await messages.receive()
            assert (message.payload, message.qos) == (b"x", qos)
    async with broker.subscribe("a", session="s", qos=qos) as messages:
        message = await messages.receive()
        await message.ack()
        await message.ack()  # once more does nothing
    assert broker.end_session(broker.sessions()[0].client_id)
    assert broker.statistics().memory == 0


async def test_its_session(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    async with broker.subscribe("a", "b/+", session="worker"):
        (session,) = broker.sessions()
        assert session.connected
        assert session.subscriptions == ("a", "b/+")
    (session,) = broker.sessions()
    assert not session.connected
    await broker.publish("a", b"12345", qos=1)
    await broker.publish("b/c", b"12345", qos=1)
    (session,) = broker.sessions()
    assert (session.waiting, session.inflight, session.dropped) == (2, 0, 0)
    assert session.waiting_bytes >= 10
    assert broker.end_session(session.client_id)
    assert broker.sessions() == []
    assert broker.statistics().memory == 0
    async with broker.subscribe("a", session="worker") as messages:
        await nothing_more(messages)


async def test_one_at_a_time(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    async with broker.subscribe("a", session="worker") as messages:
        with pytest.raises(RefusedError, match="in use"):
            async with broker.subscribe("a", session="worker"):
                raise AssertionError("not reached")
        await broker.publish("a", b"x", qos=1)
        assert await texts(messages, 1) == ["x"]


async def test_one_at_a_time_while_a_plugin_thinks(autojump_clock: MockClock) -> None:
    class Slow:
        @hookimpl
        async def authorize_subscribe(self, event: SubscribeEvent) -> Allow:
            await trio.sleep(1)
            return Allow()

    outcomes = []

    async with open_harness(plugins=[Slow()]) as harness:

        async def join() -> None:
            try:
                async with harness.broker.subscribe("a", session="worker"):
                    outcomes.append("in")
                    await trio.sleep(10)
            except RefusedError:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            nursery.start_soon(join)
    assert sorted(outcomes) == ["in", "refused"]


async def test_clients_cannot_have_it(harness: Harness, autojump_clock: MockClock) -> None:
    async with harness.broker.subscribe("a", session="worker"):
        (session,) = harness.broker.sessions()
        thief = harness.peer(session.client_id)
        await thief.send(thief.connect_packet(clean_start=False))
        await thief.expect_closed(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)


@pytest.mark.parametrize("size", [1, 3])
async def test_no_more_than_size_are_unacknowledged(
    harness: Harness, autojump_clock: MockClock, size: int
) -> None:
    broker = harness.broker
    async with broker.subscribe("a", session="worker", size=size) as messages:
        for number in range(20):
            await broker.publish("a", str(number), qos=1)
        taken = [await messages.receive() for _ in range(size)]
        await nothing_more(messages)
        for number in range(size, 20):
            await taken.pop(0).ack()
            taken.append(await messages.receive())
            assert taken[-1].payload == str(number).encode()
        assert messages.dropped == 0


async def test_acknowledging_after_the_block(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    async with broker.subscribe("a", session="worker") as messages:
        await broker.publish("a", b"1", qos=1)
        await broker.publish("a", b"2", qos=1)
        first, second = await messages.receive(), await messages.receive()
    await second.ack()
    async with broker.subscribe("a", session="worker") as messages:
        assert await texts(messages, 1) == ["1"]
        await first.ack()
    async with broker.subscribe("a", session="worker") as messages:
        await nothing_more(messages)


async def test_the_session_is_ended_meanwhile(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    async with broker.subscribe("a", session="worker") as messages:
        (session,) = broker.sessions()
        await broker.publish("a", b"x", qos=1)
        message = await messages.receive()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(RefusedError) as caught:
                    await messages.receive()
                assert caught.value.reason_code == ReasonCode.ADMINISTRATIVE_ACTION

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert broker.end_session(session.client_id)
        await message.ack()
        assert broker.sessions() == []
    assert broker.statistics().memory == 0


# -- with a store


async def test_over_a_restart(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        broker = harness.broker
        async with broker.subscribe("a", session="worker") as messages:
            await broker.publish("a", b"1", qos=1, message_expiry_interval=1000)
            await broker.publish("a", b"2", qos=1, user_properties={"x": "y"})
            message = await messages.receive()
            assert message.payload == b"1"
        await broker.publish("a", b"3", qos=1)
    store = FaultyStore(store.state.copy())
    async with open_harness(store=store) as harness:
        broker = harness.broker
        await broker.publish("a", b"4", qos=1)
        async with broker.subscribe("a", session="worker") as messages:
            got = [await messages.receive() for _ in range(4)]
            assert [m.payload for m in got] == [b"1", b"2", b"3", b"4"]
            assert got[0].message_expiry_interval in (999, 1000)
            assert got[1].user_properties == (("x", "y"),)
            for message in got:
                await message.ack()
    store = FaultyStore(store.state.copy())
    async with open_harness(store=store) as harness:
        async with harness.broker.subscribe("a", session="worker") as messages:
            await nothing_more(messages)
    assert store.state.messages == {}


async def test_subscribing_waits_for_the_store(autojump_clock: MockClock) -> None:
    async with open_harness(store=FaultyStore(delay=2)) as harness:
        began = trio.current_time()
        async with harness.broker.subscribe("a", session="worker"):
            assert trio.current_time() - began == pytest.approx(2, abs=0.2)


async def test_the_store_fails_at_the_beginning(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        store.fail_next()
        with pytest.raises(StoreError):
            async with harness.broker.subscribe("a", session="worker"):
                raise AssertionError("not reached")
        await trio.sleep(10)
        assert harness.broker.sessions() == []
        async with harness.broker.subscribe("a", session="worker") as messages:
            await harness.broker.publish("a", b"x", qos=1)
            assert await texts(messages, 1) == ["x"]


async def test_the_store_fails_under_way(autojump_clock: MockClock) -> None:
    """The subscriber is told; what was stored before comes to the next one."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        broker = harness.broker
        async with broker.subscribe("a", session="worker") as messages:
            await broker.publish("a", b"stored", qos=1)
            assert await texts(messages, 1) == ["stored"]
            store.fail_next()
            with pytest.raises(StoreError):
                await broker.publish("a", b"not stored", qos=1)
            # It may have got the message that its publisher was told is lost.
            with pytest.raises(StoreError):
                await texts(messages, 2)
        await trio.sleep(10)
        async with broker.subscribe("a", session="worker") as messages:
            message = await messages.receive()
            assert message.payload == b"stored"
            await message.ack()
            await nothing_more(messages)
