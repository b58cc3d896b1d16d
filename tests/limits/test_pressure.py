"""Subscribers that are slow or stuck: who waits for them, what they lose, what they may hold."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from mqtrio.testing import Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.decoder import Decoder, TopicCache
from mqtrio.wire.encoder import PINGRESP, encode
from mqtrio.wire.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.limits.kit import MIB, acknowledge, narrow, numbered, numbers, puback_codes, seconds

#: A kilobyte a message, so that few of them fill these outboxes.
PAYLOAD = bytes(1000)
SMALL: dict[str, Any] = {"outbox_soft": 20_000, "outbox_hard": 40_000}


async def sip(
    peer: Peer, *, size: int, pause: float, until: int = 0, count: int = 1_000_000
) -> list[int]:
    """Receive little by little, up to a message's number or so many; returns their numbers."""
    decoder = Decoder(MIB, TopicCache(), version=peer.version, from_client=False)
    got: list[int] = []
    while until not in got and len(got) < count:
        await trio.sleep(pause)
        decoder.feed(bytes(await peer.stream.receive_some(size)))
        got += numbers(decoder.take(10_000))
    return got


async def pour(publisher: Peer, count: int, *, qos: int = 0, first: int = 1) -> None:
    """Publish numbered messages to `t`, in small writes, so that there are many turns."""
    for start in range(first, first + count, 5):
        await publisher.send(*numbered("t", 5, qos, first=start, payload=PAYLOAD))
        await publisher.settle()


