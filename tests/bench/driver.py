"""The load driver: two C programs, compiled when they are needed, and what one run of them says."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.brokers import Running
from tests.bench.scenarios import Column, Scenario

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"  # git-ignored
LOAD_CORE = "1"


class LoadFailed(Exception):
    """The driver could not run its load to the end."""


def build(name: str, *, tls: bool = False) -> Path:
    """The compiled driver `name`, compiled anew if its source is younger; `tls`: with OpenSSL."""
    source, binary = HERE / f"{name}.c", BUILD / (f"{name}-tls" if tls else name)
    if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
        return binary
    compiler = shutil.which("cc")
    if compiler is None:
        raise LoadFailed("a C compiler is needed: cc isn't on PATH")
    BUILD.mkdir(exist_ok=True)
    new = BUILD / f"{binary.name}.{os.getpid()}"  # others may be compiling it at this moment
    options = ["-O2", "-std=c11", "-Wall", "-Wextra", *(["-DWITH_TLS"] if tls else [])]
    libraries = ["-lssl", "-lcrypto"] if tls else []
    subprocess.run([compiler, *options, "-o", str(new), str(source), *libraries], check=True)
    return new.replace(binary)


def measure(scenario: Scenario, broker: Running, scale: float) -> dict[Column, float]:
    """One run of `scenario` against a running broker; the columns that it has something for.

    `rate` is in deliveries (or connects) a second, `cpu` the broker's microseconds for each,
    `memory` in bytes for each connection, p50 and p99 in microseconds, `lost` in messages that
    did not come exactly once and in order.
    """
    if scenario.clients:
        return _pingpong(scenario, broker, scale)
    said = load(
        build("mqload", tls=scenario.transport == "tls"),
        *("--port", str(broker.port), "--broker-pid", str(broker.process.pid)),
        *("--keepalive", "600", "--timeout", "30", "--quiet", "2", "--json"),
        *scenario.command(scale),
    )
    bad = float(said["lost"] + said["duplicates"] + said["out_of_order"])
    if not said["ok"] and not bad:
        raise LoadFailed(f"the load did not end well: {said}")
    if "connects_per_s" in said:
        return {
            "rate": said["connects_per_s"],
            "cpu": said["cpu_us_per_connect"],
            "memory": said["rss_per_conn_b"],
            "lost": bad,
        }
    latency: Mapping[str, float] = said["lat_us"]
    return {
        "rate": said["msgs_per_s"],
        "cpu": said["broker_cpu_us_per_msg"],
        "p50": latency["p50"],
        "p99": latency["p99"],
        "lost": bad,
    }


def _pingpong(scenario: Scenario, broker: Running, scale: float) -> dict[Column, float]:
    before = _cpu(broker.process.pid)
    said = load(
        build("pingpong"),
        str(broker.port),
        str(scenario.clients),
        str(max(0.2, scenario.seconds * scale)),
    )
    spent = _cpu(broker.process.pid) - before
    return {
        "rate": said["msgs_per_s"],
        "cpu": spent * 1e6 / max(1, said["received"]),
        "p50": said["lat_us"]["p50"],
        "p99": said["lat_us"]["p99"],
        "lost": said["lost"],
    }


def load(*command: str | Path) -> dict[str, Any]:
    """Run a driver on its own core and read its one JSON object; exit code 1 is for the caller."""
    ran = subprocess.run(
        ["taskset", "-c", LOAD_CORE, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if ran.returncode not in (0, 1) or not ran.stdout.startswith("{"):
        raise LoadFailed(ran.stderr.strip() or f"the driver ended with {ran.returncode}")
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, by its own clock: see clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)
