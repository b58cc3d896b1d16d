"""AUTH: several rounds before CONNACK, and again while everything else goes on (4.12)."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from mqtrio import Allow, AuthenticateEvent, Challenge, Deny, PublishEvent
from mqtrio.reasons import ALLOWED, ReasonCode
from mqtrio.testing import HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    Auth,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    Publish,
    Subscribe,
    SubscriptionRequest,
    Will,
)

METHOD = "COUNT"
ROUNDS = 3


def count(event: AuthenticateEvent) -> Allow | Challenge | Deny:
    """Asks ROUNDS questions; each answer must be the question's number."""
    if event.round and event.data != b"%d" % event.round:
        return Deny(reason_string="wrong")
    if event.round < ROUNDS:
        return Challenge(b"%d" % (event.round + 1))
    return Allow(username="counted", authentication_data=b"well done")


async def count_slowly(event: AuthenticateEvent) -> Allow | Challenge | Deny:
    await trio.sleep(1)
    return count(event)


COLOURS = pytest.mark.parametrize("hook", [count, count_slowly])


async def answer_all(peer: Peer) -> None:
    """Answer all questions but do not look at what follows."""
    for number in range(1, ROUNDS + 1):
        await peer.expect(
            Auth,
            reason_code=0x18,
            authentication_method=METHOD,
            authentication_data=b"%d" % number,
        )
        await peer.send(Auth(0x18, METHOD, b"%d" % number))


async def let_in(peer: Peer, **fields: Any) -> None:
    await peer.send(peer.connect_packet(authentication_method=METHOD, **fields))
    await answer_all(peer)
    connack = await peer.let_in()
    assert connack.authentication_method == METHOD
    assert connack.authentication_data == b"well done"


@COLOURS
async def test_several_rounds(hook: Callable[[Any], Any]) -> None:
    recorder = HookRecorder("client_connected", answers={"authenticate": hook, "admit": None})
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer")
        await let_in(peer, authentication_data=b"hello", username="said", password=b"secret")
        assert harness.broker.clients()[0].username == "counted"
    events = recorder.of("authenticate")
    assert [(event.round, event.data) for event in events] == [
        *((0, b"hello"), (1, b"1"), (2, b"2"), (3, b"3")),
    ]
    assert {event.method for event in events} == {METHOD}
    assert not any(event.reauthenticating for event in events)
    assert recorder.hooks[-2:] == ["admit", "client_connected"]


@COLOURS
@pytest.mark.parametrize("wrong", range(1, ROUNDS + 1))
async def test_a_wrong_answer_in_any_round(hook: Callable[[Any], Any], wrong: int) -> None:
    recorder = HookRecorder("connection_refused", answers={"authenticate": hook})
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(authentication_method=METHOD))
        for number in range(1, wrong + 1):
            await peer.expect(Auth, authentication_data=b"%d" % number)
            await peer.send(Auth(0x18, METHOD, b"%d" % number if number < wrong else b"x"))
        connack = await peer.expect_closed(0x87)
        assert connack is not None
        assert connack.reason_string == "wrong"
        assert harness.broker.sessions() == []
    assert len(recorder.of("connection_refused")) == 1


@COLOURS
async def test_answers_that_are_sent_ahead_wait_for_their_questions(
    hook: Callable[[Any], Any],
) -> None:
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": hook})]) as harness:
        peer = harness.peer("peer")
        await peer.send(
            peer.connect_packet(authentication_method=METHOD),
            *(Auth(0x18, METHOD, b"%d" % number) for number in range(1, ROUNDS + 1)),
            PingReq(),
        )
        for number in range(1, ROUNDS + 1):
            await peer.expect(Auth, authentication_data=b"%d" % number)
        await peer.let_in()
        await peer.expect(PingResp)


@pytest.mark.parametrize("version", [3, 4, 5])
async def test_who_names_no_method_is_not_challenged(version: int) -> None:
    recorder = HookRecorder(answers={"authenticate": Challenge(b"?")})
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer", version=version)
        await peer.send(peer.connect_packet())
        await peer.expect_closed(0x87 if version == 5 else 5)


async def test_a_method_that_no_plugin_knows() -> None:
    for answer in (None, Deny(0x8C)):
        recorder = HookRecorder(answers={"authenticate": answer})
        async with open_harness(plugins=[recorder]) as harness:
            peer = harness.peer("peer")
            await peer.send(peer.connect_packet(authentication_method="OTHER"))
            await peer.expect_closed(0x8C)


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (Publish("a", b"x"), 0x82),
        (Subscribe(1, (SubscriptionRequest("a"),)), 0x82),
        (PingReq(), 0x82),
        (Auth(0x19, METHOD), 0x82),
        (Auth(0x18, "OTHER", b"1"), 0x82),
        (Disconnect(), None),
    ],
    ids=str,
)
async def test_what_may_not_come_between_the_rounds(packet: Any, code: int | None) -> None:
    recorder = HookRecorder("published", "client_connected", answers={"authenticate": count})
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(authentication_method=METHOD, will=Will("a", b"x")))
        await peer.expect(Auth)
        await peer.send(packet, Auth(0x18, METHOD, b"1"))
        await peer.expect_closed(code)
    assert {"published", "client_connected"}.isdisjoint(recorder.hooks)


