"""What one session may hold, and how many sessions there may be."""

from typing import Any

import pytest
import trio

from mqtrio.testing import HookRecorder, open_harness
from mqtrio.wire.packets import (
    MQTT_3_1_1,
    MQTT_5,
    NEVER_EXPIRES,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.limits.kit import acknowledge, numbered, numbers, puback_codes, seconds

#: Topic and payload of a numbered message beside this weigh OVERHEAD + 4 + len("t").
WEIGHT = 205


# -- flow control


async def test_receive_maximum() -> None:
    async with open_harness(limits={"receive_maximum": 3}) as harness:
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.receive_maximum == 3
        # QoS 1 is acknowledged at once, so no number of them is too much ...
        await peer.send(*numbered("t", 50, 1))
        assert await puback_codes(peer, 50) == [0x10] * 50
        # ... while a QoS 2 exchange is the client's to end.
        await peer.send(*numbered("t", 3, 2))
        for number in (1, 2, 3):
            await peer.expect(PubRec, packet_id=number)
        await peer.send(Publish("t", b"again", 2, dup=True, packet_id=3))
        await peer.expect(PubRec, packet_id=3)
        await peer.send(PubRel(2))
        await peer.expect(PubComp, packet_id=2)
        await peer.send(*numbered("t", 1, 2, first=4))
        await peer.expect(PubRec, packet_id=4)
        await peer.send(*numbered("t", 1, 2, first=5))
        await peer.expect_closed(0x93)


async def test_receive_maximum_is_unknown_to_mqtt_3() -> None:
    """3.1.1 has no such rule: the identifiers are the bound."""
    async with open_harness(limits={"receive_maximum": 3}) as harness:
        peer = await harness.connect("peer", version=MQTT_3_1_1)
        await peer.send(*numbered("t", 65535, 2))
        for number in range(1, 65536):
            await peer.expect(PubRec, packet_id=number)


@pytest.mark.parametrize(("asked", "window"), [(None, 4), (2, 2), (9, 4)])
async def test_maximum_inflight(asked: int | None, window: int) -> None:
    async with open_harness(limits={"maximum_inflight": 4}) as harness:
        subscriber = await harness.connect("subscriber", receive_maximum=asked)
        await subscriber.subscribe("t", 2)
        publisher = await harness.connect("publisher")
        await publisher.send(*numbered("t", 10, 1))
        assert await puback_codes(publisher, 10) == [0] * 10
        sent = await subscriber.arrived()
        assert numbers(sent) == list(range(1, window + 1))
        first = sent[0]
        assert isinstance(first, Publish)
        await subscriber.send(PubAck(first.packet_id))
        assert numbers(await subscriber.arrived()) == [window + 1]
        (info,) = [each for each in harness.broker.sessions() if each.client_id == "subscriber"]
        assert (info.inflight, info.waiting) == (window, 9 - window)


# -- subscriptions


async def test_subscriptions_of_a_session() -> None:
    async with open_harness(limits={"subscriptions_per_session": 3}) as harness:
        peer = await harness.connect("peer")
        requests = tuple(SubscriptionRequest(name, 1) for name in "abcd")
        await peer.send(Subscribe(1, requests))
        await peer.expect(SubAck, reason_codes=(1, 1, 1, 0x97))
        await peer.subscribe("a", 2)  # one in the place of another is none too many
        await peer.unsubscribe("b")
        await peer.subscribe("d")

        old = await harness.connect("old", version=MQTT_3_1_1)
        await old.send(Subscribe(1, requests))
        await old.expect(SubAck, reason_codes=(1, 1, 1, 0x80))
        assert harness.broker.statistics().subscriptions == 6


# -- queues


OVERFLOWS: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"queue_messages": 5}),
    ("bytes", {"queue_bytes": 5 * WEIGHT}),
]


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(("_bound", "limits"), OVERFLOWS, ids=[name for name, _ in OVERFLOWS])
async def test_a_full_queue_refuses(
    _bound: str, limits: dict[str, Any], qos: int, version: int
) -> None:
    """The publisher is told, and the refused message reaches nobody, also none with room."""
    recorder = HookRecorder("dropped")
    async with open_harness(limits=limits, plugins=[recorder]) as harness:
        away = await harness.connect("away", session_expiry_interval=NEVER_EXPIRES)
        await away.subscribe("t", 1)
        await away.disconnect()
        healthy = await harness.connect("healthy")
        await healthy.subscribe("t", 1)

        publisher = await harness.connect("publisher", version=version)
        await publisher.send(*numbered("t", 5, qos), *numbered("t", 2, qos, first=6))
        kind = PubAck if qos == 1 else PubRec
        for number in range(1, 6):
            await publisher.expect(kind, packet_id=number, reason_code=0)
        if version == MQTT_5:
            for number in (6, 7):
                await publisher.expect(kind, packet_id=number, reason_code=0x97)
        else:
            await publisher.nothing()  # it still has the messages, and sends them again
        assert numbers(await healthy.arrived()) == [1, 2, 3, 4, 5]
        assert harness.broker.statistics().dropped == {"refused": 2}
        assert not recorder.calls  # nobody lost anything: the publisher still has it

        # QoS 0 never waits in a queue and is not refused for one.
        await publisher.publish("t", b"zero")
        await healthy.expect(Publish, payload=b"zero", qos=0)

        back = await harness.connect("away", session_present=True, clean_start=False)
        assert await acknowledge(back, 5) == [1, 2, 3, 4, 5]
        # There is room again. MQTT 3 sends what was not acknowledged; a refused QoS 2
        # identifier stands for nothing, so it is a new message.
        await publisher.send(
            Publish("t", (6).to_bytes(4, "big"), qos, dup=version != MQTT_5, packet_id=6)
        )
        await publisher.expect(kind, packet_id=6, reason_code=0)
        assert numbers(await back.arrived()) == [6]


