"""The benchmark's goals judge what was measured, and only that."""

import pytest

from tests.bench.report import goal_lines, goals_measured, lines
from tests.bench.scenarios import GOALS, SCENARIOS, Column


def row(**columns: float) -> dict[Column, float]:
    base: dict[Column, float] = {"rate": 1.0, "cpu": 1.0, "p50": 1.0, "p99": 1.0, "lost": 0.0}
    for name in base:
        base[name] = columns.get(name, base[name])
    return base


@pytest.mark.parametrize(("rate", "met"), [(6.0, True), (5.9, False)])
def test_a_ratio_is_held_against_its_bound(rate: float, met: bool) -> None:
    rows = {("pipe0", "ours"): row(rate=rate), ("pipe0", "mosquitto"): row()}
    speed = goals_measured(rows)[0]
    assert speed.met(rows) is met
    (line,) = goal_lines(rows)
    assert line.startswith("met" if met else "MISSED")


def test_one_lost_message_misses_a_goal() -> None:
    rows = {("fanin", "ours"): row(lost=1.0)}
    assert [goal.what for goal in goals_measured(rows) if not goal.met(rows)] == [
        "fanin: messages lost, doubled or out of order"
    ]


def test_cost_with_many_filters_is_held_against_cost_with_ten() -> None:
    rows = {("subs", "ours"): row(cpu=1.6), ("subs10", "ours"): row(cpu=1.0)}
    assert [goal.bound for goal in goals_measured(rows) if not goal.met(rows)] == [1.5]


def test_every_goal_is_about_a_scenario() -> None:
    assert {name for goal in GOALS for name, _ in goal.needs} == set(SCENARIOS)


def test_counts_shrink_with_the_scale() -> None:
    assert SCENARIOS["pipe0"].command(0.1)[-2:] == ("--count", "30000")
    assert SCENARIOS["idle"].command(1.0)[-2:] == ("--conns", "5000")


def test_a_line_shows_the_ratio_to_the_other_broker() -> None:
    rows = {("pipe0", "ours"): row(rate=12.0), ("pipe0", "mosquitto"): row(rate=2.0)}
    ours, theirs = lines(rows, "pipe0", ("ours", "mosquitto"))
    assert "x" not in ours
    assert theirs.rstrip().endswith("6.00x")
