"""Tables: the figures, the goals, the machine."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench.brokers import mosquitto_path
from tests.bench.scenarios import GOALS, SCENARIOS, Goal, Rows

HEAD = (
    f"{'scenario':9} {'broker':9} {'rate/s':>12} {'CPU us':>8}"
    f" {'p50 us':>9} {'p99 us':>9} {'bytes':>7} {'bad':>5} {'ratio':>7}"
)


def machine() -> dict[str, str]:
    """What a figure depends on: cores, processor, kernel, versions."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "machine": f"{os.cpu_count()} cores, {cpu.group(1) if cpu else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "mqtrio": version("mqtrio"),
        "trio": version("trio"),
        "mosquitto": _mosquitto_version(),
    }


def _mosquitto_version() -> str:
    path = mosquitto_path()
    if path is None:
        return "not installed"
    said = subprocess.run([path, "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"mosquitto version (\S+)", said)
    return found.group(1) if found else "unknown"


def lines(rows: Rows, scenario: str, brokers: Sequence[str]) -> Iterator[str]:
    """One line for each broker: medians, and ours divided by theirs."""
    for broker in brokers:
        row = rows[scenario, broker]
        ours = rows[scenario, "ours"]
        ratio = "" if broker == "ours" else f"{ours['rate'] / row['rate']:6.2f}x"
        yield (
            f"{scenario:9} {broker:9} {row['rate']:>12,.0f} {row['cpu']:8.2f}"
            f" {_figure(row.get('p50')):>9} {_figure(row.get('p99')):>9}"
            f" {_figure(row.get('memory')):>7} {row['lost']:5.0f} {ratio:>7}"
        )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def goals_measured(rows: Rows) -> list[Goal]:
    """The goals whose rows were all measured."""
    return [goal for goal in GOALS if all(need in rows for need in goal.needs)]


def goal_lines(rows: Rows) -> Iterator[str]:
    """One line for each goal that was measured; those about losses only when they are missed."""
    for goal in goals_measured(rows):
        met = goal.met(rows)
        if met and goal.bound == 0:
            continue
        sign = ">=" if goal.at_least else "<="
        yield (
            f"{'met   ' if met else 'MISSED'}  {goal.what}:"
            f" {goal.value(rows):,.2f} ({sign} {goal.bound:,g})"
        )


def scenario_list() -> str:
    """For --help: what each name stands for."""
    return "\n".join(f"  {name:9} {scenario.what}" for name, scenario in SCENARIOS.items())
