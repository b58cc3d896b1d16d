"""The README has every option with its default."""

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs

from mqtrio_websocket import WebSocketSettings

README = Path(__file__).parent.parent / "README.md"


def value(text: str) -> Any:
    """A default of the table, as a setting has it."""
    number, _, unit = text.partition(" ")
    if number.isdecimal() and unit:
        return int(number) * {"KiB": 1 << 10, "MiB": 1 << 20}[unit]
    found = tomllib.loads(f"x = {text.strip('`')}")["x"]
    return tuple(found) if isinstance(found, list) else found


def test_the_table_is_complete() -> None:
    text = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    told = {name: value(default) for name, default in rows}
    assert told == {field.name: field.default for field in attrs.fields(WebSocketSettings)}
