"""Plugins that fail: the door stays closed, nothing is lost silently, and the others go on.

tests/hooks/test_table.py has the decision for every hook, fault and colour; here is what becomes of
the messages and of the clients, the failing one's and the others'.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from mqtrio import Allow, Challenge, Deny, RefusedError, Reject, hookimpl
from mqtrio.testing import Harness, HookRecorder, Peer, open_harness
from mqtrio.wire.packets import (
    Auth,
    Packet,
    PubAck,
    Publish,
    PubRec,
    SubAck,
    Subscribe,
    SubscriptionRequest,
)
from tests.engine.origins import ORIGINS, PUBLISHER, Origin

SECRET = "hunter2"

# -- faults


def raises(event: Any) -> Any:
    raise LookupError(SECRET)


def never_made(event: Any) -> Any:
    return Deny(0)  # raises where it is made: a refusal with the code of a success


def nonsense(event: Any) -> Any:
    return SECRET


def of_another_hook(event: Any) -> Any:
    return Challenge(SECRET.encode())


async def raises_later(event: Any) -> Any:
    await trio.sleep(1)
    raise LookupError(SECRET)


async def raises_a_group(event: Any) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises_later, event)
        nursery.start_soon(raises_later, event)


async def nonsense_later(event: Any) -> Any:
    await trio.sleep(1)
    return SECRET


async def hangs(event: Any) -> Any:
    await trio.sleep_forever()


async def raises_when_cancelled(event: Any) -> Any:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        raise LookupError(SECRET) from None


async def waits_for_asyncio(event: Any) -> Any:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()  # Trio can't wait for that
    finally:
        loop.close()


def twice_the_same() -> Callable[[Any], Any]:
    async def once() -> Any:
        raise LookupError(SECRET)

    answer = once()
    return lambda event: answer


Fault = Callable[[Any], Any]

#: Fault -> (the function, how it is told to plugin_failed).
SYNC: dict[str, tuple[Fault, str]] = {
    "raises": (raises, "raised"),
    "an answer that can't be made": (never_made, "raised"),
    "nonsense": (nonsense, "answer"),
    "the answer of another hook": (of_another_hook, "answer"),
    "a code that can't stand there": (lambda event: Reject(0x8D), "answer"),
}
ASYNC: dict[str, tuple[Fault, str]] = {
    "raises later": (raises_later, "raised"),
    "raises a group": (raises_a_group, "raised"),
    "nonsense later": (nonsense_later, "answer"),
    "hangs": (hangs, "timeout"),
    "raises when its time is up": (raises_when_cancelled, "raised"),
    "waits for asyncio": (waits_for_asyncio, "raised"),
}
FAULTS = {**SYNC, **ASYNC}


class Bystander:
    """A client that must not notice anything."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    @classmethod
    async def arrive(cls, harness: Harness) -> "Bystander":
        peer = await harness.connect("bystander")
        await peer.subscribe("bystander", 2)
        return cls(peer)

    async def goes_on(self) -> None:
        """At every QoS, and without time passing."""
        before = trio.current_time()
        for qos in (0, 1, 2):
            await self.peer.publish("bystander", b"x", qos)
            await self.peer.message(b"x", qos=qos)
        assert trio.current_time() == before


def failing_for(topic: str, fault: Fault, well: Any) -> Callable[[Any], Any]:
    """A hook that fails for one topic (or topic filter) and is well otherwise."""

    def answer(event: Any) -> Any:
        if getattr(event, "topic", None) == topic or getattr(event, "topic_filter", None) == topic:
            return fault(event)
        return well

    return answer


class Case:
    """One broken hook in a broker with bystanders, and what is known of its failure."""

    def __init__(self, harness: Harness, recorder: HookRecorder, bystander: Bystander) -> None:
        self.harness = harness
        self.recorder = recorder
        self.bystander = bystander


@asynccontextmanager
async def broken(
    hook: str, answer: Any, kind: str, times: int, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Case]:
    """A broker with that hook; afterwards its failures were counted, told and logged."""
    recorder = HookRecorder(
        "plugin_failed", "published", "subscribed", "dropped", answers={hook: answer}
    )
    async with open_harness(plugins=[recorder]) as harness:
        case = Case(harness, recorder, await Bystander.arrive(harness))
        recorder.clear()
        yield case
        await case.bystander.goes_on()
        assert harness.broker.statistics().crashes == 0
        rows = [row for row in harness.broker._core.hooks.statistics() if row.failures]
        assert [(row.hook, row.failures) for row in rows] == [(hook, times)]
        assert sum(row.timeouts for row in rows) == (times if kind == "timeout" else 0)
        told = case.recorder.of("plugin_failed")
        assert [(each.plugin, each.hook, each.kind) for each in told] == [
            ("HookRecorder", hook, kind)
        ] * times
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {record.name for record in errors} == {"mqtrio.hooks"}
    assert all(f"plugin HookRecorder: {hook} " in record.getMessage() for record in errors)
    assert not any(SECRET in record.getMessage() for record in errors)


