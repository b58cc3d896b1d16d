import math
import time

import pytest
import trio
from trio.testing import MockClock

from mqtrio.clock import Clock


async def test_wall_time_is_the_anchor_plus_monotonic_time(mock_clock: MockClock) -> None:
    clock = Clock(wall=1_000_000.0)
    start = clock.monotonic()
    mock_clock.jump(12.5)
    assert clock.monotonic() == start + 12.5
    assert clock.wall() == pytest.approx(1_000_012.5)


async def test_a_jump_of_the_wall_clock_changes_nothing(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    before = clock.wall()
    assert before == pytest.approx(time.time(), abs=5)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    mock_clock.jump(1.0)
    assert clock.wall() == pytest.approx(before + 1.0)
    assert clock.to_wall(clock.monotonic()) == clock.wall()


async def test_moments_are_converted_both_ways(mock_clock: MockClock) -> None:
    clock = Clock(wall=1_000_000.0)
    mock_clock.jump(3.0)
    due = trio.current_time() + 60
    assert clock.to_wall(due) == pytest.approx(1_000_063.0)
    assert clock.to_monotonic(clock.to_wall(due)) == pytest.approx(due)
    assert clock.to_monotonic(999_000.0) < clock.monotonic()
    assert clock.to_wall(math.inf) == math.inf
