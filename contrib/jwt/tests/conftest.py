"""What the tests share."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from contrib.jwt.tests.kit import Kit
from mqtrio_jwt import Jwt, JwtSettings


def run(function: Callable[[], Any], clock: Any = None, instruments: Any = ()) -> Any:
    """Run by a clock that jumps when nobody has anything to do."""
    clock = clock or MockClock(autojump_threshold=0)
    return trio.run(function, clock=clock, instruments=instruments)


@pytest.fixture(scope="session")
def kit() -> Kit:
    """Keys of every kind, made once."""
    return Kit()


@pytest.fixture
def folder(tmp_path: Path, kit: Kit) -> Path:
    """A folder with the public keys, `ALGORITHM.pem`."""
    for algorithm in ("RS256", "ES256", "ES384", "ES512", "EdDSA"):
        (tmp_path / f"{algorithm}.pem").write_bytes(kit.pem(algorithm))
    return tmp_path


Make = Callable[..., Jwt]


@pytest.fixture
def make(folder: Path) -> Make:
    """Make the plugin: by default for ES256, with the key from a file."""

    def made(**given: Any) -> Jwt:
        settings: dict[str, Any] = {
            "algorithms": ("ES256",),
            "public_keys": (folder / "ES256.pem",),
        } | given
        return Jwt(JwtSettings(**settings), name="jwt")

    return made


def pytest_itemcollected(item: pytest.Item) -> None:
    here = Path(__file__).parent
    chosen = any(marker.kwargs.get("run") for marker in item.iter_markers("trio"))
    is_async = inspect.iscoroutinefunction(getattr(item, "obj", None))
    if is_async and not chosen and here in item.path.parents:
        item.add_marker(pytest.mark.trio(run=run), append=False)
