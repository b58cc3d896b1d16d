"""What publishing and taking a message costs in each colour: `python -m tests.embed.cost`."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import trio

import mqtrio
from mqtrio.embed import open_asyncio_broker, open_thread_broker

COUNT = 3000


def say(colour: str, published: float, taken: float, end: float) -> None:
    publish = (taken - published) / COUNT * 1e6
    take = (end - taken) / COUNT * 1e6
    print(f"{colour:<10} publish {publish:6.1f} us, take {take:6.1f} us")


async def on_trio() -> None:
    async with mqtrio.open_broker([]) as broker, broker.subscribe("a", size=COUNT) as messages:
        begin = time.perf_counter()
        for _ in range(COUNT):
            await broker.publish("a", b"x")
        middle = time.perf_counter()
        for _ in range(COUNT):
            await messages.receive()
        say("trio", begin, middle, time.perf_counter())


def on_asyncio(colour: str) -> Callable[[], Coroutine[Any, Any, None]]:
    async def measure() -> None:
        async with open_asyncio_broker([]) as broker:
            async with broker.subscribe("a", size=COUNT) as messages:
                begin = time.perf_counter()
                for _ in range(COUNT):
                    await broker.publish("a", b"x")
                middle = time.perf_counter()
                for _ in range(COUNT):
                    await messages.receive()
                say(colour, begin, middle, time.perf_counter())

    return measure


def on_threads() -> None:
    with open_thread_broker([]) as broker, broker.subscribe("a", size=COUNT) as messages:
        begin = time.perf_counter()
        for _ in range(COUNT):
            broker.publish("a", b"x")
        middle = time.perf_counter()
        for _ in range(COUNT):
            messages.receive()
        say("threads", begin, middle, time.perf_counter())


if __name__ == "__main__":
    trio.run(on_trio)
    asyncio.run(on_asyncio("asyncio")())
    if sys.platform != "win32":
        import uvloop

        uvloop.run(on_asyncio("uvloop")())
    on_threads()
