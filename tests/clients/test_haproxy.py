"""HAProxy in front: the broker knows the clients behind it, by the PROXY protocol 1 and 2."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.clients.serving import PATIENCE, Running, serving

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PUB = shutil.which("mosquitto_pub")
pytestmark = pytest.mark.skipif(
    HAPROXY is None or PUB is None,
    reason="missing: haproxy or mosquitto_pub (Debian: haproxy, mosquitto-clients)",
)

BROKER = """
[[listener]]
url = "mqtt://127.0.0.1:0"
allow_anonymous = true
proxy_protocol = true
trusted_proxies = ["127.0.0.1"]

[[listener]]
url = "unix://{path}"
allow_anonymous = true
proxy_protocol = true
trusted_proxies = ["unix"]
"""

DEFAULTS = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""

#: Name -> how HAProxy reaches the broker; `check` lets it look, for itself, whether that lives.
SERVERS = {
    "version 1": "127.0.0.1:{port} send-proxy",
    "version 2": "127.0.0.1:{port} send-proxy-v2 check inter 200ms",
    "version 2, with additions": (
        "127.0.0.1:{port} send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"
    ),
    "version 2, by a Unix socket": "unix@{path} send-proxy-v2",
}


class Proxied:
    """A broker, and the port of HAProxy for each way to it."""

    def __init__(self, broker: Running, ports: dict[str, int]) -> None:
        self.broker = broker
        self.ports = ports


@contextmanager
def haproxy(configuration: Path, listening: dict[str, socket.socket]) -> Iterator[None]:
    """Run HAProxy with sockets that listen already, so that nobody need wait for it."""
    assert HAPROXY is not None
    process = subprocess.Popen(
        [HAPROXY, "-db", "-f", str(configuration)],
        pass_fds=[sock.fileno() for sock in listening.values()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("haproxy")
    path = folder / "broker.sock"
    (folder / "broker.toml").write_text(BROKER.format(path=path))
    with ExitStack() as stack:
        broker = stack.enter_context(serving(str(folder / "broker.toml")))
        listening = {}
        text = DEFAULTS
        for number, (name, server) in enumerate(SERVERS.items()):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listening[name] = sock
            text += f"listen way{number}\n    bind fd@{sock.fileno()}\n"
            text += "    unique-id-format %rt\n"
            text += f"    server broker {server.format(port=broker.port, path=path)}\n"
        (folder / "haproxy.cfg").write_text(text)
        stack.enter_context(haproxy(folder / "haproxy.cfg", listening))
        yield Proxied(broker, {name: sock.getsockname()[1] for name, sock in listening.items()})


def publish(port: int, client_id: str, source: str) -> int:
    """Publish at QoS 1 from an address of this machine; the exit code."""
    assert PUB is not None
    done = subprocess.run(
        [
            *(PUB, "-h", "127.0.0.1", "-p", str(port), "-A", source, "-i", client_id),
            *("-q", "1", "-t", "a", "-m", "hello"),
        ],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize("way", SERVERS)
def test_the_broker_knows_who_is_behind_it(proxied: Proxied, way: str) -> None:
    client_id = f"client of {way}"
    assert publish(proxied.ports[way], client_id, "127.0.0.7") == 0
    assert "127.0.0.7:" in proxied.broker.line(" connected ", f'client_id="{client_id}"')
    proxied.broker.check()


def test_who_is_no_proxy_is_refused(proxied: Proxied) -> None:
    assert publish(proxied.broker.port, "stranger", "127.0.0.7") != 0
    assert "not 127.0.0.7:" in proxied.broker.line("accepts trusted_proxies only")
    assert not any("stranger" in line for line in proxied.broker.log)
