"""In CI a test that is skipped for want of a tool fails the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

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
    ("folder", "skipping", "in_ci", "code"),
    [
        ("tests", MISSING_TOOL, True, pytest.ExitCode.TESTS_FAILED),
        ("contrib/x/tests", MISSING_TOOL, True, pytest.ExitCode.TESTS_FAILED),
        ("tests", MISSING_TOOL, False, pytest.ExitCode.OK),
        ("contrib/x/tests", MISSING_MODULE, True, pytest.ExitCode.INTERRUPTED),
        ("tests", OTHER_SYSTEM, True, pytest.ExitCode.OK),
        ("tests", EXPECTED_FAILURE, True, pytest.ExitCode.OK),
    ],
)
def test_a_skip_fails_the_run_in_ci(
    tmp_path: Path, folder: str, skipping: str, in_ci: bool, code: pytest.ExitCode
) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    tests = tmp_path / folder
    tests.mkdir(parents=True)
    (tests / "test_it.py").write_text(TESTS.format(skipping=skipping))
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    if in_ci:
        environment["CI"] = "true"
    options = ("-q", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tests)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
