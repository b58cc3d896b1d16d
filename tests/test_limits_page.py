"""docs/limits.md holds every limit, with its default and the test that shows what it does."""

import ast
import re
from pathlib import Path

import attrs
import pytest

from mqtrio.settings import Limits

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _limit_rows() -> dict[str, list[str]]:
    """Setting -> the cells of its row in docs/limits.md."""
    rows = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found = re.fullmatch(r"`limits\.(\w+)`", cells[0])
        if found:
            rows[found.group(1)] = cells
    return rows


def test_every_limit_is_documented() -> None:
    assert set(_limit_rows()) == {field.name for field in attrs.fields(Limits)}


@pytest.mark.parametrize("limit", attrs.fields(Limits), ids=lambda field: str(field.name))
def test_a_limit_says_its_default_and_names_its_test(limit: "attrs.Attribute[object]") -> None:
    _, default, meaning, reached, test = _limit_rows()[limit.name]
    assert _value(default.strip("`")) == limit.default
    assert meaning
    assert reached
    assert TEST.fullmatch(test), f"{limit.name} names no test"


@pytest.mark.parametrize(("file", "function"), sorted(set(TEST.findall(PAGE))))
def test_the_named_tests_are_there(file: str, function: str) -> None:
    assert function in {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _value(text: str) -> object:
    """What a default in the table stands for: 16 MiB, 0.05 s, 100,000, "reject"."""
    if text.startswith('"'):
        return text.strip('"')
    number, _, unit = text.replace(",", "").partition(" ")
    scale = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
    return float(number) * scale
