"""Every hook x every kind of answer x sync, async, returned awaitable -> decision and counters."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow, Challenge, Close, Deny, Drop, Reject, Throttle
from mqtrio.hooks.events import ChangedMessage, PublishEvent, SubscribeEvent
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.specs import HOOKS
from mqtrio.reasons import ReasonCode
from tests.hooks.driver import EVENTS, drive, manager_of, publish_event

BANNED = ReasonCode.BANNED
QUOTA = ReasonCode.QUOTA_EXCEEDED
DENIED = ("Deny", ReasonCode.NOT_AUTHORIZED)
REJECTED = ("Reject", ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)

#: Hook -> what a failure of it decides. Observers decide nothing, a filter delivers nothing.
FAILURES: dict[str, object] = {
    "accept": DENIED,
    "authenticate": DENIED,
    "admit": DENIED,
    "authorize_publish": DENIED,
    "authorize_subscribe": DENIED,
    "transform_publish": REJECTED,
    "transform_subscribe": REJECTED,
    "compile_delivery": "delivers nothing",
}


class Legal:
    """A legal answer of a hook, made from its event, and what it decides."""

    def __init__(self, name: str, answer: Callable[[Any], Any], decided: object) -> None:
        self.name = name
        self.answer = answer
        self.decided = decided


CONSENT = [
    Legal("None", lambda event: None, "Allow"),
    Legal("Allow", lambda event: Allow(why="known"), "Allow"),
    Legal("Deny", lambda event: Deny(QUOTA), ("Deny", QUOTA)),
]

LEGAL: dict[str, list[Legal]] = {
    "accept": CONSENT,
    "admit": CONSENT,
    "authenticate": [
        Legal("None", lambda event: None, None),
        Legal("Allow", lambda event: Allow(username="ann"), "Allow"),
        Legal("Deny", lambda event: Deny(BANNED), ("Deny", BANNED)),
        Legal("Challenge", lambda event: Challenge(b"nonce"), "Challenge"),
    ],
    "authorize_publish": [Legal("None", lambda event: None, DENIED), *CONSENT[1:]],
    "authorize_subscribe": [Legal("None", lambda event: None, DENIED), *CONSENT[1:]],
    "transform_publish": [
        Legal("None", lambda event: None, "unchanged"),
        Legal("the event", lambda event: event, "unchanged"),
        Legal("changed", lambda event: event.changed(topic="x"), ("changed", "x")),
        Legal("Drop", lambda event: Drop(), "Drop"),
        Legal("Reject", lambda event: Reject(QUOTA), ("Reject", QUOTA)),
        Legal("Close", lambda event: Close(), ("Close", ReasonCode.ADMINISTRATIVE_ACTION)),
        Legal("Throttle", lambda event: Throttle(2.5), "throttled by 2.5"),
    ],
    "transform_subscribe": [
        Legal("None", lambda event: None, "unchanged"),
        Legal("the event", lambda event: event, "unchanged"),
        Legal("changed", lambda event: event.changed(topic_filter="x"), ("changed", "x")),
        Legal("Reject", lambda event: Reject(QUOTA), ("Reject", QUOTA)),
        Legal("Close", lambda event: Close(), ("Close", ReasonCode.ADMINISTRATIVE_ACTION)),
    ],
    "compile_delivery": [
        Legal("None", lambda event: None, "no filter"),
        Legal("a filter", lambda event: lambda message: message, "delivers"),
        Legal("a closed filter", lambda event: lambda message: None, "delivers nothing"),
    ],
    **{
        hook.name: [Legal("None", lambda event: None, None)]
        for hook in HOOKS.values()
        if hook.kind == "observe"
    },
}

#: Answers that no hook of that name may give; a kind of answer that another hook knows is one too.
NONSENSE: dict[str, list[object]] = {
    name: [
        "yes",
        True,
        0,
        Allow,
        [Allow()],
        *(
            answer
            for answer in (Allow(), Deny(), Challenge(), Drop(), Reject(), Close(), Throttle(1))
            if type(answer) not in HOOKS[name].answers
        ),
        *(
            # Refusals by a code that the packet in question can't carry.
            kind(ReasonCode.KEEP_ALIVE_TIMEOUT)
            for kind in (Deny, Reject)
            if kind in HOOKS[name].answers and name != "accept"
        ),
        *([Close(ReasonCode.BANNED)] if Close in HOOKS[name].answers else []),
        *([SubscribeEvent] if name == "transform_subscribe" else [object()]),
    ]
    for name in LEGAL
}


async def decide(manager: HookManager, hook: str) -> object:
    """Run a hook's combiner and say in short what it has decided."""
    event: Any = EVENTS[hook]()
    if HOOKS[hook].kind == "observe":
        manager.notify(manager.calls(hook), event)
        return None
    if hook == "accept":
        return short(combine.accept(manager, event))
    if hook == "compile_delivery":
        made = combine.compile_delivery(manager, event)
        if made is None:
            return "no filter"
        message = publish_event()
        return "delivers" if made(message) is message else "delivers nothing"
    answer = await drive(getattr(combine, hook)(manager, event))
    if answer is event:
        if isinstance(event, PublishEvent) and event.throttle:
            return f"throttled by {event.throttle}"
        return "unchanged"
    return short(answer)


def short(answer: object) -> object:
    match answer:
        case Deny() | Reject() | Close():
            return (type(answer).__name__, answer.reason_code)
        case ChangedMessage():
            return ("changed", answer.topic)
        case SubscribeEvent():
            return ("changed", answer.topic_filter)
        case None:
            return None
    return type(answer).__name__


Behaviour = Callable[[Any], Any]


