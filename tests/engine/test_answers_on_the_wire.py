"""What a plugin answers to a publish or subscribe, as the client sees it, by version and QoS."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from mqtrio import Allow, Close, Deny, Drop, Reject, Throttle
from mqtrio.testing import HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    Disconnect,
    Packet,
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

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])

#: What refuses a message: hook, answer, and reason code and text in PUBACK or PUBREC of MQTT 5.
REFUSED: dict[str, tuple[str, Any, int, str | None]] = {
    "Deny": ("authorize_publish", Deny(why="private"), 0x87, None),
    "Deny with a code": ("authorize_publish", Deny(0x90), 0x90, None),
    "Deny with a text": ("authorize_publish", Deny(0x97, reason_string="so"), 0x97, "so"),
    "nobody allows": ("authorize_publish", None, 0x87, None),
    "QoS too high": ("authorize_publish", lambda e: Allow(max_qos=max(0, e.qos - 1)), 0x87, None),
    "Reject": ("transform_publish", Reject(why="private"), 0x83, None),
    "Reject with a code": ("transform_publish", Reject(0x99, reason_string="so"), 0x99, "so"),
    "a bad code": ("transform_publish", Reject(0x8E), 0x83, None),
    "raises": ("transform_publish", lambda e: 1 / 0, 0x83, None),
}


def acknowledgement(qos: int, code: int = 0, text: str | None = None) -> list[Packet]:
    """What answers a PUBLISH with packet identifier 1."""
    if not qos:
        return []
    return [PubAck(1, code, text)] if qos == 1 else [PubRec(1, code, text)]


async def publish(peer: Peer, qos: int, topic: str = "a") -> list[Packet]:
    """Publish with packet identifier 1, and see what comes back at once."""
    await peer.send(Publish(topic, b"x", qos, packet_id=1 if qos else 0))
    return await peer.arrived()


@VERSIONS
@QOS
@pytest.mark.parametrize("case", list(REFUSED))
async def test_refused(case: str, version: int, qos: int) -> None:
    if case == "QoS too high" and not qos:
        return
    hook, answer, code, text = REFUSED[case]
    recorder = HookRecorder("published", answers={hook: answer})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", version=version)
        await peer.subscribe("#", 2)
        told = (code, text) if version == 5 else (0, None)  # it has nothing but a plain one
        assert await publish(peer, qos) == acknowledgement(qos, *told)
        if qos == 2 and version < 5:
            await peer.send(PubRel(1))
            await peer.expect(PubComp, packet_id=1)
        elif qos == 2:
            # The exchange is over [MQTT-4.3.3-9]: the identifier is free for another message.
            assert await publish(peer, qos) == acknowledgement(qos, *told)
        await peer.nothing()
        await peer.ping()
    assert recorder.of("published") == []


@QOS
async def test_a_refusal_without_problem_information(qos: int) -> None:
    recorder = HookRecorder(answers={"authorize_publish": Deny(0x97, reason_string="so")})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", request_problem_information=False)
        assert await publish(peer, qos) == acknowledgement(qos, 0x97)


@QOS
async def test_a_reason_that_is_too_long_for_the_client_is_left_out(qos: int) -> None:
    recorder = HookRecorder(answers={"authorize_publish": Deny(0x97, reason_string="so" * 50)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", maximum_packet_size=60)
        assert await publish(peer, qos) == acknowledgement(qos, 0x97)


@VERSIONS
@QOS
async def test_drop_is_a_success(version: int, qos: int) -> None:
    recorder = HookRecorder("published", answers={"transform_publish": Drop()})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", version=version)
        await peer.subscribe("#", 2)
        assert await publish(peer, qos) == acknowledgement(qos)
        if qos == 2:
            assert await publish(peer, qos) == acknowledgement(qos)  # a repetition
            await peer.send(PubRel(1))
            await peer.expect(PubComp, packet_id=1, reason_code=0)
        await peer.nothing()
    assert len(recorder.of("transform_publish")) == 1
    assert recorder.of("published") == []


@VERSIONS
@QOS
@pytest.mark.parametrize("code", [None, 0x87, 0x97])
async def test_close(version: int, qos: int, code: int | None) -> None:
    answer = Close() if code is None else Close(code)
    recorder = HookRecorder(
        "client_disconnected",
        answers={"transform_publish": lambda e: None if e.origin == "will" else answer},
    )
    async with open_harness(plugins=[recorder]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("#")
        peer = await harness.connect("peer", version=version, will=Will("will", b"gone"))
        await peer.send(Publish("a", b"x", qos, packet_id=1 if qos else 0), PingReq())
        await peer.expect_closed((code or 0x98) if version == 5 else None)
        await watcher.message(b"gone")
        await watcher.nothing()
    (told,) = [e for e in recorder.of("client_disconnected") if e.client_id == "peer"]
    assert told.reason_code == (code or 0x98)


@VERSIONS
@QOS
async def test_throttle(version: int, qos: int) -> None:
    answers = {b"x": Throttle(10), b"y": Throttle(0.5)}
    recorder = HookRecorder(answers={"transform_publish": lambda event: answers.get(event.payload)})
    async with open_harness(plugins=[recorder]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("#", 2)
        peer = await harness.connect("peer", version=version, keep_alive=4)
        assert await publish(peer, qos) == acknowledgement(qos)
        await watcher.message(b"x")  # accepted, and nothing more is read
        await peer.send(PingReq(), Publish("a", b"z"))
        await peer.nothing()
        await watcher.nothing()
        await watcher.ping()  # others go on
        await peer.expect(PingResp)
        assert trio.current_time() == 10
        await watcher.message(b"z")
        await peer.send(Publish("a", b"y"), PingReq())  # shorter than a keep alive, and after it
        await peer.expect(PingResp)
        assert trio.current_time() == 10.5


async def test_the_longest_throttle_counts() -> None:
    plugins = [
        HookRecorder(answers={"transform_publish": Throttle(seconds)}) for seconds in (1, 3, 2)
    ]
    async with open_harness(plugins=plugins) as harness:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x"), PingReq())
        await peer.expect(PingResp)
        assert trio.current_time() == 3


async def test_a_throttled_client_that_leaves_is_seen_afterwards() -> None:
    recorder = HookRecorder("client_disconnected", answers={"transform_publish": Throttle(10)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x"), Disconnect())
        await peer.nothing()
        await trio.sleep(11)
        await peer.expect_closed()
    assert recorder.of("client_disconnected")[0].by_client


async def test_a_throttled_client_can_be_taken_over() -> None:
    recorder = HookRecorder(answers={"transform_publish": Throttle(10)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x"))
        await peer.settle()
        other = await harness.connect("peer")
        await peer.expect_closed(0x8E)
        await trio.sleep(20)
        await other.ping()


# -- subscribe

#: Answers to SUBSCRIBE -> hook, reason codes in MQTT 5, 3.1.1 and 3.1, or the end.
SUBSCRIBE: dict[str, tuple[str, Any, tuple[int, int, int] | None]] = {
    "Deny": ("authorize_subscribe", Deny(), (0x87, 0x80, 0)),
    "Deny with a code": ("authorize_subscribe", Deny(0x9E), (0x9E, 0x80, 0)),
    "nobody allows": ("authorize_subscribe", None, (0x87, 0x80, 0)),
    "lower QoS": ("authorize_subscribe", Allow(max_qos=1), (1, 1, 1)),
    "Reject": ("transform_subscribe", Reject(), (0x83, 0x80, 0)),
    "Reject with a code": ("transform_subscribe", Reject(0x97), (0x97, 0x80, 0)),
    "raises": ("transform_subscribe", lambda e: 1 / 0, (0x83, 0x80, 0)),
    "changed QoS": ("transform_subscribe", lambda e: e.changed(qos=0), (0, 0, 0)),
    "changed into nonsense": (
        "transform_subscribe",
        lambda e: e.changed(topic_filter="a/#/b"),
        (0x83, 0x80, 0),
    ),
    "Close": ("transform_subscribe", Close(), None),
}


@VERSIONS
@pytest.mark.parametrize("case", list(SUBSCRIBE))
@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_subscribe(case: str, version: int, colour: str) -> None:
    hook, answer, codes = SUBSCRIBE[case]

    def now(event: Any) -> Any:
        if event.topic_filter == "fine":
            return Allow() if hook == "authorize_subscribe" else None
        return answer(event) if callable(answer) else answer

    async def later(event: Any) -> Any:
        await trio.sleep(1)
        return now(event)

    judge: Callable[[Any], Any] = now if colour == "sync" else later
    async with open_harness(plugins=[HookRecorder(answers={hook: judge})]) as harness:
        peer = await harness.connect("peer", version=version)
        filters = ("fine", "a/b", "fine")
        await peer.send(Subscribe(7, tuple(SubscriptionRequest(name, 2) for name in filters)))
        if codes is None:
            await peer.expect_closed(0x98 if version == 5 else None)
            return
        code = codes[5 - version]
        await peer.expect(SubAck, packet_id=7, reason_codes=(2, code, 2))
        await harness.broker.publish("a/b", "x", qos=2)
        granted = case in ("lower QoS", "changed QoS")
        assert [packet.qos for packet in await peer.arrived() if isinstance(packet, Publish)] == (
            [code] if granted else []
        )
