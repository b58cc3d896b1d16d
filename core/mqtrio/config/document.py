"""A configuration as it was written, and how its parts become instances of attrs classes."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, get_args

import attrs
from attrs import define, field
from cattrs.errors import (
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
)

from mqtrio.config.problems import InvalidSettings, Problem, by_line
from mqtrio.config.structure import Structure
from mqtrio.errors import ConfigurationError
from mqtrio.settings import Settings
from mqtrio.toml_lines import KeyPath, key_lines

T = TypeVar("T")

_POSITION: Final = re.compile(r" \(at line ([0-9]+), column [0-9]+\)$")


@define(frozen=True)
class Result(Generic[T]):
    """What was read: a value, or the problems that there were."""

    value: T | None
    problems: tuple[Problem, ...] = ()
    #: Strings in the value that nobody may see.
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


@define(frozen=True)
class Document:
    """Settings as they were written: their source, their content, the lines of their keys.

    `folder` is where relative paths start: the file's, or the working directory for a program.
    """

    source: str
    content: Mapping[str, Any]
    lines: Mapping[KeyPath, int] = MappingProxyType({})
    folder: Path = Path()

    def read(
        self, kind: type[T], content: object, path: KeyPath = (), also: tuple[str, ...] = ()
    ) -> Result[T]:
        """Fill the attrs class `kind` from `content`, which stands at `path` in this document.

        `also` are keys that may stand beside the class's own, read by somebody else.
        """
        structure = Structure(self.folder)
        try:
            value = structure.read(kind, content)
            return Result(value, secrets=structure.secrets)
        except Exception as error:  # noqa: BLE001 - whatever a class's own validators raise
            found = [
                self.problem(at, structure.without_secrets(text))
                for at, text in _leaves(error, path, also)
            ]
        return Result(None, by_line(found))

    def problem(self, path: KeyPath, text: str) -> Problem:
        """Tell a problem with its line.

        A key that is missing has that of its table, a table without a header that of what is in it.
        """
        for end in range(len(path), 0, -1):
            inside = [line for key, line in self.lines.items() if key[:end] == path[:end]]
            if inside:
                line = self.lines.get(path[:end], min(inside))
                return Problem(self.source, path, text, line)
        return Problem(self.source, path, text)


def read_toml(path: str | Path) -> Document:
    """Parse a file, nothing more. Raises ConfigurationError if it can't be read or is no TOML."""
    source = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8").replace("\r\n", "\n")
        content = tomllib.loads(text)
        return Document(source, content, key_lines(text), Path(path).absolute().parent)
    except OSError as error:
        wrong = Problem(source, (), f"can't be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        wrong = Problem(source, (), "this is not UTF-8, as TOML must be", line)
    except tomllib.TOMLDecodeError as error:
        # The position stands in the text only (before Python 3.14).
        place = _POSITION.search(str(error))
        message = _POSITION.sub("", str(error))
        wrong = Problem(source, (), f"no TOML: {message}", int(place[1]) if place else None)
    except RecursionError:
        wrong = Problem(source, (), "nested too deeply")
    except ValueError as error:  # Python refuses to read numbers of thousands of digits
        wrong = Problem(source, (), f"no TOML: {error}")
    raise InvalidSettings((wrong,))


def read_settings(path: str | Path, kind: type[T]) -> T:
    """Read a TOML file of a plugin's own: its keys are the fields of the settings class `kind`.

    As strict as the configuration itself: raises ConfigurationError with all errors, each with its
    line.
    """
    document = read_toml(path)
    result = document.read(kind, document.content)
    if result.value is None:
        raise InvalidSettings(result.problems)
    return result.value


def sections() -> Iterator[tuple[str, type]]:
    """Give the broker's own tables: how the header is written, and the class."""
    for each in attrs.fields(Settings):
        element: Any = next(iter(get_args(each.type)), None)
        inside: Any = element or each.type
        if attrs.has(inside):
            yield (f"[[{each.name}]]" if element else f"[{each.name}]"), inside


def _leaves(
    error: Exception, path: KeyPath, also: tuple[str, ...] = ()
) -> Iterator[tuple[KeyPath, str]]:
    """Take cattrs' tree of errors apart: each leaf with the path of its key."""
    if isinstance(error, ClassValidationError):
        inside, others = error.group_exceptions()
        for each, note in inside:
            if isinstance(each, KeyError) and each.args == (note.name,):
                field = getattr(attrs.fields(error.cl), note.name)
                yield (
                    (*path, note.name),
                    f"missing; {field.metadata.get('help', 'it has no default')}",
                )
            else:
                yield from _leaves(each, (*path, note.name))
        for each in others:
            if isinstance(each, ForbiddenExtraKeysError):
                for key in sorted(map(str, each.extra_fields)):
                    yield (*path, key), _unknown(key, error.cl, also)
            else:
                yield from _leaves(each, path)
    elif isinstance(error, IterableValidationError):
        for each, place in error.group_exceptions()[0]:
            yield from _leaves(each, (*path, place.index))
    elif isinstance(error, ValueError | ConfigurationError):
        yield path, str(error)
    else:
        yield path, f"{type(error).__name__}: {error}"


def _unknown(key: str, kind: type, also: tuple[str, ...]) -> str:
    """Say that a key is unknown in a class, and which one may have been meant."""
    names = [*(each.name for each in attrs.fields(kind)), *also]
    close = difflib.get_close_matches(key, names, n=1)
    tables = dict(sections())
    elsewhere = [
        f"unknown here; did you mean {name.strip('[]')}.{key}?"
        for name, section in tables.items()
        if any(each.name == key for each in attrs.fields(section))
    ]
    # Keys of the broker's tables are told apart by their names; a plugin's may be called like them.
    if elsewhere and (not close or kind in tables.values()):
        return elsewhere[0]
    return (
        f"unknown; did you mean {close[0]}?"
        if close
        else f"unknown; allowed: {', '.join(names) or 'nothing'}"
    )
