"""From plain values to attrs classes: nothing is guessed, each error knows its key.

The rules of single values stand in fields.py; here are those of tables and arrays, of paths and of
strings that stand somewhere else (`{ env = "NAME" }`, `{ file = "PATH" }`).
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from mqtrio.fields import (
    allowed,
    base_type,
    complaint,
    describe,
    is_array,
    is_mapping,
    is_scalar,
    quantity,
    show,
    what_is,
)
from mqtrio.net.addresses import parse_listener
from mqtrio.settings import Listener
from mqtrio.state.topics import check_mount_point

T = TypeVar("T")

#: Gives the value of a setting for what was written; ValueError says what is wrong with it.
Read = Callable[[object], Any]

#: What only a higher layer knows of a setting: the check raises ConfigurationError or ValueError.
_CHECKS: Final[Mapping[tuple[type, str], Callable[[Any], object]]] = {
    (Listener, "url"): parse_listener,
    (Listener, "mount_point"): check_mount_point,
}


class Structure:
    """Makes instances of attrs classes of one document, whose relative paths start at `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._secrets: set[str] = set()
        self._converter = cattrs.Converter()
        self._converter.register_structure_hook_factory(attrs.has, self._class_hook)

    def read(self, kind: type[T], content: object) -> T:
        """Fill an attrs class; raises cattrs' errors, with all that is wrong in them."""
        return self._converter.structure(content, kind)

    @property
    def secrets(self) -> frozenset[str]:
        """Strings that were read and that nobody may see."""
        return frozenset(self._secrets)

    def without_secrets(self, text: str) -> str:
        """Take out of a text what stands in it of secrets that were read."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
                text = text.replace(form, "***")
        return text

    # -- how each type is read

    def _class_hook(self, kind: Any) -> Any:
        """Make the reader of an attrs class: a table of its settings, or an instance as it is."""
        overrides: dict[str, Any] = {}
        for attribute in attrs.fields(attrs.resolve_types(kind)):
            read = self._reader(attribute.type, attribute.metadata)
            check = _CHECKS.get((kind, attribute.name))
            overrides[attribute.name] = override(struct_hook=_hook(read, check))
        fill = make_dict_structure_fn(
            kind,
            self._converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=True,
            **overrides,
        )

        def read_table(value: object, _kind: Any) -> Any:
            if isinstance(value, kind):
                return value
            if not isinstance(value, Mapping):
                raise ValueError(f"{what_is(value)}; allowed: a table")
            return fill(value, kind)

        return read_table

    def _reader(self, kind: Any, metadata: Mapping[str, Any]) -> Read:
        base: Any = base_type(kind)
        if is_scalar(base):
            return lambda value: self._scalar(value, kind, metadata)
        if is_array(base):
            read = self._array_reader(base, metadata)
        elif is_mapping(base):
            read = self._mapping_reader(base, metadata)
        else:
            hook = self._converter.get_structure_hook(base)

            def read(value: object) -> Any:
                return hook(value, base)

        if NoneType in get_args(kind):
            return lambda value: None if value is None else read(value)
        return read

    def _scalar(self, value: object, kind: Any, metadata: Mapping[str, Any]) -> Any:
        """Give the value of a setting: its unit resolved, its string fetched."""
        base, unit = base_type(kind), metadata.get("unit")
        if base is str:
            value = self._fetched(value)
            if metadata.get("secret") and isinstance(value, str) and value:
                self._secrets.add(value)
        elif base is Path and isinstance(value, str) and value and "\0" not in value:
            value = Path(value)
        elif unit is not None and isinstance(value, str):
            value = _number(value, kind, metadata)
        wrong = complaint(value, kind, metadata)
        if wrong is not None:
            raise ValueError(wrong)
        if isinstance(value, Path):
            return self._folder / value
        return float(value) if base is float and isinstance(value, int) else value

    def _fetched(self, value: object) -> object:
        """Fetch a string from where a table says that it is; another value is given back."""
        if not isinstance(value, Mapping) or len(value) != 1:
            return value
        [(place, name)] = value.items()
        if not isinstance(name, str) or not name or "\0" in name or place not in ("env", "file"):
            return value
        if place == "env":
            found = os.environ.get(name)
            if found is None:
                raise ValueError(f"there is no environment variable {name}")
        else:
            path = self._folder / name
            try:
                found = path.read_text(encoding="utf-8").removesuffix("\n")
            except OSError as error:
                raise ValueError(f"can't read {path}: {error.strerror or error}") from None
            except UnicodeDecodeError:
                raise ValueError(f"{path} is not UTF-8") from None
        if found:
            self._secrets.add(found)
        return found

    def _array_reader(self, kind: Any, metadata: Mapping[str, Any]) -> Read:
        """Make the reader of a list or tuple: cattrs would take a string or a table, too."""
        make = get_origin(kind)
        element = get_args(kind)[0]
        read = self._reader(element, metadata)

        def read_array(value: object) -> Any:
            if not isinstance(value, list | tuple):
                form = "tables, each with its own [[...]]"
                form = form if attrs.has(element) else describe(kind, metadata)
                raise ValueError(f"{what_is(value)}; allowed: {form}")
            return make(_each(read, enumerate(value), kind).values())

        return read_array

    def _mapping_reader(self, kind: Any, metadata: Mapping[str, Any]) -> Read:
        read = self._reader(get_args(kind)[1], metadata)

        def read_mapping(value: object) -> Any:
            if not isinstance(value, Mapping):
                raise ValueError(f"{what_is(value)}; allowed: a table")
            if not all(isinstance(key, str) for key in value):
                raise ValueError("its keys must be strings")
            return _each(read, value.items(), kind)

        return read_mapping


def _hook(read: Read, check: Callable[[Any], object] | None) -> Any:
    def hook(value: object, _kind: Any) -> Any:
        made = read(value)
        if check is not None:
            check(made)
        return made

    return hook


def _each(read: Read, items: Any, kind: Any) -> dict[Any, Any]:
    """Read all items of an array or table; what is wrong is raised together, with its place."""
    made, errors = {}, []
    for place, item in items:
        try:
            made[place] = read(item)
        except Exception as error:  # noqa: BLE001 - collected, raised together below
            error.add_note(IterableValidationNote("inside", place, kind))
            errors.append(error)
    if errors:
        raise IterableValidationError("inside", errors, kind)
    return made


def _number(text: str, kind: Any, metadata: Mapping[str, Any]) -> float:
    """Read "30s" or "16MiB" as the number that it stands for."""
    number = quantity(text, metadata["unit"])
    if number is None:
        raise ValueError(f"{what_is(text)}; allowed: {allowed(kind, metadata)}")
    if base_type(kind) is not int:
        return float(number)
    if number != int(number):
        raise ValueError(f"{show(text)} is no whole number; allowed: {allowed(kind, metadata)}")
    return int(number)
