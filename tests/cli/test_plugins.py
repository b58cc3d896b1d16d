"""`mqtrio check`, `mqtrio plugins` and `mqtrio config-reference`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mqtrio.cli import main
from tests.installing import Site

CODE = '''
    import attrs
    import mqtrio

    @attrs.define(frozen=True, kw_only=True)
    class Rule:
        """One rule."""
        topic: str = mqtrio.required_setting("where it holds")

    @attrs.define(frozen=True, kw_only=True)
    class Settings:
        word: str = mqtrio.required_setting("what is asked for")
        password: str | None = mqtrio.setting(None, "how to get in", secret=True)
        rule: tuple[Rule, ...] = mqtrio.setting((), "what holds where")

    class Guard(mqtrio.Plugin[Settings]):
        """Lets in who knows the word.

        More of it.
        """
        api = 1

        @mqtrio.hookimpl
        def start(self, event):
            raise AssertionError("nothing is started")

        @mqtrio.hookimpl
        def authenticate(self, event):
            return None

        @classmethod
        @mqtrio.hookimpl
        def commands(cls, event):
            return {"word": print}

    class Watch(mqtrio.Plugin[None]):
        @mqtrio.hookimpl
        def authenticate(self, event):
            return None

        @mqtrio.hookimpl
        def published(self, event):
            return None

    class Misspelt(mqtrio.Plugin[None]):
        @mqtrio.hookimpl
        def publishd(self, event):
            return None
'''


@pytest.fixture(autouse=True)
def installed(site: Site) -> None:
    site.install("mqtrio-g", {"guard": "Guard", "watch": "Watch", "misspelt": "Misspelt"}, CODE)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "broker.toml"
    path.write_text(
        '[[listener]]\nurl = "mqtt://127.0.0.1:1"\nauthenticate = ["inner"]\n'
        "[plugin.watch]\nrequired = true\n"
        '[plugin.inner]\nuse = "guard"\nword = { file = "word" }\npassword = "hunter2"\n'
        '[[plugin.inner.rule]]\ntopic = "a"\n'
    )
    (tmp_path / "word").write_text("sesame\n")
    return path


def output(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([*map(str, arguments)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for secret in ("hunter2", "sesame"):
        assert secret not in shown.out
    return shown.out


def data(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    return json.loads(output(capsys, *arguments, "--json"))


# -- check -----------------------------------------------------------------------------------------


def test_check_starts_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "check", config) == (
        f"{config}: no errors; listeners: 1; plugins: watch, inner\n"
    )


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[plugin.guard]\n", "broker.toml:12: plugin.guard.word: missing; what is asked for"),
        ("[plugin.absent]\n", "broker.toml:12: plugin.absent: no plugin 'absent' is installed"),
        ("[plugin.misspelt]\n", "plugin 'misspelt' (Misspelt) implements 'publishd', which is no"),
    ],
)
def test_check_tells_what_is_wrong(
    config: Path, more: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text() + more)
    assert main(["check", str(config)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert told in shown.err


# -- plugins ---------------------------------------------------------------------------------------


def test_list(config: Path, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("mqtrio-h", {"misspelt": "Watch", "broken": "X"}, "1 / 0")
    lines = output(capsys, "plugins", "list", config).splitlines()
    assert lines[0].split() == ["PLUGIN", "DISTRIBUTION", "ENABLED", "AS", "WHAT", "IT", "DOES"]
    by_name = {line.split()[0]: line.split(maxsplit=4)[1:] for line in lines[1:]}
    assert by_name["guard"] == ["mqtrio-g", "1.2", "inner", "Lets in who knows the word."]
    assert by_name["broken"][3].startswith("can't be used: plugin 'broken' (of mqtrio-h 1.2) can't")
    claimed = [line for line in lines if line.startswith("misspelt")]
    assert len(claimed) == 2
    assert "mqtrio-g 1.2 and mqtrio-h 1.2 both bring a plugin 'misspelt'" in claimed[0]


def test_list_for_a_program(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {each["name"]: each for each in data(capsys, "plugins", "list", config)}
    assert found["guard"] == {
        "name": "guard",
        "distribution": "mqtrio-g",
        "version": "1.2",
        "class": "mqtrio_g:Guard",
        "enabled": ["inner"],
        "meaning": "Lets in who knows the word.",
        "error": None,
    }
    assert found["misspelt"]["enabled"] == []
    without = {each["name"]: each["enabled"] for each in data(capsys, "plugins", "list")}
    assert without["guard"] == []


def test_show(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "plugins", "show", "guard")
    assert "distribution: mqtrio-g 1.2\n" in text
    assert "hooks:        start, commands, authenticate\n" in text
    assert "commands:     word\n" in text
    assert "[plugin.guard]\nSETTING" in text
    assert re.search(r"^word +a string +required +what is asked for$", text, re.MULTILINE)
    assert "[[plugin.guard.rule]]\n" in text
    assert "enabled as" not in text
    assert "enabled as inner\n" in output(capsys, "plugins", "show", "guard", config)
    assert "enabled as watch, required\n" in output(capsys, "plugins", "show", "watch", config)


def test_show_for_a_program(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = data(capsys, "plugins", "show", "inner", config)
    assert (facts["name"], facts["exclusive"], facts["api"]) == ("guard", False, 1)
    assert [each["table"] for each in facts["settings"]] == [
        "[plugin.guard]",
        "[[plugin.guard.rule]]",
    ]
    assert facts["enabled"] == [
        {
            "name": "inner",
            "required": False,
            "settings": {"word": "***", "password": "***", "rule": [{"topic": "a"}]},
        }
    ]


def test_show_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "gard"]) == 2
    assert "did you mean 'guard'?" in capsys.readouterr().err


def test_order(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in output(capsys, "plugins", "order", config).splitlines()]
    assert ["authenticate", "decide", "watch,", "inner"] in lines
    assert ["authenticate", "decide", "at", "mqtt://127.0.0.1:1:", "inner"] in lines
    assert ["published", "observe", "watch"] in lines
    found = data(capsys, "plugins", "order", config)
    assert {"hook": "published", "kind": "observe", "plugins": ["watch"]} in found["hooks"]
    assert found["listeners"] == [{"listener": "mqtt://127.0.0.1:1", "authenticate": ["inner"]}]


def test_order_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "order"]) == 0
    assert capsys.readouterr().err == "no plugin is enabled\n"


# -- reference -------------------------------------------------------------------------------------


def test_the_reference_has_every_installed_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "config-reference")
    assert "### `[limits]`" in text
    assert "### `[plugin.NAME]`" in text
    assert "### `[plugin.guard]`\n\nLets in who knows the word.\n" in text
    assert "| `word` | a string | required | what is asked for |" in text
    assert "### `[[plugin.guard.rule]]`\n\nOne rule.\n" in text
    assert "### `[plugin.watch]`" in text
    found = {each["table"]: each for each in data(capsys, "config-reference")}
    assert found["[limits]"]["distribution"] is None
    assert found["[plugin.guard]"]["distribution"] == "mqtrio-g 1.2"
    assert [each["secret"] for each in found["[plugin.guard]"]["settings"]] == [False, True, False]


def test_the_reference_tells_of_plugins_that_it_lacks(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("mqtrio-h", {"broken": "X"}, "1 / 0")
    assert main(["config-reference"]) == 2
    shown = capsys.readouterr()
    assert "### `[plugin.guard]`" in shown.out
    assert "plugin 'broken' (of mqtrio-h 1.2) can't be imported" in shown.err
