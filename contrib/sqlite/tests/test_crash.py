"""The crash test, in a form that a run of all tests can bear; `crash.py` runs as long as wanted."""

from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.parametrize(("seed", "synchronous"), [(20, "full"), (21, "normal")])
async def test_what_was_acknowledged_survives(
    tmp_path: Path, script: ModuleType, seed: int, synchronous: str
) -> None:
    test = await script.crash(tmp_path, 5, seed, "process", synchronous)
    print(test.said())
    assert sum(publisher.acknowledgements for publisher in test.publishers) > 100


async def test_a_power_failure(tmp_path: Path, script: ModuleType) -> None:
    test = await script.crash(tmp_path, 5, 22, "process", "full", power=True)
    print(test.said())
    assert sum(publisher.acknowledgements for publisher in test.publishers) > 100


async def test_a_power_failure_where_nothing_is_synced(tmp_path: Path, script: ModuleType) -> None:
    """What `normal` doesn't promise it doesn't keep: this is how the test above would fail."""
    with pytest.raises((script.Failure, ExceptionGroup)):
        await script.crash(tmp_path, 5, 23, "process", "normal", power=True)
