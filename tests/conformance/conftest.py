"""Fixtures of the suite, and the checks that every one of its tests passes when it is collected."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mqtrio.wire.packets import MQTT_3_1_1, MQTT_5
from tests.conformance.matrix import Run
from tests.conformance.peer import Peers
from tests.conformance.rules import load, version_of
from tests.conformance.target import PLAIN, Target, our_broker
from tests.conformance.timed import Outcomes


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rule(*ids): the rules of a checklist that the test proves")
    config.addinivalue_line("markers", "needs(profile): wants a broker set up in a special way")
    config.addinivalue_line("markers", "timed: lets real time pass")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = {version: load(version) for version in (5, 3)}
    for item in items:
        version = version_of(item.path)
        if version and item.path.parent == Path(__file__).parent:
            marks = list(item.iter_markers("rule"))
            if len(marks) != 1:
                raise pytest.UsageError(f"{item.nodeid} needs one @rule, it has {len(marks)}")
            for rule_id in marks[0].args:
                rule = known[version].get(rule_id)
                if rule is None:
                    raise pytest.UsageError(f"{item.nodeid}: {rule_id} is not in the checklist")
                if rule.excluded:
                    raise pytest.UsageError(
                        f"{item.nodeid}: {rule_id} is excluded: {rule.excluded}"
                    )


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Iterator[Target]:
    """The broker under test: the one named to `python -m tests.conformance`, or ours."""
    runs = [p for p in pytestconfig.pluginmanager.get_plugins() if isinstance(p, Run)]
    with ExitStack() as stack:
        yield (runs[0].target if runs else None) or stack.enter_context(our_broker())


def _peers(item: pytest.Item, target: Target) -> Peers | None:
    """The peers of a test, towards the broker that it needs; None: there is no such broker."""
    mark = item.get_closest_marker("needs")
    port = target.ports.get(mark.args[0] if mark else PLAIN)
    if port is None:
        return None
    version = MQTT_3_1_1 if version_of(item.path) == 3 else MQTT_5
    return Peers(target.host, port, strict=target.ours, version=version)


@pytest.fixture
def speaks() -> int | None:
    """What the peers of a test speak, where it is parametrized with this; None: as its file."""
    return None


@pytest.fixture
async def peer(
    request: pytest.FixtureRequest, target: Target, speaks: int | None
) -> AsyncIterator[Peers]:
    """Makes peers: `async with peer() as p`, `peer(v=4)`, `peer(client_id=p.client_id)`."""
    peers = _peers(request.node, target)
    if peers is None:
        pytest.skip("not run against this broker")
    peers.version = speaks or peers.version
    yield peers
    await peers.tidy()


@pytest.fixture(scope="session")
def all_timed(request: pytest.FixtureRequest, target: Target) -> Outcomes:
    """All timed tests of this run that the broker can be asked for."""
    scripts = {}
    for item in request.session.items:
        script = getattr(getattr(item, "function", None), "script", None)
        peers = _peers(item, target)
        if script is not None and peers is not None:
            scripts[script] = peers
    return Outcomes(scripts)


@pytest.fixture
def timed_outcomes(request: pytest.FixtureRequest, target: Target, all_timed: Outcomes) -> Outcomes:
    if _peers(request.node, target) is None:
        pytest.skip("not run against this broker")
    return all_timed
