"""Clients with passwords come back by the thousand, and others don't notice.

Measured like test_fairness.py: up to three tries, and the best one counts.
"""

import sys

import pytest

from tests.limits import fairness, reconnects
from tests.limits.fairness import BOUND, HEADER, Figures

TRIES = 3


@pytest.mark.skipif(sys.platform == "win32", reason="only on Linux: needs the poller")
def test_others_do_not_notice() -> None:
    fairness.raise_descriptor_limit()
    best: dict[str, Figures] = {}
    for _ in range(TRIES):
        with reconnects.broker() as port:
            for name, figures in reconnects.measure(port, ("first", "again")).items():
                if name not in best or figures.p99 < best[name].p99:
                    best[name] = figures
        if all(figures.p99 < BOUND for figures in best.values()):
            break
    print(f"\n{HEADER}")
    for figures in best.values():
        print(figures.row())
    assert {name for name, figures in best.items() if figures.p99 >= BOUND} == set()
