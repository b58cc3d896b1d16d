"""`mqtrio new-plugin`: what it writes works, and it never writes over anything."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mqtrio.cli import main
from mqtrio.cli.new_plugin import FILES, LONGEST, write_plugin
from tests.installing import Site
from tests.installing import site as site

ROOT = Path(__file__).resolve().parents[2]

#: What the developers of mqtrio have installed, and a stranger hasn't: it would want settings.
OURS_ONLY = ("-p", "no:asyncio")

pytestmark = pytest.mark.usefixtures("site")


def test_it_passes_its_own_tests(tmp_path: Path, site: Site) -> None:
    """.ci/run installs one by pip and checks its types, too."""
    folder = tmp_path / "new"
    assert main(["new-plugin", "quiet-hours", "--folder", str(folder)]) == 0
    info = site.folder / "mqtrio_quiet_hours-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mqtrio-quiet-hours\nVersion: 0\n")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [(name, value)] = project["entry-points"]["mqtrio.plugins"].items()
    (info / "entry_points.txt").write_text(f"[mqtrio.plugins]\n{name} = {value}\n")
    path = os.pathsep.join([str(folder / "src"), str(site.folder)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OURS_ONLY],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_it_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "quiet-hours"]) == 0
    written = {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()}
    package = "mqtrio_quiet_hours"
    assert written >= {f"mqtrio-quiet-hours/{path.replace('$package', package)}" for path in FILES}
    assert "cd mqtrio-quiet-hours" in capsys.readouterr().out
    text = "".join(
        each.read_text(encoding="utf-8")
        for each in (tmp_path / "mqtrio-quiet-hours").rglob("*")
        if each.is_file()
    )
    assert "$" not in text
    assert "[plugin.quiet-hours]" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((bad, "is no name for a plugin") for bad in ("Quiet", "1st", "a--b", "a_b", "a-", "-")),
        *((bad, "is no name for a plugin") for bad in ("", "a b", "../a", "ä", "a/b", "a.b")),
        ("x" * (LONGEST + 1), f"{LONGEST} characters at most"),
        ("mqtrio-quiet", "leave mqtrio- off.*mqtrio new-plugin quiet"),
        ("plugins", "taken by mqtrio itself"),
        ("anonymous", "plugin 'anonymous' .of mqtrio .* is installed already"),
        ("log-messages", "plugin 'log_messages' .* is installed already"),
    ],
)
def test_a_wrong_name_is_refused(
    name: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(tmp_path.rglob("*"))
    assert main(["new-plugin", "--", name]) == 2
    assert re.search(text, capsys.readouterr().err)
    assert list(tmp_path.rglob("*")) == before


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, file, link = tmp_path / "full", tmp_path / "file", tmp_path / "link"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    file.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    for folder, text in (
        (full, "not empty: nothing was written"),
        (file, "is no folder: nothing was written"),
        (link, "is no folder: nothing was written"),
        (file / "below", "can't be written"),
    ):
        assert main(["new-plugin", "quiet", "--folder", str(folder)]) == 2
        assert text in capsys.readouterr().err
    assert [each.name for each in full.iterdir()] == ["mine.txt"]
    assert file.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert len(write_plugin("quiet", folder)) == len(FILES)


def test_the_example_is_one_that_was_filled(tmp_path: Path) -> None:
    """examples/plugin-dist: what the template says of packaging holds there, too."""
    example = ROOT / "examples" / "plugin-dist"
    fresh = tmp_path / "fresh"
    paths = write_plugin("json-guard", fresh)
    for path in paths:
        assert (example / path.relative_to(fresh)).is_file()
    ours, theirs = (
        tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        for folder in (example, fresh)
    )
    del ours["project"]["description"], theirs["project"]["description"]
    assert ours == theirs
