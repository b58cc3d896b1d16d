"""Looking at clients and sessions, and ending them."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mqtrio import Allow, AuthenticateEvent, Deny, ReasonCode, RefusedError, hookimpl
from mqtrio.testing import Harness, open_harness
from mqtrio.wire.packets import MQTT_3_1_1, NEVER_EXPIRES, Disconnect, Will


async def test_clients(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    assert broker.clients() == []
    ann = await harness.connect("ann", keep_alive=60)
    bob = await harness.connect("bob", version=MQTT_3_1_1)
    clients = {client.client_id: client for client in broker.clients()}
    assert set(clients) == {"ann", "bob"}
    assert (clients["ann"].protocol_version, clients["ann"].keep_alive) == (5, 60)
    assert (clients["bob"].protocol_version, clients["bob"].keep_alive) == (4, 0)
    assert clients["ann"].username is None
    assert clients["ann"].listener == "stream"
    assert "192.0.2.7" in clients["ann"].address
    await trio.sleep(7)
    await bob.ping()
    idle = {client.client_id: client.idle for client in broker.clients()}
    assert idle == {"ann": pytest.approx(7), "bob": 0}
    await ann.disconnect()
    assert [client.client_id for client in broker.clients()] == ["bob"]


async def test_who_is_not_let_in_is_no_client(autojump_clock: MockClock) -> None:
    class Door:
        @hookimpl
        async def authenticate(self, event: AuthenticateEvent) -> Allow | Deny:
            await trio.sleep(1)
            if event.password == b"wrong":
                return Deny(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
            return Allow(username="Ann")

    async with open_harness(plugins=[Door()]) as harness:
        eve = harness.peer("eve")
        await eve.send(eve.connect_packet(username="ann", password=b"wrong"))
        await eve.settle()
        assert harness.broker.clients() == []
        await eve.expect_closed(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        assert harness.broker.sessions() == []
        statistics = harness.broker.statistics()
        assert statistics.refused == {"bad_user_name_or_password": 1}
        await harness.connect("ann", username="ann", password=b"right")
        (client,) = harness.broker.clients()
        assert client.username == "Ann"


async def test_sessions(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    ann = await harness.connect("ann", session_expiry_interval=100)
    await harness.connect("bob")
    await harness.connect("old", version=MQTT_3_1_1, clean_start=False)
    await ann.subscribe("a", qos=1)
    await ann.subscribe("$share/g/b", qos=2)
    sessions = {session.client_id: session for session in broker.sessions()}
    assert {name: s.expiry_interval for name, s in sessions.items()} == {
        "ann": 100,
        "bob": 0,
        "old": NEVER_EXPIRES,
    }
    assert sessions["ann"].subscriptions == ("a", "$share/g/b")
    assert all(session.connected for session in sessions.values())
    await broker.publish("a", b"x", qos=1)
    assert {s.client_id: s.inflight for s in broker.sessions()} == {"ann": 1, "bob": 0, "old": 0}
    await ann.message(b"x")
    await ann.disconnect()
    await broker.publish("a", b"12345", qos=1)
    (session,) = [session for session in broker.sessions() if session.client_id == "ann"]
    assert (session.connected, session.waiting, session.inflight) == (False, 1, 0)
    assert session.waiting_bytes >= 5
    await trio.sleep(101)
    assert {session.client_id for session in broker.sessions()} == {"bob", "old"}


@pytest.mark.parametrize("version", [MQTT_3_1_1, 5])
async def test_disconnect(harness: Harness, autojump_clock: MockClock, version: int) -> None:
    """The client is told, its will is published, its session stays."""
    broker = harness.broker
    watcher = await harness.connect("watcher")
    await watcher.subscribe("will")
    more: dict[str, Any] = {"session_expiry_interval": 100} if version == 5 else {}
    ann = await harness.connect(
        "ann", version=version, clean_start=False, will=Will("will", b"gone"), **more
    )
    assert broker.disconnect("ann", why="maintenance")
    if version == 5:
        said = await ann.expect_closed(ReasonCode.ADMINISTRATIVE_ACTION)
        assert said is not None
        assert said.reason_string == "maintenance"
    else:
        await ann.expect_closed()
    await watcher.message(b"gone")
    assert not broker.disconnect("ann")
    assert not broker.disconnect("nobody")
    assert {s.client_id: s.connected for s in broker.sessions()} == {"ann": False, "watcher": True}
    await harness.connect("ann", version=version, clean_start=False)


async def test_disconnect_to_another_server(harness: Harness, autojump_clock: MockClock) -> None:
    ann = await harness.connect("ann")
    harness.broker.disconnect("ann", ReasonCode.USE_ANOTHER_SERVER, server_reference="b.example")
    said = await ann.expect_closed(ReasonCode.USE_ANOTHER_SERVER)
    assert isinstance(said, Disconnect)
    assert said.server_reference == "b.example"


@pytest.mark.parametrize("reason_code", [0x04, 0x10, 0x19, 0x86, 0x91])
async def test_disconnect_with_a_code_that_cannot_be(
    harness: Harness, autojump_clock: MockClock, reason_code: int
) -> None:
    ann = await harness.connect("ann")
    with pytest.raises(ValueError, match="reason code"):
        harness.broker.disconnect("ann", reason_code)
    await ann.ping()


async def test_end_session(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    watcher = await harness.connect("watcher")
    await watcher.subscribe("will")
    before = broker.statistics().memory
    ann = await harness.connect(
        "ann", session_expiry_interval=100, will=Will("will", b"gone", delay_interval=50)
    )
    await ann.subscribe("a", qos=1)
    await broker.publish("a", b"x", qos=1)
    assert broker.end_session("ann")
    await watcher.message(b"gone")  # its delay ends with the session
    assert [session.client_id for session in broker.sessions()] == ["watcher"]
    assert not broker.end_session("ann")
    assert broker.statistics().memory == before
    await harness.connect("ann", clean_start=False)
    assert harness.peers[-1].connack is not None
    assert not harness.peers[-1].connack.session_present


async def test_end_session_of_somebody_away(harness: Harness, autojump_clock: MockClock) -> None:
    ann = await harness.connect("ann", session_expiry_interval=100)
    await ann.disconnect()
    assert harness.broker.end_session("ann")
    assert harness.broker.sessions() == []


async def test_end_session_that_ends_by_itself(harness: Harness, autojump_clock: MockClock) -> None:
    ann = await harness.connect("ann")
    assert harness.broker.end_session("ann")
    await ann.expect_closed(ReasonCode.ADMINISTRATIVE_ACTION)
    assert harness.broker.sessions() == []


async def test_statistics(harness: Harness, autojump_clock: MockClock) -> None:
    broker = harness.broker
    before = broker.statistics()
    assert (before.clients, before.sessions, before.subscriptions, before.retained) == (0, 0, 0, 0)
    ann = await harness.connect("ann")
    await ann.subscribe("a", qos=1)
    await ann.publish("a", b"x" * 100, 1, retain=True)
    await ann.message()
    bob = await harness.connect("bob", session_expiry_interval=10)
    await bob.disconnect()
    await trio.sleep(5)
    now = broker.statistics()
    assert now.uptime == pytest.approx(5)
    assert (now.clients, now.sessions, now.subscriptions, now.retained) == (1, 2, 1, 1)
    assert (now.connections_opened, now.connections_closed) == (2, 1)
    assert now.messages_received == 1
    assert now.messages_sent == 1
    # CONNECT, SUBSCRIBE, PUBLISH, PUBACK; CONNECT, DISCONNECT
    assert now.packets_received == 6
    # CONNACK, SUBACK, PUBACK, PUBLISH; CONNACK
    assert now.packets_sent == 5
    assert now.sockets_accepted == 2
    assert now.shared_subscriptions == 0
    assert (now.messages_held, now.payload_bytes_held) == (1, 100)
    assert now.bytes_received > 100
    assert now.bytes_sent > 100
    assert (now.crashes, now.stalls, now.dropped, now.refused) == (0, 0, {}, {})
    await broker.publish("a", retain=True)
    await ann.message(b"")
    assert broker.statistics().memory <= now.memory - 100


async def test_statistics_are_a_copy(harness: Harness, autojump_clock: MockClock) -> None:
    before = harness.broker.statistics()
    async with harness.broker.subscribe("a", size=1):
        for _ in range(3):
            await harness.broker.publish("a")
    assert before.dropped == {}
    assert harness.broker.statistics().dropped == {"outbox_full": 2}


async def test_retained_with_a_filter_that_cannot_be(
    harness: Harness, autojump_clock: MockClock
) -> None:
    for topic_filter in ("", "a/#/b", "a+"):
        with pytest.raises(RefusedError) as caught:
            harness.broker.retained(topic_filter)
        assert caught.value.reason_code == ReasonCode.TOPIC_FILTER_INVALID


async def test_plugins_come_and_go(harness: Harness, autojump_clock: MockClock) -> None:
    class Nobody:
        @hookimpl
        def authenticate(self, event: AuthenticateEvent) -> Deny:
            return Deny(why="closed")

    broker = harness.broker
    name = await broker.add_plugin(Nobody(), "door")
    assert name == "door"
    assert list(broker.plugins) == ["door"]
    eve = harness.peer("eve")
    await eve.send(eve.connect_packet())
    await eve.expect_closed(ReasonCode.NOT_AUTHORIZED)
    removed = await broker.remove_plugin("door")
    assert isinstance(removed, Nobody)
    assert dict(broker.plugins) == {}
    await harness.connect("eve")
