"""paho-mqtt: what works in all versions of MQTT, and what is new in 5."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from tests.clients.paho_peer import EXPIRY, V3, V4, V5, PahoPeer, paho, properties
from tests.clients.serving import MIB, Running, topic
from tests.conformance.peer import unique

Make = Callable[..., AbstractContextManager[PahoPeer]]

NO_MATCHING_SUBSCRIBERS = 0x10
TAKEN_OVER = 0x8E


@pytest.fixture(params=[V3, V4, V5], ids=["3.1", "3.1.1", "5"])
def make(broker: Running, request: pytest.FixtureRequest) -> Make:
    """Makes clients of one version."""

    def made(**arguments: Any) -> AbstractContextManager[PahoPeer]:
        version: MQTTProtocolVersion = request.param
        return paho(broker, version, **arguments)

    return made


@pytest.fixture
def make5(broker: Running) -> Make:
    """Makes clients of MQTT 5."""
    return lambda **arguments: paho(broker, V5, **arguments)


@pytest.fixture
def other(broker: Running) -> Iterator[PahoPeer]:
    """One more client."""
    with paho(broker, V4) as peer:
        yield peer


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_round_trip(make: Make, qos: int, granted: int) -> None:
    name = topic("room", "1")
    with make() as subscriber, make() as publisher:
        assert subscriber.subscribe(name.replace("room", "+"), qos=granted) == [granted]
        assert publisher.publish(name, b"21.5", qos) == 0
        message = subscriber.receive()
    assert (message.topic, message.payload) == (name, b"21.5")
    assert message.qos == min(qos, granted)
    assert not message.retain


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_many_messages_keep_their_order(make: Make, qos: int) -> None:
    name = topic()
    wanted = [str(number).encode() for number in range(500)]
    with make() as subscriber, make() as publisher:
        subscriber.subscribe(name, qos=qos)
        for payload in wanted:
            publisher.send(name, payload, qos)
        assert subscriber.payloads(len(wanted)) == wanted


def test_retained(make: Make) -> None:
    name = topic("state")
    with make() as client:
        client.publish(name, b"off", 1, retain=True)
        client.publish(name, b"on", 1, retain=True)
        client.subscribe(name, qos=1)
        message = client.receive()
        assert (message.payload, message.retain) == (b"on", True)
        client.publish(name, b"", 1, retain=True)
        assert client.receive().payload == b""
        client.unsubscribe(name)
        client.subscribe(name, qos=1)
        client.publish(name, b"marker", 1)
        message = client.receive()
        assert (message.payload, message.retain) == (b"marker", False)


@pytest.mark.parametrize("retain", [False, True])
def test_will(make: Make, other: PahoPeer, retain: bool) -> None:
    name = topic("will")
    other.subscribe(name, qos=1)
    will = {"topic": name, "payload": b"gone", "qos": 1, "retain": retain}
    with make(will=will) as client:
        client.die()
        assert other.receive().payload == b"gone"
    with make(will=will) as client:
        client.disconnect()
        other.publish(name, b"marker")
        assert other.receive().payload == b"marker"
    with make() as late:
        late.subscribe(name)
        if retain:
            message = late.receive()
            assert (message.payload, message.retain) == (b"gone", True)
            late.publish(name, b"", retain=True)
        else:
            late.publish(name, b"marker")
            assert late.receive().payload == b"marker"


@pytest.mark.parametrize("politely", [False, True])
def test_resume_with_queued_messages(make: Make, other: PahoPeer, politely: bool) -> None:
    name, client_id = topic(), unique()
    with make(client_id=client_id, resume=True) as client:
        assert not client.session_present
        client.subscribe(f"{name}/#", qos=2)
        if politely:
            client.disconnect()
        else:
            client.die()
    wanted = [(f"{name}/{number}", number % 2 + 1) for number in range(20)]
    for where, qos in wanted:
        other.publish(where, b"queued", qos)
    with make(client_id=client_id, resume=True) as client:
        if client.version != V3:  # MQTT 3.1 has no such flag
            assert client.session_present
        got = [(message.topic, message.qos) for message in (client.receive() for _ in wanted)]
        for qos in (1, 2):  # paho gives out a QoS 2 message when its exchange is over
            assert [m for m in got if m[1] == qos] == [m for m in wanted if m[1] == qos]
    with make(client_id=client_id) as client:  # not to be resumed: the session ends
        assert not client.session_present
        other.publish(f"{name}/after", b"lost", 1)
        client.subscribe(f"{name}/marker")
        client.publish(f"{name}/marker", b"marker")
        assert client.receive().payload == b"marker"


def test_take_over(make: Make, other: PahoPeer) -> None:
    """The newer connection of a client identifier wins, and the older one's will is published."""
    name, client_id = topic("will"), unique()
    other.subscribe(name)
    with make(client_id=client_id, will={"topic": name, "payload": b"taken over"}) as old:
        with make(client_id=client_id) as new:
            reason = old.disconnected()
            if old.version == V5:
                assert reason.value == TAKEN_OVER
            assert other.receive().payload == b"taken over"
            new.subscribe(name)
            new.publish(name, b"alive")
            assert new.receive().payload == b"alive"


