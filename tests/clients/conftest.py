"""One broker for all tests of this folder; its log must stay free of errors."""

from collections.abc import Iterator

import pytest

from tests.clients.serving import Running, serving


@pytest.fixture(scope="session")
def running_broker() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture
def broker(running_broker: Running) -> Iterator[Running]:
    """Where the broker listens. A test in which it makes a mistake fails."""
    yield running_broker
    running_broker.check()
