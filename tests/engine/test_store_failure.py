"""A commit that fails: nothing is promised that isn't stored, and memory agrees with the store."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from mqtrio import StoreError
from mqtrio.testing import FaultyStore, Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    Will,
)
from tests.engine.agreement import agree

VERSIONS = pytest.mark.parametrize("version", [4, 5])


def lasting(version: int, stored: bool = True) -> dict[str, Any]:
    """The fields of CONNECT that make a session last."""
    if version == 5:
        return {"session_expiry_interval": 1000 if stored else 0}
    return {"clean_start": not stored}


async def again(harness: Harness, client_id: str, version: int, **fields: Any) -> Peer:
    """A client comes back to its session, which must be there."""
    peer = harness.peer(client_id, version=version)
    await peer.connect(**lasting(version) | {"clean_start": False}, session_present=True, **fields)
    return peer


async def recovered(harness: Harness) -> None:
    """Wait until the sessions have been loaded again."""
    await trio.sleep(5)
    assert not harness.broker._core.sessions.reloading


# -- publishers


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_publisher_is_told(version: int, qos: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", version=version, **lasting(version))
        await away.subscribe("x", 2)
        await away.drop()
        await trio.sleep(1)
        peer = await harness.connect("peer", version=version)
        store.fail_next()
        await peer.send(Publish("x", b"lost", qos, packet_id=1))
        if version == 4:
            await peer.expect_closed()
            peer = await harness.connect("peer", version=version)
        else:
            await peer.expect(PubAck if qos == 1 else PubRec, packet_id=1, reason_code=0x80)
            await peer.ping()  # its connection stays
        await recovered(harness)
        await peer.publish("x", b"kept", qos)
        await agree(harness, store)
        back = await again(harness, "away", version)
        await back.message(b"kept")
        await back.nothing()
        await agree(harness, store)


async def test_the_identifier_of_a_refused_qos_2_message_is_free() -> None:
    store = FaultyStore()
    async with open_harness(store=store, limits={"receive_maximum": 1}) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("x", 2)
        await away.drop()
        await trio.sleep(1)
        peer = await harness.connect("peer")
        for _ in range(3):
            store.fail_next()
            await peer.send(Publish("x", b"lost", 2, packet_id=1))
            await peer.expect(PubRec, packet_id=1, reason_code=0x80)
            await recovered(harness)
        await peer.send(Publish("x", b"kept", 2, packet_id=1))
        await peer.expect(PubRec, packet_id=1, reason_code=0)
        await peer.send(PubRel(1))
        await peer.expect(PubComp, packet_id=1, reason_code=0)
        back = await again(harness, "away", 5)
        await back.message(b"kept")
        await back.nothing()


async def test_a_program_is_told() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("x", 2)
        await away.drop()
        await trio.sleep(1)
        for qos in (1, 2):
            store.fail_next()
            with pytest.raises(StoreError):
                await harness.broker.publish("x", b"lost", qos=qos)
            await recovered(harness)
        await harness.broker.publish("x", b"kept", qos=1)
        back = await again(harness, "away", 5)
        await back.message(b"kept")
        await back.nothing()
        await agree(harness, store)


async def test_everything_that_came_meanwhile_has_failed_too() -> None:
    """What was decided after the changes that failed was decided by a memory that was ahead."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        for name in ("first", "second", "third"):
            away = await harness.connect(name, session_expiry_interval=1000)
            await away.subscribe(name, 1)
            await away.drop()
        await trio.sleep(1)
        peer = await harness.connect("peer")
        store.hang()
        await peer.send(Publish("first", b"x", 1, packet_id=1))
        await peer.nothing()
        await peer.send(Publish("second", b"x", 1, packet_id=2))
        await peer.send(Publish("nobody", b"x", 1, packet_id=3))
        await peer.nothing()
        store.fail_next()
        store.go_on()
        await peer.expect(PubAck, packet_id=1, reason_code=0x80)
        await peer.expect(PubAck, packet_id=2, reason_code=0x80)
        await peer.expect(PubAck, packet_id=3, reason_code=0x10)  # it had nothing to store
        await peer.publish("third", b"x", 1)  # that session had nothing under way
        await agree(harness, store)
        for name, waiting in (("first", 0), ("second", 0), ("third", 1)):
            (info,) = [s for s in harness.broker.sessions() if s.client_id == name]
            assert info.waiting == waiting


