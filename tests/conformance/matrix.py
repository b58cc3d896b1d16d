"""The matrix: every rule of the checklists, the tests that carry it, and what they came to."""

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.conformance.rules import HERE, Rule, covered, load, version_of
from tests.conformance.target import Target

#: Results, the worst first; a test with several runs shows its worst.
FAILED: Final = "FAILED"
NOT_COVERED: Final = "NO TEST"
NOT_RUN: Final = "not run"
PASSED: Final = "passed"
NOT_APPLICABLE: Final = "not applicable"


@dataclass(frozen=True)
class Line:
    """One test of one rule, and its result; `why` is the failure, or why there is no result."""

    rule: Rule
    test: str
    result: str
    why: str = ""


class Matrix:
    """All lines, in the order of the checklists."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)

    @property
    def complete(self) -> bool:
        """No rule without a test, and no failure."""
        return not any(line.result in (FAILED, NOT_COVERED) for line in self.lines)

    def count(self) -> Counter[str]:
        """Number of rules by their worst result."""
        order = (FAILED, NOT_COVERED, PASSED, NOT_RUN, NOT_APPLICABLE)
        worst: dict[tuple[int, str], str] = {}
        for line in self.lines:
            key = (line.rule.version, line.rule.id)
            worst[key] = min(worst.get(key, line.result), line.result, key=order.index)
        return Counter(worst.values())

    def text(self, *, brief: bool = False) -> str:
        """The matrix as a table of id, rule, test and result."""
        out = [
            f"{line.rule.version}  {line.rule.id:<16}  {line.result:<14}  {line.test or '-'}\n"
            f"     {line.rule.text}" + (f"\n     -> {line.why}" if line.why else "")
            for line in self.lines
            if not brief or line.result in (FAILED, NOT_COVERED)
        ]
        return "\n".join((*out, "", self.summary()))

    def summary(self) -> str:
        """How many rules came to what."""
        count = self.count()
        return f"{sum(count.values())} rules: " + ", ".join(
            f"{count[result]} {result}" for result in sorted(count, key=lambda r: -count[r])
        )

    def report(self, broker: str) -> str:
        """The deviations of `broker` as Markdown, explained by explanations/BROKER.tsv."""
        said = _explanations(HERE / "explanations" / f"{broker}.tsv")
        out = ["| MQTT | id | the standard asks | it does |", "|---|---|---|---|"]
        for line in self.lines:
            if line.result == FAILED:
                version = "5" if line.rule.version == 5 else "3.1.1"
                does = said.get((line.test, line.rule.id)) or said.get((line.test, "*")) or line.why
                out.append(f"| {version} | {line.rule.id} | {line.rule.text} | {does} |")
        return "\n".join(out)


def _explanations(path: Path) -> dict[tuple[str, str], str]:
    """(test, rule id or *) -> what the broker does, in words."""
    said = {}
    if path.exists():
        for row in path.read_text(encoding="utf-8").splitlines()[1:]:
            test, rule_id, words = row.split("\t")
            said[test, rule_id] = words
    return said


class Run:
    """A pytest plugin that gathers results; `target` None: our broker."""

    def __init__(self, target: Target | None) -> None:
        self.target = target
        self._tests: dict[tuple[int, str], dict[str, tuple[str, str]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        version = version_of(item.path)
        name, _, case = f"{item.path.stem}::{item.name}".partition("[")
        for mark in item.iter_markers("rule") if version else ():
            for rule_id in mark.args:
                self._note(version, rule_id, name, case.removesuffix("]"), report, call)
        return report

    def _note(
        self,
        version: int,
        rule_id: str,
        name: str,
        case: str,
        report: pytest.TestReport,
        call: pytest.CallInfo[None],
    ) -> None:
        tests = self._tests.setdefault((version, rule_id), {})
        if report.failed:
            reason = f"{case}: {_reason(call)}" if case else _reason(call)
            before = tests.get(name, (PASSED, ""))
            tests[name] = (FAILED, f"{before[1]}; {reason}" if before[0] == FAILED else reason)
        elif report.skipped:
            tests.setdefault(name, (NOT_RUN, _reason(call)))
        elif report.when == "call" and tests.get(name, (PASSED,))[0] != FAILED:
            tests[name] = (PASSED, "")

    def matrix(self, versions: Sequence[int]) -> Matrix:
        """What the run came to, for `versions`."""
        return Matrix(
            Line(rule, test, result, why)
            for version in versions
            for rule in load(version).values()
            for test, (result, why) in self._tests.get((version, rule.id), _none(rule)).items()
        )


def _none(rule: Rule) -> dict[str, tuple[str, str]]:
    return {"": (NOT_APPLICABLE, rule.excluded) if rule.excluded else (NOT_COVERED, "")}


def _reason(call: pytest.CallInfo[None]) -> str:
    """The first line of what was raised; a group of one is what it holds."""
    raised: BaseException | None = call.excinfo.value if call.excinfo else None
    while isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
        raised = raised.exceptions[0]
    line = str(raised).partition("\n")[0][:300]
    expected = isinstance(raised, AssertionError | pytest.skip.Exception)
    return line if expected else f"{type(raised).__name__}: {line}"


def coverage_only(versions: Sequence[int]) -> Matrix:
    """The matrix of a run of nothing: which tests carry which rules."""
    lines = []
    for version in versions:
        tests = covered(version)
        for rule in load(version).values():
            if rule.id in tests:
                lines += [Line(rule, test, NOT_RUN) for test in tests[rule.id]]
            else:
                lines += [Line(rule, test, *result) for test, result in _none(rule).items()]
    return Matrix(lines)