@pytest.mark.parametrize("qos", [0, 1])
def test_shared_subscription(make: Make, other: PahoPeer, qos: int) -> None:
    name, count = topic(), 60
    with ExitStack() as stack:
        members = [stack.enter_context(make()) for _ in range(3)]
        everything = stack.enter_context(make())
        everything.subscribe(name, qos=qos)
        for member in members:
            assert member.subscribe(f"$share/workers/{name}", qos=qos) == [qos]
        for number in range(count):
            other.publish(name, str(number).encode(), qos)
        shares = [_drain(other, name, member) for member in members]
        assert Counter(chain(*shares)) == Counter(str(n).encode() for n in range(count))
        assert all(shares), "a member got nothing"
        assert len(everything.payloads(count)) == count


def _drain(publisher: PahoPeer, name: str, member: PahoPeer) -> list[bytes]:
    """All that a member has got; what is published now comes behind it."""
    marker = f"{name}/marker"
    member.subscribe(marker)
    publisher.publish(marker, b"marker")
    got = []
    while (message := member.receive()).topic != marker:
        got.append(message.payload)
    return got


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_mebibyte(make: Make, qos: int) -> None:
    name = topic()
    payload = bytes(range(256)) * (MIB // 256)
    with make() as subscriber, make() as publisher:
        subscriber.subscribe(name, qos=qos)
        publisher.publish(name, payload, qos)
        publisher.publish(name, payload[::-1], qos)
        assert subscriber.receive().payload == payload
        assert subscriber.receive().payload == payload[::-1]


@pytest.mark.parametrize("at_once", [1, 100, 1000])
def test_a_thousand_subscriptions(make: Make, other: PahoPeer, at_once: int) -> None:
    name = topic()
    topics = [f"{name}/{number}" for number in range(1000)]
    with make() as client:
        for start in range(0, len(topics), at_once):
            client.subscribe(*topics[start : start + at_once], qos=1)
        for where in topics:
            other.send(where, where.encode(), 1)
        got = [client.receive() for _ in topics]
        assert [message.topic for message in got] == topics
        client.unsubscribe(topics[0])
        other.publish(topics[0], b"no more")
        other.publish(topics[1], b"still")
        assert client.receive().payload == b"still"


# -- MQTT 5


def test_request_and_response(make5: Make) -> None:
    requests, responses = topic("requests"), topic("responses")
    with make5() as requester, make5() as responder:
        responder.subscribe(requests, qos=1)
        requester.subscribe(responses, qos=1)
        requester.publish(
            requests,
            b"2 + 3",
            1,
            ResponseTopic=responses,
            CorrelationData=b"\x00\x01 number 1",
            UserProperty=[("b", "2"), ("a", "1"), ("b", "1")],
            ContentType="text/x-sum",
            PayloadFormatIndicator=1,
        )
        request = responder.receive()
        asked = request.properties
        assert asked.UserProperty == [("b", "2"), ("a", "1"), ("b", "1")]
        assert asked.ContentType == "text/x-sum"
        assert asked.PayloadFormatIndicator == 1
        responder.publish(
            asked.ResponseTopic, b"5", 1, CorrelationData=asked.CorrelationData, retain=False
        )
        response = requester.receive()
    assert response.payload == b"5"
    assert response.properties.CorrelationData == b"\x00\x01 number 1"


def test_what_connack_says(make5: Make) -> None:
    with make5(client_id="", ReceiveMaximum=10) as client:
        said = client.connack
        assert said.AssignedClientIdentifier
        assert said.TopicAliasMaximum > 0
        assert said.ReceiveMaximum > 0
    with make5(resume=True, SessionExpiryInterval=EXPIRY) as client:
        assert not hasattr(client.connack, "AssignedClientIdentifier")


def test_reason_codes(make5: Make) -> None:
    name = topic()
    with make5() as client:
        assert client.publish(name, b"nobody", 1) == NO_MATCHING_SUBSCRIBERS
        assert client.subscribe(f"{name}/a", f"{name}/b/#", qos=2) == [2, 2]
        assert client.publish(f"{name}/a", b"somebody", 1) == 0


def test_topic_alias(make5: Make) -> None:
    name = topic("a", "name", "that", "is", "long", "to", "send", "each", "time")
    with make5() as subscriber, make5() as publisher:
        subscriber.subscribe(name, qos=1)
        publisher.publish(name, b"1", 1, TopicAlias=1)
        publisher.publish("", b"2", 1, TopicAlias=1)
        publisher.publish("", b"3", 0, TopicAlias=1)
        got = [subscriber.receive() for _ in range(3)]
        assert [(message.topic, message.payload) for message in got] == [
            (name, b"1"),
            (name, b"2"),
            (name, b"3"),
        ]


def test_subscription_identifiers(make5: Make) -> None:
    name = topic()
    with make5() as client:
        for number, topic_filter in ((7, f"{name}/+"), (268_435_455, f"{name}/a")):
            wanted = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=number)
            client.subscribe(topic_filter, qos=1, wanted=wanted)
        client.publish(f"{name}/b", b"one", 1)
        message = client.receive()
        assert message.properties.SubscriptionIdentifier == [7]
        client.publish(f"{name}/a", b"both", 1)
        seen: list[int] = []
        while len(seen) < 2:  # as one message or as two: the standard leaves it open
            message = client.receive()
            assert message.payload == b"both"
            seen += message.properties.SubscriptionIdentifier
        assert sorted(seen) == [7, 268_435_455]


