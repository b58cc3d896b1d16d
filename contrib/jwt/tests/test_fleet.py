"""The example runs, and shows what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "fleet" / "fleet.py"

PRINTS = """\
meter-7 at north/readings/meter-7: publish
meter-7 at south/readings/meter-7: nothing
meter-7 at north/settings/meter-7: subscribe
wall at north/readings/meter-7: subscribe
wall at south/readings/meter-7: nothing
wall at north/settings/meter-7: nothing
olga at north/readings/meter-7: subscribe
olga at south/readings/meter-7: subscribe
olga at north/settings/meter-7: publish and subscribe
wall is refused: Client identifier not valid
eve is refused: Bad user name or password
guest, when its token ends: Not authorized
meter-7 is refused: Bad user name or password (its token was revoked)
"""


def test_the_fleet() -> None:
    # A paho client closes a pair of sockets only when it is collected.
    warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, EXAMPLE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == PRINTS
    assert "Traceback" not in done.stderr
