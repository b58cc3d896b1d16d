"""Settings from a TOML file or from a program's mappings: strictly typed, all errors at once.

`load_config(path)` reads a file, `settings_from({...})` takes the same keys from a program. Any
attrs class can be filled the same way through `Document.read`; the only place that needs cattrs.
"""

import difflib
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, TypeVar, get_args, get_origin

import attrs
import cattrs
from attrs import define
from cattrs.cols import mapping_structure_factory
from cattrs.errors import (
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from mqtrio.errors import ConfigurationError
from mqtrio.fields import (
    allowed,
    base_type,
    complaint,
    describe,
    is_array,
    is_scalar,
    quantity,
    show,
    show_default,
    what_is,
)
from mqtrio.net.addresses import parse_listener
from mqtrio.settings import Listener, Settings
from mqtrio.state.topics import check_mount_point
from mqtrio.toml_lines import KeyPath, key_lines

T = TypeVar("T")

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_POSITION: Final = re.compile(r" \(at line ([0-9]+), column [0-9]+\)$")


@define(frozen=True)
class Problem:
    """One thing that is wrong: in which file or argument, on which line, at which key."""

    source: str
    path: KeyPath
    text: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(filter(None, (where, key_text(self.path), self.text)))


class InvalidSettings(ConfigurationError):
    """Settings that can't be used; `problems` has every one, the text a line for each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        lines = [str(problem) for problem in problems]
        if len(lines) > 1:
            lines = [f"{len(lines)} errors in the configuration:", *(f"  {each}" for each in lines)]
        super().__init__("\n".join(lines))
        self.problems = problems


@define(frozen=True)
class Result(Generic[T]):
    """What was read: a value, or the problems that there were."""

    value: T | None
    problems: tuple[Problem, ...] = ()


@define(frozen=True)
class Document:
    """Settings as they were written: their source, their content, the lines of their keys."""

    source: str
    content: Mapping[str, Any]
    lines: Mapping[KeyPath, int] = MappingProxyType({})

    def read(self, kind: type[T], content: object, path: KeyPath = ()) -> Result[T]:
        """Fill the attrs class `kind` from `content`, which stands at `path` in this document."""
        try:
            return Result(_CONVERTER.structure(content, kind))
        except Exception as error:  # noqa: BLE001 - whatever a class's own validators raise
            found = [self.problem(at, text) for at, text in _leaves(error, path)]
            # By line; what has none keeps its place behind them.
            found.sort(key=lambda each: (each.line is None, each.line or 0))
            return Result(None, tuple(found))

    def problem(self, path: KeyPath, text: str) -> Problem:
        """Tell a problem with its line; a key that is missing has that of its table."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return Problem(self.source, path, text, self.lines[path[:end]])
        return Problem(self.source, path, text)


def load_config(path: str | Path) -> Settings:
    """Read the settings in a TOML file. Raises ConfigurationError, with all errors in its text."""
    return _settings(read_toml(path))


def settings_from(values: Mapping[str, Any], *, source: str = "settings") -> Settings:
    """Make settings of a program's keywords: the keys of the file, or instances of the classes.

    `settings_from({"limits": {"queue_bytes": "1MiB"}, "session": SessionRules(owner="any")})`.
    `source` names the origin in errors. Raises ConfigurationError, with all errors in its text.
    """
    return _settings(Document(source, values))


def _settings(document: Document) -> Settings:
    result = document.read(Settings, document.content)
    if result.value is None:
        raise InvalidSettings(result.problems)
    return result.value


def read_toml(path: str | Path) -> Document:
    """Parse a file, nothing more. Raises ConfigurationError if it can't be read or is no TOML."""
    source = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8").replace("\r\n", "\n")
        content = tomllib.loads(text)
        return Document(source, content, key_lines(text))
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


def key_text(path: KeyPath) -> str:
    """Write a path as a person says it: listener[0].url."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else show(part))
    return text


# -- structuring ---------------------------------------------------------------------------------


def _read_scalar(
    value: object, kind: Any, metadata: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """Give the value of a setting, its unit resolved; ValueError says what is wrong with it."""
    base, unit = base_type(kind), metadata.get("unit")
    if unit is not None and isinstance(value, str):
        number = quantity(value, unit)
        if number is None:
            raise ValueError(f"{what_is(value)}; allowed: {allowed(kind, metadata)}")
        if base is not int:
            value = float(number)
        elif number == int(number):
            value = int(number)
        else:
            raise ValueError(
                f"{show(value)} is no whole number; allowed: {allowed(kind, metadata)}"
            )
    wrong = complaint(value, kind, metadata)
    if wrong is not None:
        raise ValueError(wrong)
    return float(value) if base is float and isinstance(value, int) else value


def _class_hook(kind: Any, converter: cattrs.Converter) -> Any:
    """Make the reader of an attrs class: a table of its settings, or an instance as it is."""
    overrides: dict[str, Any] = {}
    for attribute in attrs.fields(attrs.resolve_types(kind)):
        if is_scalar(attribute.type):
            check = _CHECKS.get((kind, attribute.name))
            hook = _scalar_hook(attribute.metadata, check)
            overrides[attribute.name] = override(struct_hook=hook)
    read = make_dict_structure_fn(
        kind,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        **overrides,
    )

    def read_table(value: object, _kind: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"{what_is(value)}; allowed: a table")
        return read(value, kind)

    return read_table


def _scalar_hook(metadata: Mapping[str, Any], check: Callable[[Any], object] | None) -> Any:
    def hook(value: object, kind: Any) -> Any:
        read = _read_scalar(value, kind, metadata)
        if check is not None:
            check(read)
        return read

    return hook


#: What only a higher layer knows of a setting: the check raises ConfigurationError.
_CHECKS: Final[Mapping[tuple[type, str], Callable[[Any], object]]] = {
    (Listener, "url"): parse_listener,
    (Listener, "mount_point"): check_mount_point,
}


def _array_hook(kind: Any, converter: cattrs.Converter) -> Any:
    """Make the reader of a list or tuple: cattrs would take a string or a table for one, too."""
    make = get_origin(kind)
    element = next(iter(get_args(kind)), Any)
    read = converter.get_structure_hook(element)

    def hook(value: object, _kind: Any) -> Any:
        if not isinstance(value, list | tuple):
            form = "tables, each with its own [[...]]" if attrs.has(element) else describe(kind, {})
            raise ValueError(f"{what_is(value)}; allowed: {form}")
        items, errors = [], []
        for index, item in enumerate(value):
            try:
                items.append(read(item, element))
            except Exception as error:  # noqa: BLE001 - collected, raised together below
                error.add_note(IterableValidationNote("in an array", index, element))
                errors.append(error)
        if errors:
            raise IterableValidationError("in an array", errors, kind)
        return make(items)

    return hook


def _mapping_hook(kind: Any, converter: cattrs.Converter) -> Any:
    read = mapping_structure_factory(kind, converter)

    def hook(value: object, _kind: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"{what_is(value)}; allowed: a table")
        return read(value, kind)

    return hook


def _converter() -> cattrs.Converter:
    """Make a converter that guesses nothing; the hook that is registered last is asked first."""
    converter = cattrs.Converter()
    for scalar in (bool, int, float, str):
        converter.register_structure_hook(scalar, _read_scalar)
    converter.register_structure_hook_func(_is_literal, _read_scalar)
    converter.register_structure_hook_factory(is_array, _array_hook)
    converter.register_structure_hook_factory(_is_mapping, _mapping_hook)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    return converter


def _is_literal(kind: Any) -> bool:
    origin: object = get_origin(kind)
    return origin is Literal


def _is_mapping(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


_CONVERTER: Final = _converter()


# -- errors --------------------------------------------------------------------------------------


def _leaves(error: Exception, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
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
                    yield (*path, key), _unknown(key, error.cl)
            else:
                yield from _leaves(each, path)
    elif isinstance(error, IterableValidationError):
        for each, place in error.group_exceptions()[0]:
            yield from _leaves(each, (*path, place.index))
    elif isinstance(error, ValueError | ConfigurationError):
        yield path, str(error)
    else:
        yield path, f"{type(error).__name__}: {error}"


def _unknown(key: str, kind: type) -> str:
    """Say that a key is unknown in a class, and which one may have been meant."""
    for name, section in _sections():
        if any(each.name == key for each in attrs.fields(section)):
            return f"unknown here; did you mean {name.strip('[]')}.{key}?"
    names = [each.name for each in attrs.fields(kind)]
    close = difflib.get_close_matches(key, names, n=1)
    return (
        f"unknown; did you mean {close[0]}?" if close else f"unknown; allowed: {', '.join(names)}"
    )


# -- reference -----------------------------------------------------------------------------------


def reference() -> str:
    """Write every setting with its type, default and meaning, as Markdown."""
    return "\n".join(
        line
        for name, section in _sections()
        for line in ("", f"### `{name}`", "", *_table(section))
    )[1:]


def _sections() -> Iterator[tuple[str, type]]:
    """Give the tables of a configuration: how its header is written, and its class."""
    for each in attrs.fields(Settings):
        element: Any = next(iter(get_args(each.type)), None)
        inside: Any = element or each.type
        if attrs.has(inside):
            yield (f"[[{each.name}]]" if element else f"[{each.name}]"), inside


def _table(section: type) -> Iterator[str]:
    yield inspect.cleandoc(section.__doc__ or "")
    yield ""
    yield "| Setting | Type | Default | Meaning |"
    yield "| --- | --- | --- | --- |"
    for each in attrs.fields(section):
        cells = (
            f"`{each.name}`",
            describe(each.type, each.metadata),
            "required"
            if each.default is attrs.NOTHING
            else show_default(each.default, each.metadata),
            each.metadata["help"],
        )
        yield f"| {' | '.join(cells)} |"
