"""Clients with tokens: let in, and cut off in real time when the token ends."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.clients.paho_peer import V4, V5, PahoPeer
from tests.clients.serving import PATIENCE, Running, serving, topic
from tests.conformance.peer import unique

SECRET = "a secret of the tests, which is 48 bytes long..."
LIFETIME = 1.0

FOLDER = Path(__file__).parent / "node"
NODE = shutil.which("node")

CONFIGURATION = f"""
[[listener]]
url = "mqtt://127.0.0.1:0"

[plugin.jwt]
algorithms = ["HS384"]
secret = "{SECRET}"
leeway = 0
publish = ["clients/#"]
subscribe = ["clients/#"]
"""


def token(lifetime: float) -> str:
    claims = {"sub": "ann", "exp": time.time() + lifetime}
    return jwt.encode(claims, SECRET, algorithm="HS384")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A broker that lets clients in by tokens only."""
    path = tmp_path_factory.mktemp("jwt") / "mqtrio.toml"
    path.write_text(CONFIGURATION)
    with serving(str(path)) as running:
        yield running


@pytest.mark.parametrize("version", [V4, V5])
def test_paho(guarded: Running, version: MQTTProtocolVersion) -> None:
    for given, fails in ((token(-1), True), (token(60), False)):
        peer = PahoPeer(guarded, version, unique(), resume=False)
        peer.client.username_pw_set("x", given)
        assert peer.connect().is_failure == fails
        peer.close()
    peer = PahoPeer(guarded, version, unique(), resume=False)
    end = time.time() + LIFETIME
    peer.client.username_pw_set("x", token(LIFETIME))
    assert not peer.connect().is_failure
    where = topic()
    peer.subscribe(where, qos=1)
    peer.client.publish(where, b"in time", qos=1)
    assert peer.messages.get(timeout=PATIENCE).payload == b"in time"
    ended = peer._disconnected.get(timeout=PATIENCE)
    assert end - 0.05 <= time.time() < end + PATIENCE
    if version == V5:
        assert ended.value == 0x87
    peer.close()


@pytest.mark.skipif(NODE is None, reason="missing: node (Debian: nodejs)")
@pytest.mark.skipif(
    not (FOLDER / "node_modules" / "mqtt").is_dir(),
    reason="missing: MQTT.js (npm install --prefix tests/clients/node)",
)
@pytest.mark.parametrize("version", [4, 5])
def test_mqttjs(guarded: Running, version: int) -> None:
    assert NODE is not None
    arguments = ["token", guarded.host, str(guarded.port), str(version), topic()]
    end = time.time() + LIFETIME + 1  # node needs its time to start
    done = subprocess.run(
        [NODE, FOLDER / "scenarios.js", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | {"TOKEN": token(LIFETIME + 1)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1:] == ["ok token"]
    assert time.time() >= end - 0.05
