"""The client of the kit: what it does by itself, and what it shows of a refusal."""

from functools import partial

import pytest
import trio

from mqtrio import (
    Allow,
    AuthenticateEvent,
    Challenge,
    Deny,
    ReasonCode,
    Reject,
)
from mqtrio.testing import (
    Closed,
    HookRecorder,
    PingResp,
    PubAck,
    Publish,
    TornStream,
    open_harness,
)

REFUSED = ReasonCode.NOT_AUTHORIZED


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_are_acknowledged_by_themselves(version: int, qos: int) -> None:
    async with open_harness(limits={"maximum_inflight": 1}) as harness:
        ann = await harness.client("ann", version=version)
        await ann.subscribe("a/+", qos)
        bob = await harness.client("bob", version=version)
        for number in range(3):  # which one unacknowledged message would stop
            assert await bob.try_publish("a/b", b"%d" % number, qos) == 0
        await ann.message(b"0", topic="a/b", qos=qos)
        assert (await ann.expect(Publish)).payload == b"1"
        await ann.message(b"2")
        await ann.nothing()
        assert [message.payload for message in ann.messages] == [b"0", b"1", b"2"]
        assert [session.inflight for session in harness.broker.sessions()] == [0, 0]
        await ann.disconnect()


async def test_messages_are_found_by_topic() -> None:
    async with open_harness() as harness:
        ann = await harness.client("ann")
        await ann.subscribe("#")
        for topic in ("a", "b/1", "a", "b/2"):
            await ann.publish(topic, topic.encode(), 1)
        assert (await ann.wait_for("b/+")).topic == "b/1"
        assert [message.topic for message in await ann.received("a")] == ["a", "a"]
        await ann.message(topic="b/2")
        ann.patience = 2
        with pytest.raises(AssertionError, match="nothing came within 2 seconds; expected a mess"):
            await ann.wait_for("c")
        await ann.publish("d")
        with pytest.raises(AssertionError):
            await ann.wait_for("c")
        await ann.message(topic="d")  # it was kept


async def test_topic_aliases_are_resolved() -> None:
    async with open_harness() as harness:
        ann = await harness.client("ann", topic_alias_maximum=5)
        await ann.subscribe("a", 1)
        for _ in range(3):
            await ann.publish("a", b"x", 1)
        assert [message.topic for message in await ann.received()] == ["a"] * 3
        assert any(message.properties is not None for message in ann.messages)


async def test_refusals_are_answers() -> None:
    recorder = HookRecorder(
        answers={
            "authorize_publish": lambda e: Allow() if e.topic == "a" else Deny(),
            "authorize_subscribe": lambda e: Deny() if e.topic_filter == "#" else Allow(max_qos=1),
            "transform_publish": lambda e: Reject(0x99) if e.payload else None,
        }
    )
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.client("ann")
        assert await ann.try_publish("b", b"", 1) == REFUSED
        assert await ann.try_publish("b", b"", 2) == REFUSED
        assert await ann.try_publish("a", b"x", 2) == 0x99
        assert await ann.try_publish("a", b"", 2) == ReasonCode.NO_MATCHING_SUBSCRIBERS
        assert await ann.try_subscribe("#") == REFUSED
        assert await ann.try_subscribe("a", 2) == 1
        assert await ann.try_publish("b") == 0
        bob = await harness.client("bob", version=4)
        assert await bob.try_subscribe("#") == 0x80


async def test_a_connection_that_ends_shows_in_a_publish() -> None:
    async with open_harness() as harness:
        ann = await harness.client("ann")
        with pytest.raises(AssertionError, match=r"got Disconnect\(reason_code=0x90"):
            await ann.try_publish("a/#")
        with pytest.raises(Closed):
            await ann.receive()


def _decide(event: AuthenticateEvent) -> Allow | Deny | Challenge | None:
    if event.method is None:
        return Allow() if event.password == b"good" else Deny(ReasonCode.BANNED, why="no")
    return Allow() if event.data == b"42" else Challenge(b"6 x 7")


async def test_who_is_let_in() -> None:
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": _decide})]) as harness:
        await harness.client("ann", password=b"good")
        assert (await harness.refused("eve", password=b"bad")).reason_code == ReasonCode.BANNED
        assert (await harness.refused("eve", version=4, username="eve")).reason_code == 5
        with pytest.raises(AssertionError, match="was let in"):
            await harness.refused("ann", password=b"good")
        with pytest.raises(AssertionError, match=r"Client\('eve', version=5\) was refused: 0x8A"):
            await harness.client("eve")
        asked: list[bytes | None] = []

        def answer(data: bytes | None) -> bytes:
            asked.append(data)
            return b"42"

        await harness.client("dan", authentication_method="sum", answer=answer)
        assert asked == [b"6 x 7"]


