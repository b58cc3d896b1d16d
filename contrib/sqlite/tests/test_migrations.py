"""Databases of other versions: older ones are brought up to date or left as they are, whole.

versions/N.sql is a database as version N wrote it, versions/N.jsonl what is in it, in the form of
`mqtrio store export`. A new version of the schema brings its own two files; none is ever changed.
"""

import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mqtrio import PluginError, StoreError, open_broker
from mqtrio.cli import main
from mqtrio.store.apply import apply_all
from mqtrio.store.stored import StoredState
from mqtrio_sqlite import SqlitePlugin, SqliteSettings
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.schema import MIGRATIONS, VERSION, migrate, version_of
from mqtrio_sqlite.transfer import changes_in, changes_of

VERSIONS = Path(__file__).with_name("versions")

#: A step that rewrites a table, as later ones may have to, and then something else.
STEP = """
CREATE TABLE anew (topic TEXT PRIMARY KEY, payload BLOB NOT NULL, size INTEGER NOT NULL);
INSERT INTO anew SELECT topic, payload, length(payload) FROM retained;
DROP TABLE retained;
ALTER TABLE anew RENAME TO retained;
CREATE TABLE last (x);
"""


def written_by(version: int, path: Path) -> StoredState:
    """Make the database of an earlier version; returns what is in it."""
    with sqlite3.connect(path) as connection:
        connection.executescript((VERSIONS / f"{version}.sql").read_text(encoding="utf-8"))
    connection.close()
    return state_in((VERSIONS / f"{version}.jsonl").read_bytes())


def state_in(exported: bytes) -> StoredState:
    state = StoredState()
    apply_all(state, list(changes_in(exported.splitlines())))
    return state


def content(path: Path) -> list[str]:
    """Everything that is in a database, in words of SQL."""
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA user_version").fetchone()
    found = [f"version {version}", *connection.iterdump()]
    connection.close()
    return found


def tables(path: Path) -> set[str]:
    """What the tables of a database are, whatever the order of their columns' making."""
    connection = sqlite3.connect(path)
    found = set()
    for name, kind in connection.execute("SELECT name, type FROM sqlite_schema").fetchall():
        found.add(f"{kind} {name}")
        for column in connection.execute("SELECT * FROM pragma_table_info(?)", (name,)):
            found.add(f"{name}: {column[1:]}")
    connection.close()
    return found


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_older_database_is_brought_up_to_date(path: Path, version: int) -> None:
    state = written_by(version, path)
    assert all(state.tables().values())  # there is something of everything
    database = Database(Options(path=path))
    assert version_of(database.connection) == VERSION
    migrated = StoredState()
    apply_all(migrated, list(changes_of(database.connection)))
    assert migrated.differences(state) == []
    database.close()
    new = path.with_name("new.db")
    Database(Options(path=new)).close()
    assert tables(path) == tables(new)


@pytest.mark.parametrize("version", range(1, VERSION))
async def test_a_broker_goes_on_with_an_older_database(
    path: Path, writer: str, version: int
) -> None:
    state = written_by(version, path)
    settings = SqliteSettings(path=path, writer="process" if writer == "process" else "thread")
    async with open_broker([], plugins=[SqlitePlugin(settings, name="sqlite")]) as broker:
        kept = {message.topic for message in broker.retained("#")}
        assert kept == {topic for topic in state.retained if not topic.startswith("$")}
        await broker.publish("new", b"1", qos=1, retain=True)
    async with open_broker([], plugins=[SqlitePlugin(settings, name="sqlite")]) as broker:
        assert "new" in {message.topic for message in broker.retained("#")}


def test_each_version_before_this_one_has_its_files() -> None:
    wanted = {f"{n}.{kind}" for n in range(1, VERSION) for kind in ("sql", "jsonl")}
    assert {path.name for path in VERSIONS.iterdir()} == wanted


