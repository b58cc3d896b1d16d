"""Compile wire and state with mypyc into a temporary folder and run their tests against the result.

`python tools/mypyc_check.py [pytest arguments]`, in an environment with the dev requirements and a
C compiler. Shows that both packages compile unchanged and behave as they do interpreted. Exit code
0 only if all their modules were compiled, the tests ran with the compiled ones, and passed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "core" / "mqtrio"
PACKAGES = ("wire", "state")

#: A pytest plugin that ends the run if a module of PACKAGES is not the compiled one. Checked after
#: the tests as well, since a test may have imported another.
GUARD = """
import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

MODULES = {modules!r}


def check():
    for name in MODULES:
        file = importlib.import_module(name).__file__
        if not file.startswith({folder!r}) or not file.endswith(tuple(EXTENSION_SUFFIXES)):
            pytest.exit(f"{{name}} is not compiled: {{file}}", returncode=3)
    for name, module in list(sys.modules.items()):
        if name.startswith({prefixes!r}) and name not in MODULES:
            pytest.exit(f"{{name}} was not compiled", returncode=3)


def pytest_sessionstart(session):
    check()


def pytest_sessionfinish(session, exitstatus):
    check()
    print(f"\\n{{len(MODULES)}} compiled modules")
"""


def copy_core(folder: Path) -> list[Path]:
    """Copy mqtrio to `folder`; returns the files to compile, relative to it.

    The copy's __init__ is empty, as wire and state must need nothing of the rest.
    """
    shutil.copytree(
        CORE, folder / "mqtrio", ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    )
    (folder / "mqtrio" / "__init__.py").write_text("", encoding="utf-8")
    return sorted(
        path.relative_to(folder)
        for package in PACKAGES
        for path in (folder / "mqtrio" / package).rglob("*.py")
        if path.name != "__init__.py"
    )


def compile_files(folder: Path, files: list[Path]) -> bool:
    """Run mypyc in `folder`; prints what it says if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "mypyc", *map(str, files)],
        cwd=folder,
        # Unoptimised: faster to build, and with the assertions of the generated code.
        env={**os.environ, "MYPYC_OPT_LEVEL": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout)
    return done.returncode == 0


def run_tests(folder: Path, files: list[Path], arguments: list[str]) -> int:
    """Run the tests of PACKAGES with the compiled modules in front; pytest's exit code."""
    modules = [".".join(path.with_suffix("").parts) for path in files]
    prefixes = tuple(f"mqtrio.{package}." for package in PACKAGES)
    guard = GUARD.format(modules=modules, folder=str(folder), prefixes=prefixes)
    (folder / "mypyc_guard.py").write_text(guard, encoding="utf-8")
    tests = [f"tests/{package}" for package in PACKAGES]
    options = ["-q", "-p", "mypyc_guard", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=False,
    ).returncode


def main() -> int:
    """Compile, then test."""
    with tempfile.TemporaryDirectory(prefix="mypyc-") as name:
        folder = Path(name).resolve()
        files = copy_core(folder)
        print(f"compiling {len(files)} modules", flush=True)
        if not compile_files(folder, files):
            return 1
        return run_tests(folder, files, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
