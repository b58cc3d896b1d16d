"""What README.md shows is true: its lines are those that CI runs, its programs run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
EMBEDDED, PLUGIN = PROGRAMS

# A client that reads its own topic and is refused elsewhere, beside the plugin of the README.
USE_OF_PLUGIN = """
import mqtrio
import trio


async def main() -> None:
    async with mqtrio.open_broker(listen=[], plugins=[OwnTopics()]) as broker:
        await broker.publish("anywhere", b"from inside")


trio.run(main)

event = type("Event", (), {"origin": "client", "topic": "clients/me/state", "client_id": "me"})()
assert isinstance(OwnTopics().authorize_publish(event), Allow)
event.topic = "clients/you/state"
assert isinstance(OwnTopics().authorize_publish(event), Deny)
"""


def lines(number: int) -> str:
    """What .ci/run takes from the README."""
    return subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "readme.py"), str(number)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def run(program: str, folder: Path) -> str:
    """Standard output of a program, which has to end well and without a warning."""
    file = folder / "program.py"
    file.write_text(program, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_two_lines_set_up_everything() -> None:
    assert lines(1).startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert lines(1).endswith("/mqtrio serve")
    assert "requirements-dev.txt" in lines(2)
    assert lines(2).endswith("/pytest")


def test_the_embedded_broker_runs(tmp_path: Path) -> None:
    free_port = EMBEDDED.replace("127.0.0.1:1883", "127.0.0.1:0")
    assert free_port != EMBEDDED
    assert run(free_port, tmp_path) == "sensors/kitchen/temperature b'21.5'\n"


def test_the_server_with_users_and_rules(tmp_path: Path) -> None:
    [configuration] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "broker.toml").write_text(configuration, encoding="utf-8")
    [commands] = re.findall(r"```sh\n(mqtrio passwd.*?)```", README, re.DOTALL)
    passwd, check, _, explain = [
        line.partition("  ")[0].split()[1:] for line in commands.splitlines()
    ]
    assert "added ann" in _mqtrio(["passwd", "--batch", *passwd[1:3]], tmp_path, "ann:secret\n")
    assert "broker.toml" in _mqtrio(check, tmp_path)
    assert "allowed" in _mqtrio(explain, tmp_path)


def _mqtrio(arguments: list[str], folder: Path, said: str = "") -> str:
    """Standard output of a command that has to end well."""
    ran = subprocess.run(
        [sys.executable, "-m", "mqtrio", *arguments],
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_first_plugin_runs(tmp_path: Path) -> None:
    run(PLUGIN + USE_OF_PLUGIN, tmp_path)


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
