"""docs/testing.md: its example runs, and it knows every name of the kit."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

import mqtrio.testing
from mqtrio.store.stored import StoredState
from mqtrio.testing import FaultyStore
from tests.testing.test_check_authenticator import Passwords
from tests.testing.test_check_layer import Framing
from tests.testing.test_check_plugin import Greeter, Greeting

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


async def test_the_example_runs() -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/testing.md", "exec"), names)
    await names["test_who_may_publish"](MockClock())


def test_every_name_is_on_the_page() -> None:
    shown = set(re.findall(r"(?:`|^### )(\w+)", PAGE, re.MULTILINE))
    assert set(mqtrio.testing.__all__) - {"Closed"} <= shown


PASSWORD = b"correct horse"
NAMES: dict[str, Any] = {
    "Greeter": Greeter,
    "GreeterSettings": Greeting,
    "make_plugin": lambda: Passwords({"ann": PASSWORD}, name="passwords"),
    "SqliteStore": lambda place: FaultyStore(STATES[place]),
    "tmp_path": Path(),
    "make_server": Framing,
    "make_client": Framing,
}
STATES: dict[Path, StoredState] = defaultdict(StoredState)


@pytest.mark.parametrize("contract", ["plugin", "authenticator", "store", "layer"])
async def test_a_contract_is_called_like_this(contract: str) -> None:
    (code,) = re.findall(rf"### check_{contract}\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    body = "\n    ".join(code.splitlines())
    names = NAMES | {name: getattr(mqtrio.testing, name) for name in mqtrio.testing.__all__}
    exec(f"async def test():\n    {body}", names)
    await names["test"]()
