"""MQTT.js, the client of Node and browsers: the scenarios of node/scenarios.js."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.serving import PATIENCE, Running, topic

FOLDER = Path(__file__).parent / "node"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="missing: node (Debian: nodejs)"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules" / "mqtt").is_dir(),
        reason="missing: MQTT.js (npm install --prefix tests/clients/node)",
    ),
]

ALL_VERSIONS = (
    *("round_trip", "retained", "will", "resume", "shared", "mebibyte"),
    "thousand_subscriptions",
)
CASES = [
    *((name, version) for version in (3, 4, 5) for name in ALL_VERSIONS),
    ("request", 5),
    ("aliases", 5),
]


@pytest.mark.parametrize(("name", "version"), CASES)
def test_scenario(broker: Running, name: str, version: int) -> None:
    assert NODE is not None
    arguments = [name, broker.host, str(broker.port), str(version), topic()]
    done = subprocess.run(
        [NODE, FOLDER / "scenarios.js", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1:] == [f"ok {name}"]
