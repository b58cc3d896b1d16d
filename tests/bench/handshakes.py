"""What others notice of a burst of TLS handshakes.

    python -m tests.bench.handshakes

One broker with a listener for TLS and a plain one. 50 clients on the plain one publish and
subscribe, 20 messages a second each; meanwhile 2,000 connections over TLS come at once. Prints the
latency of the clients before and during the burst, and how long it took. Exit code 1 if the p99
during it is not below 50 ms. Needs Linux, cc, OpenSSL's headers and mqtrio-tls.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from tests.bench.brokers import allow_many_descriptors, free_port, started
from tests.bench.driver import LOAD_CORE, build

#: Milliseconds below which the 99th percentile must stay.
BOUND: Final = 50.0

PLAIN: Final = """
[[listener]]
url = "mqtt://127.0.0.1:{plain}"

[log]
level = "warning"
"""


def main() -> int:
    """Measure, print one line for each run; exit code 1 if no run stays within the bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.handshakes", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--connections", type=int, default=2000)
    arguments = parser.parse_args()
    allow_many_descriptors()
    build("mqload")
    build("mqload", tls=True)
    worst = []
    for _ in range(arguments.runs):
        before, during, burst = _run(arguments.connections)
        worst.append(during["p99"] / 1000)
        print(
            f"p50 {before['p50'] / 1000:.1f} ms, p99 {before['p99'] / 1000:.1f} ms before; "
            f"p50 {during['p50'] / 1000:.1f} ms, p99 {during['p99'] / 1000:.1f} ms while "
            f"{arguments.connections} handshakes came at {burst['connects_per_s']:.0f} a second "
            f"({burst['cpu_us_per_connect']:.0f} us of the broker's CPU each)"
        )
    return 0 if min(worst) < BOUND else 1


def _run(connections: int) -> tuple[Mapping[str, float], Mapping[str, float], Mapping[str, Any]]:
    plain = free_port()
    more = PLAIN.format(plain=plain)
    with started("ours", "", transport="tls", more=more) as broker:
        steady = ("--scenario", "rate", "--pubs", "50", "--rate", "20", "--port", str(plain))
        before = _said(_start("mqload", *steady, "--duration", "3"))
        # As long as the burst, roughly; the warm-up has connected these before it begins.
        watching = _start("mqload", *steady, "--duration", "3", "--warmup", "1")
        burst = _start(
            *("mqload-tls", "--tls", "--scenario", "idle", "--conns", str(connections)),
            *("--concurrency", str(connections), "--hold", "0", "--port", str(broker.port)),
            *("--broker-pid", str(broker.process.pid)),
        )
        return before["lat_us"], _said(watching)["lat_us"], _said(burst)


def _start(name: str, *arguments: str) -> "subprocess.Popen[str]":
    path = build("mqload", tls=name == "mqload-tls")
    command = ["taskset", "-c", LOAD_CORE, str(path), *arguments, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _said(process: "subprocess.Popen[str]") -> Mapping[str, Any]:
    said: Mapping[str, Any] = json.loads(process.communicate(timeout=120)[0])
    return said


if __name__ == "__main__":
    sys.exit(main())
