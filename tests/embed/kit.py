"""Loops for the tests of asyncio: the standard library's and uvloop."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.new_event_loop()
    if sys.platform == "win32":
        pytest.skip("only on systems with uvloop")
    import uvloop

    return uvloop.new_event_loop()


def run(kind: str, main: Callable[[], Coroutine[Any, Any, T]], *, debug: bool = True) -> T:
    with asyncio.Runner(loop_factory=lambda: new_loop(kind), debug=debug) as runner:
        return runner.run(main())


LOOPS = ("asyncio", "uvloop")


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until something is so, that Trio or another thread brings about."""
    while not condition():  # noqa: ASYNC110 - nothing of asyncio tells of it
        await asyncio.sleep(0)
