"""Clients that come by WebSocket: paho, MQTT.js over ws and wss, and through nginx."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from paho.mqtt.enums import MQTTProtocolVersion

from tests.clients.paho_peer import V3, V4, V5, paho
from tests.clients.serving import MIB, PATIENCE, Running, serving, topic
from tests.clients.test_mqttjs import FOLDER, NODE
from tests.clients.test_mqttjs import pytestmark as needs_mqttjs

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

BROKER = """
[[listener]]
url = "ws://127.0.0.1:0"
websocket = {{ origins = ["same"], trusted_proxies = ["127.0.0.1"] }}

[[listener]]
url = "wss://127.0.0.1:0"
tls = {{ certificate = "{folder}/server.pem", key = "{folder}/server.key" }}

[[listener]]
url = "mqtt://127.0.0.1:0"

[plugin.anonymous]
"""

PROXY = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        location /mqtt {{
            proxy_pass http://127.0.0.1:{broker};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For "203.0.113.9, $proxy_add_x_forwarded_for";
        }}
    }}
}}
"""


class ByWebSocket(Running):
    """A broker, as paho finds it over ws://."""

    transport = "websockets"

    def __init__(self, broker: Running) -> None:
        super().__init__()
        self.broker = broker
        self.log = broker.log
        self.port = self.port_of("ws")
        self.authority = Path()

    def port_of(self, scheme: str) -> int:
        """Where the broker listens for a scheme."""
        line = self.broker.line(f"listening on {scheme}://")
        return int(line.rstrip().rpartition(":")[2])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByWebSocket]:
    folder = tmp_path_factory.mktemp("websocket")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(folder / "server.key")
    leaf.cert_chain_pems[0].write_to_path(folder / "server.pem")
    config = folder / "mqtrio.toml"
    config.write_text(BROKER.format(folder=folder), encoding="utf-8")
    with serving(str(config)) as broker:
        by_websocket = ByWebSocket(broker)
        by_websocket.authority = folder / "ca.pem"
        yield by_websocket


@pytest.fixture
def broker(running: ByWebSocket) -> Iterator[ByWebSocket]:
    """The broker. A test in which it makes a mistake fails."""
    yield running
    running.check()


@pytest.mark.parametrize("version", [V3, V4, V5], ids=["3.1", "3.1.1", "5"])
def test_paho(broker: ByWebSocket, version: MQTTProtocolVersion) -> None:
    name = topic("room")
    wanted = [str(number).encode() for number in range(300)]
    large = bytes(range(256)) * (MIB // 256)
    with paho(broker, version) as subscriber, paho(broker, version) as publisher:
        subscriber.subscribe(name, qos=2)
        for payload in wanted:
            publisher.send(name, payload, 1)
        assert subscriber.payloads(len(wanted)) == wanted
        assert publisher.publish(name, large, 2) == 0
        assert subscriber.receive().payload == large


def test_a_will_of_paho(broker: ByWebSocket) -> None:
    name = topic("will")
    will = {"topic": name, "payload": b"gone", "qos": 1}
    with paho(broker, V5) as watcher, paho(broker, V5, will=will) as client:
        watcher.subscribe(name)
        client.client.socket().close()  # type: ignore[union-attr]
        assert watcher.receive().payload == b"gone"


CASES = [
    *(("ws", name, 5) for name in ("round_trip", "will", "resume", "mebibyte", "request")),
    *(("ws", "round_trip", version) for version in (3, 4)),
    *(("wss", name, 5) for name in ("round_trip", "mebibyte")),
]


@needs_mqttjs[0]
@needs_mqttjs[1]
@pytest.mark.parametrize(("scheme", "name", "version"), CASES)
def test_mqttjs(broker: ByWebSocket, scheme: str, name: str, version: int) -> None:
    assert NODE is not None
    url = f"{scheme}://127.0.0.1:{broker.port_of(scheme)}/mqtt?token=secret"
    done = subprocess.run(
        [NODE, FOLDER / "scenarios.js", name, url, "0", str(version), topic()],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | {"NODE_EXTRA_CA_CERTS": str(broker.authority)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1:] == [f"ok {name}"]
    assert not [line for line in broker.log if "secret" in line]


@contextmanager
def nginx(folder: Path, broker: ByWebSocket) -> Iterator[int]:
    """nginx in front of the broker's ws://, for the length of a block; where it listens.

    It gets a socket that listens already, as when it is replaced while it runs, so that nobody
    need wait for it.
    """
    assert NGINX is not None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        config = folder / "nginx.conf"
        text = PROXY.format(folder=folder, port=port, broker=broker.port)
        config.write_text(text, encoding="utf-8")
        process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", str(config)],
            env=os.environ | {"NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    with process:
        try:
            yield port
        finally:
            process.terminate()


@pytest.mark.skipif(NGINX is None, reason="missing: nginx (Debian: nginx-light)")
def test_behind_nginx(broker: ByWebSocket, tmp_path: Path) -> None:
    name, client_id = topic(), topic("client").replace("/", "-")
    with nginx(tmp_path, broker) as port:
        there = ByWebSocket(broker.broker)
        there.port = port
        with paho(there, V5, client_id=client_id) as client:
            client.subscribe(name, qos=1)
            client.publish(name, bytes(MIB), 1)
            assert client.receive().payload == bytes(MIB)
        # nginx has seen 127.0.0.1, which is trusted; what stands before it somebody has told.
        line = broker.broker.line(" connected ", client_id)
    assert " address=203.0.113.9 " in line
