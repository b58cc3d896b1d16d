import pytest
import trio

from mqtrio import Allow, PublishEvent
from mqtrio.testing import Closed, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    ConnAck,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    PubRec,
    PubRel,
    SubAck,
)


def _fail() -> None:
    raise ZeroDivisionError


async def test_what_the_page_of_the_kit_shows() -> None:
    recorder = HookRecorder("published")
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("a/+")
        bob = await harness.connect("bob", version=4)
        await bob.publish("a/b", b"hello")
        await ann.expect(Publish, topic="a/b", payload=b"hello")
        await ann.nothing()
    assert [event.topic for event in recorder.of("published")] == ["a/b"]


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_whole_exchanges(version: int, qos: int) -> None:
    async with open_harness() as harness:
        ann = await harness.connect("ann", version=version)
        await ann.subscribe("a", qos)
        await ann.publish("a", b"x", qos)
        await ann.message(b"x", qos=qos)
        await ann.ping()
        await ann.unsubscribe("a")
        await ann.publish("a", b"y", qos)
        await ann.nothing()
        await ann.disconnect()
        assert ann.ended


async def test_the_end_is_checked() -> None:
    async with open_harness() as harness:
        refused = harness.peer()
        await refused.send(PingReq())
        await refused.expect_closed()

        twice = await harness.connect("twice")
        await twice.send(twice.connect_packet())
        said = await twice.expect_closed(0x82)
        assert isinstance(said, Disconnect)

        other = await harness.connect("other")
        other.patience = 5
        with pytest.raises(AssertionError, match="nothing came within 5 seconds"):
            await other.expect_closed()
        await other.send(b"\x00\x00")
        with pytest.raises(AssertionError, match="reason_code is"):
            await other.expect_closed(0x99)
        with pytest.raises(Closed, match="expected PingResp"):
            await other.expect(PingResp)


async def test_the_return_code_of_mqtt_3() -> None:
    async with open_harness() as harness:
        peer = harness.peer("", version=4)
        await peer.send(peer.connect_packet(clean_start=False))
        said = await peer.expect_closed(2)
        assert isinstance(said, ConnAck)


async def test_a_wrong_packet_fails() -> None:
    async with open_harness() as harness:
        ann = await harness.connect("ann")
        await ann.send(PingReq(), PingReq())
        with pytest.raises(AssertionError, match=r"got PingResp\(\), expected SubAck"):
            await ann.expect(SubAck)
        with pytest.raises(AssertionError, match="expected nothing"):
            await ann.nothing()


async def test_what_a_server_may_not_send_fails() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = Peer(ours)
    await theirs.send_all(b"\xc0\x00")  # PINGREQ
    with pytest.raises(AssertionError, match="what it may not"):
        await peer.receive()


async def test_half_a_packet_before_the_end_fails() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    peer = Peer(ours)
    await theirs.send_all(b"\xd0")
    await theirs.aclose()
    with pytest.raises(AssertionError, match="half a packet"):
        await peer.expect_closed()


async def test_deliveries_are_kept_while_an_answer_is_awaited() -> None:
    async with open_harness() as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("a")
        await ann.send(Publish("a", b"1"), Publish("a", b"2", 1, packet_id=9))
        await ann.answer(PubAck, packet_id=9)
        await ann.message(b"1")
        await ann.message(b"2")


async def test_arrived_takes_all() -> None:
    async with open_harness() as harness:
        ann = await harness.connect("ann")
        await ann.send(PingReq(), Publish("a", b"2", 2, packet_id=9), PubRel(9))
        kinds = [type(packet) for packet in await ann.arrived()]
        assert kinds[:2] == [PingResp, PubRec]
        assert await ann.arrived() == []


async def test_waiting_takes_no_time() -> None:
    async with open_harness() as harness:
        ann = await harness.connect("ann")
        before = trio.current_time()
        await ann.nothing()
        await ann.ping()
        await ann.drop()
        assert trio.current_time() == before


async def test_internal_errors_are_raised_at_the_end() -> None:
    with pytest.raises(ExceptionGroup, match="the broker has crashed") as caught:
        async with open_harness() as harness:
            harness.broker._core.turn(_fail)
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


async def test_an_internal_error_that_was_expected_is_forgiven() -> None:
    async with open_harness() as harness:
        harness.broker._core.turn(_fail)
        with pytest.raises(AssertionError, match="expected one KeyError"):
            harness.crashed_with(KeyError)
        assert isinstance(harness.crashed_with(ZeroDivisionError), ZeroDivisionError)
        with pytest.raises(AssertionError, match=r"there are \[\]"):
            harness.crashed_with(ZeroDivisionError)


async def test_an_exception_of_the_block_comes_out_as_it_is() -> None:
    async def block() -> None:
        async with open_harness() as harness:
            harness.broker._core.turn(_fail)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        await block()
    assert "ZeroDivisionError" in caught.value.__notes__[0]


async def test_the_recorder_answers() -> None:
    async def later(event: PublishEvent) -> Allow:
        await trio.sleep(3)
        return Allow()

    recorder = HookRecorder(
        "published",
        answers={"authorize_publish": later, "transform_publish": lambda e: e.changed(topic="b")},
    )
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("b")
        await ann.publish("a", b"x", 1)
        await ann.message(b"x", topic="b")
        assert trio.current_time() == 3
    assert recorder.hooks == ["authorize_publish", "transform_publish", "published"]
    recorder.clear()
    assert recorder.calls == []


async def test_the_recorder_observes_everything_by_default() -> None:
    recorder = HookRecorder()
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("a", 1)
        await ann.publish("a", b"x", 1)
        await ann.message(b"x")
        await ann.disconnect()
    assert recorder.hooks == [
        "client_connected",
        "session_opened",
        "subscribed",
        "delivered",
        "published",
        "acknowledged",
        "client_disconnected",
        "session_ended",
    ]


async def test_a_client_comes_by_a_listener() -> None:
    listener = {"url": "mqtt://127.0.0.1:0", "mount_point": "site/"}
    async with open_harness(listener=[listener]) as harness:
        async with harness.broker.subscribe("#") as messages:
            client = harness.new_client("ann", listener="mqtt://127.0.0.1:0")
            await client.connect()
            assert await client.try_publish("a", qos=1) == 0
            assert (await messages.receive()).topic == "site/a"
            await client.drop()
            again = await client.reconnect(session_present=False)
            assert await again.try_publish("b", qos=1) == 0
            assert (await messages.receive()).topic == "site/b"
