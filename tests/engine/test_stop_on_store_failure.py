"""`on_store_failure = "stop"`: a failed commit ends the broker, and nobody is acknowledged."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from mqtrio import Broker, StoreError
from mqtrio.testing import FaultyStore, Harness, Peer, open_harness
from mqtrio.wire.packets import (
    Connect,
    Disconnect,
    Publish,
    PubRel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from tests.engine.agreement import agree

VERSIONS = pytest.mark.parametrize("version", [4, 5])
STOP = {"on_store_failure": "stop"}


def lasting(version: int) -> dict[str, Any]:
    return {"session_expiry_interval": 1000} if version == 5 else {"clean_start": False}


@asynccontextmanager
async def ending(store: FaultyStore) -> AsyncIterator[Harness]:
    """A broker that must end because of its store, at the latest a while after the block."""
    try:
        async with open_harness(store=store, session=STOP) as harness:
            yield harness
            await trio.sleep(60)
    except StoreError as error:
        said = str(error)
    else:
        raise AssertionError("it went on")
    assert said == 'the store failed, and on_store_failure is "stop": the disk is full'
    assert trio.current_time() < 60


async def closed(peer: Peer) -> None:
    """The end comes next: not an answer of any kind, only what says why, where there is that."""
    if peer.version == 5:
        packet = await peer.receive()
        assert isinstance(packet, Disconnect)
        assert packet.reason_code in (0x80, 0x8B)
    await peer.expect_closed()


async def scene(harness: Harness, version: int) -> Peer:
    """A session that is away, and a client with one of its own and a QoS 2 message under way."""
    away = await harness.connect("away", version=version, **lasting(version))
    await away.subscribe("x", 2)
    await away.drop()
    peer = await harness.connect("peer", version=version, **lasting(version))
    await peer.publish("x", b"before", 1)
    await trio.sleep(1)
    return peer


ACTS: dict[str, Any] = {
    "qos 1": Publish("x", b"lost", 1, packet_id=7),
    "qos 2": Publish("x", b"lost", 2, packet_id=7),
    "retained": Publish("y", b"lost", 1, True, packet_id=7),
    "subscribe": Subscribe(7, (SubscriptionRequest("z"),)),
    "unsubscribe": Unsubscribe(7, ("z",)),
}


@VERSIONS
@pytest.mark.parametrize("act", ACTS)
async def test_it_ends_without_an_acknowledgement(act: str, version: int) -> None:
    store = FaultyStore()
    async with ending(store) as harness:
        peer = await scene(harness, version)
        if act == "unsubscribe":
            await peer.subscribe("z", 1)
        bystander = await harness.connect("bystander", version=version)
        before = store.state.copy()
        attempts = len(store.attempts)
        store.fail_next()
        await peer.send(ACTS[act])
        await closed(peer)
        await closed(bystander)
    assert len(store.attempts) == attempts + 1  # it is asked for nothing more
    assert store.closed
    assert store.state == before


@VERSIONS
async def test_a_pubrel_is_not_answered(version: int) -> None:
    store = FaultyStore()
    async with ending(store) as harness:
        peer = await scene(harness, version)
        await peer.send(Publish("x", b"1", 2, packet_id=7))
        await peer.receive()
        store.fail_next()
        await peer.send(PubRel(7))
        await closed(peer)


@VERSIONS
async def test_a_connect_is_not_accepted(version: int) -> None:
    store = FaultyStore()
    async with ending(store) as harness:
        store.fail_next()
        peer = harness.peer("peer", version=version)
        connect = Connect(version=version, client_id="peer", keep_alive=0)
        for name, value in lasting(version).items():
            setattr(connect, name, value)
        await peer.send(connect)
        connack = await peer.receive()
        assert getattr(connack, "reason_code", 0) in (0x88, 3)
        await peer.expect_closed()


async def test_what_came_meanwhile_is_not_acknowledged_either() -> None:
    store = FaultyStore()
    async with ending(store) as harness:
        peer = await scene(harness, 5)
        store.hang()
        await peer.send(Publish("x", b"1", 1, packet_id=1))
        await peer.nothing()
        await peer.send(Publish("x", b"2", 1, packet_id=2), Publish("?", b"", 1, packet_id=3))
        await peer.nothing()
        store.fail_next()
        store.go_on()
        await closed(peer)
    assert not any(entry.message_id > 1 for entry in store.state.queues["away"].values())


async def test_a_program_is_told_by_both() -> None:
    store = FaultyStore()
    told = []

    async def publish(broker: Broker) -> None:
        try:
            await broker.publish("x", b"1", qos=1, retain=True)
        except StoreError as error:
            told.append(error)

    async with trio.open_nursery() as nursery, ending(store) as harness:
        store.fail_next()
        nursery.start_soon(publish, harness.broker)
    assert len(told) == 1


@VERSIONS
async def test_the_next_broker_starts_from_the_last_commit(version: int) -> None:
    """As after a crash: sessions, queues, and the wills of those who were connected."""
    store = FaultyStore()
    will = Will("will", b"gone", 1, False)
    async with ending(store) as harness:
        peer = await scene(harness, version)
        watcher = await harness.connect("watcher", version=version, **lasting(version))
        await watcher.subscribe("will", 1)
        await harness.connect("testator", version=version, will=will, **lasting(version))
        await trio.sleep(1)
        store.fail_next()
        await peer.send(Publish("x", b"lost", 1, packet_id=7))
        await closed(watcher)  # and no will: it would come twice
    async with open_harness(store=store, session=STOP) as harness:
        back = harness.peer("away", version=version)
        fields = lasting(version) | {"clean_start": False}
        await back.connect(session_present=True, **fields)
        await back.message(b"before")
        await back.nothing()
        watcher = harness.peer("watcher", version=version)
        await watcher.connect(session_present=True, **fields)
        await watcher.message(b"gone")
        await watcher.nothing()
        await agree(harness, store)


async def test_the_last_commit_of_a_broker_that_stops() -> None:
    """Its end was in good order until then: whoever started it must hear of what was not kept."""
    store = FaultyStore()

    async def serve() -> None:
        async with open_harness(store=store, session=STOP) as harness:
            await scene(harness, 5)
            store.fail_next()  # what fails is the end of a connection

    with pytest.raises(StoreError, match="on_store_failure"):
        await serve()


async def test_a_failure_while_it_starts() -> None:
    """What the start itself stores: here the end of a connection that died with the last broker."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        await harness.connect("ann", session_expiry_interval=1000)
        await trio.sleep(1)
        died = FaultyStore(store.state.copy())
    died.fail_next()
    async with ending(died) as harness:
        pass  # it comes by itself


async def test_by_default_it_goes_on() -> None:
    """So the tests above can fail."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await scene(harness, 5)
        bystander = await harness.connect("bystander")
        store.fail_next()
        await peer.send(Publish("x", b"lost", 1, packet_id=7))
        await bystander.ping()
        await trio.sleep(5)
        await bystander.publish("x", b"kept", 1)
        await agree(harness, store)
