"""Subscribing from the program: order, bounds, retained messages, refusals, the end."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import mqtrio
from mqtrio import (
    Allow,
    BrokerStopped,
    Deny,
    ReasonCode,
    RefusedError,
    SubscribeEvent,
    Subscriber,
    hookimpl,
)
from mqtrio.testing import Harness, open_harness
from mqtrio.wire.packets import MQTT_3_1_1, PublishProperties


async def texts(messages: Subscriber, count: int) -> list[str]:
    """The payloads of the next `count` messages."""
    return [(await messages.receive()).payload.decode() for _ in range(count)]


async def nothing_more(messages: Subscriber) -> None:
    """No message waits, and none comes unless something happens."""
    with trio.move_on_after(1):
        message = await messages.receive()
        raise AssertionError(f"got {message}")


@pytest.mark.parametrize("version", [MQTT_3_1_1, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_clients_publish(
    harness: Harness, autojump_clock: MockClock, qos: int, version: int
) -> None:
    async with harness.broker.subscribe("sensors/+/temp", "other", qos=qos) as messages:
        ann = await harness.connect("ann", version=version)
        await ann.publish("sensors/kitchen/temp", b"21.5", qos)
        await ann.publish("sensors/kitchen", b"no")
        await ann.publish("other", b"yes", qos)
        message = await messages.receive()
        assert (message.topic, message.payload) == ("sensors/kitchen/temp", b"21.5")
        assert (message.qos, message.retain, message.publisher) == (qos, False, "ann")
        assert (await messages.receive()).topic == "other"
        await nothing_more(messages)


async def test_iteration(harness: Harness, autojump_clock: MockClock) -> None:
    seen = []
    async with harness.broker.subscribe("a") as messages:
        for number in range(5):
            await harness.broker.publish("a", str(number))
        async for message in messages:
            seen.append(message.payload)
            if message.payload == b"4":
                break
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


async def test_properties(harness: Harness, autojump_clock: MockClock) -> None:
    async with harness.broker.subscribe("a") as messages:
        ann = await harness.connect("ann")
        await ann.publish(
            "a",
            b"hello",
            properties=PublishProperties(1, 60, "text/plain", "b", b"\0", (("x", "y"), ("x", "z"))),
        )
        message = await messages.receive()
        assert message.payload_format_indicator == 1
        assert message.message_expiry_interval == 60
        assert message.content_type == "text/plain"
        assert message.response_topic == "b"
        assert message.correlation_data == b"\0"
        assert message.user_properties == (("x", "y"), ("x", "z"))
        assert "hello" not in repr(message)


async def test_retained(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    for number in range(1000):
        await broker.publish(f"a/{number}", str(number), qos=1, retain=True)
    async with broker.subscribe("a/#", qos=1) as messages:
        await broker.publish("a/new", "new")
        got = [await messages.receive() for _ in range(1001)]
        assert {m.topic for m in got if m.retain} == {f"a/{n}" for n in range(1000)}
        assert [m.topic for m in got if not m.retain] == ["a/new"]
        assert messages.dropped == 0
    async with broker.subscribe("a/#", no_retained=True) as messages:
        await broker.publish("a/new", "new")
        assert (await messages.receive()).topic == "a/new"


async def test_leaving_the_block_ends_the_subscription(
    harness: Harness, autojump_clock: MockClock
) -> None:
    broker = harness.broker
    async with broker.subscribe("a") as messages:
        assert broker.statistics().subscriptions == 1
        assert (await broker.publish("a", b"1")).matched
    assert broker.statistics().subscriptions == 0
    assert not (await broker.publish("a", b"2")).matched
    with pytest.raises(trio.ClosedResourceError):
        await messages.receive()
    assert broker.sessions() == []


@pytest.mark.parametrize("size", [1, 2, 10])
async def test_bounded_at_qos_0(harness: Harness, autojump_clock: MockClock, size: int) -> None:
    """A subscriber that is slow loses what is over its size, and keeps nobody else waiting."""
    broker = harness.broker
    async with broker.subscribe("a", size=size) as slow, broker.subscribe("a") as fast:
        ann = await harness.connect("ann")
        await ann.subscribe("a")
        began = trio.current_time()
        for number in range(30):
            await broker.publish("a", str(number))
        assert trio.current_time() == began
        wanted = [str(number) for number in range(30)]
        assert await texts(fast, 30) == wanted
        assert fast.dropped == 0
        for text in wanted:
            await ann.message(text.encode())
        assert slow.dropped == 30 - size
        assert await texts(slow, size) == wanted[:size]
        await broker.publish("a", "more")
        assert await texts(slow, 1) == ["more"]
        assert broker.statistics().dropped == {"outbox_full": 30 - size}


@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize("qos", [1, 2])
async def test_nothing_is_lost_at_qos_1(
    harness: Harness, autojump_clock: MockClock, size: int, qos: int
) -> None:
    """More messages than fit wait in the broker; without a session nothing is acknowledged."""
    broker = harness.broker
    async with broker.subscribe("a", qos=qos, size=size) as messages:
        for number in range(50):
            await broker.publish("a", str(number), qos=qos)
        assert await texts(messages, 50) == [str(number) for number in range(50)]
        assert messages.dropped == 0
        assert broker.statistics().dropped == {}
        await messages_of_both_kinds(broker, messages)
    assert broker.statistics().memory == 0


async def messages_of_both_kinds(broker: mqtrio.Broker, messages: Subscriber) -> None:
    """Read along while publishing."""
    for number in range(50):
        await broker.publish("a", str(number), qos=number % 2)
        assert await texts(messages, 1) == [str(number)]


async def test_a_slow_reader_slows_nobody_for_long(
    harness: Harness, autojump_clock: MockClock
) -> None:
    """At QoS 1 publishers wait for one that is far behind only while it goes on."""
    async with open_harness(limits={"stall_messages": 10, "stall_time": 0.05}) as harness:
        broker = harness.broker
        async with broker.subscribe("a", qos=1, size=5) as messages:
            with trio.fail_after(1):
                for number in range(100):
                    await broker.publish("a", str(number), qos=1)
            assert await texts(messages, 100) == [str(number) for number in range(100)]


async def test_a_reader_that_goes_on_is_waited_for(
    harness: Harness, autojump_clock: MockClock
) -> None:
    async with open_harness(limits={"stall_messages": 10, "stall_time": 0.05}) as harness:
        broker = harness.broker
        behind = 0

        async def publish() -> None:
            nonlocal behind
            for number in range(200):
                await broker.publish("a", str(number), qos=1)
                behind = max(behind, number - read)

        read = 0
        async with broker.subscribe("a", qos=1, size=5) as messages:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                for number in range(200):
                    assert await texts(messages, 1) == [str(number)]
                    read = number
                    await trio.sleep(0.01)
        assert behind < 30
        assert broker.statistics().stalls > 0


async def test_shared_subscription(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    async with broker.subscribe("$share/g/a") as one, broker.subscribe("$share/g/a") as two:
        for number in range(10):
            await broker.publish("a", str(number))
        shares = await texts(one, 5) + await texts(two, 5)
        assert sorted(shares) == [str(number) for number in range(10)]


async def test_two_in_one_program(harness: Harness, autojump_clock: MockClock) -> None:
    """A program gets what it publishes itself, once for each subscriber."""
    broker = harness.broker
    async with broker.subscribe("a/#") as one, broker.subscribe("+/b") as two:
        await broker.publish("a/b", b"x")
        assert await texts(one, 1) == await texts(two, 1) == ["x"]
        await nothing_more(one)
        await nothing_more(two)


async def test_overlapping_filters_give_one_copy(
    harness: Harness, autojump_clock: MockClock
) -> None:
    async with harness.broker.subscribe("a/#", "+/b") as messages:
        await harness.broker.publish("a/b", b"x")
        assert await texts(messages, 1) == ["x"]
        await nothing_more(messages)


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+", "$share/g", "a\0"])
async def test_filters_that_cannot_be(
    harness: Harness, autojump_clock: MockClock, topic_filter: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        async with harness.broker.subscribe("fine", topic_filter):
            raise AssertionError("not reached")
    assert caught.value.reason_code == ReasonCode.TOPIC_FILTER_INVALID
    assert harness.broker.statistics().subscriptions == 0


@pytest.mark.parametrize("values", [{"qos": 3}, {"qos": -1}, {"size": 0}], ids=str)
async def test_values_that_cannot_be(harness: Harness, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="qos must be"):
        async with harness.broker.subscribe("a", **values):
            raise AssertionError("not reached")


class Bouncer:
    """Nobody may subscribe to `secret`, and it takes a second to find out."""

    def __init__(self) -> None:
        self.seen: list[SubscribeEvent] = []

    @hookimpl
    async def authorize_subscribe(self, event: SubscribeEvent) -> Allow | Deny:
        self.seen.append(event)
        await trio.sleep(1)
        return Deny(ReasonCode.NOT_AUTHORIZED) if event.topic_filter == "secret" else Allow()


async def test_a_plugin_refuses(autojump_clock: MockClock) -> None:
    bouncer = Bouncer()
    async with open_harness(plugins=[bouncer]) as harness:
        with pytest.raises(RefusedError) as caught:
            async with harness.broker.subscribe("open", "secret"):
                raise AssertionError("not reached")
        assert caught.value.reason_code == ReasonCode.NOT_AUTHORIZED
        assert "secret" in str(caught.value)
        assert [event.origin for event in bouncer.seen] == ["local", "local"]
        assert harness.broker.statistics().subscriptions == 0
        async with harness.broker.subscribe("open") as messages:
            await harness.broker.publish("open", b"x")
            assert await texts(messages, 1) == ["x"]


async def test_giving_up_while_a_plugin_thinks(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[Bouncer()]) as harness:
        with trio.move_on_after(0.5):
            async with harness.broker.subscribe("open"):
                raise AssertionError("not reached")
        assert harness.broker.statistics().subscriptions == 0
        assert harness.broker.sessions() == []


async def test_the_broker_stops(autojump_clock: MockClock) -> None:
    got: list[bytes] = []

    async def listen(messages: Subscriber) -> None:
        got.append((await messages.receive()).payload)
        with pytest.raises(BrokerStopped):
            await messages.receive()

    async with trio.open_nursery() as nursery:
        async with mqtrio.open_broker([]) as broker:
            subscription = broker.subscribe("a")
            messages = await subscription.__aenter__()
            nursery.start_soon(listen, messages)
            await broker.publish("a", b"last")
            await wait_all_tasks_blocked()
        await subscription.__aexit__(None, None, None)
    assert got == [b"last"]


async def test_cancelled_while_waiting(harness: Harness, autojump_clock: MockClock) -> None:
    """A cancelled `receive` loses no message."""
    async with harness.broker.subscribe("a") as messages:
        with trio.move_on_after(1) as scope:
            await messages.receive()
        assert scope.cancelled_caught
        await harness.broker.publish("a", b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            await messages.receive()
        assert await texts(messages, 1) == ["x"]


async def test_request(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    ann = await harness.connect("ann")
    await ann.subscribe("devices/1", qos=1)

    async def respond() -> None:
        message = await ann.message()
        assert message.properties is not None
        assert message.properties.content_type == "text/plain"
        answer_to = message.properties.response_topic
        assert answer_to is not None
        correlation = message.properties.correlation_data
        await ann.publish(answer_to, b"somebody else's")
        await ann.publish(answer_to, b"wrong", properties=PublishProperties(correlation_data=b"?"))
        await ann.publish(
            answer_to, b"pong", 1, properties=PublishProperties(correlation_data=correlation)
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(respond)
        response = await broker.request("devices/1", b"ping", content_type="text/plain")
    assert (response.payload, response.publisher) == (b"pong", "ann")
    assert broker.statistics().subscriptions == 1


async def test_request_without_an_answer(harness: Harness, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await harness.broker.request("nobody", timeout=3)
    assert trio.current_time() - began == pytest.approx(3)
    assert harness.broker.statistics().subscriptions == 0


async def test_requests_beside_each_other(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    answers = {}

    async def ask(number: int) -> None:
        response = await broker.request("double", str(number), response_topic="doubled")
        answers[number] = int(response.payload)

    async def double(requests: Subscriber) -> None:
        for _ in range(10):
            request = await requests.receive()
            assert request.response_topic is not None
            await broker.publish(
                request.response_topic,
                str(2 * int(request.payload)),
                correlation_data=request.correlation_data,
            )

    async with broker.subscribe("double") as requests, trio.open_nursery() as nursery:
        nursery.start_soon(double, requests)
        for number in range(10):
            nursery.start_soon(ask, number)
    assert answers == {number: 2 * number for number in range(10)}
