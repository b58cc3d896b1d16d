"""`mqtrio store`: look at a database, copy it out and in, check it, make it small again."""

import argparse
import contextlib
import itertools
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from mqtrio import StoreError
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.errors import explained
from mqtrio_sqlite.records import Record, records
from mqtrio_sqlite.schema import APPLICATION_ID, VERSION, version_of
from mqtrio_sqlite.transfer import changes_in, changes_of, lines

Item = TypeVar("Item")

_EXAMPLES: Final = """\
examples:
  mqtrio store info broker.db                what is in it; also while the broker runs
  mqtrio store export broker.db > copy.jsonl lines of JSON; also while the broker runs
  mqtrio store import new.db < copy.jsonl    into a database that is new or empty
  mqtrio store check broker.db               look for damage
  mqtrio store vacuum broker.db              give free pages back; the broker must not run
"""
_TABLES: Final = ("sessions", "subscriptions", "received", "messages", "queue", "retained", "wills")

#: Lines that an import commits at one time.
_BATCH: Final = 10_000


def store(arguments: Sequence[str]) -> int:
    """Run `mqtrio store` with these arguments; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    path: Path = options.path
    try:
        if options.run is not _import and not path.exists():
            raise StoreError(f"{path} doesn't exist")
        with explained(path):
            return int(options.run(path))
    except StoreError as error:
        print(f"mqtrio store: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mqtrio store",
        description="Look after a database of the plugin sqlite.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("info", _info, "say what is in it"),
        ("export", _export, "write it to standard output, as lines of JSON"),
        ("import", _import, "read lines of JSON from standard input into a new database"),
        ("vacuum", _vacuum, "make the file as small as it can be"),
        ("check", _check, "look for damage; exit status 1 if there is some"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", type=Path, metavar="PATH")
        command.set_defaults(run=run)
    return parser


def _info(path: Path) -> int:
    with _reading(path) as connection:
        facts: dict[str, object] = {"schema": version_of(connection)}
        facts |= {table: _count(connection, table) for table in _TABLES}
        (payloads,) = connection.execute(
            "SELECT (SELECT ifnull(sum(length(payload)), 0) FROM messages) "
            "+ (SELECT ifnull(sum(length(payload)), 0) FROM retained)"
        ).fetchone()
        (commits, refused) = connection.execute("SELECT commits, refused FROM meta").fetchone()
        (pages, free, size) = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    facts |= {
        "bytes of payloads": payloads,
        "commits": commits,
        "commits that failed": refused,
        "bytes": pages * size,
        "bytes that are free": free * size,
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value:,}")
    return 0


def _export(path: Path) -> int:
    with _reading(path) as connection:
        total = sum(_count(connection, table) for table in _TABLES)
        for line in _progress("export", lines(changes_of(connection)), total):
            print(line)
    sys.stdout.flush()
    return 0


def _import(path: Path) -> int:
    database = Database(Options(path=path))
    try:
        if any(_count(database.connection, table) for table in _TABLES):
            raise StoreError("it isn't empty: import into a new one")
        given = sys.stdin.buffer
        with contextlib.closing(_progress("import", given, _size(given), len)) as shown:
            # What is read up to an error isn't kept: half of a store is worse than none.
            database.commit_all(_batches(changes_in(shown)))
    finally:
        database.close()
    return 0


def _batches(changes: Iterable[Any]) -> Iterator[list[Record]]:
    rest = iter(changes)
    while batch := records(itertools.islice(rest, _BATCH)):
        yield batch


def _vacuum(path: Path) -> int:
    before = path.stat().st_size
    database = Database(Options(path=path))
    try:
        with _turning("vacuum", database.connection):
            database.connection.execute("VACUUM")
    finally:
        database.close()
    print(f"{before:,} bytes before, {path.stat().st_size:,} after")
    return 0


def _check(path: Path) -> int:
    with _reading(path) as connection, _turning("check", connection):
        found = [text for (text,) in connection.execute("PRAGMA integrity_check")]
        found = [] if found == ["ok"] else found
        found += [
            f"row {row} of {table} refers to a row of {parent} that isn't there"
            for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check")
        ]
    for text in found:
        print(text)
    print(f"{path}: {'damaged' if found else 'fine'}")
    return 1 if found else 0


def _count(connection: sqlite3.Connection, table: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


@contextlib.contextmanager
def _reading(path: Path) -> Generator[sqlite3.Connection, None, None]:
    """Open a database to read one state of it, which a broker may go on changing meanwhile."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        version = version_of(connection)
        if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            raise StoreError("it is empty")
        if version < VERSION:
            raise StoreError(
                f"its schema is version {version}, this mqtrio-sqlite reads {VERSION}: "
                "`mqtrio store vacuum` or the start of a broker brings it up to date"
            )
        connection.execute("BEGIN")
        yield connection


# -- progress, on a terminal only, and only of what takes long

_WIDTH: Final = 30
_TURNS: Final = "|/-\\"


def _one(item: object) -> int:
    return 1


def _size(stream: BinaryIO) -> int | None:
    """Say how many bytes there are to read, where that is known: in a file, not in a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _progress(
    what: str, items: Iterable[Item], total: int | None, weigh: Callable[[Item], int] = _one
) -> Generator[Item, None, None]:
    """Go through items, and show how much of `total` those are that have gone through."""
    show = _Bar(what)
    done = 0
    try:
        for number, item in enumerate(items):
            if not number % 1000:
                show.at(done, total)
            yield item
            done += weigh(item)
    finally:
        show.end()


@contextlib.contextmanager
def _turning(what: str, connection: sqlite3.Connection) -> Generator[None, None, None]:
    """Show that SQLite is at work in the block, of whose length it says nothing."""
    show = _Bar(what)
    steps = itertools.count(1)
    connection.set_progress_handler(lambda: show.at(next(steps), None), 10_000)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
        show.end()


class _Bar:
    """One line of standard error, written over and over."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.begin = self.last = time.monotonic()
        self.shown = False
        # What an export writes to the same terminal must not be cut by it.
        self.wanted = sys.stderr.isatty() and not (what == "export" and sys.stdout.isatty())

    def at(self, count: int, total: int | None) -> int:
        """Show `count` of `total`; returns 0, which lets SQLite go on."""
        now = time.monotonic()
        if self.wanted and now - self.begin > 0.5 and now - self.last > 0.1:
            self.last, self.shown = now, True
            seconds = f"{now - self.begin:.0f} s"
            if total:
                part = min(count, total) / total
                done = int(_WIDTH * part)
                text = f"[{'#' * done}{'.' * (_WIDTH - done)}] {part:.0%}, {seconds}"
            else:
                text = f"{_TURNS[int(now * 10) % 4]} {seconds}"
            print(f"\r{self.what} {text}\x1b[K", end="", file=sys.stderr, flush=True)
        return 0

    def end(self) -> None:
        """Take the line away."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
