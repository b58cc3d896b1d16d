"""How one setting is declared, checked and described: the same for the broker's and a plugin's."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs

from mqtrio.errors import ConfigurationError

T = TypeVar("T")

Unit = Literal["seconds", "bytes"]

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

#: What may stand behind a number in a string, and what it stands for in seconds or bytes.
SCALES: Final[Mapping[Unit, Mapping[str, Decimal]]] = {
    "seconds": {
        "ms": Decimal("0.001"),
        "s": Decimal(1),
        "m": Decimal(60),
        "h": Decimal(3600),
        "d": Decimal(86_400),
    },
    "bytes": {
        "B": Decimal(1),
        "KiB": Decimal(KIB),
        "MiB": Decimal(MIB),
        "GiB": Decimal(GIB),
        "TiB": Decimal(1024 * GIB),
    },
}

_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([A-Za-z]{1,3})")
_LONGEST_SHOWN = 60
_TOO_LARGE = 1 << 63  # integers of TOML, and of databases, have 64 bits
_BYTES = ("bytes", "byte")


def setting(
    default: T,
    meaning: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: Unit | None = None,
    secret: bool = False,
) -> T:
    """Declare one setting of an attrs class; type and range are checked whoever makes the object.

    `minimum` and `maximum` are inclusive; in an array they are those of its items. `unit` lets a
    configuration write "30s" or "16MiB". A `secret` is shown in no repr, error or log.
    """
    return cast(T, attrs.field(default=default, **facts(meaning, minimum, maximum, unit, secret)))


def required_setting(
    meaning: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: Unit | None = None,
    secret: bool = False,
) -> Any:
    """Declare a setting that has no default; the arguments are those of `setting`."""
    return attrs.field(**facts(meaning, minimum, maximum, unit, secret))


def facts(
    meaning: str,
    minimum: float | None = None,
    maximum: float | None = None,
    unit: Unit | None = None,
    secret: bool = False,
) -> dict[str, Any]:
    """Give the keywords of `setting` for `attrs.field`: for a setting that has no default."""
    metadata = {
        "help": meaning,
        "minimum": minimum,
        "maximum": maximum,
        "unit": unit,
        "secret": secret,
    }
    return {"validator": _validate, "metadata": metadata, "repr": not secret}


def _validate(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    wrong = complaint(value, attribute.type, attribute.metadata)
    if wrong is not None:
        name = f"{type(instance).__name__}.{attribute.name}"
        raise ConfigurationError(f"{name}: {wrong}")


def complaint(value: object, kind: object, metadata: Mapping[str, Any]) -> str | None:
    """Say what is wrong with `value` for a setting of type `kind` and what is allowed, or None."""
    if value is None and NoneType in get_args(kind):
        return None
    base = base_type(kind)
    wrong = _wrong_type(value, base)
    if wrong is None and not _within(value, metadata):
        wrong = f"{show(value)} is out of range"
    if wrong is not None:
        if metadata.get("secret"):
            wrong = "what stands there (and isn't shown) can't be"
        return f"{wrong}; allowed: {allowed(kind, metadata)}"
    items: Iterable[tuple[object, object]] = ()
    if is_array(base):
        items = ((each, get_args(base)[0]) for each in cast(Iterable[object], value))
    elif is_mapping(base):
        items = ((each, get_args(base)[1]) for each in cast(Mapping[str, object], value).values())
    return next(filter(None, (complaint(each, inside, metadata) for each, inside in items)), None)


def base_type(kind: object) -> object:
    """Take the None out of `int | None`; any other type is given back as it is."""
    if get_origin(kind) in (Union, UnionType):
        others = [each for each in get_args(kind) if each is not NoneType]
        if len(others) == 1:
            return cast(object, others[0])
    return kind


def is_scalar(kind: object) -> bool:
    """Tell whether `complaint` knows all about values of this type."""
    base = base_type(kind)
    return base in (bool, int, float, str, Path, object) or get_origin(base) is Literal


def is_array(kind: object) -> bool:
    """Tell whether values of this type are lists, or tuples of any length."""
    origin: object = get_origin(kind)
    return origin is list or (origin is tuple and Ellipsis in get_args(kind))


def is_mapping(kind: object) -> bool:
    """Tell whether values of this type are tables with any names."""
    origin: object = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(kind)) == 2


def _wrong_type(value: object, base: object) -> str | None:
    """Say what `value` is instead of a `base`; types that aren't scalars pass."""
    if get_origin(base) is Literal:
        # 1 == True == 1.0 in Python: the type has to be the same, too.
        if any(value == each and type(value) is type(each) for each in get_args(base)):
            return None
        return f"{show(value)} is none of them" if isinstance(value, str | int) else what_is(value)
    if base is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif base is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if fits and not math.isfinite(cast(float, value)):
            return f"{value} is no finite number"
    elif base is object:  # a table that somebody else reads
        fits = value is None or isinstance(value, Mapping) or attrs.has(type(value))
    elif is_array(base):
        fits = isinstance(value, list if get_origin(base) is list else tuple)
    elif is_mapping(base):
        fits = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    elif isinstance(base, type) and (base in (bool, str, Path) or attrs.has(base)):
        fits = isinstance(value, base)
    else:
        fits = True
    return None if fits else what_is(value)