async def flow(harness: Harness, count: int, *, size: int, pause: float) -> list[int]:
    """What a subscriber that sips gets of `count` messages at QoS 0, and a last one at QoS 1."""
    subscriber = await narrow(harness, "slow")
    await subscriber.subscribe("t", 1)
    publisher = await narrow(harness, "publisher")
    got: list[int] = []

    async def drink() -> None:
        got.extend(await sip(subscriber, size=size, pause=pause, until=count + 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drink)
        await pour(publisher, count)
        await publisher.publish("t", (count + 1).to_bytes(4, "big"), 1)
    return got


# -- a healthy subscriber, slower than the publisher


async def test_progress_loses_nothing() -> None:
    async with open_harness(limits=SMALL) as harness:
        got = await flow(harness, 500, size=2000, pause=0.001)
        assert got == list(range(1, 502))
        statistics = harness.broker.statistics()
        assert statistics.stalls
        assert statistics.dropped == {}


async def test_without_backpressure_the_rest_is_dropped() -> None:
    recorder = HookRecorder("dropped")
    async with open_harness(limits={"backpressure": "off", **SMALL}, plugins=[recorder]) as harness:
        got = await flow(harness, 500, size=2000, pause=0.001)
        statistics = harness.broker.statistics()
        assert statistics.stalls == 0
        lost = 501 - len(got)
        assert lost > 100
        assert got == sorted(got)
        assert statistics.dropped == {"outbox_full": lost}


async def test_bounded_waits_once_and_for_stall_time_only() -> None:
    async with open_harness(limits={"backpressure": "bounded", **SMALL}) as harness:
        start = trio.current_time()
        got = await flow(harness, 500, size=2000, pause=0.001)
        statistics = harness.broker.statistics()
        assert statistics.stalls
        assert statistics.dropped["outbox_full"] == 501 - len(got) > 100
        assert trio.current_time() - start < 1


@pytest.mark.parametrize("qos", [1, 2])
async def test_stall_messages_hold_publishers_of_a_subscriber_that_acknowledges(qos: int) -> None:
    """Nothing overflows though the queue is short: its publishers wait."""
    limits = {"maximum_inflight": 5, "stall_messages": 10, "queue_messages": 30}
    async with open_harness(limits=limits) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        got: list[int] = []

        async def work() -> None:
            for _ in range(20):
                await trio.sleep(0.02)
                got.extend(await acknowledge(subscriber, 10))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for start in range(1, 201, 20):
                await publisher.send(*numbered("t", 20, qos, first=start))
                await publisher.settle()
        assert sorted(got) == list(range(1, 201))
        statistics = harness.broker.statistics()
        assert statistics.stalls
        assert statistics.dropped == {}


async def test_publishers_that_come_at_once_lose_nothing() -> None:
    """Together they go far beyond the hard bound before the first of them is held."""
    async with open_harness(limits=SMALL) as harness:
        subscriber = await narrow(harness, "subscriber")
        await subscriber.subscribe("t")
        publishers = [await harness.connect(f"p{number}") for number in range(20)]
        for round_number in range(2):
            for place, publisher in enumerate(publishers):
                first = 1 + 200 * round_number + 10 * place
                await publisher.send(*numbered("t", 10, first=first, payload=PAYLOAD))
        got = await sip(subscriber, size=4096, pause=0.001, count=400)
        assert sorted(got) == list(range(1, 401))
        assert harness.broker.statistics().dropped == {}


# -- a subscriber that is stuck


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
async def test_a_stuck_subscriber_stalls_nobody_for_longer_than_stall_time(version: int) -> None:
    async with open_harness(limits={"stall_time": 0.2, **SMALL}) as harness:
        stuck = await narrow(harness, "stuck", version=version)
        await stuck.subscribe("t")
        healthy = await harness.connect("healthy")
        await healthy.subscribe("t")
        publisher = await narrow(harness, "publisher")
        bystander = await harness.connect("bystander")
        await bystander.subscribe("b")

        async def chat() -> None:
            for _ in range(100):
                await bystander.publish("b", b"x")
                await bystander.message(b"x")

        before = harness.broker.statistics().memory
        assert await seconds(lambda: pour(publisher, 1000)) == pytest.approx(0.2)
        assert await seconds(lambda: pour(publisher, 1000, first=1001)) == 0  # it is known as slow
        assert await seconds(chat) == 0
        assert numbers(await healthy.arrived()) == list(range(1, 2001))
        statistics = harness.broker.statistics()
        assert statistics.stalls == 1
        assert statistics.dropped["outbox_full"] > 1900
        # What it holds is bounded: the hard bound, and what the first flush gave to the stream.
        assert before < statistics.memory <= before + 40_000 + 5 * 1010

        # It wakes up, and is treated like all others again.
        got = await sip(stuck, size=65536, pause=0, until=20)
        assert got == list(range(1, len(got) + 1))
        await stuck.settle()
        assert harness.broker.statistics().memory == before
        await pour(publisher, 20, first=5001)
        assert numbers(await stuck.arrived())[-20:] == list(range(5001, 5021))


async def test_many_stuck_subscribers_stall_at_the_same_time() -> None:
    """Their times run beside each other, not one after the other."""
    async with open_harness(limits={"stall_time": 0.2, **SMALL}) as harness:
        for number in range(20):
            stuck = await narrow(harness, f"stuck{number}")
            await stuck.subscribe("t")
        publisher = await narrow(harness, "publisher")
        assert await seconds(lambda: pour(publisher, 1000)) == pytest.approx(0.2)
        assert harness.broker.statistics().stalls == 20


async def test_one_who_never_acknowledges_stalls_for_stall_time_and_then_overflows() -> None:
    limits = {
        "maximum_inflight": 5,
        "stall_messages": 10,
        "queue_messages": 30,
        "stall_time": 0.2,
    }
    async with open_harness(limits=limits) as harness:
        stuck = await harness.connect("stuck")
        await stuck.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        start = trio.current_time()
        await publisher.send(*numbered("t", 60, 1))
        # 5 are under way and more than 10 wait: the publisher is read no further.
        assert len(await publisher.arrived()) == 5 + 10 + 1
        assert trio.current_time() == start
        assert await puback_codes(publisher, 60 - 16) == [0] * (35 - 16) + [0x97] * 25
        assert trio.current_time() - start == pytest.approx(0.2)
        assert harness.broker.statistics().stalls == 1


@pytest.mark.parametrize(("floor", "held"), [(1000, False), (100, True)])
async def test_progress_below_the_floor_is_none(floor: int, held: bool) -> None:
    """One message of about 200 bytes a second keeps publishers waiting only where that counts."""
    limits = {
        "maximum_inflight": 5,
        "stall_messages": 10,
        "stall_time": 1.5,
        "stall_floor": floor,
    }
    async with open_harness(limits=limits) as harness:
        reluctant = await harness.connect("reluctant")
        await reluctant.subscribe("t", 1)
        publisher = await harness.connect("publisher")

        async def drip() -> None:
            while True:
                await trio.sleep(1)
                await acknowledge(reluctant, 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            await publisher.send(*numbered("t", 20, 1))
            taken = await seconds(lambda: puback_codes(publisher, 20))
            nursery.cancel_scope.cancel()
        # It catches up with the sixth acknowledgement: 5 wait then, half of `stall_messages`.
        assert taken == pytest.approx(6 if held else 1.5)


async def test_publishers_to_other_topics_are_not_held() -> None:
    async with open_harness(limits={"stall_time": 60, **SMALL}) as harness:
        stuck = await narrow(harness, "stuck")
        await stuck.subscribe("t")
        publisher = await harness.connect("publisher")
        await publisher.send(*numbered("t", 50, payload=PAYLOAD))
        await publisher.settle()
        await publisher.send(*numbered("t", 50, payload=PAYLOAD), PingReq())
        await publisher.nothing()  # it is stalled
        other = await harness.connect("other")
        await other.subscribe("o", 1)
        await other.send(*numbered("o", 100, 1))
        assert numbers(await other.arrived()) == list(range(1, 101))
        await stuck.drop()
        await publisher.expect(PingResp)  # and goes on with the end of who was stuck


async def test_a_program_of_this_process_waits_too() -> None:
    async with open_harness(limits={"stall_time": 0.2, **SMALL}) as harness:
        stuck = await narrow(harness, "stuck")
        await stuck.subscribe("t")

        async def publish() -> None:
            for _ in range(100):
                await harness.broker.publish("t", PAYLOAD)

        assert await seconds(publish) == pytest.approx(0.2)


# -- what an outbox may hold


async def test_a_client_that_does_not_read_its_answers_is_paused() -> None:
    """A flood of PINGREQ, of SUBSCRIBE or of QoS 1 messages without reading: input waits too."""
    floods: dict[str, Sequence[Packet]] = {
        "ping": [PingReq()] * 40_000,
        "subscribe": [
            Subscribe(number, (SubscriptionRequest("a"),)) for number in range(1, 20_001)
        ],
        "publish": numbered("nobody", 20_000, 1),
    }
    async with open_harness(limits=SMALL) as harness:
        bystander = await harness.connect("bystander")
        before = harness.broker.statistics().memory
        for name, packets in floods.items():
            flooder = await narrow(harness, name, version=MQTT_3_1_1)
            data = b"".join(encode(packet, MQTT_3_1_1) for packet in packets)
            with trio.move_on_after(20) as patience:
                for start in range(0, len(data), 10_000):
                    await flooder.send(data[start : start + 10_000])
            assert patience.cancelled_caught, "everything was read"
            # One chunk of input may be answered in one go.
            assert harness.broker.statistics().memory < before + 40_000 + 3 * 65536
            await bystander.ping()
            await flooder.drop()
            assert harness.broker.statistics().memory == before


async def test_who_reads_its_answers_again_is_heard_again() -> None:
    async with open_harness(limits=SMALL) as harness:
        flooder = await narrow(harness, "flooder")
        sent = 0
        with trio.move_on_after(1):
            while True:
                await flooder.send(b"\xc0\x00" * 5000)
                sent += 5000
        got = 0
        while got < sent:
            got += len(await flooder.stream.receive_some(65536)) // len(PINGRESP)
        assert sent <= got <= sent + 5000  # the last write may have been taken in part
        await flooder.settle()
        await flooder.ping()


async def test_a_large_message_for_many_does_not_fill_the_queue_of_a_fresh_outbox() -> None:
    """QoS 1 waits in the session's queue as long as the outbox is not empty."""
    async with open_harness(limits=SMALL) as harness:
        stuck = await narrow(harness, "stuck")
        await stuck.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        await pour(publisher, 100, qos=1)
        (info,) = [each for each in harness.broker.sessions() if each.client_id == "stuck"]
        assert info.inflight + info.waiting == 100
        assert info.inflight < 20
        assert sorted(await acknowledge(stuck, 100)) == list(range(1, 101))


# -- a write that makes no progress


async def test_who_takes_no_byte_is_disconnected() -> None:
    async with open_harness(limits={"write_timeout": 4, **SMALL}) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("will")
        stuck = await narrow(harness, "stuck", will=Will("will", b"gone"))
        await stuck.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        await publisher.send(*numbered("t", 5, payload=PAYLOAD))
        taken = await seconds(lambda: watcher.message(b"gone"))
        assert 4 <= taken <= 6  # it is looked at four times in that time
        left = {info.client_id for info in harness.broker.clients()}
        assert left == {"watcher", "publisher"}
        assert harness.broker.statistics().memory < 10_000


async def test_who_takes_little_by_little_stays() -> None:
    async with open_harness(limits={"write_timeout": 4}) as harness:
        slow = await narrow(harness, "slow")
        await slow.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        for start in range(1, 1001, 50):
            await publisher.send(*numbered("t", 50, payload=PAYLOAD, first=start))
        got = await sip(slow, size=30_000, pause=1, until=1000)
        assert got == list(range(1, 1001))
        assert len(harness.broker.clients()) == 2


async def test_an_acknowledgement_is_no_byte_taken() -> None:
    """A client that talks and does not listen goes the same way."""
    async with open_harness(limits={"write_timeout": 4}) as harness:
        stuck = await narrow(harness, "stuck")
        await stuck.subscribe("t")
        publisher = await harness.connect("publisher")
        await publisher.publish("t", PAYLOAD)
        try:
            for _ in range(100):
                await trio.sleep(0.5)
                await stuck.send(PubAck(1))
        except trio.BrokenResourceError:
            pass
        assert 4 <= trio.current_time() < 8
        await publisher.ping()
