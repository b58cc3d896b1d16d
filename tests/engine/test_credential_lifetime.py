"""Credentials end, are renewed and are revoked: what of it reaches whom, and when exactly."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from mqtrio import Allow, AuthenticateEvent, Deny, PublishEvent, ReasonCode, SubscribeEvent
from mqtrio.testing import FaultyStore, Harness, HookRecorder, open_harness
from mqtrio.wire.packets import Auth, Will

METHOD = "token"
VERSIONS = pytest.mark.parametrize("version", [4, 5])


class Topics:
    """Permissions for some topic filters, to the letter."""

    def __init__(self, *filters: str) -> None:
        self.filters = filters

    def authorize_publish(self, event: PublishEvent) -> Allow | None:
        return Allow(remember=True) if event.topic in self.filters else None

    def authorize_subscribe(self, event: SubscribeEvent) -> Allow | None:
        return Allow() if event.topic_filter in self.filters else None


class SlowTopics(Topics):
    """The same, which take their time."""

    async def authorize_publish(self, event: PublishEvent) -> Allow | None:  # type: ignore[override]
        await trio.sleep(1)
        return super().authorize_publish(event)

    async def authorize_subscribe(  # type: ignore[override]
        self, event: SubscribeEvent
    ) -> Allow | None:
        await trio.sleep(1)
        return super().authorize_subscribe(event)


def by_data(kind: Callable[..., Any] = Topics) -> Callable[[AuthenticateEvent], Allow]:
    """Grants what the authentication data (or the password) lists."""

    def authenticate(event: AuthenticateEvent) -> Allow:
        text = (event.data if event.method else event.password) or b""
        return Allow(permissions=kind(*text.decode().split()) if text else None)

    return authenticate


async def again(peer: Any, data: bytes) -> None:
    await peer.send(Auth(0x19, METHOD, data))
    await trio.sleep(5)  # permissions may take their time
    await peer.expect(Auth, reason_code=0)


@VERSIONS
async def test_deliveries_stop_at_that_second(version: int) -> None:
    end = time.time() + 100

    def authenticate(event: AuthenticateEvent) -> Allow:
        return Allow(expires_at=end if event.client_id == "peer" else None)

    recorder = HookRecorder("client_disconnected", answers={"authenticate": authenticate})
    async with open_harness(plugins=[recorder]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("will", 1)
        fields: dict[str, Any] = {"session_expiry_interval": 3600} if version == 5 else {}
        peer = await harness.connect(
            "peer", version=version, clean_start=False, will=Will("will", b"gone", 1), **fields
        )
        await peer.subscribe("news", 1)
        clock = harness.broker._core.clock
        await trio.sleep(clock.to_monotonic(end) - trio.current_time() - 0.001)
        await harness.broker.publish("news", b"in time", qos=1)
        await peer.message(b"in time")
        await trio.sleep(0.002)
        await harness.broker.publish("news", b"too late", qos=1)
        await peer.expect_closed(0x87 if version == 5 else None)
        await watcher.message(b"gone")
        session = next(each for each in harness.broker.sessions() if each.client_id == "peer")
        assert not session.connected  # it stays, and what came too late waits in it
        assert session.waiting + session.inflight >= 1
    ended = [event for event in recorder.of("client_disconnected") if event.client_id == "peer"]
    assert [(event.reason_code, event.why) for event in ended] == [
        (0x87, "the credentials have expired")
    ]


async def test_a_will_waits_for_its_delay_when_credentials_end() -> None:
    end = time.time() + 100
    answers = {"authenticate": lambda event: Allow(expires_at=end)}
    async with open_harness(plugins=[HookRecorder(answers=answers)]) as harness:
        peer = await harness.connect(
            "peer",
            session_expiry_interval=3600,
            will=Will("will", b"gone", delay_interval=50),
        )
        async with harness.broker.subscribe("will") as wills:
            await peer.expect_closed(0x87)
            await wills.receive()
            assert trio.current_time() == pytest.approx(150, abs=1)


@pytest.mark.parametrize("kind", [Topics, SlowTopics])
async def test_new_permissions_hold_for_live_subscriptions(kind: Callable[..., Any]) -> None:
    recorder = HookRecorder("dropped", answers={"authenticate": by_data(kind)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer")
        await peer.connect(authentication_method=METHOD, authentication_data=b"a/# b c")
        await trio.sleep(1)
        for topic_filter in ("a/#", "b", "c"):
            await peer.subscribe(topic_filter)

        async def arrives(*expected: bytes) -> None:
            for topic in ("a/1", "b", "c"):
                await harness.broker.publish(topic, topic)
            for payload in expected:
                await peer.message(payload)
            await peer.nothing()

        await arrives(b"a/1", b"b", b"c")
        await again(peer, b"b")
        await arrives(b"b")
        # What plugins decide anew doesn't give it back.
        harness.broker.reconsider()
        await arrives(b"b")
        await again(peer, b"a/# c")
        await arrives(b"a/1", b"c")
        await again(peer, b"")  # without permissions of its own nothing is forbidden
        await arrives(b"a/1", b"b", b"c")
    assert {event.reason for event in recorder.of("dropped")} == {"delivery_filter"}


async def test_a_shared_subscription_goes_to_who_may_have_it() -> None:
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": by_data()})]) as harness:
        fields: dict[str, Any] = {
            "authentication_method": METHOD,
            "authentication_data": b"$share/g/a",
        }
        first = await harness.connect("first", **fields)
        second = await harness.connect("second", **fields)
        for peer in (first, second):
            await peer.subscribe("$share/g/a")
        await again(first, b"x")
        for number in range(4):
            await harness.broker.publish("a", b"%d" % number)
            await second.message(b"%d" % number)
        await first.nothing()


async def test_permissions_of_the_next_connection_hold_for_an_old_session() -> None:
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": by_data()})]) as harness:

        async def connect(granted: bytes) -> Any:
            return await harness.connect(
                "peer",
                username="ann",
                password=granted,
                clean_start=False,
                session_expiry_interval=3600,
            )

        peer = await connect(b"a b")
        await peer.subscribe("a")
        await peer.subscribe("b")
        await peer.disconnect()
        for granted, arriving in ((b"b", [b"b"]), (b"a b", [b"a", b"b"]), (b"x", [])):
            peer = await connect(granted)
            for topic in ("a", "b"):
                await harness.broker.publish(topic, topic)
            for payload in arriving:
                await peer.message(payload)
            await peer.nothing()
            await peer.disconnect()


async def test_a_plugin_may_allow_what_permissions_do_not() -> None:
    answers: dict[str, Any] = {
        "authenticate": by_data(),
        "authorize_subscribe": lambda event: Allow() if event.topic_filter == "open" else None,
    }
    async with open_harness(plugins=[HookRecorder(answers=answers)]) as harness:
        peer = await harness.connect(
            "peer", authentication_method=METHOD, authentication_data=b"own"
        )
        await peer.subscribe("open")
        await peer.subscribe("own")
        await again(peer, b"other")
        await harness.broker.publish("own", b"no")
        await harness.broker.publish("open", b"yes")
        await peer.message(b"yes")
        await peer.nothing()


@pytest.mark.parametrize(("granted", "published"), [(b"will x", True), (b"x", False)])
async def test_new_permissions_hold_for_the_will(granted: bytes, published: bool) -> None:
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": by_data()})]) as harness:
        peer = await harness.connect(
            "peer",
            authentication_method=METHOD,
            authentication_data=b"will",
            will=Will("will", b"gone"),
        )
        await again(peer, granted)
        async with harness.broker.subscribe("#", timeout=5) as messages:
            harness.broker.disconnect("peer")
            assert [message.topic async for message in messages] == ["will"] * published


async def test_the_store_knows_when_renewed_credentials_end() -> None:
    start = time.time()

    def authenticate(event: AuthenticateEvent) -> Allow:
        return Allow(expires_at=start + float(event.data or b"0"))

    store = FaultyStore()
    recorder = HookRecorder(answers={"authenticate": authenticate})
    async with open_harness(plugins=[recorder], store=store) as harness:
        peer = await harness.connect(
            "peer",
            authentication_method=METHOD,
            authentication_data=b"100",
            session_expiry_interval=3600,
        )
        for end, data in ((100.0, b"200"), (200.0, b"300")):
            loaded = await store.load()
            found = loaded.sessions["peer"].session.credentials_expire_at
            assert found == pytest.approx(start + end, abs=0.1)
            await again(peer, data)


# -- ending connections and revoking


def named(event: AuthenticateEvent) -> Allow | Deny:
    return Allow(username=event.username)


async def three(harness: Harness) -> dict[str, Any]:
    """Two connections of ann, one of bob; each with a will."""
    return {
        client_id: await harness.connect(
            client_id,
            username=username,
            session_expiry_interval=3600,
            will=Will("wills", client_id.encode()),
        )
        for client_id, username in (("a1", "ann"), ("a2", "ann"), ("b1", "bob"))
    }


#: Whom -> who of the three is meant.
WHOM: dict[str, tuple[dict[str, str], set[str]]] = {
    "client": ({"client_id": "a1"}, {"a1"}),
    "user": ({"username": "ann"}, {"a1", "a2"}),
    "both": ({"client_id": "a1", "username": "ann"}, {"a1"}),
    "not together": ({"client_id": "b1", "username": "ann"}, set()),
    "nobody": ({"username": "eve"}, set()),
}


@pytest.mark.parametrize("case", WHOM)
@pytest.mark.parametrize("what", ["disconnect", "revoke"])
async def test_whom(case: str, what: str) -> None:
    whom, meant = WHOM[case]
    code = 0x98 if what == "disconnect" else 0x87
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": named})]) as harness:
        peers = await three(harness)
        async with harness.broker.subscribe("wills", timeout=5) as wills:
            assert getattr(harness.broker, what)(**whom) == len(meant)
            for client_id, peer in peers.items():
                if client_id in meant:
                    await peer.expect_closed(code)
                else:
                    await peer.ping()
            assert {message.payload.decode() async for message in wills} == meant
        assert {each.client_id for each in harness.broker.sessions() if not each.connected} == meant


@pytest.mark.parametrize("what", ["disconnect", "revoke"])
async def test_somebody_must_be_named(what: str) -> None:
    async with open_harness() as harness:
        with pytest.raises(ValueError, match="say whom"):
            getattr(harness.broker, what)()
        with pytest.raises(ValueError, match="reason code"):
            getattr(harness.broker, what)("a", reason_code=0x86)


@pytest.mark.parametrize("drop_session", [False, True])
@pytest.mark.parametrize("publish_will", [False, True])
@pytest.mark.parametrize("delay", [0, 1000])
async def test_revoke(drop_session: bool, publish_will: bool, delay: int) -> None:
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": named})]) as harness:
        broker = harness.broker
        for client_id in ("here", "away"):
            peer = await harness.connect(
                client_id,
                username="ann",
                session_expiry_interval=3600,
                will=Will("wills", client_id.encode(), delay_interval=delay),
            )
            if client_id == "away":
                await peer.subscribe("#")
                broker.disconnect(client_id)
        other = await harness.connect("other", username="bob", will=Will("wills", b"other"))
        async with broker.subscribe("wills", timeout=500) as wills:
            ended = broker.revoke(
                username="ann", drop_session=drop_session, publish_will=publish_will
            )
            assert ended == (2 if drop_session else 1)
            published = {message.payload async for message in wills}
        expected: set[bytes] = set()
        if publish_will and (drop_session or not delay):  # the end of a session ends the delay
            expected = {b"here", b"away"} if delay else {b"here"}
        assert published == expected
        await other.ping()
        left = {each.client_id for each in broker.sessions()} - {"other"}
        assert left == (set() if drop_session else {"here", "away"})


@pytest.mark.parametrize("step", ["authenticate", "admit"])
async def test_revoke_meets_who_is_on_the_way_in(step: str) -> None:
    gate = trio.Event()

    async def wait(event: Any) -> Allow:
        await gate.wait()
        return Allow()

    answers: dict[str, Any] = {"authenticate": named}
    answers[step] = wait
    async with open_harness(plugins=[HookRecorder(answers=answers)]) as harness:
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(username="ann"))
        await peer.settle()
        assert harness.broker.revoke(username="ann", drop_session=True) == 1
        gate.set()
        await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)
        assert harness.broker.sessions() == []


async def test_revoke_leaves_the_programs_own_subscriptions() -> None:
    async with (
        open_harness() as harness,
        harness.broker.subscribe("a", session="own", timeout=5) as own,
    ):
        client_id = harness.broker.sessions()[0].client_id
        assert harness.broker.revoke(client_id, drop_session=True) == 0
        await harness.broker.publish("a", b"x", qos=1)
        assert (await own.receive()).payload == b"x"


async def test_what_is_subscribed_to_meanwhile_is_not_withheld() -> None:
    recorder = HookRecorder(answers={"authenticate": by_data(SlowTopics)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect(
            "peer", authentication_method=METHOD, authentication_data=b"a b"
        )
        await peer.subscribe("a")
        await peer.subscribe("b")
        await peer.send(Auth(0x19, METHOD, b"a b c"))
        await peer.subscribe("c")
        await peer.expect(Auth, reason_code=0)
        await harness.broker.publish("c", b"1")
        await peer.message(b"1")


async def test_authenticating_again_before_the_last_one_holds() -> None:
    recorder = HookRecorder(answers={"authenticate": by_data(SlowTopics)})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", authentication_method=METHOD, authentication_data=b"a")
        await peer.subscribe("a")
        await peer.send(Auth(0x19, METHOD, b"a"))
        await peer.send(Auth(0x19, METHOD, b"x"))
        await peer.expect_closed(0x82)
