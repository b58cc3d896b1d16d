"""What docs/tls.md and the README show is right."""

import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import mqtrio
from contrib.tls.tests.authority import Authority
from mqtrio_tls import TlsListener

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "tls.md").read_text(encoding="utf-8")
README = (ROOT / "contrib" / "tls" / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("text", blocks(PAGE, "toml") + blocks(README, "toml"))
def test_the_configurations_are_right(text: str, tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(text)
    made = mqtrio.load_config(file)
    assert made.plugins[0].name == "tls"
    made.make_plugins()


def test_every_option_is_told_with_its_default() -> None:
    table = PAGE.partition("## Options of a listener")[2].partition("## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", table, re.MULTILINE))
    fields = {each.name: each for each in attrs.fields(TlsListener)}
    assert list(told) == list(fields)
    for name in ("client_certificates", "minimum_version"):
        assert told[name] == f'`"{fields[name].default}"`'


async def test_the_program_runs(ca: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    ca.issue("localhost", file="server")
    (program,) = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(compile(program, "docs/tls.md", "exec", dont_inherit=True), names)
    with trio.fail_after(10):
        await names["serve"](ca.folder)
    assert int(capsys.readouterr().out) > 0
