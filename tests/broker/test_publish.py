"""Publishing from the program: what arrives, what is answered, what is refused."""

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import mqtrio
from mqtrio import (
    Allow,
    BrokerStopped,
    Close,
    Deny,
    Drop,
    PublishEvent,
    ReasonCode,
    RefusedError,
    Reject,
    StoreError,
    hookimpl,
)
from mqtrio.testing import FaultyStore, Harness, HookRecorder, open_harness
from mqtrio.wire.packets import MQTT_3_1_1, PubAck, Publish, PublishProperties


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_clients_get_it(harness: Harness, autojump_clock: MockClock, qos: int) -> None:
    ann = await harness.connect("ann")
    bob = await harness.connect("bob", version=MQTT_3_1_1)
    await ann.subscribe("a/+", qos=qos)
    await bob.subscribe("a/+", qos=qos)
    result = await harness.broker.publish("a/b", b"hello", qos=qos)
    assert result.reason_code == ReasonCode.SUCCESS
    assert result.matched
    for peer in (ann, bob):
        await peer.message(b"hello", topic="a/b", qos=qos, retain=False)


async def test_text_is_utf_8(harness: Harness, autojump_clock: MockClock) -> None:
    ann = await harness.connect("ann")
    await ann.subscribe("a")
    await harness.broker.publish("a", "grün")
    await ann.message("grün".encode())
    await harness.broker.publish("a", bytearray(b"mutable"))  # type: ignore[arg-type]
    await ann.message(b"mutable")
    await harness.broker.publish("a")
    await ann.message(b"")


async def test_result_without_subscribers(harness: Harness, autojump_clock: MockClock) -> None:
    for qos in (0, 1, 2):
        result = await harness.broker.publish("nobody/here", qos=qos)
        assert result.reason_code == ReasonCode.NO_MATCHING_SUBSCRIBERS
        assert not result.matched


async def test_properties(harness: Harness, autojump_clock: MockClock) -> None:
    ann = await harness.connect("ann")
    await ann.subscribe("a")
    await harness.broker.publish(
        "a",
        "hello",
        payload_format_indicator=1,
        message_expiry_interval=60,
        content_type="text/plain",
        response_topic="answers",
        correlation_data=b"\x00\x01",
        user_properties=[("b", "1"), ("a", "2"), ("b", "3")],
    )
    message = await ann.message(b"hello")
    assert message.properties == PublishProperties(
        1, 60, "text/plain", "answers", b"\x00\x01", (("b", "1"), ("a", "2"), ("b", "3"))
    )
    await harness.broker.publish("a", user_properties={"name": "value"})
    message = await ann.message(b"")
    assert message.properties == PublishProperties(user_properties=(("name", "value"),))