def _within(value: object, metadata: Mapping[str, Any]) -> bool:
    minimum, maximum = metadata.get("minimum"), metadata.get("maximum")
    if not isinstance(value, int | float):
        return True
    if abs(value) >= _TOO_LARGE:
        return False
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def quantity(text: str, unit: Unit) -> Decimal | None:
    """Read "30s" or "16MiB" as seconds or bytes; None when it is nothing of the kind."""
    found = _QUANTITY.fullmatch(text)
    scale = SCALES[unit].get(found[2]) if found else None
    return None if found is None or scale is None else Decimal(found[1]) * scale


# -- words ---------------------------------------------------------------------------------------


def allowed(kind: object, metadata: Mapping[str, Any]) -> str:
    """Say for an error which values a setting of type `kind` takes."""
    unit: Unit | None = metadata.get("unit")
    if unit is None or not is_scalar(kind):
        return describe(kind, metadata)
    number = "a whole number" if base_type(kind) is int else "a number"
    examples = {"seconds": '"30s", "5m", "2h", "1d"', "bytes": '"64KiB", "16MiB", "1GiB"'}[unit]
    return f"{number} of {unit} or a string such as {examples}{_range(metadata)}"


def describe(kind: object, metadata: Mapping[str, Any]) -> str:
    """Name the type and the range of a setting."""
    base = base_type(kind)
    if get_origin(base) is Literal:
        return _either([show(each) for each in get_args(base)])
    if base is bool:
        return "true or false"
    if base is str:
        return "a string"
    if base is Path:
        return "a path"
    if is_mapping(base):
        return f"a table, each value {describe(get_args(base)[1], metadata)}"
    if base is object or (isinstance(base, type) and attrs.has(base)):
        return "a table"
    if is_array(base):
        return f"an array, each item {describe(get_args(base)[0], metadata)}"
    unit: Unit | None = metadata.get("unit")
    if unit is None:
        words = "a whole number" if base is int else "a number"
    elif unit == "bytes":
        words = "a size"
    else:
        words = "whole seconds" if base is int else "a duration"
    return words + _range(metadata)


def show_default(value: object, metadata: Mapping[str, Any]) -> str:
    """Write a setting's default; a None is explained by the setting's meaning."""
    if value is None:
        return "none"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return show_quantity(value, metadata.get("unit"))
    return show(value)


def _range(metadata: Mapping[str, Any]) -> str:
    minimum, maximum, unit = (metadata.get(key) for key in ("minimum", "maximum", "unit"))
    if minimum is None and maximum is None:
        return ""
    low, high = (None if each is None else show_quantity(each, unit) for each in (minimum, maximum))
    if high is None:
        return f", at least {low}"
    return f", at most {high}" if low is None else f", from {low} to {high}"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def show_quantity(value: float, unit: Unit | None) -> str:
    """Write a number with the unit that leaves it whole: 16777216 bytes -> "16 MiB"."""
    number = Decimal(str(value))
    if unit is None or not number:
        return f"{value:g}" if value != int(value) else str(int(value))
    for name, scale in reversed(list(SCALES[unit].items())):
        whole = number / scale
        if whole == int(whole):
            return f"{int(whole)} {_BYTES[whole == 1] if name == 'B' else name}"
    return f"{value:g} s"


def show(value: object) -> str:
    """Write a value as a configuration file has it, and short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=not value.isprintable())
    elif isinstance(value, int) and abs(value) >= 10**20:
        text = "a number of more than 20 digits"  # str() of a huge int may even be refused
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(show, value))}]"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def what_is(value: object) -> str:
    """Say what a value is: '"10" is a string', for an error about its type."""
    if value is None:
        return "None stands there"
    if isinstance(value, Mapping):
        return "it is a table"
    if isinstance(value, list | tuple):
        return "it is an array"
    for kind, name in _NAMES.items():
        if isinstance(value, kind):
            return f"{show(value)} is {name}"
    return f"it is a {type(value).__name__}"


_NAMES: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number with a fraction",
    str: "a string",
}
