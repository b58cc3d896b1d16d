"""docs/plugins.md: all of its code works."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import mqtrio
from mqtrio.hooks.specs import API_VERSION, HOOKS
from mqtrio.testing import Client, HookRecorder, check_plugin, open_harness
from tests.installing import Site
from tests.installing import site as site

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
CODE = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
(CONFIGURATION,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(compile(CODE, "docs/plugins.md", "exec"), found)
    return found


async def test_its_tests_pass(names: dict[str, Any]) -> None:
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) == 2
    for name in tests:
        await names[name](MockClock())


async def test_who_is_exempt(names: dict[str, Any]) -> None:
    settings = names["QuotaSettings"](bytes_per_connection=1)
    async with open_harness(plugins=[names["QuotaPlugin"](settings, name="quota")]) as harness:
        assert (await harness.broker.publish("a", b"12345", qos=1)).reason_code < 0x80


@pytest.mark.trio(run=trio.run)
async def test_the_plugin_that_reads_a_file(names: dict[str, Any], tmp_path: Path) -> None:
    file, other = tmp_path / "blocked", tmp_path / "other"
    file.write_text("eve\nmallory\n")
    other.write_text("bob\n")
    make = names["BlocklistSettings"]
    await check_plugin(
        names["BlocklistPlugin"],
        make(file=file),
        other_settings=make(file=other),
        wrong_settings=make(file=tmp_path / "none"),
    )
    plugin = names["BlocklistPlugin"](make(file=file), name="blocklist")
    names_in = {"authenticate": lambda event: mqtrio.Allow()}
    recorder = HookRecorder(answers=names_in)
    async with open_harness(plugins=[recorder, plugin]) as harness:
        refused = await harness.refused("eve", username="eve")
        assert refused.reason_code == mqtrio.ReasonCode.BANNED
        await harness.client("ann", username="ann")


async def test_hooks_of_ones_own(names: dict[str, Any]) -> None:
    siren = names["Siren"]()
    async with open_harness(plugins=[names["AlarmPlugin"](None, name="alarm"), siren]) as harness:
        await trio.testing.wait_all_tasks_blocked()
        ann: Client = await harness.client("ann")
        await ann.publish("alarm/fire", b"!", qos=1)
        await ann.settle()
        assert siren.heard == ["alarm/fire"]
        with pytest.raises(mqtrio.PluginError, match="no hook 'alarm_razed'"):
            harness.broker.hook("alarm_razed")


async def test_the_configuration_is_one(site: Site, tmp_path: Path) -> None:
    site.install("mqtrio-quota", {"quota": "QuotaPlugin"}, CODE)
    file = tmp_path / "broker.toml"
    file.write_text(CONFIGURATION)
    async with open_harness(config=file) as harness:
        plugins: dict[str, Any] = dict(harness.broker.plugins)
    assert list(plugins) == ["quota", "strict-quota"]
    assert plugins["quota"].settings.bytes_per_connection == 64 * 1024
    assert plugins["strict-quota"].settings.bytes_per_connection == 100


def test_the_code_is_typed(tmp_path: Path) -> None:
    """As far as it is code of a plugin; tests may leave types out."""
    code = CODE.replace("(autojump_clock):", "(autojump_clock: object) -> None:")
    (tmp_path / "guide.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "guide.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_what_it_promises_of_the_version() -> None:
    assert f"`api = {API_VERSION}`" in PAGE
    for hook in ("start", "stop", "run", "reconfigure", "session_ended", "client_disconnected"):
        assert f"`{hook}`" in PAGE
        assert hook in HOOKS
