"""What docs/embedding.md shows runs, and what it lists is what there is."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

import mqtrio
from mqtrio import BrokerStatistics, ClientInfo, SessionInfo
from mqtrio.testing import Peer

PAGE = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text(encoding="utf-8")
PROGRAM = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))

#: The functions that the page shows.
NAMES = [node.name for node in ast.parse(PROGRAM).body if isinstance(node, ast.AsyncFunctionDef)]


def functions() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(PROGRAM, "docs/embedding.md", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("own_stream", "with_asyncio")]
)
async def test_it_runs(name: str, autojump_clock: MockClock) -> None:
    function = functions()[name]
    if not inspect.signature(function).parameters:
        await function()
        return
    async with mqtrio.open_broker([]) as broker:
        await function(broker)


async def test_a_stream_of_ones_own(autojump_clock: MockClock) -> None:
    async with mqtrio.open_broker([]) as broker, trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        nursery.start_soon(functions()["own_stream"], broker, theirs)
        await Peer(ours, client_id="ann").connect()
        (client,) = broker.clients()
        assert client.listener == "serial"
        await functions()["looking"](broker)
        await ours.aclose()


def test_with_asyncio() -> None:
    asyncio.run(functions()["with_asyncio"]())


def test_with_threads() -> None:
    functions()["with_threads"]()


def test_all_blocks_are_run() -> None:
    assert {"main", "publishing", "subscribing", "durable", "asking", "looking"} <= set(NAMES)


@pytest.mark.parametrize("kind", [BrokerStatistics, ClientInfo, SessionInfo])
def test_every_field_has_a_word(kind: type) -> None:
    for field in attrs.fields(kind):
        assert f"`{field.name}`" in PAGE, field.name


def test_every_method_has_a_word() -> None:
    """Those that a program calls; the page may leave out no way to use the broker."""
    for name, _ in inspect.getmembers(mqtrio.Broker):
        if not name.startswith("_") and name != "wait_stopped":
            assert re.search(rf"\b{name}\b", PAGE), name