def returning(answer: Behaviour, colour: str) -> Behaviour:
    """A hook of one of the colours; all of them wait a little where they can."""
    if colour == "sync":
        return answer

    async def wait(event: Any) -> Any:
        await trio.sleep(1)
        return answer(event)

    def give(event: Any) -> Awaitable[Any]:
        return wait(event)

    # Both have the same call: that an `async def` is what it is matters to the manager only.
    return wait if colour == "async" else give


def counters(manager: HookManager, hook: str) -> tuple[int, int, int]:
    """Calls, failures and timeouts of the only plugin."""
    [row] = [row for row in manager.statistics() if row.hook == hook]
    return (row.calls, row.failures, row.timeouts)


COLOURS = ("sync", "async", "awaitable")


def cases_of_legal_answers() -> list[Any]:
    return [
        pytest.param(name, colour, legal, id=f"{name}-{legal.name}-{colour}")
        for name, answers in LEGAL.items()
        for legal in answers
        for colour in (COLOURS if HOOKS[name].awaits else COLOURS[:1])
    ]


@pytest.mark.parametrize(("hook", "colour", "legal"), cases_of_legal_answers())
async def test_a_legal_answer_decides(
    hook: str, colour: str, legal: Legal, autojump_clock: trio.testing.MockClock
) -> None:
    manager = manager_of(**{hook: returning(legal.answer, colour)})
    assert await decide(manager, hook) == legal.decided
    assert counters(manager, hook) == (1, 0, 0)


def cases_of_nonsense() -> list[Any]:
    return [
        pytest.param(name, colour, answer, id=f"{name}-{number}-{colour}")
        for name, answers in NONSENSE.items()
        for number, answer in enumerate(answers)
        for colour in (COLOURS if HOOKS[name].awaits else COLOURS[:1])
        # A class is callable: as a filter it is one that drops, which is legal nonsense.
        if not (name == "compile_delivery" and callable(answer))
    ]


@pytest.mark.parametrize(("hook", "colour", "answer"), cases_of_nonsense())
async def test_nonsense_is_a_failure(
    hook: str,
    colour: str,
    answer: object,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = manager_of(**{hook: returning(lambda event: answer, colour)})
    assert await decide(manager, hook) == FAILURES.get(hook)
    assert counters(manager, hook) == (1, 1, 0)
    assert [record.name for record in caplog.records] == ["mqtrio.hooks"]
    assert f"plugin made: {hook} answered with" in caplog.text


def cases_of_colours(hooks: list[str]) -> list[Any]:
    return [
        pytest.param(name, colour, id=f"{name}-{colour}")
        for name in hooks
        for colour in (COLOURS if HOOKS[name].awaits else COLOURS[:1])
    ]


@pytest.mark.parametrize(("hook", "colour"), cases_of_colours(list(LEGAL)))
async def test_an_exception_is_a_failure(
    hook: str,
    colour: str,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(event: Any) -> Any:
        raise LookupError("no such row")

    manager = manager_of(**{hook: returning(broken, colour)})
    assert await decide(manager, hook) == FAILURES.get(hook)
    assert counters(manager, hook) == (1, 1, 0)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("mqtrio.hooks", logging.ERROR)
    assert record.getMessage() == f"plugin made: {hook} raised an exception"
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


SLOW = [name for name in LEGAL if HOOKS[name].awaits]


@pytest.mark.parametrize("hook", SLOW)
async def test_a_passed_deadline_is_a_failure(
    hook: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(event: Any) -> Any:
        await trio.sleep_forever()

    manager = manager_of(**{hook: slow})
    before = trio.current_time()
    assert await decide(manager, hook) == FAILURES[hook]
    assert trio.current_time() - before == 5
    assert counters(manager, hook) == (1, 1, 1)
    assert caplog.messages == [f"plugin made: {hook} took too long"]


NEVER_WAIT = [name for name in LEGAL if not HOOKS[name].awaits]


@pytest.mark.parametrize("hook", NEVER_WAIT)
async def test_an_awaitable_where_nothing_waits_is_a_failure(hook: str) -> None:
    # A coroutine that nobody awaits would be a RuntimeWarning, which is an error in these tests.
    async def answer() -> Allow:
        raise AssertionError("never awaited")

    manager = manager_of(**{hook: lambda event: answer()})
    assert await decide(manager, hook) == FAILURES.get(hook)
    assert counters(manager, hook) == (1, 1, 0)


DECIDERS = ["authenticate", "admit", "authorize_publish", "authorize_subscribe"]


@pytest.mark.parametrize("hook", [*DECIDERS, "transform_publish", "transform_subscribe"])
async def test_cancellation_passes_through_and_counts_nothing(hook: str) -> None:
    async def waiting(event: Any) -> Any:
        await trio.sleep_forever()

    manager = manager_of(**{hook: waiting})
    with trio.move_on_after(0) as scope:
        await decide(manager, hook)
    assert scope.cancelled_caught
    assert counters(manager, hook) == (1, 0, 0)


@pytest.mark.parametrize("hook", SLOW)
async def test_a_combiner_can_be_given_up_while_it_waits(hook: str) -> None:
    async def answer() -> None:
        raise AssertionError("never awaited")

    manager = manager_of(**{hook: lambda event: answer()})
    steps = getattr(combine, hook)(manager, EVENTS[hook]())
    coroutine = next(steps)
    coroutine.close()
    steps.close()
    assert counters(manager, hook) == (1, 0, 0)


async def test_the_table_covers_every_hook_that_is_called_while_the_broker_runs() -> None:
    called = {hook.name for hook in HOOKS.values() if hook.kind != "provide"}
    assert set(LEGAL) == called
    assert set(FAILURES) == {name for name in called if HOOKS[name].kind != "observe"}