async def test_a_session_with_nothing_under_way_notices_nothing() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        other = await harness.connect("other", session_expiry_interval=1000)
        await other.subscribe("other", 2)
        await trio.sleep(1)
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await trio.sleep(1)
        store.fail_next()
        await peer.send(Subscribe(1, (SubscriptionRequest("x"),)))
        await peer.expect_closed(0x80)
        await other.ping()
        await other.publish("other", b"x", 2)
        await other.message(b"x")
        await agree(harness, store)


# -- sessions: what a client does when the commit fails -> what is there afterwards

Act = Callable[[Peer, Harness], Awaitable[None]]


async def _subscribe(peer: Peer, harness: Harness) -> None:
    await peer.send(Subscribe(7, (SubscriptionRequest("new", 1), SubscriptionRequest("old", 0))))


async def _unsubscribe(peer: Peer, harness: Harness) -> None:
    await peer.send(Unsubscribe(7, ("old",)))


async def _publish_qos_2(peer: Peer, harness: Harness) -> None:
    await peer.send(Publish("nobody", b"x", 2, packet_id=7))


async def _publish_to_itself(peer: Peer, harness: Harness) -> None:
    await peer.send(Publish("old", b"x", 2, packet_id=7))


async def _receive(peer: Peer, harness: Harness) -> None:
    with pytest.raises(StoreError):
        await harness.broker.publish("old", b"x", qos=2)


ACTS: dict[str, Act] = {
    "SUBSCRIBE": _subscribe,
    "UNSUBSCRIBE": _unsubscribe,
    "PUBLISH": _publish_qos_2,
    "PUBLISH to itself": _publish_to_itself,
    "receiving": _receive,
}


