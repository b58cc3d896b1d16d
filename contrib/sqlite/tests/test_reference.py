"""Whatever is committed, in whatever batches and over whatever restarts: what `apply` says."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mqtrio import (
    Change,
    MessageRemoved,
    QueuedRow,
    RetainedPut,
    StoreError,
    topic_matches,
)
from mqtrio.store.apply import apply_all
from mqtrio.store.memory import MemoryStore
from mqtrio.store.stored import StoredState
from mqtrio.testing.changes import random_batch
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.records import loaded_session, queued_row, records, retained_put, will_put


def run(step: Any) -> Any:
    """Run a coroutine of the store in memory, which never waits."""
    try:
        step.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the store in memory waits for nothing")


def sorted_load(state: StoredState) -> tuple[Any, ...]:
    loaded = run(MemoryStore(state).load([*state.sessions, *state.wills]))
    sessions = {
        client_id: (
            each.session,
            each.closed_at,
            {put.topic_filter: put for put in each.subscriptions},
            sorted(each.received),
            (each.queued, each.queued_bytes, each.highest_sequence),
        )
        for client_id, each in loaded.sessions.items()
    }
    return sessions, dict(loaded.wills), dict(loaded.references), loaded.highest_message_id


class Comparison(RuleBasedStateMachine):
    """A database beside the reference."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.state = StoredState()
        self.opened = 0
        self.database = self.open()

    def open(self) -> Database:
        self.opened += 1
        return Database(Options(path=self.folder / "broker.db", checkpoint=65_536))

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(seed=st.integers(0, 2**32), batches=st.integers(1, 8))
    def commit(self, seed: int, batches: int) -> None:
        """Several small batches of the core as one, so that changes meet inside of it."""
        random, after = Random(seed), self.state.copy()
        changes: list[Change] = []
        for _ in range(batches):
            batch = random_batch(random, after)
            apply_all(after, batch)
            changes += batch
        self.database.commit(records(changes))
        self.state = after

    @rule(seed=st.integers(0, 2**32), data=st.data())
    def refuse(self, seed: int, data: st.DataObject) -> None:
        """A batch of which one change is missing or comes twice: all of it, or nothing."""
        changes = random_batch(Random(seed), self.state)
        place = data.draw(st.integers(0, len(changes) - 1))
        if data.draw(st.booleans()):
            del changes[place]
        else:
            changes.insert(place, changes[place])
        after = self.state.copy()
        try:
            apply_all(after, changes)
        except StoreError:
            with pytest.raises(StoreError):
                self.database.commit(records(changes))
        else:
            self.database.commit(records(changes))
            self.state = after

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.database = self.open()

    @rule()
    def crash(self) -> None:
        """What a crash leaves: the files as they are, and nobody who closes them."""
        folder = self.folder.with_name(f"{self.folder.name}-{self.opened}")
        shutil.copytree(self.folder, folder)
        self.database.close()
        shutil.rmtree(self.folder)
        folder.rename(self.folder)
        self.database = self.open()

    @rule()
    def load(self) -> None:
        apply_all(self.state, [MessageRemoved(each) for each in self.state.unreferenced()])
        self.database.load()

    @invariant()
    def they_agree(self) -> None:
        rows = self.database.load([*{**self.state.sessions, **self.state.wills}])
        sessions = {
            each.session.client_id: (
                each.session,
                each.closed_at,
                {put.topic_filter: put for put in each.subscriptions},
                sorted(each.received),
                (each.queued, each.queued_bytes, each.highest_sequence),
            )
            for each in map(loaded_session, rows[0])
        }
        wills = {put.client_id: put for put in map(will_put, rows[1])}
        assert (sessions, wills, dict(rows[2]), rows[3]) == sorted_load(self.state)
        for client_id in self.state.sessions:
            assert self.queue(client_id) == run(MemoryStore(self.state).queued(client_id, 0, 1000))
        for topic_filter in (None, "#", "t/+", "t/#", "t", "+", "$x/#", "/+/#"):
            assert self.retained(topic_filter) == wanted_retained(self.state, topic_filter)

    def queue(self, client_id: str) -> list[QueuedRow]:
        found: list[QueuedRow] = []
        while page := self.database.queued(client_id, found[-1].sequence if found else 0, 3):
            found += map(queued_row, page)
        return found

    def retained(self, topic_filter: str | None) -> list[RetainedPut]:
        found: list[RetainedPut] = []
        while page := self.database.retained(topic_filter, found[-1].topic if found else None, 2):
            found += map(retained_put, page)
        return found


def wanted_retained(state: StoredState, topic_filter: str | None) -> Sequence[RetainedPut]:
    return [
        state.retained[topic]
        for topic in sorted(state.retained)
        if topic_filter is None or topic_matches(topic_filter, topic)
    ]


TestComparison = Comparison.TestCase
TestComparison.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
