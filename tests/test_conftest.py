"""In CI a test that is skipped for want of a tool fails the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_runs(): pass

{skipping}
"""
MISSING_TOOL = "@pytest.mark.skipif(True, reason='mosquitto_pub is missing')\ndef test_s(): pass"
MISSING_MODULE = "pytest.importorskip('no_such_module_anywhere')"
OTHER_SYSTEM = "def test_s(): pytest.skip('only on Windows: no such selector')"
EXPECTED_FAILURE = "@pytest.mark.xfail(reason='known')\ndef test_s(): assert False"


@pytest.mark.parametrize(
    ("skipping", "in_ci", "code"),
    [
        (MISSING_TOOL, True, pytest.ExitCode.TESTS_FAILED),
        (MISSING_TOOL, False, pytest.ExitCode.OK),
        (MISSING_MODULE, True, pytest.ExitCode.INTERRUPTED),
        (OTHER_SYSTEM, True, pytest.ExitCode.OK),
        (EXPECTED_FAILURE, True, pytest.ExitCode.OK),
    ],
)
def test_a_skip_fails_the_run_in_ci(
    tmp_path: Path, skipping: str, in_ci: bool, code: pytest.ExitCode
) -> None:
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS.format(skipping=skipping))
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    if in_ci:
        environment["CI"] = "true"
    options = ("-q", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
