"""Run the suite and print the matrix: `python -m tests.conformance --help`."""

import argparse
import sys
from pathlib import Path

import pytest

from tests.conformance import target
from tests.conformance.matrix import Matrix, Run, coverage_only


def main() -> int:
    """0: every rule has a test and every test passed; 1: not so; else pytest's own exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--host", help="a running broker (default: ours is started)")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--version", type=int, choices=(5, 3), help="one half of the suite")
    parser.add_argument("--matrix", action="store_true", help="run nothing: which test covers what")
    parser.add_argument("--brief", action="store_true", help="leave out the rules that passed")
    parser.add_argument(
        "--report", metavar="NAME", help="print the deviations of broker NAME as Markdown"
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only these tests, as pytest's -k")
    options = parser.parse_args()

    versions = (options.version,) if options.version else (5, 3)
    if options.matrix:
        matrix: Matrix = coverage_only(versions)
    else:
        run = Run(target.foreign(options.host, options.port) if options.host else None)
        here = Path(__file__).parent
        files = [str(path) for v in versions for path in sorted(here.glob(f"test_mqtt{v}_*.py"))]
        selection = ["-k", options.k] if options.k else []
        code = pytest.main(
            [
                "-q",
                "--tb=line",
                "--no-header",
                "-r",
                "N",
                "-p",
                "no:cacheprovider",
                *selection,
                *files,
            ],
            plugins=[run],
        )
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return int(code)
        matrix = run.matrix(versions)
    print(matrix.report(options.report) if options.report else matrix.text(brief=options.brief))
    return 0 if matrix.complete else 1


if __name__ == "__main__":
    sys.exit(main())
