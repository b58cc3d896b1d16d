"""The file of users: one `USERNAME:HASH` a line, as Mosquitto has it.

Empty lines and those that begin with `#` mean nothing and stay. A file is replaced as a whole: who
reads it meanwhile sees the old one or the new one.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mqtrio import ConfigurationError
from mqtrio_plugins.passwords.hashes import Hash, parse


def read_users(path: Path) -> dict[str, Hash]:
    """The users of a file, and their hashes.

    Raises ConfigurationError with file and line, whose text tells of no password and no hash.
    """
    users: dict[str, Hash] = {}
    lines: dict[str, int] = {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    for number, line in enumerate(content.splitlines(), 1):
        try:
            text = line.decode().strip()
            if not text or text.startswith("#"):
                continue
            username, colon, kept = text.partition(":")
            if not colon or not username:
                raise ValueError("expected USERNAME:HASH")
            if username in lines:
                raise ValueError(f"the user {username!r} stands in line {lines[username]} already")
            lines[username] = number
            users[username] = parse(kept)
        except UnicodeDecodeError:
            raise ConfigurationError(f"{path}:{number}: this is not UTF-8") from None
        except ValueError as error:
            raise ConfigurationError(f"{path}:{number}: {error}") from None
    return users


def stamp(path: Path) -> tuple[int, ...] | None:
    """What differs when a file has been written or replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def changed_lines(old: bytes, changes: Mapping[str, str | None]) -> bytes:
    """The content of a file after changes: username -> new hash, or None to take the user away.

    A user keeps its line, new ones come last; all other lines stay as they are.
    """
    left = dict(changes)
    kept = list(_changed(old, changes, left))
    kept += [f"{username}:{text}\n".encode() for username, text in left.items() if text is not None]
    return b"".join(kept)


def _changed(
    old: bytes, changes: Mapping[str, str | None], left: dict[str, str | None]
) -> Iterator[bytes]:
    for line in old.splitlines(keepends=True):
        text = line.decode(errors="surrogateescape").strip()
        username = text.partition(":")[0]
        if ":" not in text or text.startswith("#") or username not in changes:
            yield line if line.endswith((b"\n", b"\r")) else line + b"\n"
        elif left.get(username) is not None:
            yield f"{username}:{left.pop(username)}\n".encode()
        # What is left over: a user that is taken away, or stood there twice.


def write(path: Path, content: bytes) -> None:
    """Replace a file, or make it, readable for its owner only. Raises OSError."""
    path = path.resolve()  # a link stays a link
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(path, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _keep_owner(path: Path, temporary: Path) -> None:
    """The broker must be able to read what root has changed for it."""
    if path.exists() and hasattr(os, "chown"):
        owner = path.stat()
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(temporary, owner.st_uid, owner.st_gid)
