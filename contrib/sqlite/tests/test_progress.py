"""Long work says how far it is, to people who watch, and to nobody else."""

import io
import itertools
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mqtrio import RetainedPut
from mqtrio.cli import main
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.records import records

#: Enough for SQLite's own steps to be counted.
MANY = 20_000


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "broker.db"
    database = Database(Options(path=path))
    database.commit(records([RetainedPut(f"t/{n:05}", b"x", 0) for n in range(MANY)]))
    database.connection.execute("VACUUM")
    database.close()
    return path


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes between two looks at the clock."""
    clock = map(float, itertools.count())
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: str, watched: bool, given: Any = None, out: Any = None) -> Any:
        error = Terminal() if watched else io.StringIO()
        output = out or io.StringIO()
        monkeypatch.setattr(sys, "stderr", error)
        monkeypatch.setattr(sys, "stdout", output)
        if given is not None:
            monkeypatch.setattr(sys, "stdin", given)
        status = main(["store", *arguments])
        return status, output.getvalue(), error.getvalue()

    return call


BAR = r"\r{} \[#*\.*\] \d+%, \d+ s\x1b\[K"
TURNS = r"\r{} [|/\\-] \d+ s\x1b\[K"


@pytest.mark.parametrize(("name", "shown"), [("export", BAR), ("check", TURNS), ("vacuum", TURNS)])
def test_who_watches_sees_how_far_it_is(large: Path, run: Any, name: str, shown: str) -> None:
    status, alone, said = run(name, str(large), watched=False)
    assert (status, said) == (0, "")
    status, output, said = run(name, str(large), watched=True)
    assert status == 0
    assert output == alone
    parts = re.findall(r"\r[^\r]*", said)
    assert len(parts) > 2
    assert all(re.fullmatch(shown.format(name), part) for part in parts[:-1])
    assert parts[-1] == "\r\x1b[K"  # it is taken away at the end


def test_an_import_knows_the_size_of_a_file(large: Path, run: Any, tmp_path: Path) -> None:
    _, exported, _ = run("export", str(large), watched=False)
    file = tmp_path / "copy.jsonl"
    file.write_text(exported)
    with file.open() as given:
        status, output, said = run("import", str(tmp_path / "a.db"), watched=True, given=given)
    assert (status, output) == (0, "")
    shares = [int(share) for share in re.findall(r"(\d+)%", said)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] >= 90
    pipe = io.TextIOWrapper(io.BytesIO(exported.encode()))
    status, output, said = run("import", str(tmp_path / "b.db"), watched=True, given=pipe)
    assert (status, output) == (0, "")
    assert re.match(TURNS.format("import"), said)
    assert run("export", str(tmp_path / "b.db"), watched=False)[1] == exported


def test_lines_on_the_same_terminal_are_not_cut(large: Path, run: Any) -> None:
    _, alone, _ = run("export", str(large), watched=False)
    _, output, said = run("export", str(large), watched=True, out=Terminal())
    assert (output, said) == (alone, "")


def test_an_error_stands_alone(run: Any, tmp_path: Path) -> None:
    """The bar is gone before anything else is written."""
    given = io.TextIOWrapper(io.BytesIO(b'{"mqtrio_store": 1}\n' + b"{\n"))
    status, _, said = run("import", str(tmp_path / "c.db"), watched=True, given=given)
    assert status == 1
    assert said.endswith(
        f"\r\x1b[Kmqtrio store: {tmp_path / 'c.db'}: line 2 is no change (JSONDecodeError)\n"
    )


def test_short_work_shows_nothing(large: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    assert run("export", str(large), watched=True)[2] == ""
