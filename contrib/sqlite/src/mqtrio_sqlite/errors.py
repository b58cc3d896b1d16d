"""What SQLite says, in words that tell an operator what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mqtrio import StoreError, StoreFull

#: What an error's name begins with -> what has happened, and what helps.
_ADVICE: Final = {
    "SQLITE_FULL": "there is no room left: make some on its disk, or raise max_size",
    "SQLITE_BUSY": "another program holds it: end that one, or give this broker another path",
    "SQLITE_LOCKED": "another program holds it: end that one, or give this broker another path",
    "SQLITE_READONLY": "it can't be written: let the broker's user write the file and its folder",
    "SQLITE_PERM": "it can't be written: let the broker's user write the file and its folder",
    "SQLITE_CANTOPEN": "it can't be opened: its folder must be there, and the broker's user must "
    "be allowed to write there",
    "SQLITE_CORRUPT": "it is damaged: stop the broker, keep a copy, and go back to a backup, or "
    "take what `mqtrio store export` still reads",
    "SQLITE_NOTADB": "it is no database: give another path, or go back to a backup",
    "SQLITE_IOERR": "its disk fails: see the log of the system",
    "SQLITE_CONSTRAINT": "a change doesn't fit what is stored",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite, and ours, into StoreErrors that begin with the path."""
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        raise (StoreFull if full else StoreError)(f"{path}: {explain(error)}") from error
    except StoreError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise StoreError(f"{path}: {error}") from error


def explain(error: sqlite3.Error) -> str:
    """Say what has happened and what to do about it."""
    name = getattr(error, "sqlite_errorname", "")
    for begin, advice in _ADVICE.items():
        if name.startswith(begin):
            return f"{advice} ({name}: {error})"
    return f"{name or type(error).__name__}: {error}"
