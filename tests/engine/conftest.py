"""No test of the engine takes real time."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock


def run(
    function: Callable[[], Awaitable[Any]],
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> Any:
    """`trio.run`, by a clock that begins at 0 and jumps when nobody has anything to do."""
    clock = clock or MockClock(autojump_threshold=0)
    return trio.run(function, clock=clock, instruments=instruments)


def pytest_itemcollected(item: pytest.Item) -> None:
    chosen = any(marker.kwargs.get("run") for marker in item.iter_markers("trio"))
    if inspect.iscoroutinefunction(getattr(item, "obj", None)) and not chosen:
        item.add_marker(pytest.mark.trio(run=run), append=False)
