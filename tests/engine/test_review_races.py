"""What happens while something else is under way, and what is left afterwards."""

from typing import Any

import pytest
import trio

from mqtrio import Allow, Deny, hookimpl
from mqtrio.clock import Clock
from mqtrio.engine import publish, router
from mqtrio.engine.connection import Connection
from mqtrio.testing import Harness, Peer, open_harness
from mqtrio.testing.stores import FaultyStore
from mqtrio.wire.packets import ConnAck, Disconnect, PubAck, Publish, PubRec, Will
from tests.engine.agreement import agree


def held_by(harness: Harness, client_id: str) -> Connection:
    """The broker's end of a client's connection."""
    return harness.broker._core.sessions.holders[client_id]


async def payloads(peer: Peer) -> list[bytes]:
    """The payloads of all messages that have come."""
    return [packet.payload for packet in await peer.arrived() if isinstance(packet, Publish)]


# -- decisions


async def test_a_permission_is_not_remembered_past_a_change_of_plugins() -> None:
    go = trio.Event()

    class Slow:
        @hookimpl
        async def authorize_publish(self, event: Any) -> Allow:
            await go.wait()
            return Allow(remember=True)

    class No:
        @hookimpl
        def authorize_publish(self, event: Any) -> Deny:
            return Deny()

    async with open_harness(plugins=[Slow()]) as harness:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"", 1, packet_id=1))
        await peer.nothing()
        await harness.broker.add_plugin(No())
        go.set()
        await peer.expect(PubAck, packet_id=1, reason_code=0x10)
        await peer.send(Publish("a", b"", 1, packet_id=2))
        await peer.expect(PubAck, packet_id=2, reason_code=0x87)


async def test_credentials_expire_though_connack_was_late() -> None:
    class Passport:
        clock: Clock

        @hookimpl
        def authenticate(self, event: Any) -> Allow:
            return Allow(expires_at=self.clock.to_wall(100))

    passport = Passport()
    store = FaultyStore(delay=20)  # longer than CONNECT may take
    async with open_harness(plugins=[passport], store=store) as harness:
        passport.clock = harness.broker._core.clock
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await trio.sleep_until(99)
        await peer.nothing()
        await peer.expect_closed(0x87)
        assert trio.current_time() == pytest.approx(100)


async def test_a_client_that_is_thrown_out_on_arrival_holds_no_session() -> None:
    class Bouncer:
        broker: Any = None

        @hookimpl
        def client_connected(self, event: Any) -> None:
            self.broker.disconnect(event.client_id)

    bouncer = Bouncer()
    async with open_harness(plugins=[bouncer]) as harness:
        bouncer.broker = harness.broker
        peer = await harness.connect("peer", session_expiry_interval=100)
        await peer.expect_closed(0x98)
        session = harness.broker._core.sessions.by_id["peer"]
        assert session.outlet is None
        assert session.expires_at == pytest.approx(trio.current_time() + 100)


async def test_a_client_whose_connack_does_not_fit_leaves_no_will() -> None:
    async with open_harness() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("will")
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(maximum_packet_size=8, will=Will("will", b"")))
        await peer.expect(ConnAck, reason_code=0x95)
        await peer.settle()
        assert peer.ended
        await watcher.nothing()


@pytest.mark.parametrize("method", [None, "method"])
async def test_a_password_is_kept_for_reauthentication_only(method: str | None) -> None:
    class Door:
        @hookimpl
        def authenticate(self, event: Any) -> Allow:
            return Allow()

    async with open_harness(plugins=[Door()]) as harness:
        await harness.connect("peer", password=b"secret", authentication_method=method)
        connect = held_by(harness, "peer").connect
        assert connect is not None
        assert (connect.password is None) == (method is None)


async def test_an_interval_that_was_capped_to_0_may_be_repeated_at_the_end() -> None:
    async with open_harness(session={"maximum_expiry_interval": 0}) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("will")
        will = Will("will", b"")
        peer = await harness.connect("peer", session_expiry_interval=100, will=will)
        await peer.send(Disconnect(0, session_expiry_interval=100))
        await peer.expect_closed()
        await watcher.nothing()


# -- outgoing


async def test_an_alias_is_not_used_that_the_client_has_never_seen() -> None:
    limits = {"outbox_soft": 1000, "outbox_hard": 2000, "backpressure": "off"}
    async with open_harness(limits=limits) as harness:
        peer = await harness.connect("peer", topic_alias_maximum=10)
        await peer.subscribe("#")
        connection = held_by(harness, "peer")
        connection.blocked = True
        connection._account(2000)
        await harness.broker.publish("topic", b"dropped")
        assert harness.broker.statistics().dropped == {"outbox_full": 1}
        connection.blocked = False
        connection._account(-2000)
        await harness.broker.publish("topic", b"kept")
        await peer.expect(Publish, topic="topic", payload=b"kept")


async def test_a_packet_that_fits_without_an_alias_is_sent_without() -> None:
    async with open_harness() as harness:
        peer = await harness.connect("peer", topic_alias_maximum=10, maximum_packet_size=30)
        await peer.subscribe("t")
        await harness.broker.publish("t", b"x" * 24)  # 2 + 2 + 1 + 1 + 24
        assert await payloads(peer) == [b"x" * 24]
        await harness.broker.publish("t", b"x" * 25)
        assert await payloads(peer) == []
        assert harness.broker.statistics().dropped == {"packet_too_large": 1}