async def test_keep_alive_is_served() -> None:
    async with open_harness() as harness:
        ann = await harness.client("ann", keep_alive=60)
        peer = await harness.connect("peer", keep_alive=60)
        await trio.sleep(1000)
        await ann.ping()
        await ann.nothing()
        await peer.expect_closed(0x8D)
        await ann.disconnect()


async def test_the_keep_alive_of_the_broker_is_served() -> None:
    async with open_harness(session={"maximum_keep_alive": 30}) as harness:
        ann = await harness.client("ann")
        await trio.sleep(100)
        await ann.ping()


async def test_reconnecting() -> None:
    async with open_harness() as harness:
        ann = await harness.client("ann", session_expiry_interval=60)
        await ann.subscribe("a", 1)
        bob = await harness.client("bob")
        await ann.drop()
        await bob.publish("a", b"x", 1)
        ann = await ann.reconnect()
        await ann.message(b"x")
        again = await ann.reconnect(session_present=False, clean_start=True)
        assert again.client_id == "ann"
        with pytest.raises(AssertionError, match="session_present is not True"):
            await bob.reconnect()


async def test_all_of_peer_works() -> None:
    async with open_harness() as harness:
        ann = await harness.client("ann")
        await ann.ping()
        await ann.send(Publish("a", b"x", 1, packet_id=9))
        await ann.expect(PubAck, packet_id=9)
        await ann.send(b"\xc0\x00")
        await ann.expect(PingResp)
        await ann.send(ann.connect_packet())
        await ann.expect_closed(0x82)


# -- torn streams


@pytest.mark.parametrize(
    "tear",
    [{"split": 1}, {"split": (1, 2, 5)}, {"delay": 0.5}, {"split": 3, "delay": 0.01}, {}],
)
async def test_a_torn_stream_loses_nothing(tear: dict[str, object]) -> None:
    async with open_harness() as harness:
        ann = await harness.client("ann", wrap=partial(TornStream, **tear))  # type: ignore[arg-type]  # any of them
        await ann.subscribe("a", 2)
        for payload in (b"x", b"y" * 500):
            await ann.publish("a", payload, 2)
        assert [message.payload for message in await ann.received()] == [b"x", b"y" * 500]
        await ann.disconnect()


async def test_delays_take_time() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    torn = TornStream(ours, split=2, delay=3)
    await torn.send_all(b"abcde")
    assert trio.current_time() == 9
    assert await theirs.receive_some() == b"abcde"
    await theirs.send_all(b"abc")
    assert [await torn.receive_some(), await torn.receive_some(1)] == [b"ab", b"c"]
    assert trio.current_time() == 15


async def test_merging() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    torn = TornStream(ours, merge=5)
    await torn.send_all(b"abc")
    with trio.move_on_after(1):
        await theirs.receive_some()
        raise AssertionError("it was not held")
    await torn.send_all(b"def")
    assert await theirs.receive_some() == b"abcdef"
    await torn.send_all(b"g")
    await torn.release()
    assert await theirs.receive_some() == b"g"
    await torn.send_all(b"h")
    await torn.send_eof()
    assert [await theirs.receive_some(), await theirs.receive_some()] == [b"h", b""]


async def test_breaking_in_the_middle() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    torn = TornStream(ours, break_after=4)
    await torn.wait_send_all_might_not_block()
    await torn.send_all(b"abc")
    with pytest.raises(trio.BrokenResourceError):
        await torn.send_all(b"def")
    assert (torn.broken, torn.sent) == (True, 4)
    assert [await theirs.receive_some(), await theirs.receive_some()] == [b"abcd", b""]
    for use in (torn.send_all(b"x"), torn.receive_some(), torn.wait_send_all_might_not_block()):
        with pytest.raises(trio.BrokenResourceError):
            await use
    await torn.aclose()


async def test_a_client_whose_connection_breaks() -> None:
    recorder = HookRecorder("client_disconnected")
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.client("ann", wrap=partial(TornStream, break_after=60))
        with pytest.raises(trio.BrokenResourceError):
            await ann.publish("a", b"x" * 100)
        await ann.settle()
        assert ann.ended
    assert len(recorder.calls) == 1


def test_a_split_is_one_or_more() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    for split in (0, (), (1, 0)):
        with pytest.raises(ValueError, match="1 or more"):
            TornStream(ours, split=split)