@pytest.mark.parametrize(("_bound", "limits"), OVERFLOWS, ids=[name for name, _ in OVERFLOWS])
@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [4, 5, 6, 7, 8]), ("drop_newest", [1, 2, 3, 4, 5])]
)
async def test_a_full_queue_drops(
    overflow: str, kept: list[int], _bound: str, limits: dict[str, Any]
) -> None:
    recorder = HookRecorder("dropped")
    async with open_harness(limits={"overflow": overflow, **limits}, plugins=[recorder]) as harness:
        away = await harness.connect("away", session_expiry_interval=NEVER_EXPIRES)
        await away.subscribe("t", 1)
        await away.disconnect()
        healthy = await harness.connect("healthy")
        await healthy.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        await publisher.send(*numbered("t", 8, 1))
        assert await puback_codes(publisher, 8) == [0] * 8
        assert numbers(await healthy.arrived()) == [1, 2, 3, 4, 5, 6, 7, 8]

        assert harness.broker.statistics().dropped == {"queue_full": 3}
        lost = recorder.of("dropped")
        assert {(event.client_id, event.reason) for event in lost} == {("away", "queue_full")}
        assert len(lost) == 3
        (info,) = [each for each in harness.broker.sessions() if each.client_id == "away"]
        assert (info.waiting, info.waiting_bytes, info.dropped) == (5, 5 * WEIGHT, 3)

        back = await harness.connect("away", session_present=True, clean_start=False)
        assert await acknowledge(back, 5) == kept


async def test_what_was_sent_is_not_dropped_for_what_is_new() -> None:
    """The oldest of a queue may be under way already: it keeps its place (4.4)."""
    limits = {"overflow": "drop_oldest", "queue_messages": 3, "maximum_inflight": 2}
    async with open_harness(limits=limits) as harness:
        peer = await harness.connect("peer", session_expiry_interval=NEVER_EXPIRES)
        await peer.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        await publisher.send(*numbered("t", 2, 1))
        await publisher.arrived()
        assert numbers(await peer.arrived()) == [1, 2]
        await peer.drop()
        # Its window is smaller now, so that the second one waits again.
        back = await harness.connect(
            "peer", session_present=True, clean_start=False, receive_maximum=1
        )
        await publisher.send(*numbered("t", 3, 1, first=3))
        assert await puback_codes(publisher, 3) == [0] * 3
        assert await acknowledge(back, 4) == [1, 2, 4, 5]
        await back.nothing()


# -- sessions


