"""The broker under test: ours, started as a process of its own, or somebody else's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

#: The profile of a test that doesn't ask for another.
PLAIN: Final = "plain"


@dataclass(frozen=True)
class Target:
    """Where the broker listens. `ports` has one entry for each profile that it offers."""

    host: str
    ports: dict[str, int] = field(default_factory=dict)
    #: Our own broker, of which also the recommendations of the standard are asked.
    ours: bool = False


def foreign(host: str, port: int) -> Target:
    """Any running broker that lets anonymous clients publish and subscribe."""
    return Target(host, {PLAIN: port})


@contextmanager
def our_broker() -> Iterator[Target]:
    """Start our brokers, one for each profile of server.py, and stop them at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the broker did not start (exit code {process.wait()})")
        yield Target("127.0.0.1", json.loads(line), ours=True)
        process.stdin.close()  # the sign to stop
        if process.wait(timeout=30) != 0:
            raise RuntimeError(f"the broker ended with exit code {process.returncode}")
