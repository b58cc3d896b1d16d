"""Limits of the broker as a whole: connections, turns, hooks, the store and the end."""

from collections.abc import Iterable
from typing import Any

import pytest
import trio

import mqtrio
from mqtrio import Allow, PublishEvent
from mqtrio.testing import Closed, FaultyStore, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    MQTT_3_1_1,
    MQTT_5,
    NEVER_EXPIRES,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
)
from tests.limits.kit import narrow, numbered, numbers, puback_codes, seconds

#: Seconds that anything may take over a real socket: decides about failures only.
PATIENCE = 10.0


# -- connections


def test_connections_of_one_listener() -> None:
    """The other listener goes on; who is refused is told nothing, and the log once."""

    async def main() -> None:
        peers: list[Peer] = []
        listeners: list[dict[str, Any]] = [
            {"url": "mqtt://127.0.0.1:0", "max_connections": 2},
            {"url": "mqtt://localhost:0"},
        ]
        async with mqtrio.open_broker(listener=listeners) as broker:
            ports = {address.url: address.port for address in broker.listeners}
            bounded, other = (ports[each["url"]] for each in listeners)

            async def peer(port: int, client_id: str) -> Peer:
                host = "127.0.0.1" if port == bounded else "localhost"
                made = Peer(await trio.open_tcp_stream(host, port), client_id=client_id)
                made.patience = PATIENCE
                peers.append(made)
                return made

            first = [await peer(bounded, f"c{number}") for number in range(2)]
            for each in first:
                await each.connect()
            for number in range(2):
                refused = await peer(bounded, f"refused{number}")
                with pytest.raises((Closed, trio.BrokenResourceError)):
                    await refused.connect()
                await (await peer(other, f"other{number}")).connect()
            for each in first:
                await each.ping()
            await first[0].disconnect()
            await trio.aclose_forcefully(first[0].stream)
            with trio.fail_after(PATIENCE):
                while broker._network._open["mqtt://127.0.0.1:0"] > 1:
                    await trio.lowlevel.checkpoint()
            await (await peer(bounded, "later")).connect()
            for each in peers:
                await trio.aclose_forcefully(each.stream)

    trio.run(main)


def test_connections() -> None:
    async def main() -> None:
        async with (
            trio.open_nursery() as nursery,
            mqtrio.open_broker("mqtt://127.0.0.1:0", limits={"connections": 3}) as broker,
        ):
            port = broker.listeners[0].port

            async def peer(client_id: str) -> Peer:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                made = Peer(stream, client_id=client_id)
                made.patience = PATIENCE
                return made

            first = [await peer(f"c{number}") for number in range(3)]
            for each in first:
                await each.connect()
            refused = await peer("refused")
            with pytest.raises((Closed, trio.BrokenResourceError)):
                await refused.connect()
            for each in first:
                await each.ping()
            await first[0].disconnect()
            await trio.aclose_forcefully(first[0].stream)
            with trio.fail_after(PATIENCE):
                while len(broker.clients()) > 2 or broker._network.connections > 2:
                    await trio.lowlevel.checkpoint()
            later = await peer("later")
            await later.connect()
            for each in (*first[1:], later, refused):
                await trio.aclose_forcefully(each.stream)
            nursery.cancel_scope.cancel()

    trio.run(main)


# -- turns


async def test_a_turn_ends_when_its_budget_is_spent() -> None:
    """2,000 messages in one write are 20 turns of 100 messages; others have theirs in between."""
    async with open_harness(limits={"turn_budget": 1600}) as harness:
        flooder = await harness.connect("flooder")
        steps = []

        async def watch() -> None:
            handled = harness.broker.statistics().messages_received
            while True:
                await trio.lowlevel.checkpoint()
                before, handled = handled, harness.broker.statistics().messages_received
                steps.append(handled - before)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await flooder.send(*numbered("t", 2000), PingReq())
            await flooder.expect(PingResp)
            nursery.cancel_scope.cancel()
        assert sum(steps) == 2000
        assert max(steps) <= 100
        assert len([step for step in steps if step]) >= 20


async def test_a_fan_out_beyond_the_budget_takes_several_turns() -> None:
    async with open_harness(limits={"turn_budget": 1600}) as harness:
        session = await harness.connect("session")
        await session.subscribe("other")
        requests = tuple(SubscriptionRequest(f"$share/g{number}/t") for number in range(5000))
        await session.send(Subscribe(1, requests))
        await session.expect(SubAck, packet_id=1)
        other = await harness.connect("other")
        publisher = await harness.connect("publisher")
        await publisher.send(Publish("t", b"x"))
        await trio.lowlevel.checkpoint()
        await other.publish("other", b"between")
        await publisher.ping()
        got = [packet for packet in await session.arrived() if isinstance(packet, Publish)]
        assert len(got) == 5001


