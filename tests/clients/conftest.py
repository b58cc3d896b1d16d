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
    before = len(running_broker.log)
    yield running_broker
    mistakes = running_broker.mistakes()
    assert not mistakes, "".join(running_broker.log[before:])