def test_one_more_step_is_one_more_entry(path: Path) -> None:
    state = written_by(1, path)
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, [*MIGRATIONS, STEP])
    rows = connection.execute("SELECT topic, size FROM retained").fetchall()
    assert rows == [(topic, len(put.payload)) for topic, put in sorted(state.retained.items())]
    assert version_of(connection, VERSION + 1) == VERSION + 1
    migrate(connection, [*MIGRATIONS, STEP])  # which does nothing any more
    connection.close()


def test_a_step_that_fails_leaves_the_old_version(path: Path) -> None:
    written_by(1, path)
    before = content(path)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        migrate(connection, [*MIGRATIONS, STEP + "DROP TABLE nowhere;\n"])
    connection.close()
    assert content(path) == before


CRASH = """
import os, signal, sqlite3, sys
from mqtrio_sqlite.schema import MIGRATIONS, migrate

path, step, last = sys.argv[1:]
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA cache_size = 1")  # so that it is written to the disk as it goes on

def look(statement):
    if statement.strip().startswith(last):
        os.kill(os.getpid(), signal.SIGKILL)

connection.set_trace_callback(look)
migrate(connection, [*MIGRATIONS, step])
"""


@pytest.mark.parametrize(
    "last", ["ALTER TABLE wills", "CREATE TABLE last", "UPDATE meta", "COMMIT"]
)
def test_a_crash_in_the_middle_leaves_the_old_version(path: Path, last: str) -> None:
    state = written_by(1, path)
    before = content(path)
    command = [sys.executable, "-c", CRASH, str(path), STEP, last]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert path.with_name("broker.db-wal").exists()
    assert content(path) == before
    database = Database(Options(path=path))  # and the next start gets through
    migrated = StoredState()
    apply_all(migrated, list(changes_of(database.connection)))
    assert migrated.differences(state) == []
    database.close()


def test_a_crash_comes_from_the_statement_that_was_named(path: Path) -> None:
    """So the test above can fail."""
    written_by(1, path)
    command = [sys.executable, "-c", CRASH, str(path), STEP, "nothing begins so"]
    assert subprocess.run(command, check=False).returncode == 0
    assert content(path)[0] == f"version ({VERSION + 1},)"


def test_an_old_database_with_rows_that_are_missing(path: Path) -> None:
    written_by(1, path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM messages WHERE id = 11")
    connection.close()
    before = content(path)
    with pytest.raises(StoreError, match="rows are missing in it: see `mqtrio store check`"):
        Database(Options(path=path))
    assert content(path) == before


async def test_a_newer_schema_is_refused(path: Path, writer: str) -> None:
    """Both versions are named, and the program that can read it, if that is told."""
    Database(Options(path=path)).close()
    for said in (", 7.8.9", ""):
        with sqlite3.connect(path) as other:
            other.execute(f"PRAGMA user_version = {VERSION + 1}")
            if said:
                other.execute("UPDATE meta SET written_by = '7.8.9'")
            else:
                other.execute("ALTER TABLE meta DROP COLUMN written_by")
        other.close()
        before = path.read_bytes()
        settings = SqliteSettings(path=path, writer="process" if writer == "process" else "thread")
        words = re.escape(
            f"{path}: it was written by a newer mqtrio-sqlite{said} (its schema is version "
            f"{VERSION + 1}, this one knows {VERSION}): install that one"
        )
        with pytest.raises(PluginError, match=words):
            async with open_broker([], plugins=[SqlitePlugin(settings, name="sqlite")]):
                raise AssertionError("it has started")
        assert path.read_bytes() == before


def test_commands_that_only_read_tell_what_to_do(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written_by(1, path)
    before = content(path)
    for command in ("info", "export", "check"):
        assert main(["store", command, str(path)]) == 1
        said = capsys.readouterr().err
        assert f"its schema is version 1, this mqtrio-sqlite reads {VERSION}" in said
    assert content(path) == before
    assert main(["store", "vacuum", str(path)]) == 0
    assert main(["store", "check", str(path)]) == 0