@VERSIONS
@pytest.mark.parametrize("act", list(ACTS))
async def test_a_session_is_as_it_was_before(act: str, version: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        await peer.subscribe("old", 2)
        await trio.sleep(1)
        (before,) = harness.broker.sessions()
        store.fail_next()
        await ACTS[act](peer, harness)
        await peer.expect_closed(0x80 if version == 5 else None)
        await recovered(harness)
        await agree(harness, store)
        (after,) = harness.broker.sessions()
        assert (after.subscriptions, after.inflight, after.waiting) == (before.subscriptions, 0, 0)
        peer = await again(harness, "peer", version)
        await peer.nothing()
        await peer.publish("old", b"fine", 2)
        await peer.message(b"fine", qos=2)
        await agree(harness, store)


@VERSIONS
async def test_a_released_message_comes_again(version: int) -> None:
    """PUBREC could not be stored: PUBLISH is repeated, under the same identifier [MQTT-4.4.0-1]."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        await peer.subscribe("x", 2)
        await harness.broker.publish("x", b"x", qos=2)
        first = await peer.expect(Publish, payload=b"x", dup=False)
        await trio.sleep(1)
        store.fail_next()
        await peer.send(PubRec(first.packet_id))
        await peer.expect_closed(0x80 if version == 5 else None)
        await recovered(harness)
        peer = await again(harness, "peer", version)
        await peer.message(b"x", dup=True, packet_id=first.packet_id)
        await agree(harness, store)
        assert store.state.messages == {}


@VERSIONS
async def test_an_acknowledgement_that_was_not_stored_is_forgotten(version: int) -> None:
    """A subscriber's PUBACK waits for nobody: if it is lost the message comes again."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        await peer.subscribe("x", 1)
        await harness.broker.publish("x", b"x", qos=1)
        first = await peer.expect(Publish, payload=b"x")
        await trio.sleep(1)
        store.fail_next()
        await peer.send(PubAck(first.packet_id))
        await peer.expect_closed(0x80 if version == 5 else None)
        await recovered(harness)
        peer = await again(harness, "peer", version)
        await peer.message(b"x", dup=True, packet_id=first.packet_id)
        await agree(harness, store)


@VERSIONS
async def test_a_receipt_that_could_not_be_ended(version: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        await peer.send(Publish("nobody", b"x", 2, packet_id=7))
        await peer.expect(PubRec, packet_id=7)
        await trio.sleep(1)
        store.fail_next()
        await peer.send(PubRel(7))
        await peer.expect_closed(0x80 if version == 5 else None)
        await recovered(harness)
        peer = await again(harness, "peer", version)
        await peer.send(PubRel(7))
        await peer.expect(PubComp, packet_id=7, reason_code=0)
        await agree(harness, store)


@VERSIONS
async def test_a_new_session_that_could_not_be_stored(version: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        store.fail_next()
        peer = harness.peer("peer", version=version)
        await peer.send(peer.connect_packet(**lasting(version)))
        await peer.expect_closed(0x88 if version == 5 else 3)
        await recovered(harness)
        assert harness.broker.sessions() == []
        peer = harness.peer("peer", version=version)
        await peer.connect(**lasting(version) | {"clean_start": False}, session_present=False)
        await agree(harness, store)


@VERSIONS
@pytest.mark.parametrize("stored", [True, False])
async def test_a_clean_start_that_could_not_be_stored(version: int, stored: bool) -> None:
    """The session that was to be replaced is still there."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        await peer.subscribe("x", 1)
        await peer.drop()
        await harness.broker.publish("x", b"x", qos=1)
        await trio.sleep(1)
        store.fail_next()
        peer = harness.peer("peer", version=version)
        await peer.send(peer.connect_packet(**lasting(version, stored) | {"clean_start": True}))
        await peer.expect_closed(0x88 if version == 5 else 3)
        await recovered(harness)
        await agree(harness, store)
        peer = await again(harness, "peer", version)
        await peer.message(b"x")


async def test_an_expiry_that_could_not_be_changed() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await trio.sleep(1)
        store.fail_next()
        await peer.disconnect(session_expiry_interval=10)
        await recovered(harness)
        await agree(harness, store)
        assert [info.expiry_interval for info in harness.broker.sessions()] == [1000]


@pytest.mark.parametrize("delay", [0, 50])
async def test_a_will_is_published_once_whatever_fails(delay: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        peer = await harness.connect(
            "peer",
            session_expiry_interval=1000,
            will=Will("wills", b"gone", delay_interval=delay),
        )
        await trio.sleep(1)
        store.fail_next()
        await peer.send(Subscribe(1, (SubscriptionRequest("x"),)))
        await peer.expect_closed(0x80)
        await trio.sleep(100)
        await watcher.message(b"gone")
        await watcher.nothing()
        await agree(harness, store)
        assert store.state.wills == {}


async def test_a_will_that_was_never_stored_does_no_harm_later() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        store.hang()
        peer = harness.peer("peer")
        will = Will("wills", b"gone", delay_interval=50)
        await peer.send(peer.connect_packet(session_expiry_interval=1000, will=will))
        await peer.settle()
        await peer.drop()
        store.fail_next()
        store.go_on()
        await recovered(harness)
        peer = await harness.connect("peer", will=Will("wills", b"second"))
        await peer.drop()
        await watcher.message(b"second")
        await agree(harness, store)
        assert len(store.attempts) - len(store.commits) == 1  # nothing else failed


# -- retained messages


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_retained_messages_go_on(qos: int, version: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", version=version)
        await peer.publish("x", b"before", 1, retain=True)
        await trio.sleep(1)
        store.fail_next()
        await peer.send(Publish("x", b"now", qos, True, packet_id=1 if qos else 0))
        if qos and version == 5:
            await peer.expect(PubAck if qos == 1 else PubRec, reason_code=0x80)
        elif qos:
            await peer.expect_closed()
        late = await harness.connect("late")
        await late.subscribe("x")
        await late.message(b"now", retain=True)
        await agree(harness, store)
        assert store.state.retained["x"].payload == b"now"


async def test_the_last_value_wins_after_a_failure() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer")
        store.fail_next(3)
        for payload in (b"1", b"", b"2", b"3"):
            await peer.publish("x", payload, retain=True)
            await trio.sleep(0.3)
        await agree(harness, store)
        assert store.state.retained["x"].payload == b"3"


# -- while sessions are loaded again


@VERSIONS
async def test_what_is_meant_for_a_session_that_is_loaded_again_is_refused(version: int) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("x", 2)
        await away.subscribe("$share/g/shared", 2)
        away0 = await harness.connect("away0", session_expiry_interval=1000)
        await away0.subscribe("zero", 0)
        for peer in (away, away0):
            await peer.drop()
        await trio.sleep(1)
        store.fail_next()
        store.fail_next_load(1000)
        with pytest.raises(StoreError):
            await harness.broker.publish("x", b"lost", qos=1)
        await trio.sleep(1)
        assert harness.broker._core.sessions.reloading == {"away"}

        peer = await harness.connect("peer", version=version)
        other = await harness.connect("other")
        await other.subscribe("#", 2)
        for qos in (1, 2):
            await peer.send(Publish("x", b"refused", qos, packet_id=qos))
            got = await peer.arrived()
            if version == 5:
                assert [(p.packet_id, p.reason_code) for p in got] == [(qos, 0x80)]  # type: ignore[attr-defined]
            else:
                assert got == []  # no acknowledgement: it will be sent again
        await other.nothing()  # it was refused for all
        await peer.publish("x", b"at most once")
        await other.message(b"at most once")
        await peer.publish("zero", b"x", 1)
        await other.message(b"x")

        back = harness.peer("away", version=version)
        await back.send(back.connect_packet(**lasting(version)))
        await back.expect_closed(0x88 if version == 5 else 3)

        store.heal()
        await recovered(harness)
        await peer.publish("x", b"kept", 1)
        back = await again(harness, "away", 5)
        await back.message(b"kept")
        await agree(harness, store)


async def test_loading_again_is_tried_until_it_succeeds() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("x", 2)
        await away.drop()
        await trio.sleep(1)
        loads = len(store.loads)
        store.fail_next()
        store.fail_next_load(5)
        with pytest.raises(StoreError):
            await harness.broker.publish("x", b"lost", qos=1)
        await trio.sleep(30)
        assert store.loads[loads:] == [frozenset({"away"})] * 6
        await harness.broker.publish("x", b"kept", qos=1)
        await agree(harness, store)


async def test_a_store_that_goes_on_failing(caplog: pytest.LogCaptureFixture) -> None:
    """The broker goes on for all that needs no store, and with everything when it is back."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        away = await harness.connect("away", session_expiry_interval=1000)
        await away.subscribe("x", 2)
        await away.drop()
        await trio.sleep(1)
        peer = await harness.connect("peer")
        await peer.subscribe("free", 2)
        store.fail_next(20)
        for _ in range(10):
            await peer.send(Publish("x", b"lost", 1, packet_id=1))
            await peer.expect(PubAck, reason_code=0x80)
            await peer.publish("free", b"x", 2)
            await peer.message(b"x")
            await trio.sleep(5)
        store.heal()
        await trio.sleep(5)
        await peer.publish("x", b"kept", 1)
        await agree(harness, store)
    failures = [record for record in caplog.records if record.name == "mqtrio.store"]
    assert {record.levelno for record in failures} <= {logging.ERROR, logging.INFO}
    assert "lost" not in caplog.text  # a payload
    caplog.clear()


async def test_a_subscriber_of_this_process_is_told() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        async with harness.broker.subscribe("x", session="worker") as messages:
            await harness.broker.publish("x", b"1", qos=1)
            first = await messages.receive()
            await trio.sleep(1)
            store.fail_next()
            await first.ack()
            with pytest.raises(StoreError):
                await messages.receive()
        await recovered(harness)
        async with harness.broker.subscribe("x", session="worker") as messages:
            second = await messages.receive()
            assert second.payload == b"1"
            await second.ack()
        await agree(harness, store)


async def test_a_shared_message_is_not_lost_with_its_member() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        members = [
            await harness.connect(f"member{number}", session_expiry_interval=1000)
            for number in range(2)
        ]
        for member in members:
            await member.subscribe("$share/g/x", 1)
        await trio.sleep(1)
        peer = await harness.connect("peer")
        for number in range(10):
            if number % 3 == 0:
                store.fail_next()
            await peer.send(Publish("x", b"%d" % number, 1, packet_id=1))
            code = (await peer.expect(PubAck)).reason_code
            assert (code == 0x80) is (number % 3 == 0)
            await recovered(harness)
        await agree(harness, store)


# -- observers


async def test_observers_see_the_end_of_the_connection_and_no_end_of_the_session() -> None:
    recorder = HookRecorder("client_disconnected", "session_ended", "session_opened")
    store = FaultyStore()
    async with open_harness(store=store, plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await trio.sleep(1)
        recorder.clear()
        store.fail_next()
        await peer.send(Subscribe(1, (SubscriptionRequest("x"),)))
        await peer.expect_closed(0x80)
        await recovered(harness)
        await again(harness, "peer", 5)
    assert recorder.hooks[:2] == ["client_disconnected", "session_opened"]
    assert recorder.of("client_disconnected")[0].reason_code == 0x80
    assert recorder.of("session_opened")[0].resumed


# -- the answers


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (Subscribe(9, (SubscriptionRequest("x"),)), SubAck),
        (Unsubscribe(9, ("x",)), UnsubAck),
    ],
)
async def test_no_answer_promises_what_was_not_stored(packet: Any, kind: Any) -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("x")
        await trio.sleep(1)
        store.fail_next()
        await peer.send(packet)
        got = await peer.arrived()
        assert not [p for p in got if isinstance(p, kind) and min(p.reason_codes) < 0x80]


# -- messages that nobody needs any more


async def test_a_message_whose_removal_failed_is_removed_later() -> None:
    """It was retained and stored for a session; then it is replaced, and that commit fails."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("x", 1)
        await harness.broker.publish("x", b"old", qos=1, retain=True)
        await peer.message(b"old")
        await trio.sleep(1)
        await peer.unsubscribe("x")
        await agree(harness, store)
        assert len(store.state.messages) == 1
        store.fail_next()
        await harness.broker.publish("x", b"new", retain=True)
        await agree(harness, store)
        assert store.state.messages == {}
        assert len(store.attempts) - len(store.commits) == 1


async def test_a_message_that_a_lost_session_still_has_is_not_removed_meanwhile() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        lost = await harness.connect("lost", session_expiry_interval=1000)
        other = await harness.connect("other", session_expiry_interval=1000)
        for peer in (lost, other):
            await peer.subscribe("x", 1)
        await harness.broker.publish("x", b"x", qos=1)
        await lost.expect(Publish, payload=b"x")
        got = await other.expect(Publish, payload=b"x")
        await trio.sleep(1)
        store.fail_next()
        store.fail_next_load(100)
        await lost.send(Subscribe(9, (SubscriptionRequest("y"),)))
        await lost.expect_closed(0x80)
        await trio.sleep(1)
        await other.send(PubAck(got.packet_id))  # here nobody holds the message now
        await trio.sleep(1)
        store.heal()
        await agree(harness, store)
        assert len(store.attempts) - len(store.commits) == 1
        lost = await again(harness, "lost", 5)
        await lost.message(b"x", dup=True, packet_id=1)
        await agree(harness, store)
        assert store.state.messages == {}


async def test_a_qos_2_message_that_is_too_large_is_stored_and_let_go() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect(
            "peer", session_expiry_interval=1000, maximum_packet_size=50, receive_maximum=1
        )
        await peer.subscribe("x", 2)
        for size in (100, 10, 100, 11):
            await harness.broker.publish("x", b"x" * size, qos=2)
        await peer.message(b"x" * 10)
        await peer.message(b"x" * 11)
        await peer.nothing()
        await agree(harness, store)
        assert store.state.messages == {}
        assert harness.broker.statistics().dropped == {"packet_too_large": 2}


async def test_a_session_that_was_cut_off_is_closed_in_the_store_as_well() -> None:
    """Else its expiry interval would begin anew with the next start."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", **lasting(5))
        await peer.subscribe("a", 1)
        store.fail_next()
        with pytest.raises(StoreError):
            await harness.broker.publish("a", b"", qos=1)
        await recovered(harness)
        assert store.state.sessions["peer"].closed_at is not None
        await agree(harness, store)
