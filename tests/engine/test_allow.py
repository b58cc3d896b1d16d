"""What an Allow to `authenticate` gives: identity, bounds, permissions, an end."""

import time
from typing import Any

import pytest
import trio

from mqtrio import (
    Allow,
    AuthenticateEvent,
    ClientLimits,
    ConnectionProperties,
    Deny,
    PublishEvent,
    RefusedError,
    SubscribeEvent,
)
from mqtrio.settings import Listener, Settings
from mqtrio.testing import HookRecorder, open_harness
from mqtrio.wire.packets import (
    Auth,
    Packet,
    PubAck,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])


def authenticate(answer: Allow, *hooks: str, **answers: Any) -> HookRecorder:
    return HookRecorder(*hooks, answers={"authenticate": answer, **answers})


@VERSIONS
async def test_username(version: int) -> None:
    recorder = authenticate(
        Allow(username="granted"),
        *("client_connected", "published", "connection_refused", "client_disconnected"),
        admit=None,
        authorize_publish=Allow(),
        authorize_subscribe=Allow(),
    )
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", version=version, username="said", password=b"x")
        await peer.subscribe("a")
        await peer.publish("a", b"x", 1)
        assert [client.username for client in harness.broker.clients()] == ["granted"]
        assert [session.username for session in harness.broker.sessions()] == ["granted"]
        await peer.disconnect()
    # One object tells of the client in all events, so look at what it was when they were told.
    assert {event.username for _, event in recorder.calls} == {"granted"}


async def test_what_the_client_said_is_what_authenticate_is_told() -> None:
    said: list[tuple[str | None, bytes | None, int]] = []

    def look(event: AuthenticateEvent) -> Allow:
        said.append((event.username, event.password, event.keep_alive))
        return Allow(username="granted")

    async with open_harness(plugins=[HookRecorder(answers={"authenticate": look})]) as harness:
        await harness.connect("peer", username="said", password=b"secret", keep_alive=7)
    assert said == [("said", b"secret", 7)]


async def test_nobody_vouches_for_an_anonymous_clients_name() -> None:
    recorder = HookRecorder("client_connected", answers={"authenticate": None})
    open_door = Settings(listener=(Listener(url="stream", allow_anonymous=True),))
    async with open_harness(plugins=[recorder], settings=open_door) as harness:
        await harness.connect("peer", username="ann")
        assert harness.broker.clients()[0].username is None
    assert recorder.of("client_connected")[0].username is None


@VERSIONS
@pytest.mark.parametrize("said", ["said", ""])
async def test_client_id(version: int, said: str) -> None:
    async with open_harness(plugins=[authenticate(Allow(client_id="granted"))]) as harness:
        peer = harness.peer(said, version=version)
        if version == 3 and not said:
            return  # MQTT 3.1 can't ask for one
        connack = await peer.connect()
        assert connack.assigned_client_identifier == ("granted" if version == 5 else None)
        assert [client.client_id for client in harness.broker.clients()] == ["granted"]
        second = harness.peer(said, version=version)
        await second.connect()
        await peer.expect_closed(0x8E if version == 5 else None)


@pytest.mark.parametrize("name", ["$local/worker", "$ended/0/said"])
async def test_a_client_id_of_the_brokers_own_is_not_given(name: str) -> None:
    async with open_harness(plugins=[authenticate(Allow(client_id=name))]) as harness:
        peer = harness.peer("said", version=5)
        await peer.send(peer.connect_packet())
        await peer.expect_closed(0x85)
        assert not harness.broker.sessions()


async def test_the_same_client_id_is_not_assigned() -> None:
    async with open_harness(plugins=[authenticate(Allow(client_id="same"))]) as harness:
        peer = await harness.connect("same")
        assert peer.connack is not None
        assert peer.connack.assigned_client_identifier is None


async def test_properties() -> None:
    properties = ConnectionProperties(
        reason_string="welcome",
        user_properties=(("a", "1"), ("a", "2")),
        response_information="answers/",
    )
    async with open_harness(plugins=[authenticate(Allow(properties=properties))]) as harness:
        peer = harness.peer("peer")
        connack = await peer.connect(request_response_information=True)
        assert connack.reason_string == "welcome"
        assert connack.user_properties == (("a", "1"), ("a", "2"))
        assert connack.response_information == "answers/"
        peer = harness.peer("unasked")
        connack = await peer.connect()
        assert connack.response_information is None  # [MQTT-3.1.2-28]
        small = harness.peer("small")
        connack = await small.connect(maximum_packet_size=25)
        assert connack.reason_string is None
        assert connack.user_properties == ()
        old = await harness.connect("old", version=4)
        await old.ping()