async def test_retained_and_its_expiry(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    await broker.publish("a/1", b"short", retain=True, message_expiry_interval=10)
    await broker.publish("a/2", b"long", retain=True)
    await broker.publish("b", b"other", qos=1, retain=True)
    assert {m.topic: m.payload for m in broker.retained("a/+")} == {"a/1": b"short", "a/2": b"long"}
    assert len(broker.retained()) == 3
    (message,) = broker.retained("a/1")
    assert message.retain
    assert message.message_expiry_interval == 10
    await trio.sleep(4)
    (message,) = broker.retained("a/1")
    assert message.message_expiry_interval == 6
    ann = await harness.connect("ann")
    await ann.subscribe("a/1")
    await ann.message(b"short", retain=True, properties=PublishProperties(None, 6))
    await trio.sleep(6.5)
    assert [m.topic for m in broker.retained("a/+")] == ["a/2"]
    await broker.publish("a/2", retain=True)
    assert broker.retained("a/#") == []
    assert broker.statistics().retained == 1


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "a" * 65536, "\ud800"])
async def test_topics_that_cannot_be(
    harness: Harness, autojump_clock: MockClock, topic: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        await harness.broker.publish(topic, b"x")
    assert caught.value.reason_code == ReasonCode.TOPIC_NAME_INVALID


async def test_a_topic_that_is_too_deep(autojump_clock: MockClock) -> None:
    async with open_harness(limits={"topic_levels": 3}) as harness:
        await harness.broker.publish("a/b/c")
        with pytest.raises(RefusedError, match="level"):
            await harness.broker.publish("a/b/c/d")


@pytest.mark.parametrize(
    "values",
    [
        {"qos": 3},
        {"message_expiry_interval": -1},
        {"message_expiry_interval": 1 << 32},
        {"payload_format_indicator": 2},
        {"content_type": "\0"},
        {"content_type": "x" * 65536},
        {"correlation_data": b"x" * 65536},
        {"user_properties": {"a": "\ud800"}},
        {"user_properties": {"a\0": "b"}},
    ],
    ids=str,
)
async def test_values_that_cannot_be(
    harness: Harness, autojump_clock: MockClock, values: dict[str, Any]
) -> None:
    """What no packet could say is refused here, and harms no subscriber."""
    ann = await harness.connect("ann")
    await ann.subscribe("a")
    with pytest.raises(ValueError, match=r"\w"):
        await harness.broker.publish("a", **values)
    await harness.broker.publish("a", b"fine")
    await ann.message(b"fine")


async def test_a_payload_that_is_no_text(harness: Harness, autojump_clock: MockClock) -> None:
    with pytest.raises(RefusedError) as caught:
        await harness.broker.publish("a", b"\xff", payload_format_indicator=1)
    assert caught.value.reason_code == ReasonCode.PAYLOAD_FORMAT_INVALID


async def test_a_payload_must_be_bytes_or_text(harness: Harness, autojump_clock: MockClock) -> None:
    with pytest.raises(TypeError, match="int"):
        await harness.broker.publish("a", 21)  # type: ignore[arg-type]


@pytest.mark.parametrize("response_topic", ["", "a/+", "#"])
async def test_response_topics_that_cannot_be(
    harness: Harness, autojump_clock: MockClock, response_topic: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        await harness.broker.publish("a", response_topic=response_topic)
    assert caught.value.reason_code == ReasonCode.TOPIC_NAME_INVALID


# -- plugins have their say


class Gate:
    """Answers a transform, or a publish, with what it was made with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[PublishEvent] = []

    @hookimpl
    async def authorize_publish(self, event: PublishEvent) -> Any:
        await trio.sleep(1)
        self.seen.append(event)
        return self.answer if isinstance(self.answer, Deny) else Allow()

    @hookimpl
    def transform_publish(self, event: PublishEvent) -> Any:
        if callable(self.answer):
            return self.answer(event)
        return None if isinstance(self.answer, Deny) else self.answer


@pytest.mark.parametrize(
    ("answer", "reason_code"),
    [
        (Deny(why="secret reasons"), ReasonCode.NOT_AUTHORIZED),
        (Deny(ReasonCode.QUOTA_EXCEEDED, reason_string="enough"), ReasonCode.QUOTA_EXCEEDED),
        (Reject(ReasonCode.PAYLOAD_FORMAT_INVALID), ReasonCode.PAYLOAD_FORMAT_INVALID),
        (Close(ReasonCode.ADMINISTRATIVE_ACTION), ReasonCode.ADMINISTRATIVE_ACTION),
    ],
    ids=str,
)
async def test_a_plugin_refuses(
    autojump_clock: MockClock, answer: Any, reason_code: ReasonCode
) -> None:
    gate = Gate(answer)
    async with open_harness(plugins=[gate]) as harness:
        with pytest.raises(RefusedError) as caught:
            await harness.broker.publish("a", b"x", qos=1)
        assert caught.value.reason_code is reason_code
        assert "secret" not in str(caught.value)
        (event,) = gate.seen
        assert (event.origin, event.client_id, event.username) == ("local", "", None)


async def test_a_plugin_drops_and_changes(autojump_clock: MockClock) -> None:
    def rule(event: PublishEvent) -> Any:
        return Drop() if event.payload == b"noise" else event.changed(topic="elsewhere")

    async with open_harness(plugins=[Gate(rule)]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("#")
        assert (await harness.broker.publish("a", b"noise", qos=1)).reason_code == 0
        await harness.broker.publish("a", b"signal", qos=1)
        await ann.message(b"signal", topic="elsewhere")


async def test_dollar_topics_are_for_the_program(
    harness: Harness, autojump_clock: MockClock
) -> None:
    """Where no plugin decides, clients may not publish to them, but the broker's program may."""
    ann = await harness.connect("ann")
    await ann.subscribe("#")
    await ann.subscribe("$app/status")
    await ann.send(Publish("$app/status", b"no", 1, packet_id=1))
    await ann.expect(PubAck, reason_code=ReasonCode.NOT_AUTHORIZED)
    await harness.broker.publish("$app/status", b"yes")
    await ann.message(b"yes")
    await ann.nothing()


# -- promises


async def test_waits_until_it_is_stored(autojump_clock: MockClock) -> None:
    store = FaultyStore(delay=3)
    async with open_harness(store=store) as harness:
        ann = await harness.connect("ann", session_expiry_interval=100)
        await ann.subscribe("a", qos=1)
        began = trio.current_time()
        await harness.broker.publish("a", b"kept", qos=1)
        assert trio.current_time() - began == pytest.approx(3, abs=0.1)
        assert any("MessagePut" in repr(change) for change in store.commits[-1])
        began = trio.current_time()
        await harness.broker.publish("a", b"not kept", qos=0)
        assert trio.current_time() == began
        store.fail_next()
        with pytest.raises(StoreError):
            await harness.broker.publish("a", b"not stored", qos=1)


async def test_a_full_queue_refuses(autojump_clock: MockClock) -> None:
    async with open_harness(limits={"queue_messages": 2}) as harness:
        bob = await harness.connect("bob", session_expiry_interval=100)
        await bob.subscribe("a", qos=1)
        await bob.disconnect()
        for _ in range(2):
            assert (await harness.broker.publish("a", b"x", qos=1)).matched
        with pytest.raises(RefusedError) as caught:
            await harness.broker.publish("a", b"x", qos=1)
        assert caught.value.reason_code == ReasonCode.QUOTA_EXCEEDED
        assert harness.broker.statistics().dropped == {"refused": 1}


async def test_after_the_end(autojump_clock: MockClock) -> None:
    async with mqtrio.open_broker([]) as broker:
        pass
    with pytest.raises(BrokerStopped):
        await broker.publish("a")
    with pytest.raises(BrokerStopped):
        async with broker.subscribe("a"):
            pass
    with pytest.raises(BrokerStopped):
        await broker.request("a")


async def test_publish_is_a_checkpoint(harness: Harness, autojump_clock: MockClock) -> None:
    with trio.testing.assert_checkpoints():
        await harness.broker.publish("a")


@pytest.mark.parametrize("origin", ["local", "system", "bridge"])
async def test_hooks_are_told_the_origin(origin: Any, autojump_clock: MockClock) -> None:
    recorder = HookRecorder("published", answers={"authorize_publish": Allow()})
    async with open_harness(plugins=[recorder]) as harness:
        await harness.broker.publish("$SYS/x", b"y", origin=origin)
    assert [event.origin for _, event in recorder.calls] == [origin] * 2


@pytest.mark.parametrize("origin", ["client", "will", "", None])
async def test_nobody_publishes_in_the_name_of_a_client(
    harness: Harness, origin: Any, autojump_clock: MockClock
) -> None:
    with pytest.raises(ValueError, match="origin must be"):
        await harness.broker.publish("a", b"x", origin=origin)
