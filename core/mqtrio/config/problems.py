"""What is wrong with a configuration: where, and what is allowed."""

import re
from typing import Final

from attrs import define

from mqtrio.errors import ConfigurationError
from mqtrio.fields import show
from mqtrio.toml_lines import KeyPath

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@define(frozen=True)
class Problem:
    """One thing that is wrong: in which file or argument, on which line, at which key."""

    source: str
    path: KeyPath
    text: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(filter(None, (where, key_text(self.path), self.text)))


class InvalidSettings(ConfigurationError):
    """Settings that can't be used; `problems` has every one, the text a line for each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        lines = [str(problem) for problem in problems]
        if len(lines) > 1:
            lines = [f"{len(lines)} errors in the configuration:", *(f"  {each}" for each in lines)]
        super().__init__("\n".join(lines))
        self.problems = problems


def by_line(problems: list[Problem]) -> tuple[Problem, ...]:
    """Sort problems by line; what has none keeps its place behind them."""
    return tuple(sorted(problems, key=lambda each: (each.line is None, each.line or 0)))


def key_text(path: KeyPath) -> str:
    """Write a path as a person says it: listener[0].url."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else show(part))
    return text
