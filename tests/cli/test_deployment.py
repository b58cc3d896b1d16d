"""The files in docs/deployment are what a system accepts, and what they start exists."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mqtrio import load_config
from mqtrio.cli.entry import make_parser
from mqtrio.config import Configuration

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "deployment"
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
ANALYZE = shutil.which("systemd-analyze")


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit; some stand there several times."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


def project(folder: str) -> dict[str, Any]:
    """What a distribution says of itself."""
    text = (ROOT / folder / "pyproject.toml").read_text(encoding="utf-8")
    said: dict[str, Any] = tomllib.loads(text)["project"]
    return said


def read_command(words: list[str]) -> str:
    """Let mqtrio's own parser read the arguments of a command; the file that it names."""
    parser, _ = make_parser()
    arguments = parser.parse_args(words)
    return str(arguments.config)


def configuration(text: str, folder: Path) -> Configuration:
    """Read a configuration as if it stood beside a file of users."""
    (folder / "broker.toml").write_text(text, encoding="utf-8")
    return load_config(folder / "broker.toml")


@pytest.mark.skipif(ANALYZE is None, reason="missing: systemd-analyze (Debian: systemd)")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    assert ANALYZE is not None
    program = Path(sys.executable).with_name("mqtrio")
    for name in ("mqtrio.service", "mqtrio.socket"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("/usr/local/lib/mqtrio/bin/mqtrio", str(program)))
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "mqtrio" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_service_starts_what_there_is(tmp_path: Path) -> None:
    service, sockets = unit("mqtrio.service"), unit("mqtrio.socket")
    program, *words = shlex.split(service["ExecStart"][0])
    assert program.endswith("/bin/mqtrio")
    assert read_command(words) == "/etc/mqtrio/broker.toml"
    read = configuration((FOLDER / "broker.toml").read_text(encoding="utf-8"), tmp_path)
    (listener,) = read.settings.listener
    assert listener.url == f"systemd://{sockets['FileDescriptorName'][0]}"
    credential = service["LoadCredential"][0].partition(":")[0]
    (spec,) = read.plugins
    assert spec.settings.file == Path("/run/credentials/mqtrio.service", credential)
    assert int(service["LimitNOFILE"][0]) > read.settings.limits.connections
    assert int(service["TimeoutStopSec"][0]) > read.settings.limits.stop_grace


def test_the_image_starts_what_there_is() -> None:
    said = dict(instructions())
    command = [*json.loads(said["ENTRYPOINT"]), *json.loads(said["CMD"])]
    assert command[0] == "mqtrio"
    assert read_command(command[1:]) == "/etc/mqtrio/broker.toml"
    python, option, program = json.loads(said["HEALTHCHECK"].removeprefix("CMD "))
    assert (python, option) == ("python", "-c")
    compile(program, "HEALTHCHECK", "exec")
    assert said["EXPOSE"] in program
    assert said["USER"] in said["RUN"], "the user that is made"


def test_the_image_installs_what_there_is() -> None:
    runs = [shlex.split(rest) for word, rest in instructions() if word == "RUN"]
    (wheel,) = (words for words in runs if words[:2] == ["pip", "wheel"])
    folders = [word for word in wheel if word.startswith(".")]
    names = {
        tomllib.loads((ROOT / each / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "name"
        ]
        for each in folders
    }
    (install,) = (words for words in runs if words[:2] == ["pip", "install"])
    assert names == {word for word in install if word.startswith("mqtrio") and word != "mqtrio;"}
    version = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    (found,) = (re.fullmatch(r"python:(3\.\d+)-slim", each) for each in version)
    assert found is not None
    assert f"Programming Language :: Python :: {found[1]}" in project(".")["classifiers"]


def test_the_configuration_of_the_container_is_one(tmp_path: Path) -> None:
    text = re.search(r"(?m)^    \[\[listener\]\]\n(?:    .*\n|\n)+", PAGE)
    assert text is not None
    read = configuration(text[0].replace("\n    ", "\n").lstrip(), tmp_path)
    assert [each.url for each in read.settings.listener] == ["mqtt://:1883"]
    assert [spec.name for spec in read.plugins] == ["passwords"]
