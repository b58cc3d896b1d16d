"""A new broker over the same store: what was promised is there, in its order and its state."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from mqtrio import Allow, Deny, PublishEvent, SubscribeEvent
from mqtrio.store.stored import StoredState
from mqtrio.testing import FaultyStore, Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.engine.agreement import agree

VERSIONS = pytest.mark.parametrize("version", [4, 5])

#: The wall clock when a test begins, in seconds since 1970.
NOON = 1_700_000_000.0


@pytest.fixture(autouse=True)
def _wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes with the virtual one, also while no broker runs."""
    clock = SimpleNamespace(time=lambda: NOON + trio.current_time())
    monkeypatch.setattr("mqtrio.clock.time", clock)


class Disk:
    """What is left when a broker ends: by a crash, or in good order."""

    def __init__(self) -> None:
        self.state = StoredState()

    @asynccontextmanager
    async def broker(self, **options: Any) -> AsyncIterator[Harness]:
        """A broker that crashes at the end of the block: nothing more gets into its store."""
        store = FaultyStore(self.state)
        async with open_harness(store=store, **options) as harness:
            yield harness
            await trio.sleep(0.2)  # lazy changes are written within 0.1 seconds
            self.state = store.state.copy()

    @asynccontextmanager
    async def broker_in_good_order(self, **options: Any) -> AsyncIterator[Harness]:
        """A broker that stops in good order."""
        store = FaultyStore(self.state)
        async with open_harness(store=store, **options) as harness:
            yield harness
        self.state = store.state.copy()


def lasting(version: int, seconds: int = 1000) -> dict[str, Any]:
    return {"session_expiry_interval": seconds} if version == 5 else {"clean_start": False}


async def again(harness: Harness, client_id: str, version: int = 5, **fields: Any) -> Peer:
    peer = harness.peer(client_id, version=version)
    await peer.connect(**lasting(version) | {"clean_start": False}, session_present=True, **fields)
    return peer


@pytest.fixture
def disk() -> Disk:
    return Disk()


# -- sessions and subscriptions


@VERSIONS
async def test_subscriptions_come_back(disk: Disk, version: int) -> None:
    async with disk.broker() as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        for name, qos in (("a/+", 1), ("b", 2), ("c/#", 0), ("$share/g/d", 1)):
            await peer.subscribe(name, qos)
        await peer.unsubscribe("c/#")
        await (await harness.connect("gone")).subscribe("a/+", 1)
    async with disk.broker() as harness:
        (session,) = harness.broker.sessions()
        assert (session.client_id, session.connected) == ("peer", False)
        assert set(session.subscriptions) == {"a/+", "b", "$share/g/d"}
        for topic, qos in (("a/1", 2), ("b", 2), ("c/x", 1), ("d", 2)):
            await harness.broker.publish(topic, topic, qos=qos)
        peer = await again(harness, "peer", version)
        got = [await peer.message() for _ in range(3)]
        assert {(packet.payload, packet.qos) for packet in got} == {
            *((b"a/1", 1), (b"b", 2), (b"d", 1)),
        }
        await peer.nothing()


async def test_options_of_subscriptions_come_back(disk: Disk) -> None:
    async with disk.broker() as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("own", 1, no_local=True, identifier=7)
        await peer.subscribe("kept", 1, retain_as_published=True, retain_handling=2, identifier=8)
    async with disk.broker() as harness:
        peer = await again(harness, "peer")
        await peer.publish("own", b"own", 1)
        await harness.broker.publish("own", b"other", qos=1)
        got = await peer.message(b"other")
        assert got.properties == PublishProperties(subscription_identifiers=(7,))
        await harness.broker.publish("kept", b"x", qos=1, retain=True)
        got = await peer.message(b"x", retain=True)
        assert got.properties == PublishProperties(subscription_identifiers=(8,))


@VERSIONS
async def test_a_session_still_belongs_to_its_user(disk: Disk, version: int) -> None:
    def users() -> HookRecorder:
        return HookRecorder(answers={"authenticate": lambda e: Allow(username=e.username)})

    async with disk.broker(plugins=[users()]) as harness:
        peer = harness.peer("peer", version=version)
        await peer.connect(**lasting(version), username="ann")
    async with disk.broker(plugins=[users()]) as harness:
        eve = harness.peer("peer", version=version)
        await eve.send(eve.connect_packet(**lasting(version), username="eve"))
        await eve.expect_closed(0x85 if version == 5 else 2)
        await again(harness, "peer", version, username="ann")


