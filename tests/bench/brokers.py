"""Start and stop what is measured: our broker with its defaults, mosquitto without its limits."""

import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme
from attrs import define

from tests.bench.scenarios import Transport

BROKER_CORE = "0"
DEFAULT_COMMAND = f"{sys.executable} -m mqtrio serve --listen {{scheme}}://127.0.0.1:{{port}}"

#: Ours where a configuration is needed; with server.pem and server.key beside it.
CONFIGURED: Final = f"{sys.executable} -m mqtrio serve {{config}}"
TLS: Final = """\
[[listener]]
url = "mqtts://127.0.0.1:{port}"
tls = { certificate = "server.pem", key = "server.key" }
"""

# Queue limits off: with its defaults mosquitto drops acknowledged messages under this load.
MOSQUITTO = """\
{listener}
allow_anonymous true
persistence false
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 0
max_inflight_bytes 0
set_tcp_nodelay true
log_type error
"""

#: What a transport adds for our URL and for mosquitto's listener. Its lws takes an interface rather
#: than an address, and mosquitto 2.0.11 does not start unless there is a plain listener, too.
TRANSPORTS: Mapping[Transport, tuple[str, str]] = {
    "tcp": ("mqtt", "listener {port} 127.0.0.1"),
    "websocket": (
        "ws",
        "listener {other} 127.0.0.1\nlistener {port}\nbind_interface lo\nprotocol websockets",
    ),
    "tls": (
        "mqtts",
        "listener {port} 127.0.0.1\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key",
    ),
}


class BrokerFailed(Exception):
    """A broker did not start, or did not stay."""


@define(frozen=True)
class Running:
    """A broker that answers on 127.0.0.1:port."""

    name: str
    port: int
    process: subprocess.Popen[bytes]


@contextmanager
def started(
    name: str,
    command: str,
    folder: str | None = None,
    cores: str = BROKER_CORE,
    transport: Transport = "tcp",
    more: str = "",
) -> Iterator[Running]:
    """Run `ours` (`command`, with {scheme} and {port}) or `mosquitto` on its core, for a block.

    For TLS ours runs by a configuration, to which `more` is appended.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        if transport == "tls":
            command = CONFIGURED
            _prepare_tls(Path(scratch), port, more)
        process = subprocess.Popen(
            ["taskset", "-c", cores, *_command(name, command, port, Path(scratch), transport)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder if name == "ours" else None,
        )
        try:
            _wait(process, name, port)
            yield Running(name, port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def allow_many_descriptors() -> None:
    """Raise the soft limit for this process and what it starts: 5,000 connections are measured."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def mosquitto_path() -> str | None:
    """Where mosquitto is; Debian puts it where not every PATH looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _command(name: str, ours: str, port: int, scratch: Path, transport: Transport) -> list[str]:
    scheme, listener = TRANSPORTS[transport]
    if name == "ours":
        config = scratch / "broker.toml"
        return ours.format(port=port, scheme=scheme, config=config).split()
    path = mosquitto_path()
    if path is None:
        raise BrokerFailed("mosquitto isn't installed")
    config = scratch / "mosquitto.conf"
    listener = listener.format(port=port, other=free_port(), folder=scratch)
    config.write_text(MOSQUITTO.format(listener=listener))
    return [path, "-c", str(config)]


def _prepare_tls(folder: Path, port: int, more: str) -> None:
    """Write our configuration, and a certificate with a key on the curve P-256 for both."""
    folder.chmod(0o755)  # mosquitto becomes another user before it reads them
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    issued.private_key_pem.write_to_path(folder / "server.key")
    (folder / "broker.toml").write_text(TLS.replace("{port}", str(port)) + more)


def free_port() -> int:
    """A port of this machine that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], name: str, port: int) -> None:
    """Until the broker takes connections, and a moment more for what it does at its start."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokerFailed(f"{name} ended at once with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(0.4)
                return
        time.sleep(0.05)
    raise BrokerFailed(f"{name} takes no connections on port {port}")