async def test_an_exchange_must_end_in_time() -> None:
    recorder = HookRecorder(answers={"authenticate": count})
    limits = {"authentication_timeout": 20.0, "connect_timeout": 3.0}
    async with open_harness(plugins=[recorder], limits=limits) as harness:
        peer = harness.peer("peer")
        await peer.send(peer.connect_packet(authentication_method=METHOD))
        await peer.expect(Auth)
        await trio.sleep(10)
        await peer.send(Auth(0x18, METHOD, b"1"))
        await peer.expect(Auth)
        await peer.expect_closed(0x87)
        assert trio.current_time() == 20


async def test_a_take_over_happens_at_the_end_of_the_exchange() -> None:
    recorder = HookRecorder(answers={"authenticate": count})
    async with open_harness(plugins=[recorder]) as harness:
        first = harness.peer("peer")
        await let_in(first)
        second = harness.peer("peer")
        await second.send(second.connect_packet(authentication_method=METHOD))
        for number in range(1, ROUNDS + 1):
            await second.expect(Auth, authentication_data=b"%d" % number)
            await first.ping()
            await second.send(Auth(0x18, METHOD, b"%d" % number))
        await second.let_in()
        await first.expect_closed(0x8E)


# -- again


@COLOURS
async def test_authenticating_again_while_publishes_go_on(hook: Callable[[Any], Any]) -> None:
    recorder = HookRecorder("published", answers={"authenticate": hook})
    async with open_harness(plugins=[recorder]) as harness:
        peer = harness.peer("peer")
        await let_in(peer)
        await peer.subscribe("#", 1)
        for _ in range(2):
            recorder.clear()
            await peer.send(Auth(0x19, METHOD, b"again"))
            for number in range(1, ROUNDS + 1):
                # Nobody waits for it: not what it publishes, and not what it is sent.
                await peer.send(Publish("a", b"own", 1, packet_id=7), PingReq())
                got = [packet for packet in await peer.arrived() if not isinstance(packet, Auth)]
                assert {type(packet) for packet in got} == {Publish, PubAck, PingResp}
                await peer.send(
                    *(PubAck(packet.packet_id) for packet in got if isinstance(packet, Publish))
                )
                await trio.sleep(2)
                await peer.send(Auth(0x18, METHOD, b"%d" % number))
            await trio.sleep(2)
            last = (await peer.arrived())[-1]
            assert last == Auth(0x00, METHOD, b"well done")
            events = recorder.of("authenticate")
            assert [(event.round, event.data) for event in events] == [
                *((0, b"again"), (1, b"1"), (2, b"2"), (3, b"3")),
            ]
            assert all(event.reauthenticating for event in events)
            assert all(event.username == "counted" for event in events)


async def test_a_publish_is_not_held_back_by_a_hook_that_thinks_about_the_client() -> None:
    gate = trio.Event()

    async def slow(event: AuthenticateEvent) -> Allow:
        if event.reauthenticating:
            await gate.wait()
        return Allow()

    async with open_harness(plugins=[HookRecorder(answers={"authenticate": slow})]) as harness:
        peer = await harness.connect("peer", authentication_method=METHOD)
        await peer.send(Auth(0x19, METHOD), Publish("a", b"x", 1, packet_id=1), PingReq())
        await peer.expect(PubAck)
        await peer.expect(PingResp)
        await peer.nothing()
        gate.set()
        await peer.expect(Auth, reason_code=0)


#: What ends a connection while it authenticates again -> reason code of DISCONNECT.
ENDS: dict[str, tuple[Any, int]] = {
    "denied": (Deny(), 0x87),
    "banned, which DISCONNECT can't say": (Deny(0x8A), 0x87),
    "bad password, which DISCONNECT can't say": (Deny(0x86), 0x87),
    "quota": (Deny(0x97), 0x97),
    "nobody knows": (None, 0x87),
    "raises": (lambda event: 1 / 0, 0x87),
    "somebody else": (Allow(username="other"), 0x87),
}


