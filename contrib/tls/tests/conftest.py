"""What the tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from contrib.tls.tests.authority import Authority


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    """An authority."""
    return Authority(tmp_path)


@pytest.fixture
def make_ca(tmp_path: Path) -> Callable[[str], Authority]:
    """More authorities, by name."""
    return lambda name: Authority(tmp_path, name)
