"""A broker in memory; pytest-trio wants each test to ask for `autojump_clock` by itself."""

from collections.abc import AsyncIterator

import pytest

from mqtrio.testing import Harness, open_harness


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with open_harness() as harness:
        yield harness