async def test_clean_start_ends_a_session_from_the_store(disk: Disk) -> None:
    async with disk.broker() as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("a", 1)
        await peer.drop()
        await harness.broker.publish("a", b"x", qos=1)
    async with disk.broker() as harness:
        peer = await harness.connect("peer", clean_start=True)
        await peer.nothing()
    assert disk.state == StoredState()


async def test_each_claim_has_a_higher_epoch(disk: Disk) -> None:
    epochs = []
    for _ in range(3):
        async with disk.broker() as harness:
            peer = harness.peer("peer")
            await peer.connect(clean_start=False, session_expiry_interval=1000)
        epochs.append(disk.state.sessions["peer"].session.epoch)
    assert epochs == [1, 2, 3]


# -- queues


@VERSIONS
async def test_the_queue_keeps_its_order(disk: Disk, version: int) -> None:
    payloads = [b"%d" % number for number in range(1500)]  # more than one page
    limits = {"receive_maximum": 2000}
    async with disk.broker(limits=limits) as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        await peer.subscribe("a", 2)
        await peer.drop()
        for number, payload in enumerate(payloads):
            await harness.broker.publish("a", payload, qos=1 + number % 2)
    for _ in range(2):
        async with disk.broker(limits=limits) as harness:
            (session,) = harness.broker.sessions()
            assert session.waiting == 1500
    async with disk.broker(limits=limits) as harness:
        await harness.broker.publish("a", b"last", qos=1)
        peer = await again(harness, "peer", version)
        got = [(await peer.message()).payload for _ in range(1501)]
        # Each QoS in its order [MQTT-4.6.0-6].
        for own in ([*payloads[::2], b"last"], payloads[1::2]):
            assert [payload for payload in got if payload in set(own)] == own
    assert disk.state.messages == {}


@VERSIONS
async def test_what_was_under_way_comes_again(disk: Disk, version: int) -> None:
    """[MQTT-4.4.0-1]: with its identifier and DUP, in its order, before what waited."""
    window: dict[str, Any] = {"receive_maximum": 3} if version == 5 else {}
    async with disk.broker(limits={"maximum_inflight": 3}) as harness:
        peer = await harness.connect("peer", version=version, **lasting(version), **window)
        await peer.subscribe("a", 2)
        for number in range(5):
            await harness.broker.publish("a", b"%d" % number, qos=1 + number % 2)
        first = [await peer.expect(Publish) for _ in range(3)]
        # One of them is acknowledged, so that the fourth follows.
        done = next(packet for packet in first if packet.payload == b"0")
        await peer.send(PubAck(done.packet_id))
        first.remove(done)
        first.append(await peer.expect(Publish, payload=b"3"))
        identifiers = {packet.payload: packet.packet_id for packet in first}
    async with disk.broker(limits={"maximum_inflight": 3}) as harness:
        peer = await again(harness, "peer", version, **window)
        for payload in (b"1", b"2", b"3"):
            await peer.expect(Publish, payload=payload, dup=True, packet_id=identifiers[payload])
        await peer.nothing()
        await peer.send(PubAck(identifiers[b"2"]))
        last = await peer.expect(Publish, payload=b"4", dup=False)
        assert last.packet_id not in identifiers.values()


@VERSIONS
async def test_qos_2_goes_on_where_it_was(disk: Disk, version: int) -> None:
    """As a sender: PUBLISH, or PUBREL if PUBREC had come; as a receiver: no second delivery."""
    async with disk.broker() as harness:
        peer = await harness.connect("peer", version=version, **lasting(version))
        await peer.subscribe("a", 2)
        for payload in (b"released", b"sent"):
            await harness.broker.publish("a", payload, qos=2)
        released = await peer.expect(Publish, payload=b"released")
        sent = await peer.expect(Publish, payload=b"sent")
        await peer.send(PubRec(released.packet_id))
        await peer.expect(PubRel)
        await peer.send(Publish("b", b"received", 2, packet_id=77))
        await peer.expect(PubRec, packet_id=77)
    async with disk.broker() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("b")
        peer = await again(harness, "peer", version)
        got = await peer.arrived()
        assert {type(packet) for packet in got} == {PubRel, Publish}
        assert PubRel(released.packet_id) in got
        (publish,) = [packet for packet in got if isinstance(packet, Publish)]
        assert (publish.payload, publish.dup, publish.packet_id) == (b"sent", True, sent.packet_id)
        await peer.send(PubComp(released.packet_id), PubRec(sent.packet_id))
        await peer.expect(PubRel, packet_id=sent.packet_id)
        await peer.send(PubComp(sent.packet_id))

        await peer.send(Publish("b", b"received", 2, False, True, 77))
        await peer.expect(PubRec, packet_id=77, reason_code=0)
        await watcher.nothing()
        await peer.send(PubRel(77))
        await peer.expect(PubComp, packet_id=77, reason_code=0)
        await peer.publish("b", b"another", 2)
        await watcher.message(b"another")
    assert disk.state.queues == {"peer": {}}
    assert disk.state.received == {"peer": {}}
    assert disk.state.messages == {}