@pytest.mark.parametrize("case", list(ENDS))
@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_failing_to_authenticate_again(case: str, colour: str) -> None:
    answer, code = ENDS[case]

    def now(event: AuthenticateEvent) -> Any:
        if not event.reauthenticating:
            return Allow(username="counted")
        return answer(event) if callable(answer) else answer

    async def later(event: AuthenticateEvent) -> Any:
        await trio.sleep(1)
        return now(event)

    hook = now if colour == "sync" else later
    recorder = HookRecorder("client_disconnected", answers={"authenticate": hook})
    async with open_harness(plugins=[recorder]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("wills")
        peer = harness.peer("peer")
        await peer.connect(authentication_method=METHOD, will=Will("wills", b"gone"))
        await peer.send(Auth(0x19, METHOD))
        await peer.expect_closed(code)
        assert code in ALLOWED[14]
        await watcher.message(b"gone")
    assert recorder.of("client_disconnected")[0].reason_code == code


async def test_a_new_authentication_gives_new_permissions_filters_and_an_end() -> None:
    generation = 0

    class Permissions:
        def __init__(self, own: int) -> None:
            self.own = own

        def authorize_publish(self, event: PublishEvent) -> Allow | None:
            return Allow(remember=True) if event.topic == f"t{self.own}" else None

        def authorize_subscribe(self, event: Any) -> Allow:
            return Allow()

    def authenticate(event: AuthenticateEvent) -> Allow:
        nonlocal generation
        generation += 1
        return Allow(permissions=Permissions(generation), max_qos=generation % 2 + 1)

    def compile_delivery(event: Any) -> Any:
        own = b"%d" % generation
        return lambda message: message.changed(payload=own)

    recorder = HookRecorder(
        answers={"authenticate": authenticate, "compile_delivery": compile_delivery}
    )
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", authentication_method=METHOD)
        await peer.subscribe("news")
        for number in (1, 2, 3):
            await harness.broker.publish("news", "x")
            await peer.message(b"%d" % number)
            for topic in (1, 2, 3):
                await peer.send(Publish(f"t{topic}", b"x", 1, packet_id=1))
                await peer.expect(PubAck, reason_code=0x10 if topic == number else 0x87)
            await peer.send(Auth(0x19, METHOD))
            await peer.expect(Auth, reason_code=0)
    assert [event.reason for event in recorder.of("compile_delivery")] == [
        *("subscribe", "reauthenticate", "reauthenticate", "reauthenticate"),
    ]


async def test_authenticating_again_in_time_keeps_the_connection() -> None:
    start = time.time()

    def authenticate(event: AuthenticateEvent) -> Allow:
        return Allow(expires_at=start + trio.current_time() + 100)

    async with open_harness(
        plugins=[HookRecorder(answers={"authenticate": authenticate})]
    ) as harness:
        peer = await harness.connect("peer", authentication_method=METHOD)
        for _ in range(3):
            await trio.sleep(60)
            await peer.send(Auth(0x19, METHOD))
            await peer.expect(Auth, reason_code=0)
        await peer.expect_closed(0x87)
        assert trio.current_time() == pytest.approx(180 + 100, abs=1)


async def test_who_is_gone_meanwhile_is_told_nothing() -> None:
    gate = trio.Event()

    async def slow(event: AuthenticateEvent) -> Allow:
        if event.reauthenticating:
            await gate.wait()
        return Allow(username="ann")

    async with open_harness(plugins=[HookRecorder(answers={"authenticate": slow})]) as harness:
        peer = await harness.connect("peer", authentication_method=METHOD)
        await peer.send(Auth(0x19, METHOD))
        await peer.settle()
        await peer.disconnect()
        other = await harness.connect("peer")
        gate.set()
        await other.nothing()
        await other.ping()


@pytest.mark.parametrize(
    "packet",
    [Auth(0x18, METHOD, b"1"), Auth(0x19, "OTHER"), Auth(0x00, METHOD)],
    ids=["no question was asked", "another method", "success"],
)
async def test_auth_that_does_not_fit(packet: Auth) -> None:
    async with open_harness(plugins=[HookRecorder(answers={"authenticate": count})]) as harness:
        peer = harness.peer("peer")
        await let_in(peer)
        await peer.send(packet)
        await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


async def test_auth_before_the_last_one_was_answered() -> None:
    gate = trio.Event()

    async def slow(event: AuthenticateEvent) -> Any:
        if event.reauthenticating:
            await gate.wait()
        return Allow()

    recorder = HookRecorder(answers={"authenticate": slow})
    async with open_harness(plugins=[recorder]) as harness:
        peer = await harness.connect("peer", authentication_method=METHOD)
        await peer.send(Auth(0x19, METHOD, b"first"), Auth(0x19, METHOD, b"second"))
        await peer.expect_closed(0x82)
        gate.set()
    assert len(recorder.of("authenticate")) == 2


async def test_a_redirection_while_authenticating_again() -> None:
    def move(event: AuthenticateEvent) -> Allow | Deny:
        if event.reauthenticating:
            return Deny(0x9C, reason_string="over there", server_reference="other.example")
        return Allow()

    async with open_harness(plugins=[HookRecorder(answers={"authenticate": move})]) as harness:
        peer = await harness.connect("peer", authentication_method=METHOD)
        await peer.send(Auth(0x19, METHOD))
        said = await peer.expect_closed(0x9C)
        assert isinstance(said, Disconnect)
        assert (said.reason_string, said.server_reference) == ("over there", "other.example")
