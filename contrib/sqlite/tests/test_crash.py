"""The crash test, in a form that a run of all tests can bear; `crash.py` runs as long as wanted."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _crash() -> ModuleType:
    """The script beside this file, which is no module of a package."""
    path = Path(__file__).with_name("crash.py")
    spec = importlib.util.spec_from_file_location("sqlite_crash", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seed", "synchronous"), [(20, "full"), (21, "normal")])
async def test_what_was_acknowledged_survives(tmp_path: Path, seed: int, synchronous: str) -> None:
    test = await _crash().crash(tmp_path, 5, seed, "process", synchronous)
    print(test.said())
    assert sum(publisher.acknowledgements for publisher in test.publishers) > 100
