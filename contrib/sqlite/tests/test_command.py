"""`mqtrio store`: what is exported makes the same store again."""

import io
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from mqtrio.cli import main
from mqtrio.store.apply import apply_all
from mqtrio.store.stored import StoredState
from mqtrio.testing.changes import random_batch
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.records import records
from mqtrio_sqlite.transfer import changes_in


@pytest.fixture
def state(path: Path) -> StoredState:
    """What a database at `path` holds."""
    random, state = Random(3), StoredState()
    database = Database(Options(path=path))
    for _ in range(60):
        batch = random_batch(random, state)
        apply_all(state, batch)
        database.commit(records(batch))
    database.close()
    assert all(len(table) for table in state.tables().values())
    return state


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def call(*arguments: str, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        status = main(["store", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call  # type: ignore[return-value]  # a function, to be called


def test_what_is_exported_can_be_imported(state: StoredState, path: Path, run: object) -> None:
    assert callable(run)
    status, exported, _ = run("export", str(path))
    assert status == 0
    again = StoredState()
    apply_all(again, list(changes_in(exported.encode().splitlines())))
    for number in state.unreferenced():
        del state.messages[number]
    assert again.differences(state) == []
    other = path.with_name("other.db")
    assert run("import", str(other), given=exported) == (0, "", "")
    assert run("export", str(other)) == (0, exported, "")
    status, _, said = run("import", str(other), given=exported)
    assert (status, said) == (1, f"mqtrio store: {other}: it isn't empty: import into a new one\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no change (JSONDecodeError)"),
        ('{"Nothing": {}}', "line 2 is no change (KeyError)"),
        ('{"RetainedPut": {"topic": "t"}}', "line 2 is no change (TypeError)"),
        ('{"SessionClosed": {"client_id": "x", "closed_at": 1}}', "session 'x', which isn't there"),
    ],
)
def test_what_is_wrong_leaves_nothing(path: Path, run: object, line: str, said: str) -> None:
    assert callable(run)
    fine = '{"RetainedPut": {"topic": "t", "payload": {"base64": ""}, "qos": 0}}'
    given = f'{{"mqtrio_store": 1}}\n{line}\n{fine}\n'
    status, _, error = run("import", str(path), given=given)
    assert status == 1
    assert said in error
    assert run("import", str(path), given=f'{{"mqtrio_store": 1}}\n{fine}\n')[0] == 0
    status, _, error = run("import", str(path.with_name("x.db")), given="{}")
    assert status == 1
    assert "doesn't begin with" in error


def test_payloads_are_base64(state: StoredState, path: Path, run: object) -> None:
    assert callable(run)
    _, exported, _ = run("export", str(path))
    puts = [json.loads(line).get("MessagePut") for line in exported.splitlines()]
    assert all(set(put["payload"]) == {"base64"} for put in puts if put)


def test_info_and_check_beside_a_broker(state: StoredState, path: Path, run: object) -> None:
    assert callable(run)
    database = Database(Options(path=path))
    try:
        status, said, _ = run("info", str(path))
        assert status == 0
        facts = dict(line.split("  ", 1) for line in said.splitlines())
        figures = {name.strip(): value.strip() for name, value in facts.items()}
        assert figures["sessions"] == str(len(state.sessions))
        assert figures["retained"] == str(len(state.retained))
        assert run("check", str(path)) == (0, f"{path}: fine\n", "")
        status, _, error = run("vacuum", str(path))
        assert status == 1
        assert "another program holds it" in error
    finally:
        database.close()
    status, said, _ = run("vacuum", str(path))
    assert status == 0
    assert "bytes before" in said


def test_check_finds_damage(state: StoredState, path: Path, run: object) -> None:
    assert callable(run)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE queue SET message = message + (1 << 50) WHERE sequence = "
            "(SELECT max(sequence) FROM queue)"
        )
    connection.close()
    status, said, _ = run("check", str(path))
    assert status == 1
    assert "of queue refers to a row of messages that isn't there" in said
    assert said.endswith(": damaged\n")


def test_nothing_is_made_of_a_wrong_path(path: Path, run: object) -> None:
    assert callable(run)
    for command in ("info", "export", "check", "vacuum"):
        assert run(command, str(path)) == (1, "", f"mqtrio store: {path} doesn't exist\n")
        assert not path.exists()