async def test_what_was_not_promised_may_be_gone_and_what_was_is_there(disk: Disk) -> None:
    """A crash at any moment: here, while the last commit is under way."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("a", 1)
        await peer.drop()
        other = await harness.connect("other")
        await other.publish("a", b"promised", 1)
        store.hang()
        await other.send(Publish("a", b"unanswered", 1, packet_id=9))
        await other.nothing()
        disk.state = store.state.copy()
        store.go_on()
    async with disk.broker() as harness:
        peer = await again(harness, "peer")
        await peer.message(b"promised")
        await peer.nothing()


async def test_one_message_for_many_exists_once(disk: Disk) -> None:
    async with disk.broker() as harness:
        for name in ("ann", "bob"):
            peer = await harness.connect(name, session_expiry_interval=1000)
            await peer.subscribe("a", 1)
            await peer.drop()
        await harness.broker.publish("a", b"x" * 100_000, qos=1)
    async with disk.broker() as harness:
        assert len(disk.state.messages) == 1
        assert harness.broker.statistics().memory < 150_000
        for name in ("ann", "bob"):
            peer = await again(harness, name)
            await peer.message(b"x" * 100_000)
    assert disk.state.messages == {}


async def test_everything_of_a_message_comes_back(disk: Disk) -> None:
    properties = PublishProperties(
        payload_format_indicator=1,
        message_expiry_interval=500,
        content_type="text/plain",
        response_topic="answers",
        correlation_data=b"\0\xff",
        user_properties=(("a", "1"), ("b", "2"), ("a", "3")),
    )
    seen: list[Any] = []

    def look(message: PublishEvent) -> PublishEvent:
        seen.append(message)
        return message

    recorder = HookRecorder(answers={"compile_delivery": lambda event: look})
    async with disk.broker(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("a", 2)
        await peer.drop()
        other = await harness.connect("other")
        await other.publish("a", b"payload", 2, retain=True, properties=properties)
    await trio.sleep(100)
    async with disk.broker(plugins=[recorder]) as harness:
        left = PublishProperties(**{n: getattr(properties, n) for n in properties.__slots__})
        left.message_expiry_interval = 400
        peer = await again(harness, "peer")
        got = await peer.message(b"payload", qos=2, topic="a", retain=False)
        assert got.properties == left
        late = await harness.connect("late")
        await late.subscribe("a", 2)
        got = await late.message(b"payload", qos=2, topic="a", retain=True)
        assert got.properties == left
    assert {(event.client_id, event.origin) for event in seen} == {("other", "client")}


# -- time


@pytest.mark.parametrize("good_order", [True, False])
async def test_sessions_that_ended_meanwhile_are_gone(disk: Disk, good_order: bool) -> None:
    opened = disk.broker_in_good_order if good_order else disk.broker
    async with opened() as harness:
        for name, seconds in (("short", 50), ("long", 500), ("never", 0xFFFFFFFF)):
            peer = await harness.connect(name, session_expiry_interval=seconds)
            await peer.subscribe("a", 1)
            await peer.drop()
        await harness.broker.publish("a", b"x", qos=1)
    await trio.sleep(100)
    async with disk.broker() as harness:
        await trio.sleep(1)
        assert {s.client_id for s in harness.broker.sessions()} == {"long", "never"}
        await trio.sleep(350)
        assert {s.client_id for s in harness.broker.sessions()} == {"long", "never"}
        await trio.sleep(60)
        assert {s.client_id for s in harness.broker.sessions()} == {"never"}
    assert set(disk.state.sessions) == {"never"}
    assert len(disk.state.messages) == 1


async def test_a_session_that_was_connected_when_the_broker_died(disk: Disk) -> None:
    """Its connection ended with the broker; its interval runs from the new start on."""
    async with disk.broker() as harness:
        await harness.connect("peer", session_expiry_interval=50)
    await trio.sleep(100)
    async with disk.broker() as harness:
        await trio.sleep(49)
        assert len(harness.broker.sessions()) == 1
        await trio.sleep(2)
        assert harness.broker.sessions() == []


async def test_an_interval_does_not_begin_anew_with_each_restart(disk: Disk) -> None:
    async with disk.broker() as harness:
        await harness.connect("peer", session_expiry_interval=50)
    for _ in range(3):
        async with disk.broker() as harness:
            assert len(harness.broker.sessions()) == 1
            await trio.sleep(15)
    async with disk.broker() as harness:
        await trio.sleep(10)
        assert harness.broker.sessions() == []


async def test_messages_that_expired_meanwhile_are_gone(disk: Disk) -> None:
    async with disk.broker() as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("#", 1)
        await peer.drop()
        for seconds in (50, 500):
            await harness.broker.publish(
                f"t{seconds}", b"x", qos=1, retain=True, message_expiry_interval=seconds
            )
    await trio.sleep(100)
    async with disk.broker() as harness:
        peer = await again(harness, "peer")
        got = await peer.message(topic="t500")
        assert got.properties is not None
        assert got.properties.message_expiry_interval in (399, 400)
        await peer.nothing()
        await trio.sleep(1)
        assert [message.topic for message in harness.broker.retained()] == ["t500"]
        assert harness.broker.statistics().retained == 1
        await trio.sleep(500)
        assert harness.broker.statistics().retained == 0
    assert disk.state.retained == {}
    assert disk.state.messages == {}


# -- retained messages


async def test_retained_messages_come_back(disk: Disk) -> None:
    async with disk.broker() as harness:
        peer = await harness.connect("peer")
        for number in range(1200):  # more than one page
            await peer.publish(f"r/{number}", b"%d" % number, number % 3, retain=True)
        await peer.publish("r/0", b"", retain=True)
        await harness.broker.publish("$x/y", b"x", retain=True)
        await peer.ping()
    async with disk.broker() as harness:
        assert harness.broker.statistics().retained == 1200
        peer = await harness.connect("peer")
        await peer.subscribe("r/+", 2)
        for _ in range(1199):
            packet = await peer.message(retain=True)
            assert packet.payload == packet.topic[2:].encode()
            assert packet.qos == int(packet.payload) % 3
        await peer.subscribe("$x/#")
        await peer.message(b"x", retain=True)


# -- wills


@VERSIONS
async def test_a_will_is_published_after_a_crash(disk: Disk, version: int) -> None:
    async with disk.broker() as harness:
        watcher = await harness.connect("watcher", session_expiry_interval=1000)
        await watcher.subscribe("wills", 1)
        peer = harness.peer("peer", version=version)
        await peer.connect(**lasting(version), will=Will("wills", b"gone", 1))
    async with disk.broker() as harness:
        watcher = await again(harness, "watcher")
        await watcher.message(b"gone", qos=1)
    assert disk.state.wills == {}


@pytest.mark.parametrize("down", [10, 200])
async def test_the_delay_of_a_will_goes_on(disk: Disk, down: int) -> None:
    properties = PublishProperties(user_properties=(("a", "b"),), message_expiry_interval=60)
    will = Will("wills", b"gone", 1, True, 100, properties)
    async with disk.broker() as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000, will=will)
        await peer.drop()
    begin = trio.current_time()
    await trio.sleep(down)
    async with disk.broker() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        got = await watcher.message(b"gone")
        assert trio.current_time() - begin == pytest.approx(max(100, down), abs=1)
        assert got.properties == properties
    assert disk.state.wills == {}


async def test_who_comes_back_in_time_has_no_will_published(disk: Disk) -> None:
    async with disk.broker() as harness:
        will = Will("wills", b"gone", delay_interval=100)
        peer = await harness.connect("peer", session_expiry_interval=1000, will=will)
        await peer.drop()
    async with disk.broker() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        await again(harness, "peer")
        await trio.sleep(200)
        await watcher.nothing()
    assert disk.state.wills == {}


async def test_a_will_that_was_forgotten_stays_forgotten(disk: Disk) -> None:
    async with disk.broker() as harness:
        will = Will("wills", b"gone", delay_interval=100)
        peer = await harness.connect("peer", session_expiry_interval=1000, will=will)
        await peer.disconnect()
    assert disk.state.wills == {}


async def test_the_end_of_a_session_ends_the_delay_of_its_will(disk: Disk) -> None:
    async with disk.broker() as harness:
        will = Will("wills", b"gone", delay_interval=500)
        peer = await harness.connect("peer", session_expiry_interval=50, will=will)
        await peer.drop()
    async with disk.broker() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        await watcher.message(b"gone")
        assert 45 < trio.current_time() < 55


async def test_a_will_meets_the_hooks_after_a_restart(disk: Disk) -> None:
    async with disk.broker() as harness:
        await harness.connect("peer", session_expiry_interval=1000, will=Will("wills", b"gone"))
    guard = HookRecorder(answers={"authorize_publish": Deny()})
    async with disk.broker(plugins=[guard]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        await watcher.nothing()
        await trio.sleep(1)
    (event,) = guard.of("authorize_publish")
    assert (event.origin, event.client_id, event.topic) == ("will", "peer", "wills")


class Scopes:
    """What a token allows: topics that begin with its word, at last; asked about nothing else."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def authorize_publish(self, event: PublishEvent) -> Any:
        self.asked.append(f"{event.origin} {event.topic}")
        return self.answer

    def authorize_subscribe(self, event: SubscribeEvent) -> Any:
        return Allow()


