"""pytest's door: the fixtures `mqtt_broker` and `mqtt_broker_session`; see docs/testing.md.

pytest imports this module in every project beside which mqtrio is installed. So neither Trio nor
the broker is imported before a test has asked for one.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mqtrio.testing import MqttBroker

FIXTURES = ("mqtt_broker", "mqtt_broker_session")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "mqtt_broker(**options): what the fixture mqtt_broker opens its broker with: "
        "plugins=[...], limits={...} and all else that mqtrio.open_broker takes",
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Import the broker before the first fixture starts, if there will be one."""
    if any(
        name in getattr(item, "fixturenames", ()) for item in session.items for name in FIXTURES
    ):
        import mqtrio.config
        import mqtrio.testing  # noqa: F401


@pytest.fixture
def mqtt_broker_options() -> dict[str, Any]:
    """Arguments of `mqtrio.open_broker` for `mqtt_broker`: override it, or use the marker."""
    return {}


@pytest.fixture(scope="session")
def mqtt_broker_session_options() -> dict[str, Any]:
    """Arguments of `mqtrio.open_broker` for `mqtt_broker_session`: override it."""
    return {}


@pytest.fixture
def mqtt_broker(
    request: pytest.FixtureRequest, mqtt_broker_options: dict[str, Any]
) -> "Iterator[MqttBroker]":
    """A broker for one test, in a thread of its own, on a free port of 127.0.0.1."""
    from mqtrio.testing import open_test_broker

    options = dict(mqtt_broker_options)
    for marker in reversed([*request.node.iter_markers("mqtt_broker")]):
        options.update(marker.kwargs)
    with open_test_broker(**options) as broker:
        yield broker


@pytest.fixture(scope="session")
def mqtt_broker_session(mqtt_broker_session_options: dict[str, Any]) -> "Iterator[MqttBroker]":
    """One broker for all tests that ask for it; see `mqtt_broker`, and `MqttBroker.clear`."""
    from mqtrio.testing import open_test_broker

    with open_test_broker(**mqtt_broker_session_options) as broker:
        yield broker
