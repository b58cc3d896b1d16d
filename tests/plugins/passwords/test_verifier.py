"""Checking beside the loop: bounds, one check for many, what is remembered and for how long."""

from collections.abc import Iterator
from threading import Event

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mqtrio_plugins.passwords.hashes import Hash
from mqtrio_plugins.passwords.verifier import Busy, Verifier
from tests.plugins.passwords.kit import PATIENCE, cheap, until


class Gate:
    """A hash that takes until it is opened, and counts."""

    def __init__(self) -> None:
        self.opened = Event()
        self.checks = 0

    def verify(self, password: bytes) -> bool:
        self.checks += 1
        assert self.opened.wait(PATIENCE)
        return password == b"right"

    def decoy(self, seed: bytes) -> Hash:
        return self


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def verifier(
    *,
    threads: int = 1,
    queue: int = 100,
    patience: float = 3.0,
    lifetime: float = 300.0,
    size: int = 100,
) -> Verifier:
    return Verifier(threads=threads, queue=queue, patience=patience, lifetime=lifetime, size=size)


class Answers:
    """What became of checks that run side by side."""

    def __init__(self, verifier: Verifier, nursery: trio.Nursery) -> None:
        self.verifier = verifier
        self.nursery = nursery
        self.given: list[tuple[str, object]] = []

    def ask(self, username: str, password: bytes, kept: Hash) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def check() -> None:
            with scope:
                try:
                    answer: object = await self.verifier.check(username, password, kept)
                except Busy:
                    answer = "busy"
                self.given.append((username, answer))

        self.nursery.start_soon(check)
        return scope


async def test_right_and_wrong(mock_clock: MockClock) -> None:
    checking = verifier()
    assert await checking.check("ann", b"a", cheap("a"))
    assert not await checking.check("ann", b"b", cheap("a"))


async def test_a_full_queue_is_said_at_once(mock_clock: MockClock, gate: Gate) -> None:
    async with trio.open_nursery() as nursery:
        answers = Answers(verifier(threads=2, queue=1), nursery)
        for username in ("ann", "bob", "carl"):
            answers.ask(username, b"right", gate)
        await until(lambda: gate.checks == 2)
        answers.ask("dora", b"right", gate)
        await wait_all_tasks_blocked()
        assert answers.given == [("dora", "busy")]
        gate.opened.set()
        await until(lambda: len(answers.given) == 4)
    assert dict(answers.given[1:]) == {"ann": True, "bob": True, "carl": True}


async def test_who_waits_too_long_is_told_so(mock_clock: MockClock, gate: Gate) -> None:
    async with trio.open_nursery() as nursery:
        answers = Answers(verifier(patience=3), nursery)
        answers.ask("ann", b"right", gate)
        await until(lambda: gate.checks == 1)
        answers.ask("bob", b"right", gate)
        answers.ask("ann", b"right", gate)
        await wait_all_tasks_blocked()
        mock_clock.jump(3.1)
        await until(lambda: len(answers.given) == 2)
        assert sorted(answers.given) == [("ann", "busy"), ("bob", "busy")]
        gate.opened.set()
    # The one that was in its thread already has its result all the same.
    assert answers.given[2:] == [("ann", True)]


async def test_the_same_question_is_checked_once(mock_clock: MockClock, gate: Gate) -> None:
    async with trio.open_nursery() as nursery:
        answers = Answers(verifier(queue=0), nursery)
        for _ in range(50):
            answers.ask("ann", b"wrong", gate)
        await until(lambda: gate.checks == 1)
        await wait_all_tasks_blocked()
        gate.opened.set()
    assert answers.given == [("ann", False)] * 50
    assert gate.checks == 1


async def test_another_one_goes_on_where_the_first_gave_up(
    mock_clock: MockClock, gate: Gate
) -> None:
    async with trio.open_nursery() as nursery:
        answers = Answers(verifier(), nursery)
        answers.ask("zoe", b"right", gate)
        await until(lambda: gate.checks == 1)
        first = answers.ask("ann", b"right", gate)  # waits for the one thread
        await wait_all_tasks_blocked()
        answers.ask("ann", b"right", gate)  # waits for that check
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        gate.opened.set()
    assert sorted(answers.given) == [("ann", True), ("zoe", True)]
    assert gate.checks == 2


async def test_a_new_hash_is_not_answered_by_the_check_of_an_old_one(
    mock_clock: MockClock, gate: Gate
) -> None:
    new = Gate()
    new.opened.set()
    async with trio.open_nursery() as nursery:
        answers = Answers(verifier(threads=2), nursery)
        answers.ask("ann", b"right", gate)
        await until(lambda: gate.checks == 1)
        answers.ask("ann", b"right", new)
        await until(lambda: answers.given == [("ann", True)])
        assert new.checks == 1
        gate.opened.set()


async def test_what_was_right_is_known_for_a_while(mock_clock: MockClock) -> None:
    checking = verifier(lifetime=300)
    kept = cheap("a")
    assert not checking.remembers("ann", b"a", kept)
    await checking.check("ann", b"a", kept)
    assert checking.remembers("ann", b"a", kept)
    assert not checking.remembers("ann", b"b", kept)
    assert not checking.remembers("bob", b"a", kept)
    assert not checking.remembers("an", b"na", kept)
    assert not checking.remembers("ann", b"a", cheap("a"))  # changed meanwhile
    mock_clock.jump(299)
    assert checking.remembers("ann", b"a", kept)
    mock_clock.jump(1)
    assert not checking.remembers("ann", b"a", kept)


async def test_what_was_wrong_is_not_remembered(mock_clock: MockClock) -> None:
    checking = verifier()
    await checking.check("ann", b"b", cheap("a"))
    assert not checking.remembers("ann", b"b", cheap("a"))
    assert not checking._right


async def test_nothing_is_remembered_where_nobody_wants_it(mock_clock: MockClock) -> None:
    checking = verifier(lifetime=0)
    kept = cheap("a")
    await checking.check("ann", b"a", kept)
    assert not checking.remembers("ann", b"a", kept)


async def test_the_oldest_is_forgotten_first(mock_clock: MockClock) -> None:
    checking = verifier(size=2)
    kept = cheap("x")
    for username in ("ann", "bob", "ann", "carl"):
        await checking.check(username, b"x", kept)
    known = [name for name in ("ann", "bob", "carl") if checking.remembers(name, b"x", kept)]
    assert known == ["ann", "carl"]


async def test_no_password_is_kept(mock_clock: MockClock) -> None:
    checking = verifier()
    await checking.check("ann", b"a secret", cheap("a secret"))
    assert b"a secret" not in repr(vars(checking)).encode()
    other = verifier()
    assert checking._digest("ann", b"a secret") != other._digest("ann", b"a secret")