async def _later(answer: Any) -> Any:
    await trio.sleep(1)
    return answer


@pytest.mark.parametrize(
    ("scopes", "plugin", "published"),
    [
        ("allow", None, True),
        ("allow", Deny(), False),
        ("deny", None, False),
        ("deny", Allow(), False),
        ("none", None, False),  # somebody has to allow it
        ("none", Allow(), True),
    ],
)
@pytest.mark.parametrize("later", [False, True])
async def test_what_permissions_said_of_a_will_holds_after_a_restart(
    disk: Disk, scopes: str, plugin: Any, published: bool, later: bool
) -> None:
    """They came with the credentials and are gone; a will that they forbid must not get through."""
    answer = {"allow": Allow(), "deny": Deny(), "none": None}[scopes]
    permissions = Scopes(answer)
    if later:
        permissions.authorize_publish = lambda event: _later(answer)  # type: ignore[method-assign]
    door = HookRecorder(answers={"authenticate": Allow(permissions=permissions)})
    async with disk.broker(plugins=[door]) as harness:
        watcher = await harness.connect("watcher", session_expiry_interval=1000)
        await watcher.subscribe("wills", 1)
        await harness.connect("peer", session_expiry_interval=1000, will=Will("wills", b"gone", 1))
        await trio.sleep(1)
        assert permissions.asked == ([] if later else ["will wills"])
    assert disk.state.wills["peer"].ruling == scopes
    plugins = [] if plugin is None else [HookRecorder(answers={"authorize_publish": plugin})]
    async with disk.broker(plugins=plugins) as harness:
        watcher = await again(harness, "watcher")
        if published:
            await watcher.message(b"gone")
        else:
            await watcher.nothing()
            await trio.sleep(1)
    assert disk.state.wills == {}


