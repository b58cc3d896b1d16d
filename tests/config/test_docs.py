"""docs/configuration.md says what the code does."""

import re
from pathlib import Path

import pytest

from mqtrio.config import load_config, reference
from mqtrio.config.reference import core_sections, plugin_sections
from mqtrio.fields import SCALES, quantity
from mqtrio.installed import find_installed
from mqtrio.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_ends_with_the_reference() -> None:
    """Of the broker and of the plugins in the box, as they are installed."""
    told = "write it anew: pip install -e . and python tools/config_reference.py"
    parts, errors = plugin_sections(find_installed(), "mqtrio")
    assert not errors
    generated = TEXT.partition("a test holds the two together.\n\n")[2]
    assert generated == reference([*core_sections(), *parts]) + "\n", told


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    path = tmp_path / "broker.toml"
    path.write_text(example)
    read = load_config(path).settings
    assert all(getattr(read, part) != getattr(Settings(), part) for part in ("limits", "log"))


def test_the_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broker.toml").write_text("")
    (example,) = blocks("python")
    exec(example, {})


def test_every_unit_is_told() -> None:
    told = set(re.findall(r'`"([^"`]+)"`', TEXT))
    for unit, scales in SCALES.items():
        for name in scales:
            assert any(quantity(each, unit) and each.endswith(name) for each in told), name
