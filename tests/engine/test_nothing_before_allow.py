"""Who isn't let in changes nothing; who is let in gets what was granted and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from mqtrio import Allow, AuthenticateEvent, Deny, SubscribeEvent
from mqtrio.testing import Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    ConnAck,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
CLEAN = pytest.mark.parametrize("clean_start", [True, False])


async def _slowly(answer: Any) -> Any:
    await trio.sleep(1)
    return answer


def _raise(event: Any) -> Any:
    raise RuntimeError("a bug")


async def _never(event: Any) -> Any:
    await trio.sleep_forever()


def intruders_only(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda event: answer(event) if event.username == "eve" else Allow(username="ann")


#: A hook and how it refuses -> the MQTT 5 reason code, the MQTT 3 return code.
REFUSALS: dict[str, tuple[str, Callable[[Any], Any], int, int]] = {
    "authenticate denies": ("authenticate", lambda e: Deny(), 0x87, 5),
    "authenticate denies slowly": ("authenticate", lambda e: _slowly(Deny()), 0x87, 5),
    "authenticate knows the password is wrong": ("authenticate", lambda e: Deny(0x86), 0x86, 4),
    "authenticate bans": ("authenticate", lambda e: Deny(0x8A), 0x8A, 5),
    "authenticate moves it": ("authenticate", lambda e: Deny(0x9D), 0x9D, 3),
    "authenticate raises": ("authenticate", _raise, 0x87, 5),
    "authenticate never answers": ("authenticate", _never, 0x87, 5),
    "authenticate answers nonsense": ("authenticate", lambda e: True, 0x87, 5),
    "authenticate would not say it so": ("authenticate", lambda e: Deny(0x8E), 0x87, 5),
    "nobody knows it": ("authenticate", lambda e: None, 0x86, 4),
    "admit denies": ("admit", lambda e: Deny(0x97), 0x97, 3),
    "admit denies slowly": ("admit", lambda e: _slowly(Deny(0x97)), 0x97, 3),
    "admit raises": ("admit", _raise, 0x87, 5),
    "admit never answers": ("admit", _never, 0x87, 5),
    "it belongs to ann": ("authenticate", lambda e: Allow(username="eve"), 0x85, 2),
    "it belongs to ann, slowly": ("admit", lambda e: _slowly(Allow()), 0x85, 2),
}


async def _intrude(harness: Harness, version: int, clean_start: bool) -> Peer:
    """CONNECT as somebody else, with ann's client identifier and a will."""
    eve = harness.peer("ann", version=version)
    await eve.send(
        eve.connect_packet(
            username="eve",
            password=b"guess",
            clean_start=clean_start,
            will=Will("wills/eve", b"eve is gone"),
        )
    )
    return eve


def _settings_for(case: str) -> tuple[HookRecorder, str, int, int]:
    hook, answer, code, return_code = REFUSALS[case]
    answers: dict[str, Any] = {
        "authenticate": lambda event: Allow(username=event.username),
        hook: intruders_only(answer),
    }
    return HookRecorder(*_OBSERVED, answers=answers), hook, code, return_code


_OBSERVED = (
    *("client_connected", "client_disconnected", "connection_refused"),
    *("session_opened", "session_ended", "published"),
)


@VERSIONS
@CLEAN
@pytest.mark.parametrize("case", list(REFUSALS))
async def test_a_refused_connect_leaves_the_client_alone(
    case: str, version: int, clean_start: bool
) -> None:
    recorder, _, code, return_code = _settings_for(case)
    async with open_harness(plugins=[recorder]) as harness:
        watcher = await harness.connect("watcher", username="watcher")
        await watcher.subscribe("wills/#")
        ann = await harness.connect(
            "ann",
            username="ann",
            session_expiry_interval=100,
            will=Will("wills/ann", b"ann is gone"),
        )
        await ann.subscribe("news", 2)
        await ann.send(Publish("elsewhere", b"", 2, packet_id=7))  # an exchange that is under way
        await ann.arrived()
        before = harness.broker.sessions()
        recorder.clear()

        eve = await _intrude(harness, version, clean_start)
        await eve.expect_closed(code if version == 5 else return_code)

        assert harness.broker.sessions() == before
        assert recorder.hooks.count("connection_refused") == 1
        assert not {"client_connected", "session_opened", "session_ended"} & {*recorder.hooks}
        await watcher.nothing()  # neither will
        await watcher.publish("news", b"still here", 1)
        await ann.message(b"still here")
        await ann.ping()