async def test_a_full_queue_refuses_no_message_that_it_would_not_get() -> None:
    async with open_harness(limits={"queue_messages": 1}) as harness:
        full = await harness.connect("full", session_expiry_interval=100)
        await full.subscribe("at 0", 0, no_local=True)
        await full.subscribe("at 1", 1, no_local=True)
        await full.disconnect()
        peer = await harness.connect("peer")
        await peer.publish("at 1", b"", 1)
        await peer.send(Publish("at 1", b"", 1, packet_id=100))
        await peer.expect(PubAck, packet_id=100, reason_code=0x97)
        await peer.send(Publish("at 0", b"", 1, packet_id=101))
        await peer.expect(PubAck, packet_id=101, reason_code=0)


async def test_what_is_shared_again_leaves_the_rest_of_the_queue_in_order() -> None:
    async with open_harness() as harness:
        leaving = await harness.connect("leaving", session_expiry_interval=100)
        await leaving.subscribe("own", 1)
        await leaving.subscribe("$share/group/a", 1)
        await leaving.disconnect()
        for number in range(10):
            await harness.broker.publish("a" if number % 2 else "own", b"%d" % number, qos=1)
        session = harness.broker._core.sessions.by_id["leaving"]
        memory = harness.broker.statistics().memory
        others = [await harness.connect(name) for name in ("one", "two")]
        for other in others:
            await other.subscribe("$share/group/a", 1)
        back = await harness.connect("leaving", clean_start=False, session_expiry_interval=100)
        assert await payloads(back) == [b"%d" % number for number in range(10)]
        await back.drop()
        assert [len(await payloads(other)) for other in others] == [3, 2]
        kept = [delivery.message for delivery in session.inflight.values()]
        assert [message.payload for message in kept] == [
            b"%d" % number for number in range(0, 10, 2)
        ]
        assert session.queue_bytes == 0
        for other in others:
            await other.drop()
        harness.broker.end_session("leaving")
        assert harness.broker.statistics().memory < memory


# -- very many targets


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two targets are very many."""
    for module in (router, publish):
        monkeypatch.setattr(module, "SLICE", 2)


async def until_begun(harness: Harness) -> None:
    """Wait until a message is on its way to a part of its targets."""
    sent = harness.broker.statistics().messages_sent
    while harness.broker.statistics().messages_sent == sent:
        await trio.lowlevel.checkpoint()


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("no_local", [False, True])
async def test_all_get_a_message_whose_publisher_is_cut_off(no_local: bool) -> None:
    async with open_harness() as harness:
        targets = [await harness.connect(f"target {number}") for number in range(9)]
        for target in targets:
            await target.subscribe("a", 2, no_local=no_local)
        peer = await harness.connect("peer", session_expiry_interval=100)
        await peer.send(Publish("a", b"once", 2, packet_id=1))
        await until_begun(harness)
        harness.broker.disconnect("peer")
        await peer.settle()
        peer = await harness.connect("peer", clean_start=False, session_expiry_interval=100)
        await peer.send(Publish("a", b"once", 2, dup=True, packet_id=1))
        await peer.expect(PubRec, packet_id=1, reason_code=0)
        assert [await payloads(target) for target in targets] == [[b"once"]] * 9


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("no_local", [False, True])
async def test_others_have_their_turn_between_the_targets(no_local: bool) -> None:
    async with open_harness() as harness:
        for number in range(9):
            target = await harness.connect(f"target {number}")
            await target.subscribe("a", no_local=no_local)
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b""))
        await until_begun(harness)
        assert harness.broker.statistics().messages_sent < 9
        await peer.ping()
        assert harness.broker.statistics().messages_sent == 9


@pytest.mark.usefixtures("slices")
async def test_a_target_that_comes_back_in_another_version_gets_packets_of_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_harness() as harness:
        for number in range(3):
            target = await harness.connect(f"target {number}", session_expiry_interval=100)
            await target.subscribe("a")
        peer = await harness.connect("peer")
        turn = trio.Event()
        monkeypatch.setattr(harness.broker._core, "next_turn", turn.wait)
        await peer.send(Publish("a", b"payload"))
        await until_begun(harness)
        back = harness.peer("target 2", version=4)
        await back.send(back.connect_packet(clean_start=False))
        await back.expect(ConnAck, reason_code=0)
        turn.set()
        assert await payloads(back) == [b"payload"]  # and no length of properties before it


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("no_local", [False, True])
@pytest.mark.parametrize("lost", [0, 8])
async def test_a_commit_that_fails_between_the_targets_fails_the_whole_message(
    no_local: bool, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who had it may have lost it, and who is yet to get it can't: no later batch makes it good."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        for number in range(9):
            interval = 1000 if not lost or number == lost else 0
            target = await harness.connect(f"target {number}", session_expiry_interval=interval)
            await target.subscribe("a", 1, no_local=no_local)
            if number == lost:
                await target.subscribe("b", 1)
        peer = await harness.connect("peer")
        await trio.sleep(1)
        store.hang()
        await peer.send(Publish("b", b"before", 1, packet_id=1))
        await peer.settle()
        store.fail_next()
        store.fail_next_load(10)
        turn = trio.Event()
        monkeypatch.setattr(harness.broker._core, "next_turn", turn.wait)
        await peer.send(Publish("a", b"promised?", 1, packet_id=2))
        await until_begun(harness)
        store.go_on()
        await peer.expect(PubAck, packet_id=1, reason_code=0x80)
        turn.set()
        await peer.expect(PubAck, packet_id=2, reason_code=0x80)
        await trio.sleep(60)
        await agree(harness, store)


# -- memory


async def test_the_targets_of_all_remembered_routes_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router, "ROUTED", 10)
    async with open_harness() as harness:
        for number in range(3):
            target = await harness.connect(f"target {number}")
            await target.subscribe("#")
        routes = harness.broker._core.router.routes
        for number in range(20):
            await harness.broker.publish(f"topic {number}", b"")
            assert sum(route.weight for route in routes.values()) <= 10
        assert routes
