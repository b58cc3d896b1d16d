"""The checklists, and the mark that ties a test to the rules that it proves."""

import csv
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
TABLES: Final = {5: HERE / "tables" / "mqtt5.tsv", 3: HERE / "tables" / "mqtt311.tsv"}
EXCLUSIONS: Final = HERE / "tables" / "exclusions.tsv"

#: More ids than this on one test, and nobody can tell which of them it proves.
MOST_RULES: Final = 3


@dataclass(frozen=True)
class Rule:
    """One row of a checklist. `excluded` says why no test can show it here, or is empty."""

    version: int
    id: str
    section: str
    applies: str
    text: str
    observable: str
    kind: str
    excluded: str = ""


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def load(version: int) -> dict[str, Rule]:
    """The rules of MQTT `version` (5, or 3 for 3.1 and 3.1.1) that a server can show, in order.

    A rule for clients only, with nothing to be seen from a server, is left out.
    """
    excluded = {
        row["id"]: row["reason"] for row in _rows(EXCLUSIONS) if row["version"] == str(version)
    }
    rules = {
        row["id"]: Rule(
            version=version,
            id=row["id"],
            section=row["section"],
            applies=row["applies"],
            text=row["rule"],
            observable=row["observable"],
            kind=row["kind"],
            excluded=excluded.pop(row["id"], ""),
        )
        for row in _rows(TABLES[version])
        if row["applies"] != "client" or row["observable"] != "-"
    }
    if excluded:
        raise ValueError(
            f"{EXCLUSIONS.name} names rules that are not in the table: {sorted(excluded)}"
        )
    return rules


def rule(*ids: str) -> pytest.MarkDecorator:
    """Mark a test with the rules that it proves: one to three ids of its version's checklist."""
    if not 1 <= len(ids) <= MOST_RULES or len(set(ids)) != len(ids):
        raise ValueError(f"a test carries one to {MOST_RULES} different rules, not {ids}")
    return pytest.mark.rule(*ids)


def needs(broker: str) -> pytest.MarkDecorator:
    """Mark a test that wants a broker set up in a special way; see `server.PROFILES`.

    The test's peers connect to that broker; against a foreign broker it isn't run.
    """
    return pytest.mark.needs(broker)


def version_of(path: Path) -> int:
    """The version that a test file is about: test_mqtt5_… or test_mqtt3_…; 0 for other files."""
    for version in TABLES:
        if path.name.startswith(f"test_mqtt{version}_"):
            return version
    return 0


def covered(version: int) -> dict[str, list[str]]:
    """Rule id -> the tests that carry it, found by importing the test files of `version`."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob(f"test_mqtt{version}_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for name, value in vars(module).items():
            if name.startswith("test_"):
                for mark in getattr(value, "pytestmark", []):
                    if mark.name == "rule":
                        for rule_id in mark.args:
                            found.setdefault(rule_id, []).append(f"{path.stem}::{name}")
    return found
