"""What the command line does to its process, seen from outside of it."""

import signal
import subprocess
import sys

import pytest
import trio

from tests.cli.serving import PATIENCE, Server

WAITING = """
import trio
from mqtrio.cli.process import on_stop_signal
from mqtrio.log import set_up
from mqtrio.settings import Log

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(on_stop_signal, {stop})
        print("ready", file=__import__("sys").stderr, flush=True)

set_up(Log())
trio.run(main)
"""

STUCK = """
def stuck():
    print("stuck", file=__import__("sys").stderr, flush=True)
    while True:
        pass
"""

LIMIT = """
import resource
from mqtrio.cli.process import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 5000))
for connections in (10, 1000, 10**6):
    raise_descriptor_limit(connections)
    print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
async def test_the_second_signal_ends_even_what_is_stuck(second: signal.Signals) -> None:
    script = STUCK + WAITING.format(stop="stuck")
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(python(script), stderr=subprocess.PIPE)
        try:
            server = Server(process)
            await server.wait_for("ready")
            process.terminate()
            await server.wait_for("stuck")
            assert "SIGTERM: stopping; a second signal ends the process at once" in server.log
            process.send_signal(second)
            assert await server.end() == -second
            assert "Traceback" not in server.log
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_descriptors_are_raised_as_far_as_the_system_lets_us() -> None:
    ended = subprocess.run(
        python(LIMIT), check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.stdout.splitlines() == ["522 5000", "1512 5000", "5000 5000"]