# -- connections


@pytest.mark.parametrize("fault", [*SYNC, "hangs"])
async def test_a_connection_that_a_plugin_fails_on_is_closed(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a byte; what waits is nonsense where nothing can wait."""
    function, kind = SYNC.get(fault, (hangs, "answer"))

    def answer(event: Any) -> Any:
        return function(event) if event.address == "198.51.100.1" else None

    async with broken("accept", answer, kind, 1, caplog) as case:
        peer = case.harness.peer("peer", address="198.51.100.1")
        assert await peer.expect_closed() is None
        assert case.harness.broker.statistics().refused == {"not_authorized": 1}
        another = await case.harness.connect("another")
        await another.ping()


# -- messages

#: Hook -> what it answers when it is well, the reason code that its failure gives.
PUBLISH_HOOKS: dict[str, tuple[Any, int]] = {
    "authorize_publish": (Allow(), 0x87),
    "transform_publish": (None, 0x83),
}


@pytest.mark.parametrize("hook", PUBLISH_HOOKS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_that_a_plugin_fails_on_is_refused(
    hook: str, fault: str, version: int, qos: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes nowhere and is kept nowhere; its client is told, and goes on."""
    function, kind = FAULTS[fault]
    well, code = PUBLISH_HOOKS[hook]
    async with broken(hook, failing_for("bad", function, well), kind, 1, caplog) as case:
        harness = case.harness
        watcher = await harness.connect("watcher")
        await watcher.subscribe("#", 2)
        peer = await harness.connect("peer", version=version)
        bad = Publish("bad", b"x", qos, True, packet_id=1 if qos else 0)
        await peer.send(bad, Publish("good", b"behind", 1, packet_id=2))
        await case.bystander.goes_on()  # while the hook waits, too
        await watcher.settle()
        answers: list[Packet] = []
        if qos:
            kinds = {1: PubAck, 2: PubRec}
            answers.append(kinds[qos](1, code if version == 5 else 0))
        answers.append(PubAck(2))
        assert [await peer.receive() for _ in answers] == answers
        await peer.ping()
        await watcher.settle()
        got = [p for p in await watcher.arrived() if isinstance(p, Publish)]
        assert [(p.topic, p.payload) for p in got if p.topic != "bystander"] == [
            ("good", b"behind")
        ]
        assert harness.broker.retained() == []
        published = [event.topic for event in case.recorder.of("published")]
        assert [topic for topic in published if topic != "bystander"] == ["good"]


@pytest.mark.parametrize("hook", PUBLISH_HOOKS)
@pytest.mark.parametrize("fault", ["raises", "nonsense", "nonsense later", "hangs"])
@pytest.mark.parametrize("origin", [origin for origin in ORIGINS if origin != "client"])
async def test_a_message_of_any_origin_is_refused(
    hook: str, fault: str, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody waits for an answer, the log says what was refused."""
    function, kind = FAULTS[fault]
    well, code = PUBLISH_HOOKS[hook]
    async with broken(hook, failing_for("bad", function, well), kind, 1, caplog) as case:
        watcher = await case.harness.connect("watcher")
        await watcher.subscribe("bad", 2)
        await ORIGINS[origin](case.harness, "bad", b"x", 1, True)
        await case.bystander.goes_on()
        await trio.sleep(6)
        await watcher.nothing()
        assert case.harness.broker.retained() == []
        told = [(event.reason, event.origin) for event in case.recorder.of("dropped")]
        detached = origin in ("will", "system")
        assert told == ([("refused", origin)] if detached else [])
        assert case.harness.broker.statistics().dropped == ({"refused": 1} if detached else {})
        assert "bad" not in [event.topic for event in case.recorder.of("published")]
    refusals = [record for record in caplog.records if record.name == "mqtrio.publish"]
    said = [record.getMessage() for record in refusals if record.levelno == logging.WARNING]
    refused = f"{origin} message of '{PUBLISHER[origin]}' to 'bad' was refused: 0x{code:02X}"
    assert said == ([refused] if detached else [])


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_program_is_told(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    function, kind = FAULTS[fault]
    answer = failing_for("bad", function, Allow())
    async with broken("authorize_publish", answer, kind, 1, caplog) as case:
        with pytest.raises(RefusedError) as refused:
            await case.harness.broker.publish("bad", b"x")
        assert refused.value.reason_code == 0x87


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if "code" not in fault])
async def test_permissions_that_fail_deny(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a client brings with it from authentication is no other authorizer than a plugin."""
    function, kind = FAULTS[fault]

    class Permissions:
        def authorize_publish(self, event: Any) -> Any:
            return function(event) if event.topic == "bad" else Allow()

        def authorize_subscribe(self, event: Any) -> Any:
            return function(event) if event.topic_filter == "bad" else Allow()

    recorder = HookRecorder(
        "plugin_failed", answers={"authenticate": Allow(permissions=Permissions())}
    )
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        peer = await harness.connect("peer")
        await peer.send(
            Publish("bad", b"x", 1, packet_id=1),
            Subscribe(2, (SubscriptionRequest("bad"), SubscriptionRequest("good"))),
        )
        await bystander.goes_on()
        await peer.expect(PubAck, packet_id=1, reason_code=0x87)
        await peer.expect(SubAck, packet_id=2, reason_codes=(0x87, 0))
        await bystander.goes_on()
        assert harness.broker.statistics().crashes == 0
    assert [(e.plugin, e.hook, e.kind) for e in recorder.of("plugin_failed")] == [
        ("permissions", "authorize_publish", kind),
        ("permissions", "authorize_subscribe", kind),
    ]
    assert SECRET not in " ".join(record.getMessage() for record in caplog.records)


async def test_a_plugin_that_writes_to_an_event_spoils_no_other_message() -> None:
    """Messages that come together may share an event; each is judged and told as it came."""
    judged: list[tuple[str, str, int]] = []
    told: list[tuple[str, str, int]] = []

    def noting(notes: list[tuple[str, str, int]], answer: Any) -> Callable[[Any], Any]:
        def note(event: Any) -> Any:
            notes.append((event.topic, event.origin, event.qos))
            event.topic, event.origin, event.qos, event.retain = "other", "local", 2, True
            return answer

        return note

    class Scribe:
        authorize_publish = staticmethod(hookimpl(noting(judged, Allow())))
        published = staticmethod(hookimpl(noting(told, None)))

    async with open_harness(plugins=[Scribe()]) as harness:
        peer = await harness.connect("peer")
        await peer.send(*(Publish("a", b"%d" % number) for number in range(4)))
        await peer.settle()
    assert judged == told == [("a", "client", 0)] * 4


# -- subscriptions

#: Hook -> what it answers when it is well, the reason code that its failure gives.
SUBSCRIBE_HOOKS: dict[str, tuple[Any, int]] = {
    "authorize_subscribe": (Allow(), 0x87),
    "transform_subscribe": (None, 0x83),
}


@pytest.mark.parametrize("hook", SUBSCRIBE_HOOKS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("version", [3, 4, 5])
async def test_a_subscription_that_a_plugin_fails_on_is_refused(
    hook: str, fault: str, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The other filters of the packet and what comes behind it are not affected."""
    function, kind = FAULTS[fault]
    well, code = SUBSCRIBE_HOOKS[hook]
    async with broken(hook, failing_for("bad", function, well), kind, 1, caplog) as case:
        await case.harness.broker.publish("bad", b"kept", retain=True)
        peer = await case.harness.connect("peer", version=version)
        await peer.send(
            Subscribe(1, (SubscriptionRequest("bad", 1), SubscriptionRequest("good", 1))),
            Publish("good", b"behind", 1, packet_id=2),
        )
        await case.bystander.goes_on()
        codes = {5: code, 4: 0x80, 3: 0}  # MQTT 3.1 has no code for it
        await peer.expect(SubAck, packet_id=1, reason_codes=(codes[version], 1))
        await peer.message(b"behind")
        await peer.expect(PubAck, packet_id=2)
        await case.harness.broker.publish("bad", b"live", qos=1)
        await peer.nothing()
        (session,) = [each for each in case.harness.broker.sessions() if each.client_id == "peer"]
        assert session.subscriptions == ("good",)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_subscriber_of_the_program_is_told(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    function, kind = FAULTS[fault]
    answer = failing_for("bad", function, Allow())
    async with broken("authorize_subscribe", answer, kind, 1, caplog) as case:
        with pytest.raises(RefusedError) as refused:
            async with case.harness.broker.subscribe("good", "bad"):
                pytest.fail("it was let in")
        assert refused.value.reason_code == 0x87
        assert [each.client_id for each in case.harness.broker.sessions()] == ["bystander"]


# -- deliveries

FILTERS: dict[str, tuple[Fault, str]] = {
    "raises": (raises, "raised"),
    "nonsense": (nonsense, "answer"),
    "the answer of another hook": (lambda event: Allow(), "answer"),
    "what can't be": (lambda event: event.changed(topic="a/#"), "raised"),
    "waits": (hangs, "answer"),
}


@pytest.mark.parametrize("fault", FILTERS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_filter_that_fails_drops_that_delivery_and_says_so(fault: str, qos: int) -> None:
    """Live, from a queue, and replayed; the publisher is told of success: others have got it."""
    function, kind = FILTERS[fault]

    def compiled(event: Any) -> Any:
        def deliver(message: Any) -> Any:
            return function(message) if message.payload == b"bad" else message

        return deliver if event.client_id == "victim" else None

    recorder = HookRecorder("dropped", "plugin_failed", answers={"compile_delivery": compiled})
    async with open_harness(plugins=[recorder]) as harness:
        victim = await harness.connect("victim", session_expiry_interval=100)
        other = await harness.connect("other")
        for peer in (victim, other):
            await peer.subscribe("a", 2)
        publisher = await harness.connect("publisher")
        for payload in (b"bad", b"good"):
            await publisher.publish("a", payload, qos)
            await other.message(payload)
        await victim.message(b"good")
        await victim.drop()
        for payload in (b"bad", b"good"):
            await publisher.publish("a", payload, qos or 1, retain=payload == b"bad")
            await other.message(payload)
        again = harness.peer("victim")
        await again.connect(clean_start=False, session_present=True, session_expiry_interval=100)
        await again.message(b"good")
        await again.subscribe("a", 2)  # replaces it, and the retained message comes by
        await again.nothing()
        assert harness.broker.statistics().dropped == {"delivery_filter": 3}
        counted = [row for row in harness.broker._core.hooks.statistics() if row.failures]
        assert [(row.hook, row.failures) for row in counted] == [("delivery_filter", 3)]
    assert [(e.client_id, e.reason) for e in recorder.of("dropped")] == [
        ("victim", "delivery_filter")
    ] * 3
    assert [(e.hook, e.kind) for e in recorder.of("plugin_failed")] == [
        ("delivery_filter", kind)
    ] * 3


@pytest.mark.parametrize("fault", ["raises", "nonsense"])
@pytest.mark.parametrize("reason", ["subscribe", "resume", "reload", "reauthenticate"])
async def test_a_filter_that_can_not_be_made_closes_the_subscription(
    fault: str, reason: str
) -> None:
    """Whenever it is asked for: what it would have dropped must not pass meanwhile."""
    function, _ = FAULTS[fault]
    asked: list[str] = []

    def compiled(event: Any) -> Any:
        if event.client_id != "victim":
            return None
        asked.append(event.reason)
        return function(event) if event.reason == reason else None

    recorder = HookRecorder(
        "dropped", answers={"compile_delivery": compiled, "authenticate": Allow()}
    )
    async with open_harness(plugins=[recorder]) as harness:
        bystander = await Bystander.arrive(harness)
        victim = await harness.connect(
            "victim", session_expiry_interval=100, authentication_method="M"
        )
        await victim.subscribe("a", 2)
        if reason == "resume":
            await victim.drop()
            victim = harness.peer("victim")
            await victim.connect(clean_start=False, session_present=True)
        elif reason == "reload":
            harness.broker.reconsider()
        elif reason == "reauthenticate":
            await victim.send(Auth(0x19, "M"))
            await victim.expect(Auth)
        publisher = await harness.connect("publisher")
        await publisher.publish("a", b"x", 1)
        await victim.nothing()
        assert reason in asked
        assert harness.broker.statistics().dropped == {"delivery_filter": 1}
        await bystander.goes_on()
    assert [(e.client_id, e.reason) for e in recorder.of("dropped")] == [
        ("victim", "delivery_filter")
    ]


# -- what is no failure of a hook


@pytest.mark.parametrize("waits", [False, True])
async def test_what_ends_the_program_ends_it(waits: bool) -> None:
    """Nobody takes a SystemExit for an answer, or keeps it for himself."""

    def leave(event: Any) -> Any:
        raise SystemExit(3)

    async def leave_later(event: Any) -> Any:
        await trio.sleep(1)
        raise SystemExit(3)

    recorder = HookRecorder(answers={"authorize_publish": leave_later if waits else leave})

    async def serve() -> None:
        async with open_harness(plugins=[recorder]) as harness:
            peer = await harness.connect("peer")
            await peer.send(Publish("a", b"x", 1, packet_id=1))
            await trio.sleep(10)

    with pytest.raises((SystemExit, BaseExceptionGroup)) as ended:
        await serve()
    error: BaseException = ended.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, SystemExit)
    assert trio.current_time() == (1 if waits else 0)