@CLEAN
@pytest.mark.parametrize("case", list(REFUSALS))
async def test_a_refused_connect_leaves_a_waiting_session_alone(
    case: str, clean_start: bool
) -> None:
    recorder, _, code, _ = _settings_for(case)
    async with open_harness(plugins=[recorder]) as harness:
        watcher = await harness.connect("watcher", username="watcher")
        await watcher.subscribe("wills/#")
        ann = await harness.connect(
            "ann",
            username="ann",
            session_expiry_interval=100,
            will=Will("wills/ann", b"ann is gone", delay_interval=50),
        )
        await ann.subscribe("news", 1)
        await ann.drop()
        await watcher.publish("news", b"meanwhile", 1)
        before = harness.broker.sessions()

        eve = await _intrude(harness, 5, clean_start)
        await eve.expect_closed(code)

        assert harness.broker.sessions() == before
        await trio.sleep(49 - trio.current_time())
        await watcher.nothing()
        await trio.sleep(2)  # its will comes at its time, as if nobody had tried
        await watcher.message(b"ann is gone")
        again = harness.peer("ann")
        await again.connect(username="ann", clean_start=False, session_present=True)
        await again.message(b"meanwhile")


@CLEAN
async def test_a_refused_connect_prolongs_nothing(clean_start: bool) -> None:
    recorder, _, code, _ = _settings_for("authenticate denies")
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann", username="ann", session_expiry_interval=100)
        await ann.drop()
        await trio.sleep(99)
        eve = await _intrude(harness, 5, clean_start)
        await eve.expect_closed(code)
        await trio.sleep(2)
        assert harness.broker.sessions() == []


async def test_with_any_owner_the_session_changes_hands() -> None:
    recorder = HookRecorder(answers={"authenticate": lambda e: Allow(username=e.username)})
    async with open_harness(plugins=[recorder], session={"owner": "any"}) as harness:
        ann = await harness.connect("x", username="ann", session_expiry_interval=100)
        eve = harness.peer("x")
        await eve.connect(username="eve", clean_start=False, session_present=True)
        await ann.expect_closed(0x8E)
        assert harness.broker.sessions()[0].username == "eve"


async def test_an_anonymous_session_is_nobody_elses() -> None:
    recorder = HookRecorder(answers={"authenticate": lambda e: Allow(username=e.username)})
    async with open_harness(plugins=[recorder]) as harness:
        await harness.connect("x", session_expiry_interval=100)
        eve = harness.peer("x")
        await eve.send(eve.connect_packet(username="eve"))
        await eve.expect_closed(0x85)


async def test_the_identity_that_counts_is_the_granted_one() -> None:
    """Whoever is given ann's name may have her session; who only says so may not."""

    def authenticate(event: AuthenticateEvent) -> Allow:
        return Allow(username="ann" if event.password == b"ann's" else "other")

    recorder = HookRecorder(answers={"authenticate": authenticate})
    async with open_harness(plugins=[recorder]) as harness:
        await harness.connect("x", username="ann", password=b"ann's", session_expiry_interval=9)
        liar = harness.peer("x")
        await liar.send(liar.connect_packet(username="ann", password=b"guess"))
        await liar.expect_closed(0x85)
        again = harness.peer("x")
        await again.connect(
            username="alias", password=b"ann's", clean_start=False, session_present=True
        )


# -- what it gets


def _authorize(event: SubscribeEvent) -> Allow | Deny:
    return Deny() if event.topic_filter.startswith("secret") else Allow(max_qos=1)


@VERSIONS
async def test_nobody_gets_what_was_not_granted(version: int) -> None:
    recorder = HookRecorder(
        "subscribed",
        answers={
            "authorize_subscribe": _authorize,
            "transform_subscribe": lambda e: e.changed(topic_filter=f"mine/{e.topic_filter}"),
        },
    )
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann", version=version)
        wishes = ("secret/#", "open/#", "+/+/x")
        await ann.send(Subscribe(1, tuple(SubscriptionRequest(wish, 2) for wish in wishes)))
        denied = {5: 0x87, 4: 0x80, 3: 0}[version]
        await ann.expect(SubAck, reason_codes=(denied, 1, 1))
        for topic in ("secret/a", "open/a", "mine/secret/a", "other/b/x"):
            await harness.broker.publish(topic, topic, qos=2)
        await ann.nothing()
        for topic in ("mine/open/a", "mine/other/b/x"):
            await harness.broker.publish(topic, topic, qos=2)
            await ann.message(topic.encode(), qos=1)
        await ann.nothing()
    assert [event.topic_filter for event in recorder.of("subscribed")] == [
        "mine/open/#",
        "mine/+/+/x",
    ]


