"""docs/testing.md: its example runs, and it knows every name of the kit."""

import re
from pathlib import Path
from typing import Any

from trio.testing import MockClock

import mqtrio.testing

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


async def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/testing.md", "exec"), names)
    await names["test_who_may_publish"](MockClock())


def test_every_name_is_on_the_page() -> None:
    shown = set(re.findall(r"`(\w+)", PAGE))
    assert set(mqtrio.testing.__all__) - {"Closed"} <= shown