async def test_sessions() -> None:
    async with open_harness(limits={"sessions": 2}) as harness:
        await (await harness.connect("a", session_expiry_interval=100)).disconnect()
        b = await harness.connect("b")
        for version, code in ((MQTT_5, 0x97), (MQTT_3_1_1, 3)):
            c = harness.peer("c", version=version)
            await c.send(c.connect_packet())
            await c.expect_closed(code)
        assert harness.broker.statistics().refused["quota_exceeded"] == 2
        # Who has a session already gets in, and takes over what is his.
        a = await harness.connect("a", session_present=True, clean_start=False)
        await a.disconnect()
        await b.disconnect()
        await harness.connect("c")


async def test_maximum_expiry_interval() -> None:
    async with open_harness(session={"maximum_expiry_interval": 60}) as harness:
        for name, asked, told in (
            ("never", NEVER_EXPIRES, 60),
            ("long", 61, 60),
            ("equal", 60, None),
            ("short", 10, None),
        ):
            peer = await harness.connect(name, session_expiry_interval=asked)
            assert peer.connack is not None
            assert peer.connack.session_expiry_interval == told
            await peer.disconnect()
        # DISCONNECT may change the interval, within the same bound.
        later = await harness.connect("later", session_expiry_interval=5)
        await later.disconnect(session_expiry_interval=NEVER_EXPIRES)
        old = await harness.connect("old", version=MQTT_3_1_1, clean_start=False)
        await old.disconnect()

        await trio.sleep(59)
        left = {info.client_id for info in harness.broker.sessions()}
        assert left == {"never", "long", "equal", "later", "old"}
        await trio.sleep(1.01)
        assert not harness.broker.sessions()


async def test_maximum_keep_alive() -> None:
    async with open_harness(session={"maximum_keep_alive": 10}) as harness:
        for asked, told in ((0, 10), (60, 10), (10, None), (4, None)):
            peer = await harness.connect(f"asks{asked}", keep_alive=asked)
            assert peer.connack is not None
            assert peer.connack.server_keep_alive == told
            code = await seconds(lambda peer=peer: peer.expect_closed(0x8D))  # type: ignore[misc]
            assert code == pytest.approx(1.5 * (told or asked))
        # MQTT 3 can't be told: it keeps what it asked for.
        old = await harness.connect("old", version=MQTT_3_1_1, keep_alive=60)
        await trio.sleep(80)
        await old.send(PingReq())
        await old.expect(PingResp)
        assert await seconds(old.expect_closed) == pytest.approx(90)


@pytest.mark.parametrize("maximum", [0, 1])
async def test_maximum_qos(maximum: int) -> None:
    async with open_harness(session={"maximum_qos": maximum}) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("t", 2)  # what is subscribed to may be more [MQTT-3.2.2-10]
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.maximum_qos == maximum
        await peer.publish("t", b"x", maximum)
        await subscriber.message(b"x", qos=maximum)
        await peer.send(Publish("t", b"y", maximum + 1, packet_id=1))
        await peer.expect_closed(0x9B)
        will = harness.peer("will")
        await will.send(will.connect_packet(will=Will("t", b"y", maximum + 1)))
        await will.expect_closed(0x9B)
        old = await harness.connect("old", version=MQTT_3_1_1)
        await old.send(Publish("t", b"y", maximum + 1, packet_id=1))
        await old.expect_closed()
        await subscriber.nothing()


async def test_without_retained_messages() -> None:
    async with open_harness(session={"retain_available": False}) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("#", retain_as_published=True)
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.retain_available is False
        await peer.send(Publish("t", b"x", retain=True))
        await peer.expect_closed(0x9A)
        will = harness.peer("will")
        await will.send(will.connect_packet(will=Will("t", b"x", retain=True)))
        await will.expect_closed(0x9A)
        old = await harness.connect("old", version=MQTT_3_1_1)
        await old.send(Publish("t", b"x", retain=True))
        await old.expect_closed()
        # A program of this process gets the rest of what it asked for.
        await harness.broker.publish("t", b"local", retain=True)
        await subscriber.expect(Publish, payload=b"local", retain=False)
        await subscriber.nothing()
        assert not harness.broker.retained("#")