@pytest.mark.parametrize("hook", ["authorize_subscribe", "transform_subscribe"])
@pytest.mark.parametrize(
    "answer", [_raise, _never, lambda e: 1], ids=["raises", "hangs", "nonsense"]
)
async def test_a_subscription_that_could_not_be_judged_is_none(
    hook: str, answer: Callable[[Any], Any]
) -> None:
    def judge(event: SubscribeEvent) -> Any:
        if event.topic_filter == "fine":
            return Allow() if hook == "authorize_subscribe" else None
        return answer(event)

    async with open_harness(plugins=[HookRecorder(answers={hook: judge})]) as harness:
        ann = await harness.connect("ann")
        await ann.send(Subscribe(1, (SubscriptionRequest("#", 1), SubscriptionRequest("fine", 1))))
        code = 0x87 if hook == "authorize_subscribe" else 0x83
        await ann.expect(SubAck, packet_id=1, reason_codes=(code, 1))
        await harness.broker.publish("other", "x")
        await ann.nothing()
        await harness.broker.publish("fine", "x")
        await ann.message(b"x")


async def test_a_filter_that_could_not_be_made_lets_nothing_through() -> None:
    for made in (_raise, lambda e: "yes", lambda e: _never):
        recorder = HookRecorder(answers={"compile_delivery": made})
        async with open_harness(plugins=[recorder]) as harness:
            ann = await harness.connect("ann")
            await ann.subscribe("#")
            await harness.broker.publish("a", "x", retain=True)
            await ann.nothing()
            bob = await harness.connect("bob")
            await bob.subscribe("#")
            await bob.nothing()


async def test_a_filter_that_fails_drops_that_delivery_only() -> None:
    def deliver(event: Any) -> Any:
        if event.payload == b"bad":
            raise RuntimeError("a bug")
        return event

    recorder = HookRecorder("dropped", answers={"compile_delivery": lambda e: deliver})
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("#", 1)
        for payload in (b"1", b"bad", b"2"):
            await harness.broker.publish("a", payload, qos=1)
        await ann.message(b"1")
        await ann.message(b"2")
        assert harness.broker.statistics().dropped == {"delivery_filter": 1}
    assert [event.reason for event in recorder.of("dropped")] == ["delivery_filter"]


async def test_messages_for_the_identifier_that_it_asked_for_are_not_its_own() -> None:
    """Allow(client_id=...) gives another session than the one that was asked for."""
    recorder = HookRecorder(answers={"authenticate": lambda e: Allow(client_id=f"x-{e.client_id}")})
    async with open_harness(plugins=[recorder]) as harness:
        first = harness.peer("ann")
        connack = await first.connect(session_expiry_interval=100)
        assert connack.assigned_client_identifier == "x-ann"
        assert [session.client_id for session in harness.broker.sessions()] == ["x-ann"]
        second = harness.peer("x-ann")
        connack = await second.connect(clean_start=False, session_present=False)
        assert connack.assigned_client_identifier == "x-x-ann"
        await first.ping()


async def test_packets_behind_a_refused_connect_do_nothing() -> None:
    recorder = HookRecorder(
        "published", "subscribed", answers={"authenticate": lambda e: _slowly(Deny())}
    )
    async with open_harness(plugins=[recorder]) as harness:
        eve = harness.peer("eve")
        await eve.send(
            eve.connect_packet(),
            Subscribe(1, (SubscriptionRequest("#"),)),
            Publish("a", b"x", 1, True, packet_id=1),
        )
        await eve.expect(ConnAck, reason_code=0x87)
        await eve.expect_closed()
        assert harness.broker.retained() == []
    assert recorder.hooks == ["authenticate"]


async def test_a_puback_of_a_denied_message_tells_nothing_of_others() -> None:
    recorder = HookRecorder(answers={"authorize_publish": lambda e: Deny(why="internal secret")})
    async with open_harness(plugins=[recorder]) as harness:
        ann = await harness.connect("ann")
        await ann.send(Publish("a", b"x", 1, packet_id=1))
        await ann.expect(PubAck, packet_id=1, reason_code=0x87, reason_string=None)
