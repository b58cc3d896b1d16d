"""Measure what plugins cost a pipelined QoS 0 message: an ACL and three observers that do nothing.

Runs are interleaved: no plugin; an ACL with 1,000 topics that is asked about every message; three
observers of `published`; both; and those observers with the ACL in the box, whose answers say
`remember`. What counts is the broker's CPU for each message, and how much more it is than without
plugins. The lowest of all runs is taken: whatever else a machine does can only add to it.
"""

import argparse
import sys
from functools import partial
from typing import Final

import trio

import mqtrio
from mqtrio.cli.process import short_collections
from mqtrio_plugins.acl import Acl
from mqtrio_plugins.acl.settings import AclRule, AclSettings
from tests.bench.brokers import BrokerFailed, started
from tests.bench.driver import LoadFailed, build, measure
from tests.bench.scenarios import SCENARIOS

#: What is measured -> how much more than without plugins it may cost, in microseconds.
VARIANTS: Final = {"none": None, "observers": None, "acl": None, "both": 0.6, "remembered": 0.3}

TOPICS: Final = [f"site/{number}/temperature" for number in range(1000)]
YES: Final = mqtrio.Allow()


class TopicList:
    """An ACL that decides about each message anew, by its topic."""

    def __init__(self) -> None:
        self.answers = dict.fromkeys(TOPICS, YES)

    @mqtrio.hookimpl
    def authorize_publish(self, event: mqtrio.PublishEvent) -> mqtrio.Allow | None:
        answer = self.answers.get(event.topic)
        if answer is None and event.topic.startswith("bench/"):
            answer = self.answers[event.topic] = YES
        return answer


def acl() -> Acl:
    """The ACL in the box, whose answers say `remember`."""
    rules = (AclRule(readwrite=(*TOPICS, "bench/#")),)
    return Acl(AclSettings(rules=rules), name="acl")


class Observer:
    """Does nothing."""

    @mqtrio.hookimpl
    def published(self, event: mqtrio.PublishedEvent) -> None:
        return None


def plugins_of(variant: str) -> list[object]:
    """The plugins of a variant, new ones."""
    plugins: list[object] = []
    if variant in ("acl", "both"):
        plugins.append(TopicList())
    if variant == "remembered":
        plugins.append(acl())
    if variant in ("observers", "both", "remembered"):
        plugins += [Observer(), Observer(), Observer()]
    return plugins


def serve(variant: str, port: int) -> None:
    """Run the broker with these plugins until it is interrupted."""
    listen = f"mqtt://127.0.0.1:{port}"
    with short_collections():  # as `mqtrio serve` does
        trio.run(partial(mqtrio.serve_broker, listen, plugins=plugins_of(variant)))


def main() -> int:
    """Exit code 0: measured (and with --check: within the bounds)."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hooks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, the best counts (5)")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a bound is missed")
    parser.add_argument("--serve", nargs=2, metavar=("VARIANT", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        variant, port = arguments.serve
        serve(variant, int(port))
        return 0
    build("mqload")
    costs: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.runs):
        for variant, measured in costs.items():
            command = f"{sys.executable} -m tests.bench.hooks --serve {variant} {{port}}"
            with started("ours", command) as broker:
                row = measure(SCENARIOS["pipe0"], broker, 1.0)
            if row["lost"]:
                raise LoadFailed(f"{row['lost']:.0f} messages went wrong")
            measured.append(row["cpu"])
    plain = min(costs["none"])
    missed = False
    print(f"{'plugins':12} {'CPU us':>8} {'more':>8} {'bound':>8}")
    for variant, bound in VARIANTS.items():
        cost = min(costs[variant])
        missed = missed or (bound is not None and cost - plain > bound)
        print(f"{variant:12} {cost:8.2f} {cost - plain:8.2f} {bound or '-':>8}")
    return 1 if missed and arguments.check else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokerFailed, LoadFailed) as failure:
        sys.exit(f"tests.bench.hooks: {failure}")
