"""Measure our broker beside mosquitto, one core for the broker, the other for the load.

Runs are interleaved (ours, mosquitto, ours, ...), the table shows medians: deliveries a second
(connects, for idle), the broker's CPU microseconds for each, latency, bytes for an idle connection,
and how many messages were lost, doubled or out of order, which is none for a run that counts.
CPU for each delivery is the steadier figure on a busy machine. Needs Linux, cc and mosquitto;
scenarios over TLS need mqtrio-tls and the headers of OpenSSL (libssl-dev).

scenarios:
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence

from tests.bench.brokers import DEFAULT_COMMAND, BrokerFailed, allow_many_descriptors, started
from tests.bench.driver import LoadFailed, build, measure
from tests.bench.report import HEAD, goal_lines, goals_measured, lines, machine, scenario_list
from tests.bench.scenarios import SCENARIOS, Column


def main() -> int:
    """Exit code 0: measured, nothing lost (and with --check: no goal missed); 1 otherwise."""
    arguments = _arguments()
    allow_many_descriptors()
    for name in ("mqload", "pingpong"):
        build(name)
    if any(SCENARIOS[name].transport == "tls" for name in arguments.scenarios):
        build("mqload", tls=True)
    say = print if not arguments.json else _nothing
    for key, value in machine().items():
        say(f"{key:10} {value}")
    say(f"{'ours':10} {arguments.ours}\n\n{HEAD}")
    brokers = ("ours",) if arguments.alone else ("ours", "mosquitto")
    rows: dict[tuple[str, str], dict[Column, float]] = {}
    for scenario in arguments.scenarios:
        for broker, row in _medians(scenario, brokers, arguments).items():
            rows[scenario, broker] = row
        for line in lines(rows, scenario, brokers):
            say(line)
    say("")
    for line in goal_lines(rows):
        say(line)
    if arguments.json:
        table = [{"scenario": s, "broker": b, **row} for (s, b), row in rows.items()]
        print(json.dumps({"machine": machine(), "runs": arguments.runs, "rows": table}))
    missed = [goal for goal in goals_measured(rows) if not goal.met(rows)]
    if arguments.check:
        return 1 if missed else 0
    return 1 if any(row["lost"] for (_, broker), row in rows.items() if broker == "ours") else 0


def _medians(
    scenario: str, brokers: Sequence[str], arguments: argparse.Namespace
) -> dict[str, dict[Column, float]]:
    """Interleaved runs, each on a broker of its own; the median of each column, losses added up."""
    runs: dict[str, list[dict[Column, float]]] = {broker: [] for broker in brokers}
    for _ in range(arguments.runs):
        for broker, measured in runs.items():
            transport = SCENARIOS[scenario].transport
            with started(broker, arguments.ours, arguments.folder, transport=transport) as running:
                measured.append(measure(SCENARIOS[scenario], running, arguments.scale))
    result: dict[str, dict[Column, float]] = {}
    for broker, measured in runs.items():
        result[broker] = {
            column: statistics.median(run[column] for run in measured) for column in measured[0]
        }
        result[broker]["lost"] = sum(run["lost"] for run in measured)
    return result


def _nothing(line: str) -> None:
    """What says nothing beside --json."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"{__doc__}{scenario_list()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ours", default=DEFAULT_COMMAND, help="ours, with {scheme} and {port}")
    parser.add_argument("--folder", help="where our command runs")
    parser.add_argument("--alone", action="store_true", help="measure ours only")
    parser.add_argument("--scenarios", type=_names, default=list(SCENARIOS), metavar="A,B,...")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which medians (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the messages of each run")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a goal is missed")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokerFailed, LoadFailed) as failure:
        sys.exit(f"tests.bench: {failure}")