# -- hooks


async def _for_ever(event: PublishEvent) -> Allow:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
async def test_a_hook_that_takes_too_long_has_failed(version: int) -> None:
    plugin = HookRecorder(
        "plugin_failed",
        answers={
            "authorize_publish": lambda event: (
                _for_ever(event) if event.topic == "slow" else Allow()
            )
        },
    )
    async with open_harness(plugins=[plugin], limits={"hook_deadline": 2}) as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("#")
        slow = await harness.connect("slow", version=version)
        await slow.send(Publish("slow", b"x", 1, packet_id=1), PingReq())
        await slow.nothing()  # what follows waits for its turn
        other = await harness.connect("other")
        await other.publish("quick", b"y", 1)
        await subscriber.message(b"y")
        if version == MQTT_5:
            refused = await seconds(lambda: slow.expect(PubAck, packet_id=1, reason_code=0x87))
            await slow.expect(PingResp)
        else:
            refused = await seconds(slow.receive)
        assert refused == pytest.approx(2)
        await subscriber.nothing()
        assert [event.hook for event in plugin.of("plugin_failed")] == ["authorize_publish"]


# -- the store


async def test_uncommitted_bytes() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits={"uncommitted_bytes": 20_000}) as harness:
        durable = await harness.connect("durable", session_expiry_interval=NEVER_EXPIRES)
        await durable.subscribe("t", 1)
        publisher = await harness.connect("publisher")
        store.hang()
        await publisher.send(*numbered("t", 100, 1, payload=bytes(1000)))
        await publisher.nothing()
        read = harness.broker.statistics().messages_received
        assert 10 <= read <= 20  # some 1,200 bytes each
        # Nobody else notices.
        other = await harness.connect("other")
        await other.publish("elsewhere", b"", 1)
        await other.ping()
        store.go_on()
        assert await puback_codes(publisher, 100) == [0] * 100
        assert numbers(await durable.arrived()) == list(range(1, 101))


def _subscribes() -> Iterable[Packet]:
    return (Subscribe(number, (SubscriptionRequest(f"f{number}"),)) for number in range(1, 20_001))


@pytest.mark.parametrize(
    ("flood", "version"),
    [
        ("subscribe", MQTT_3_1_1),
        ("subscribe", MQTT_5),
        ("ping", MQTT_3_1_1),
        ("ping", MQTT_5),
        ("publish", MQTT_3_1_1),  # in MQTT 5 the receive maximum bounds it
    ],
)
async def test_floods_while_the_store_hangs_are_read_no_further(flood: str, version: int) -> None:
    """What waits for the store is bounded, whatever it is."""
    store = FaultyStore()
    packets: dict[str, Iterable[Packet]] = {
        "subscribe": _subscribes(),
        "ping": [PingReq()] * 20_000,
        "publish": numbered("nobody", 20_000, 1),
    }
    async with open_harness(store=store, limits={"uncommitted_bytes": 20_000}) as harness:
        other = await harness.connect("other")
        store.hang()
        flooder = harness.peer("flooder", version=version)
        fields = (
            {"session_expiry_interval": NEVER_EXPIRES}
            if version == MQTT_5
            else {"clean_start": False}
        )
        await flooder.send(flooder.connect_packet(**fields), *packets[flood])
        await flooder.nothing()
        (connection,) = [
            each for each in harness.broker._core.connections if each.client_id == "flooder"
        ]
        assert 0 < connection.owing < 5000
        await other.ping()
        store.go_on()
        await flooder.let_in()
        assert len(await flooder.arrived()) == 20_000


# -- the end


async def test_the_end_takes_stop_grace_at_most() -> None:
    """A client that reads nothing and a hook that never answers can't hold the broker."""
    plugin = HookRecorder(answers={"authorize_publish": _for_ever})
    start = trio.current_time()
    async with open_harness(plugins=[plugin], limits={"stop_grace": 3}) as harness:
        waiting = await harness.connect("waiting")
        await waiting.send(Publish("t", b"x", 1, packet_id=1))
        await waiting.settle()
        stuck = await narrow(harness, "stuck")
        await stuck.send(PingReq())
        harness.peers.clear()  # the harness must not break their streams first
    assert trio.current_time() - start == pytest.approx(3)


async def test_goodbyes_are_said_within_the_grace() -> None:

    async def leave(peer: Peer) -> None:
        await peer.expect(Disconnect, reason_code=0x8B)
        await peer.expect_closed()
        await peer.stream.aclose()

    start = trio.current_time()
    async with trio.open_nursery() as nursery, open_harness(limits={"stop_grace": 3}) as harness:
        peer = await harness.connect("peer")
        harness.peers.clear()
        nursery.start_soon(leave, peer)
    assert trio.current_time() == start
