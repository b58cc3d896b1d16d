"""The tables, and the steps from each version of them to the next.

`PRAGMA user_version` is the version of a file. A step is never changed once it was released: a new
one is put behind it.
"""

import importlib.metadata
import sqlite3
from collections.abc import Sequence
from typing import Final

from mqtrio import StoreError

#: "mqtt" as a number, by which `file` and we tell our files from others.
APPLICATION_ID: Final = 0x6D717474

_FIRST: Final = """
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    commits INTEGER NOT NULL,  -- the number of the last commit, by which its fate can be told
    refused INTEGER NOT NULL  -- how many have failed
);
INSERT INTO meta VALUES (1, 0, 0);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    version INTEGER NOT NULL,
    expiry_interval INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    created_at REAL NOT NULL,
    credentials_expire_at REAL,
    closed_at REAL  -- NULL while it has a connection
);
CREATE TABLE subscriptions (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    topic_filter TEXT NOT NULL,
    qos INTEGER NOT NULL,
    no_local INTEGER NOT NULL,
    retain_as_published INTEGER NOT NULL,
    retain_handling INTEGER NOT NULL,
    identifier INTEGER NOT NULL,
    sent TEXT NOT NULL,
    PRIMARY KEY (session, topic_filter)
) WITHOUT ROWID;
CREATE TABLE received (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    packet_id INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)
) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    payload_format_indicator INTEGER,
    content_type TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    user_properties TEXT,  -- JSON; NULL: the message has no properties at all
    publisher TEXT NOT NULL,
    username TEXT,
    expires_at REAL,
    origin TEXT NOT NULL,
    node TEXT NOT NULL
);
CREATE TABLE queue (
    session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    message INTEGER NOT NULL REFERENCES messages,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    identifiers TEXT,  -- JSON; NULL: none
    packet_id INTEGER NOT NULL,  -- 0: never sent
    shared TEXT NOT NULL,
    released INTEGER NOT NULL,
    PRIMARY KEY (session, sequence)
) WITHOUT ROWID;
CREATE INDEX queue_message ON queue (message);
CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    payload_format_indicator INTEGER,
    content_type TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    user_properties TEXT,
    publisher TEXT NOT NULL,
    username TEXT,
    expires_at REAL,
    origin TEXT NOT NULL,
    node TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE wills (
    client_id TEXT PRIMARY KEY,
    username TEXT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    delay_interval INTEGER NOT NULL,
    message_expiry_interval INTEGER,
    payload_format_indicator INTEGER,
    content_type TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    user_properties TEXT,
    due REAL  -- NULL while the connection lives
) WITHOUT ROWID;
"""

_SECOND: Final = """
-- The version of the program that has made the tables what they are.
ALTER TABLE meta ADD COLUMN written_by TEXT;
ALTER TABLE wills ADD COLUMN ruling TEXT NOT NULL DEFAULT '';
"""

#: What makes version n + 1 of version n; an empty file is version 0. Each is SQL whose statements
#: end with a line. It may make tables anew: references between rows are checked at its end only.
MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _SECOND)

VERSION: Final = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection, known: int = VERSION) -> int:
    """Say the version of a file; raises StoreError if it isn't ours, or newer than we know."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise StoreError("it is a database of something else: give another path")
    if version > known:
        raise StoreError(
            f"it was written by a newer mqtrio-sqlite{_writer(connection)} (its schema is version "
            f"{version}, this one knows {known}): install that one, or go back to a copy of the "
            "database"
        )
    return int(version)


def _writer(connection: sqlite3.Connection) -> str:
    """Say what wrote a file, if that is told where we look for it."""
    try:
        (version,) = connection.execute("SELECT written_by FROM meta").fetchone()
    except (sqlite3.Error, TypeError):  # a later version may have put it elsewhere
        return ""
    return f", {version}" if isinstance(version, str) else ""


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """Bring a file to the newest version, in one transaction; raises StoreError if it can't be.

    `PRAGMA foreign_keys` must be off. Whatever goes wrong meanwhile leaves the file as it was.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(connection, len(steps))
        for step in steps[version:]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        if version < len(steps):
            if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise StoreError(
                    "it can't be brought up to date, because rows are missing in it: see "
                    "`mqtrio store check`, and go back to a backup"
                )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(steps)}")
            connection.execute("UPDATE meta SET written_by = ?", (_ours(),))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _ours() -> str | None:
    """Say what writes now; a frozen program may not know."""
    try:
        return importlib.metadata.version("mqtrio-sqlite")
    except importlib.metadata.PackageNotFoundError:
        return None