def test_subscribe_options(make5: Make, other: PahoPeer) -> None:
    name = topic()
    with make5() as client:
        client.publish(name, b"kept", 1, retain=True)
        client.subscribe(name, noLocal=True, retainAsPublished=True, retainHandling=2)
        client.publish(name, b"own")
        other.publish(name, b"other's", 1, retain=True)
        message = client.receive()
        assert (message.payload, message.retain) == (b"other's", True)
        other.publish(name, b"", 1, retain=True)
        assert client.receive().payload == b""


def test_message_expiry(make5: Make, other: PahoPeer) -> None:
    name, client_id = topic(), unique()
    with make5(client_id=client_id, resume=True) as client:
        client.subscribe(name, qos=1)
        client.disconnect()
    with make5() as publisher:
        publisher.publish(name, b"gone at once", 1, MessageExpiryInterval=0)
        publisher.publish(name, b"stays", 1, MessageExpiryInterval=1000)
    with make5(client_id=client_id, resume=True) as client:
        message = client.receive()
        assert message.payload == b"stays"
        assert 0 < message.properties.MessageExpiryInterval <= 1000


def test_will_of_mqtt_5(make5: Make, other: PahoPeer) -> None:
    """A will with a delay and properties; its session ends, and that publishes it."""
    name, client_id = topic("will"), unique()
    will = {
        "topic": name,
        "payload": b"gone",
        "qos": 1,
        "properties": properties(
            PacketTypes.WILLMESSAGE,
            WillDelayInterval=EXPIRY,
            ContentType="text/plain",
            UserProperty=[("why", "it died")],
        ),
    }
    with make5() as watcher:
        watcher.subscribe(name, qos=1)
        with make5(client_id=client_id, resume=True, will=will) as client:
            client.die()
        with make5(client_id=client_id, resume=True) as client:  # back in time: no will
            assert client.session_present
            client.publish(name, b"back", 1)
            assert watcher.receive().payload == b"back"
            client.disconnect()
        with make5(client_id=client_id, resume=True, will=will) as client:
            client.die()
        with make5(client_id=client_id, resume=False):  # ends the session, so the will is due
            message = watcher.receive()
    assert message.payload == b"gone"
    assert message.properties.ContentType == "text/plain"
    assert message.properties.UserProperty == [("why", "it died")]


def test_flow_control(make5: Make, other: PahoPeer) -> None:
    """A client that takes two at a time gets all of them, in order."""
    name = topic()
    with make5(ReceiveMaximum=2) as client:
        client.subscribe(name, qos=2)
        wanted = [str(number).encode() for number in range(50)]
        for payload in wanted:
            other.send(name, payload, 2)
        assert client.payloads(len(wanted)) == wanted


def test_a_packet_that_is_too_large(make5: Make, other: PahoPeer) -> None:
    """A client with a maximum packet size gets what fits, and stays connected."""
    name = topic()
    with make5(MaximumPacketSize=500) as client:
        client.subscribe(name, qos=1)
        other.publish(name, b"x" * 600, 1)
        other.publish(name, b"small", 1)
        assert client.receive().payload == b"small"
        assert client.messages.empty()