async def test_a_delayed_will_keeps_what_permissions_said_over_two_restarts(disk: Disk) -> None:
    door = HookRecorder(answers={"authenticate": Allow(permissions=Scopes(Deny()))})
    async with disk.broker(plugins=[door]) as harness:
        will = Will("wills", b"gone", delay_interval=100)
        peer = await harness.connect("peer", session_expiry_interval=1000, will=will)
        await peer.drop()
    for _ in range(2):
        async with disk.broker() as harness:
            await trio.sleep(10)
        assert disk.state.wills["peer"].ruling == "deny"
    async with disk.broker() as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        await trio.sleep(200)
        await watcher.nothing()
    assert disk.state.wills == {}


# -- a good end


async def test_a_broker_that_stops_loses_nothing(disk: Disk) -> None:
    async with disk.broker_in_good_order() as harness:
        for number in range(3):
            peer = await harness.connect(f"peer{number}", session_expiry_interval=1000)
            await peer.send(Subscribe(1, (SubscriptionRequest("a", number),)))
            await peer.settle()
        await harness.broker.publish("a", b"x", qos=2, retain=True)
        await harness.broker.publish("b", b"lazy", retain=True)
    assert set(disk.state.retained) == {"a", "b"}
    async with disk.broker() as harness:
        await agree(harness, harness.broker._core.recorder.journal.store)  # type: ignore[arg-type]
        for number in range(1, 3):
            peer = await again(harness, f"peer{number}")
            await peer.message(b"x", qos=number)


async def test_in_process_sessions_come_back(disk: Disk) -> None:
    async with disk.broker() as harness:
        async with harness.broker.subscribe("jobs", session="worker", qos=2) as messages:
            for number in range(3):
                await harness.broker.publish("jobs", b"%d" % number, qos=2)
            first = await messages.receive()
            await first.ack()
            await messages.receive()
    async with disk.broker() as harness:
        await harness.broker.publish("jobs", b"3", qos=1)
        async with harness.broker.subscribe("jobs", session="worker", qos=2) as messages:
            got = [await messages.receive() for _ in range(3)]
            assert [message.payload for message in got] == [b"1", b"2", b"3"]
            for message in got:
                await message.ack()
    assert disk.state.messages == {}