@pytest.mark.parametrize("said", [0, 5, 200])
async def test_expires_at(said: float) -> None:
    """Credentials end at a moment of the wall clock, whatever the client does."""
    recorder = authenticate(Allow(expires_at=time.time() + 100), "client_disconnected")
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", keep_alive=said, will=Will("will", b"x"))
        for _ in range(24):
            await trio.sleep(4)
            await peer.ping()
        await peer.expect_closed(0x87)
        assert 95 < trio.current_time() < 105
    assert recorder.of("client_disconnected")[0].reason_code == 0x87


@VERSIONS
@pytest.mark.parametrize("ago", [0, 1, 86400, 10**9])
async def test_credentials_that_ended_long_ago(version: int, ago: float) -> None:
    async with open_harness(plugins=[authenticate(Allow(expires_at=time.time() - ago))]) as harness:
        peer = harness.peer("peer", version=version)
        await peer.send(peer.connect_packet())
        await peer.expect_closed(0x87 if version == 5 else 5)
        assert harness.broker.sessions() == []


class Below:
    """Permissions: topics below a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def authorize_publish(self, event: PublishEvent) -> Allow | None:
        return Allow() if event.topic.startswith(self.prefix) else None

    async def authorize_subscribe(self, event: SubscribeEvent) -> Allow | None:
        await trio.sleep(1)
        return Allow(max_qos=1) if event.topic_filter.startswith(self.prefix) else None


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("retain", [False, True])
async def test_permissions(qos: int, retain: bool) -> None:
    def allow(event: AuthenticateEvent) -> Allow:
        return Allow(permissions=Below(f"{event.client_id}/"))

    recorder = HookRecorder(answers={"authenticate": allow})
    async with open_harness(plugins=[recorder]) as harness:
        for name, other in (("ann", "bob"), ("bob", "ann")):
            peer = await harness.connect(name, will=Will(f"{other}/will", b"no"))
            await peer.subscribe(f"{name}/#", 1)
            await peer.publish(f"{name}/x", b"mine", qos, retain=retain)
            await peer.message(b"mine")
            await peer.send(Publish(f"{other}/x", b"no", qos, retain, packet_id=9))
            refused: Packet = PubAck(9, 0x87) if qos == 1 else PubRec(9, 0x87)
            assert await peer.receive() == refused
            requests = tuple(SubscriptionRequest(f, 2) for f in ("#", f"{name}/y", f"{other}/y"))
            await peer.send(Subscribe(3, requests))
            await peer.expect(SubAck, reason_codes=(0x87, 1, 0x87))
        await harness.peers[0].drop()
        await harness.peers[1].nothing()  # the will was not ann's to publish
        assert harness.broker.statistics().dropped == {"refused": 1}


async def test_permissions_are_one_more_authorizer() -> None:
    """A Deny of a plugin stands; its Allow is enough where permissions have no opinion."""

    def plugin(event: Any) -> Allow | Deny | None:
        topic = event.topic
        return Deny() if topic.endswith("no") else Allow() if topic.endswith("yes") else None

    recorder = authenticate(Allow(permissions=Below("mine/")), authorize_publish=plugin)
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        codes = []
        for topic in ("mine/x", "mine/no", "other/yes", "other/x"):
            await peer.send(Publish(topic, b"x", 1, packet_id=1))
            codes.append((await peer.expect(PubAck)).reason_code)
        assert codes == [0x10, 0x87, 0x10, 0x87]


# -- limits


async def test_limit_receive_maximum() -> None:
    allow = Allow(limits=ClientLimits(receive_maximum=2))
    async with open_harness(plugins=[authenticate(allow)]) as harness:
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.receive_maximum == 2
        await peer.send(*(Publish("a", b"x", 2, packet_id=number) for number in (1, 2)))
        await peer.expect(PubRec, packet_id=1)
        await peer.expect(PubRec, packet_id=2)
        await peer.send(Publish("a", b"x", 1, packet_id=3))
        await peer.expect_closed(0x93)


@VERSIONS
async def test_limit_maximum_packet_size(version: int) -> None:
    allow = Allow(limits=ClientLimits(maximum_packet_size=200))
    async with open_harness(plugins=[authenticate(allow)]) as harness:
        peer = await harness.connect("peer", version=version)
        assert peer.connack is not None
        assert peer.connack.maximum_packet_size == (200 if version == 5 else None)
        await peer.publish("a", b"x" * 190, 1)
        await peer.send(Publish("a", b"x" * 200))
        await peer.expect_closed(0x95 if version == 5 else None)


async def test_limit_topic_alias_maximum() -> None:
    for maximum in (0, 3):
        allow = Allow(limits=ClientLimits(topic_alias_maximum=maximum))
        async with open_harness(plugins=[authenticate(allow)]) as harness:
            peer = await harness.connect("peer")
            assert peer.connack is not None
            assert peer.connack.topic_alias_maximum == (maximum or None)
            if maximum:
                properties = PublishProperties(topic_alias=maximum)
                await peer.publish("a", b"x", 1, properties=properties)
            properties = PublishProperties(topic_alias=maximum + 1)
            await peer.send(Publish("a", b"x", properties=properties))
            await peer.expect_closed(0x94)


async def test_limit_maximum_inflight() -> None:
    allow = Allow(limits=ClientLimits(maximum_inflight=2))
    async with open_harness(plugins=[authenticate(allow)]) as harness:
        for name, asked, window in (("a", None, 2), ("b", 1, 1), ("c", 10, 2)):
            peer = await harness.connect(name, receive_maximum=asked)
            await peer.subscribe(name, 1)
            for _ in range(4):
                await harness.broker.publish(name, "x", qos=1)
            got = [packet for packet in await peer.arrived() if isinstance(packet, Publish)]
            assert len(got) == window
            await peer.send(PubAck(got[0].packet_id))
            assert len(await peer.arrived()) == 1


async def test_limit_maximum_expiry_interval() -> None:
    allow = Allow(limits=ClientLimits(maximum_expiry_interval=50))
    async with open_harness(plugins=[authenticate(allow)]) as harness:
        for asked, told in ((40, None), (60, 50), (0xFFFFFFFF, 50), (0, None)):
            peer = await harness.connect("peer", session_expiry_interval=asked)
            assert peer.connack is not None
            assert peer.connack.session_expiry_interval == told
        peer = await harness.connect("peer", session_expiry_interval=10)
        await peer.disconnect(session_expiry_interval=1000)
        await trio.sleep(49)
        assert len(harness.broker.sessions()) == 1
        await trio.sleep(2)
        assert harness.broker.sessions() == []
        old = await harness.connect("old", version=4, clean_start=False)
        await old.drop()
        await trio.sleep(51)
        assert harness.broker.sessions() == []


async def test_limit_maximum_keep_alive() -> None:
    allow = Allow(limits=ClientLimits(maximum_keep_alive=10))
    async with open_harness(plugins=[authenticate(allow)]) as harness:
        for asked, told in ((0, 10), (60, 10), (10, None), (5, None)):
            peer = await harness.connect("peer", keep_alive=asked)
            assert peer.connack is not None
            assert peer.connack.server_keep_alive == told
        before = trio.current_time()
        peer = await harness.connect("peer", keep_alive=0)
        await peer.expect_closed(0x8D)
        assert trio.current_time() - before == pytest.approx(15)


async def test_limit_subscriptions() -> None:
    allow = Allow(limits=ClientLimits(subscriptions=2))
    async with open_harness(plugins=[authenticate(allow)]) as harness:
        peer = await harness.connect("peer")
        requests = tuple(SubscriptionRequest(name) for name in ("a", "b", "c", "a"))
        await peer.send(Subscribe(1, requests))
        await peer.expect(SubAck, reason_codes=(0, 0, 0x97, 0))
        await peer.unsubscribe("a")
        await peer.subscribe("c")


@pytest.mark.parametrize("limits", [ClientLimits(queue_messages=2), ClientLimits(queue_bytes=500)])
async def test_limit_of_the_queue(limits: ClientLimits) -> None:
    allow = Allow(limits=limits)
    async with open_harness(plugins=[authenticate(allow)]) as harness:
        peer = await harness.connect("peer", session_expiry_interval=100)
        await peer.subscribe("a", 1)
        await peer.drop()
        payloads = [bytes([number]) * 100 for number in range(3)]
        for payload in payloads[:2]:
            await harness.broker.publish("a", payload, qos=1)
        with pytest.raises(RefusedError) as caught:
            await harness.broker.publish("a", payloads[2], qos=1)
        assert caught.value.reason_code == 0x97
        again = harness.peer("peer")
        await again.connect(clean_start=False)
        for payload in payloads[:2]:
            await again.message(payload)
        await again.nothing()


# -- QoS


@pytest.mark.parametrize("maximum", [0, 1])
async def test_max_qos(maximum: int) -> None:
    async with open_harness(plugins=[authenticate(Allow(max_qos=maximum))]) as harness:
        peer = await harness.connect("peer")
        assert peer.connack is not None
        assert peer.connack.maximum_qos == maximum
        await peer.subscribe("#", 2)  # what it may receive is another matter
        await harness.broker.publish("a", "x", qos=2)
        await peer.message(b"x", qos=2)
        for qos in range(maximum + 1):
            await peer.publish("a", b"x", qos)
            await peer.message(b"x", qos=qos)
        await peer.send(Publish("a", b"x", maximum + 1, packet_id=1))
        await peer.expect_closed(0x9B)
        refused = harness.peer("refused")
        await refused.send(refused.connect_packet(will=Will("a", b"", maximum + 1)))
        await refused.expect_closed(0x9B)
        old = harness.peer("old", version=4)
        await old.connect()
        await old.send(Publish("a", b"x", maximum + 1, packet_id=1))
        await old.expect_closed()


# -- remember


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_remember(qos: int) -> None:
    def judge(event: PublishEvent) -> Allow | Deny:
        return Allow(remember=True) if event.topic != "no" else Deny()

    recorder = HookRecorder("published", answers={"authorize_publish": judge})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        for topic in ("a", "a", "b", "no", "no", "a"):
            await peer.send(Publish(topic, b"x", qos, packet_id=1 if qos else 0))
            for packet in await peer.arrived():
                if isinstance(packet, PubRec) and packet.reason_code < 0x80:
                    await peer.send(PubRel(1))
                    await peer.arrived()
    assert [event.topic for event in recorder.of("authorize_publish")] == ["a", "b", "no", "no"]
    assert [event.topic for event in recorder.of("published")] == ["a", "a", "b", "a"]


async def test_remember_ends_with_a_new_authentication() -> None:
    recorder = HookRecorder(
        answers={"authenticate": Allow(), "authorize_publish": Allow(remember=True)}
    )
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", authentication_method="M")
        await peer.publish("a", b"x", 1)
        await peer.publish("a", b"x", 1)
        assert len(recorder.of("authorize_publish")) == 1
        await peer.send(Auth(0x19, "M"))
        await peer.expect(Auth, reason_code=0)
        await peer.publish("a", b"x", 1)
        assert len(recorder.of("authorize_publish")) == 2


async def test_an_alias_is_remembered_by_its_topic() -> None:
    recorder = HookRecorder(answers={"authorize_publish": Allow(remember=True)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer")
        await peer.publish("a", b"x", 1, properties=PublishProperties(topic_alias=1))
        await peer.publish("", b"x", 1, properties=PublishProperties(topic_alias=1))
        await peer.publish("b", b"x", 1, properties=PublishProperties(topic_alias=1))
        await peer.publish("", b"x", 1, properties=PublishProperties(topic_alias=1))
    assert [event.topic for event in recorder.of("authorize_publish")] == ["a", "b"]


async def test_remember_of_one_of_two_is_not_enough() -> None:
    plugins = [
        HookRecorder(answers={"authorize_publish": Allow(remember=remember)})
        for remember in (True, False)
    ]
    async with open_harness(plugins=plugins) as harness:
        peer = await harness.connect("peer")
        await peer.publish("a", b"x", 1)
        await peer.publish("a", b"x", 1)
    assert [len(plugin.calls) for plugin in plugins] == [2, 2]
