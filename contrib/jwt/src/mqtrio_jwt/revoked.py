"""Tokens that are no longer good, by their `jti`: a file, one a line, and what a program adds."""

from pathlib import Path
from typing import Final

from mqtrio import ConfigurationError

#: Bytes of a file of revoked tokens.
LARGEST: Final = 64 * 1024 * 1024


def read_revoked(path: Path | None) -> frozenset[str]:
    """The `jti` of a file; `#` begins a comment line. Raises ConfigurationError."""
    if path is None:
        return frozenset()
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ConfigurationError(f"{path}: it is larger than {LARGEST} bytes")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: this is not UTF-8") from None
    words = (line.strip() for line in lines)
    return frozenset(word for word in words if word and not word.startswith("#"))


def stamp(path: Path | None) -> tuple[int, ...] | None:
    """What differs when a file has been written or replaced; None where there is none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
