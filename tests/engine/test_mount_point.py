"""Mount points: a prefix to all topics of a listener's clients, which they never see."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mqtrio import Allow, Deny, ReasonCode
from mqtrio.testing import FaultyStore, HookRecorder, open_harness
from mqtrio.wire.packets import (
    Disconnect,
    PubAck,
    Publish,
    PublishProperties,
    PubRec,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    Will,
)

A, B = "mqtt://127.0.0.1:1", "mqtt://127.0.0.1:2"
LISTENERS = [
    {"url": A, "mount_point": "site-a/"},
    {"url": B, "mount_point": "site-b/x/"},
]
QOS = pytest.mark.parametrize("qos", [0, 1, 2])
VERSION = pytest.mark.parametrize("version", [3, 4, 5])


def harness(**options: Any) -> Any:
    return open_harness(listener=LISTENERS, **options)


@VERSION
@QOS
async def test_what_clients_publish_lies_below_it_and_is_seen_without_it(
    version: int, qos: int, autojump_clock: MockClock
) -> None:
    async with harness() as broker:
        inside = await broker.connect("in", listener=A, version=version)
        outside = await broker.connect("out", version=version)
        other = await broker.connect("other", listener=B, version=version)
        for peer in (inside, outside, other):
            await peer.subscribe("#", 2)
        await inside.publish("t/1", b"x", qos)
        await inside.message(b"x", topic="t/1", qos=qos)
        await outside.message(b"x", topic="site-a/t/1", qos=qos)
        await outside.publish("site-a/t/1", b"y", qos)
        await inside.message(b"y", topic="t/1", qos=qos)
        await outside.message(b"y", topic="site-a/t/1", qos=qos)
        await other.publish("t", b"z", qos)
        await other.message(b"z", topic="t", qos=qos)
        await outside.message(b"z", topic="site-b/x/t", qos=qos)
        for peer in (inside, outside, other):
            await peer.nothing()


@pytest.mark.parametrize("count", [1, 3])
@QOS
async def test_a_row_of_messages_goes_the_same_way(
    qos: int, count: int, autojump_clock: MockClock
) -> None:
    """Nothing of the short way of frames is taken, in neither direction."""
    async with harness() as broker:
        inside = [await broker.connect(f"in{n}", listener=A) for n in range(count)]
        outside = await broker.connect("out")
        for peer in (*inside, outside):
            await peer.subscribe("site-a/t" if peer is outside else "t", 2)
        for source, topic in ((inside[0], "t"), (outside, "site-a/t")):
            await source.send(
                *(Publish(topic, b"%d" % n, qos, packet_id=n if qos else 0) for n in range(1, 9))
            )
            for peer in (*inside, outside):
                got = [p for p in await peer.arrived() if isinstance(p, Publish)]
                assert [p.payload for p in got] == [b"%d" % n for n in range(1, 9)]
                assert {p.topic for p in got} == {"site-a/t" if peer is outside else "t"}


async def test_hooks_see_the_full_topic(autojump_clock: MockClock) -> None:
    recorder = HookRecorder(
        "published",
        "delivered",
        "subscribed",
        "unsubscribed",
        answers={
            "authorize_publish": lambda e: Deny() if "secret" in e.topic else Allow(),
            "authorize_subscribe": lambda e: Allow(),
            "transform_publish": None,
            "compile_delivery": None,
        },
    )
    async with harness(plugins=[recorder]) as broker:
        peer = await broker.connect("in", listener=A)
        await peer.subscribe("$share/g/t", 1)
        await peer.publish("t", b"x", 1)
        await peer.message(b"x", topic="t")
        await peer.send(Publish("secret", b"x", 1, packet_id=77))
        await peer.expect(PubAck, packet_id=77, reason_code=ReasonCode.NOT_AUTHORIZED)
        await peer.unsubscribe("$share/g/t")
    for hook in ("published", "delivered", "transform_publish"):
        assert [event.topic for event in recorder.of(hook)] == ["site-a/t"], hook
    for hook in ("authorize_subscribe", "subscribed", "unsubscribed", "compile_delivery"):
        [event] = recorder.of(hook)
        assert event.topic_filter == "$share/g/site-a/t", hook


async def test_aliases_stand_for_the_clients_own_topics(autojump_clock: MockClock) -> None:
    async with harness() as broker:
        peer = await broker.connect("in", listener=A, topic_alias_maximum=1)
        outside = await broker.connect("out")
        await outside.subscribe("site-a/t", 1)
        await peer.subscribe("t", 1)
        alias = PublishProperties(topic_alias=1)
        for topic in ("t", "", ""):
            await peer.send(Publish(topic, b"x", 0, properties=_copy(alias)))
        got = [p for p in await peer.arrived() if isinstance(p, Publish)]
        assert [p.topic for p in got] == ["t", "", ""]  # and ours stand for them, too
        for _ in range(3):
            await outside.message(b"x", topic="site-a/t")


def _copy(properties: PublishProperties) -> PublishProperties:
    return PublishProperties(*properties.fields())  # type: ignore[arg-type]


@QOS
async def test_response_topics_are_translated_where_they_lie_below_it(
    qos: int, autojump_clock: MockClock
) -> None:
    async with harness() as broker:
        inside = await broker.connect("in", listener=A)
        outside = await broker.connect("out")
        await inside.subscribe("ask", 2)
        await outside.subscribe("site-a/ask", 2)

        async def ask(source: Any, topic: str, response_topic: str) -> None:
            properties = PublishProperties(
                response_topic=response_topic, correlation_data=b"1", user_properties=(("a", "b"),)
            )
            await source.publish(topic, b"?", qos, properties=properties)

        async def asked(peer: Any) -> str:
            packet = await peer.message(b"?")
            assert packet.properties.correlation_data == b"1"
            assert packet.properties.user_properties == (("a", "b"),)
            answer: str = packet.properties.response_topic
            return answer

        await ask(inside, "ask", "answers/1")
        assert await asked(inside) == "answers/1"
        assert await asked(outside) == "site-a/answers/1"
        await ask(outside, "site-a/ask", "site-a/answers/2")
        assert await asked(inside) == "answers/2"
        assert await asked(outside) == "site-a/answers/2"
        await ask(outside, "site-a/ask", "elsewhere")
        assert await asked(inside) == "elsewhere"
        assert await asked(outside) == "elsewhere"


@VERSION
@QOS
async def test_retained_messages_are_replayed_below_it(
    version: int, qos: int, autojump_clock: MockClock
) -> None:
    async with harness() as broker:
        outside = await broker.connect("out")
        await outside.publish("site-a/t", b"a", qos, retain=True)
        await outside.publish("site-a", b"above", qos, retain=True)
        await outside.publish("site-b/x/t", b"b", qos, retain=True)
        inside = await broker.connect("in", listener=A, version=version)
        await inside.subscribe("#", 2)
        await inside.message(b"a", topic="t", retain=True)
        await inside.nothing()
        await inside.publish("kept", b"k", qos, retain=True)
        await inside.settle()
        assert [m.topic for m in broker.broker.retained("site-a/kept")] == ["site-a/kept"]


@QOS
async def test_what_a_wildcard_finds_above_it_or_with_a_dollar_is_not_delivered(
    qos: int, autojump_clock: MockClock
) -> None:
    recorder = HookRecorder("dropped")
    async with harness(plugins=[recorder]) as broker:
        inside = await broker.connect("in", listener=A)
        await inside.subscribe("#", 2)
        outside = await broker.connect("out")
        for topic in ("site-a", "site-a/", "site-a/$x"):
            await outside.publish(topic, b"no", qos)
        await outside.publish("site-a/t", b"yes", qos)
        await inside.message(b"yes", topic="t")
        await inside.nothing()
        assert broker.broker.statistics().dropped == {"mount_point": 3}
        [session] = [s for s in broker.broker.sessions() if s.client_id == "in"]
        assert (session.inflight, session.waiting) == (0, 0)
    assert {event.reason for event in recorder.of("dropped")} == {"mount_point"}


async def test_topics_with_a_dollar_are_not_for_them(autojump_clock: MockClock) -> None:
    async with harness() as broker:
        inside = await broker.connect("in", listener=A)
        outside = await broker.connect("out")
        await outside.subscribe("site-a/#", 2)
        await inside.subscribe("$SYS/#")  # granted, as always; nothing is there
        await inside.send(Publish("$SYS/x", b"x", 1, packet_id=1))
        await inside.expect(PubAck, packet_id=1, reason_code=ReasonCode.NOT_AUTHORIZED)
        await inside.send(Publish("$SYS/x", b"x", 2, packet_id=2))
        await inside.expect(PubRec, packet_id=2, reason_code=ReasonCode.NOT_AUTHORIZED)
        await inside.send(Publish("$SYS/x", b"x"))
        await inside.ping()
        await outside.nothing()
        peer = broker.peer("will", listener=A)
        await peer.send(peer.connect_packet(will=Will("$x", b"x")))
        await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)


@QOS
async def test_wills_lie_below_it(qos: int, autojump_clock: MockClock) -> None:
    recorder = HookRecorder(answers={"authenticate": Allow(), "admit": None})
    async with harness(plugins=[recorder]) as broker:
        async with broker.broker.subscribe("#", qos=qos) as messages:
            properties = PublishProperties(response_topic="r")
            inside = await broker.connect(
                "in", listener=A, will=Will("gone", b"x", qos, properties=properties)
            )
            await inside.drop()
            message = await messages.receive()
            assert (message.topic, message.response_topic) == ("site-a/gone", "site-a/r")
    for hook in ("authenticate", "admit"):
        assert recorder.of(hook)[0].will.topic == "site-a/gone"


@QOS
async def test_shared_subscriptions_are_shared_across_it(
    qos: int, autojump_clock: MockClock
) -> None:
    async with harness() as broker:
        inside = await broker.connect("in", listener=A)
        outside = await broker.connect("out")
        await inside.subscribe("$share/g/t/+", 2)
        await outside.subscribe("$share/g/site-a/t/+", 2)
        for number in range(4):
            await broker.broker.publish(f"site-a/t/{number}", b"x", qos=qos)
        got = {
            peer: [p.topic for p in await peer.arrived() if isinstance(p, Publish)]
            for peer in (inside, outside)
        }
    assert sorted(f"site-a/{topic}" for topic in got[inside]) != []
    assert sorted([*(f"site-a/{topic}" for topic in got[inside]), *got[outside]]) == [
        f"site-a/t/{number}" for number in range(4)
    ]


async def test_subscription_identifiers_and_options_hold(autojump_clock: MockClock) -> None:
    async with harness() as broker:
        inside = await broker.connect("in", listener=A)
        request = SubscriptionRequest("t", 1, no_local=True, retain_as_published=True)
        await inside.send(Subscribe(1, (request,), subscription_identifier=7))
        await inside.expect(SubAck, reason_codes=(1,))
        await inside.send(Publish("t", b"own", 0))
        await inside.ping()
        await broker.broker.publish("site-a/t", b"x", retain=True)
        packet = await inside.message(b"x", topic="t", retain=True)
        assert packet.properties is not None
        assert packet.properties.subscription_identifiers == (7,)


async def test_unsubscribing_takes_the_filter_as_it_was_given(autojump_clock: MockClock) -> None:
    async with harness() as broker:
        inside = await broker.connect("in", listener=A)
        await inside.subscribe("a/+")
        await inside.subscribe("$share/g/b")
        [session] = broker.broker.sessions()
        assert set(session.subscriptions) == {"site-a/a/+", "$share/g/site-a/b"}
        await inside.send(Unsubscribe(9, ("a/+", "$share/g/b", "site-a/a/+", "")))
        success, none = ReasonCode.SUCCESS, ReasonCode.NO_SUBSCRIPTION_EXISTED
        await inside.expect(
            UnsubAck,
            packet_id=9,
            reason_codes=(success, success, none, ReasonCode.TOPIC_FILTER_INVALID),
        )
        assert broker.broker.sessions()[0].subscriptions == ()


@pytest.mark.parametrize("bad", ["a/#/b", "a+", "$share/g/", "$share/+/a", "$share/g"])
async def test_a_filter_that_can_not_be_is_refused_as_it_is(
    bad: str, autojump_clock: MockClock
) -> None:
    async with harness() as broker:
        inside = await broker.connect("in", listener=A)
        await inside.send(Subscribe(1, (SubscriptionRequest(bad), SubscriptionRequest("good"))))
        await inside.expect(SubAck, reason_codes=(ReasonCode.TOPIC_FILTER_INVALID, 0))


async def test_levels_are_counted_with_it(autojump_clock: MockClock) -> None:
    async with harness(limits={"topic_levels": 4}) as broker:
        for url, fits in ((A, "a/b/c"), (B, "a/b")):
            peer = await broker.connect(f"peer {url}", listener=url)
            await peer.subscribe(fits)
            await peer.send(Subscribe(50, (SubscriptionRequest(f"{fits}/d"),)))
            await peer.expect(SubAck, reason_codes=(ReasonCode.TOPIC_FILTER_INVALID,))
            await peer.publish(fits, b"x", 1)
            await peer.message(b"x", topic=fits)
            will = broker.peer("will", listener=url)
            await will.send(will.connect_packet(will=Will(f"{fits}/d")))
            await will.expect_closed(ReasonCode.TOPIC_NAME_INVALID)
            await peer.send(Publish(f"{fits}/d", b"x", 1, packet_id=9))
            await peer.expect_closed(ReasonCode.TOPIC_NAME_INVALID)


@pytest.mark.parametrize("letter", ["x", "ü"])
async def test_bytes_are_counted_with_it(letter: str, autojump_clock: MockClock) -> None:
    room = 65_535 - len("site-a/")
    fits = letter * (room // len(letter.encode()))
    async with harness() as broker:
        peer = await broker.connect("peer", listener=A)
        await peer.subscribe(fits)
        await peer.publish(fits, b"x", 1)
        await peer.message(b"x", topic=fits)
        await peer.send(Publish(fits + letter, b"x"))
        await peer.expect_closed(ReasonCode.TOPIC_NAME_INVALID)
        peer = await broker.connect("peer", listener=A)
        await peer.send(Subscribe(1, (SubscriptionRequest(fits + letter),)))
        await peer.expect(Disconnect, reason_code=ReasonCode.TOPIC_NAME_INVALID)


@QOS
async def test_a_session_resumed_by_another_door_gets_what_can_be_seen_there(
    qos: int, autojump_clock: MockClock
) -> None:
    async with harness() as broker:
        keep = {"session_expiry_interval": 1000}
        peer = await broker.connect("peer", listener=A, **keep)
        await peer.subscribe("t", 2)
        await peer.drop()
        if qos:
            await broker.broker.publish("site-a/t", b"waits", qos=qos)
        # Without a mount point it sees the whole topic.
        peer = await broker.connect("peer", clean_start=False, **keep)
        if qos:
            await peer.message(b"waits", topic="site-a/t")
        await broker.broker.publish("site-a/t", b"1", qos=qos)
        await peer.message(b"1", topic="site-a/t")
        await peer.drop()
        # At another mount point it sees nothing of it.
        peer = await broker.connect("peer", listener=B, clean_start=False, **keep)
        await broker.broker.publish("site-a/t", b"2", qos=qos)
        await peer.nothing()
        await peer.subscribe("t", 2)
        await peer.publish("t", b"b", qos)
        await peer.message(b"b", topic="t")
        await peer.drop()
        # And back again.
        peer = await broker.connect("peer", listener=A, clean_start=False, **keep)
        await broker.broker.publish("site-a/t", b"3", qos=qos)
        await peer.message(b"3", topic="t")
        await broker.broker.publish("site-b/x/t", b"4", qos=qos)
        await peer.nothing()
        assert set(broker.broker.sessions()[0].subscriptions) == {"site-a/t", "site-b/x/t"}


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_waits_for_a_session_and_can_not_be_seen_is_dropped_and_counted(
    qos: int, autojump_clock: MockClock
) -> None:
    async with harness() as broker:
        keep = {"session_expiry_interval": 1000}
        peer = await broker.connect("peer", listener=A, **keep)
        await peer.subscribe("t", 2)
        await peer.drop()
        await broker.broker.publish("site-a/t", b"waits", qos=qos)
        peer = await broker.connect("peer", listener=B, clean_start=False, **keep)
        await peer.nothing()
        assert broker.broker.statistics().dropped == {"mount_point": 1}
        [session] = broker.broker.sessions()
        assert (session.inflight, session.waiting) == (0, 0)
        await peer.subscribe("t", 2)
        await peer.publish("t", b"b", qos)
        await peer.message(b"b", topic="t")


async def test_a_shared_message_goes_to_whom_it_can(autojump_clock: MockClock) -> None:
    """A member that came back by another door is passed over."""
    async with harness() as broker:
        keep = {"session_expiry_interval": 1000}
        away = await broker.connect("away", listener=A, **keep)
        await away.subscribe("$share/g/t", 1)
        await away.drop()
        away = await broker.connect("away", listener=B, clean_start=False, **keep)
        there = await broker.connect("there", listener=A)
        await there.subscribe("$share/g/t", 1)
        for number in range(4):
            await broker.broker.publish("site-a/t", b"%d" % number, qos=1)
        for number in range(4):
            await there.message(b"%d" % number, topic="t")
        await away.nothing()


@QOS
async def test_stored_sessions_are_treated_alike(qos: int, autojump_clock: MockClock) -> None:
    async with harness(store=FaultyStore()) as broker:
        keep = {"session_expiry_interval": 1000}
        will = Will("gone", b"w", 1, delay_interval=50)
        peer = await broker.connect("peer", listener=A, will=will, **keep)
        await peer.subscribe("#", 2)
        await broker.broker.publish("site-a/t", b"1", qos=qos)
        await peer.message(b"1", topic="t", qos=qos)
        await broker.broker.publish("site-a", b"above", qos=qos)
        await peer.nothing()
        await peer.drop()
        await broker.broker.publish("site-a/t", b"2", qos=qos)
        await trio.sleep(60)
        peer = await broker.connect("peer", listener=A, clean_start=False, **keep)
        got = [await peer.message() for _ in range(2 if qos else 1)]
        assert {packet.topic for packet in got} == ({"t", "gone"} if qos else {"gone"})
        await peer.nothing()
        assert broker.broker.sessions()[0].waiting == 0


@QOS
async def test_a_slow_client_is_treated_like_others(qos: int, autojump_clock: MockClock) -> None:
    """With aliases: one that was announced in a packet that was dropped is announced again."""
    async with harness(limits={"outbox_hard": 2000, "outbox_soft": 1000}) as broker:
        inside = await broker.connect("in", listener=A, topic_alias_maximum=5, receive_maximum=100)
        await inside.subscribe("#", 2)
        for number in range(40):
            await broker.broker.publish(f"site-a/{number % 7}", b"x" * 500, qos=qos)
            await trio.testing.wait_all_tasks_blocked()
        names: dict[int, str] = {}
        seen = 0
        for packet in await inside.arrived():
            if isinstance(packet, Publish):
                seen += 1
                assert packet.properties is not None or packet.topic
                alias = packet.properties.topic_alias if packet.properties else None
                if alias and packet.topic:
                    names[alias] = packet.topic
                topic = packet.topic or names[alias or 0]
                assert not topic.startswith("site-a")
        assert seen


async def test_copies_are_made_once_for_all_clients_of_a_mount_point(
    autojump_clock: MockClock,
) -> None:
    async with harness() as broker:
        peers = [await broker.connect(f"p{n}", listener=A, version=4) for n in range(3)]
        for peer in peers:
            await peer.subscribe("t")
        mount = broker.broker._core.doors.of(A).mount
        await broker.broker.publish("site-a/t", b"x")
        copy = mount._copy
        assert copy.topic == "t"
        assert len(copy.frames) == 1
        for peer in peers:
            await peer.message(b"x", topic="t")


async def test_who_takes_a_session_over_by_another_door_has_that_ones_topics(
    autojump_clock: MockClock,
) -> None:
    async with harness() as broker:
        first = await broker.connect("peer", listener=A, session_expiry_interval=100)
        await first.subscribe("t")
        second = await broker.connect(
            "peer", listener=B, clean_start=False, session_expiry_interval=100
        )
        await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
        await broker.broker.publish("site-a/t", b"x")
        await second.nothing()
