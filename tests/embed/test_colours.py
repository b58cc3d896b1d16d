"""The three colours of the in-process API: the same methods, arguments and defaults."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mqtrio
from mqtrio.embed import (
    AsyncioBroker,
    AsyncioSubscriber,
    BlockingBroker,
    BlockingSubscriber,
    open_asyncio_broker,
    open_thread_broker,
)

if TYPE_CHECKING:
    from typing import assert_type

COLOURS = (AsyncioBroker, BlockingBroker)

#: What only a program on Trio can have, and why.
ONLY_TRIO = {
    "serve_stream": "serves a stream of Trio",
    "hook": "gives plugins what they call in Trio",
}


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def arguments(function: Any) -> list[tuple[str, Any, Any, Any]]:
    parameters = list(inspect.signature(function).parameters.values())
    return [
        (each.name, each.kind, each.default, str(each.annotation))
        for each in parameters
        if each.name != "self"
    ]


METHODS = sorted(
    name
    for name in public(mqtrio.Broker) - set(ONLY_TRIO)
    if inspect.isfunction(getattr(mqtrio.Broker, name))
)


@pytest.mark.parametrize("colour", COLOURS)
def test_each_colour_has_every_method(colour: type) -> None:
    assert public(colour) == public(mqtrio.Broker) - set(ONLY_TRIO)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_arguments_are_the_same(colour: type, name: str) -> None:
    method = getattr(colour, name)
    assert arguments(method) == arguments(getattr(mqtrio.Broker, name))
    assert method.__doc__ == getattr(mqtrio.Broker, name).__doc__


@pytest.mark.parametrize("name", METHODS)
def test_what_waits_is_awaited_in_asyncio_and_blocks_with_threads(name: str) -> None:
    waits = inspect.iscoroutinefunction(getattr(mqtrio.Broker, name))
    code = getattr(AsyncioBroker, name).__code__
    assert bool(code.co_flags & inspect.CO_COROUTINE) == waits
    code = getattr(BlockingBroker, name).__code__
    assert not code.co_flags & inspect.CO_COROUTINE


@pytest.mark.parametrize("opener", [open_asyncio_broker, open_thread_broker])
def test_they_are_opened_alike(opener: Any) -> None:
    assert arguments(opener) == arguments(mqtrio.open_broker)


@pytest.mark.parametrize("colour", [AsyncioSubscriber, BlockingSubscriber])
def test_subscribers_are_alike(colour: type) -> None:
    assert public(colour) - {"acknowledge"} == {"receive", "dropped"}
    receive: Any = colour.receive  # type: ignore[attr-defined]  # both have it
    assert arguments(receive) == arguments(mqtrio.Subscriber.receive)


def test_iterating_is_each_hosts_own() -> None:
    assert issubclass(AsyncioSubscriber, AsyncIterator)
    assert issubclass(BlockingSubscriber, Iterator)


def types_are_visible(asynchronous: AsyncioBroker, blocking: BlockingBroker) -> None:
    """Never run: mypy reads it."""
    if TYPE_CHECKING:
        assert_type(blocking.publish("a", qos=1), mqtrio.PublishResult)
        publishing = assert_type(
            asynchronous.publish("a", qos=1), Coroutine[Any, Any, mqtrio.PublishResult]
        )
        publishing.close()
        assert_type(blocking.request("a"), mqtrio.ReceivedMessage)
        assert_type(blocking.retained(), list[mqtrio.ReceivedMessage])
        assert_type(asynchronous.statistics(), mqtrio.BrokerStatistics)
        assert_type(
            asynchronous.subscribe("a"), AbstractAsyncContextManager[AsyncioSubscriber, bool | None]
        )
        assert_type(
            blocking.subscribe("a"), AbstractContextManager[BlockingSubscriber, bool | None]
        )
        blocking.publish(1)  # type: ignore[arg-type]  # which is what is tested
        blocking.publish("a", quality=1)  # type: ignore[call-arg]  # which is what is tested
        blocking.subscribe("a", size="1")  # type: ignore[arg-type]  # which is what is tested


def test_wrong_arguments_are_type_errors_in_every_colour() -> None:
    async def asynchronous() -> None:
        async with open_asyncio_broker([]) as broker:
            with pytest.raises(TypeError, match="quality"):
                await broker.publish("a", quality=1)  # type: ignore[call-arg]  # is tested

    asyncio.run(asynchronous())
    with open_thread_broker([]) as broker:
        with pytest.raises(TypeError, match="quality"):
            broker.publish("a", quality=1)  # type: ignore[call-arg]  # is tested


@pytest.mark.parametrize("good", [True, False])
def test_reload_in_both_colours(tmp_path: Path, good: bool) -> None:
    """A configuration is read again; one that can't be changes nothing and says why."""
    path = tmp_path / "mqtrio.toml"
    path.write_text("[limits]\ntopic_levels = 2\n", encoding="utf-8")
    again = "[limits]\ntopic_levels = 3\n" if good else "[limits]\ntopic_levels = 'three'\n"

    async def asynchronous() -> None:
        async with open_asyncio_broker([], config=path) as broker:
            with pytest.raises(mqtrio.RefusedError):
                await broker.publish("a/b/c")
            path.write_text(again, encoding="utf-8")
            if good:
                await broker.reload(path)
                await broker.publish("a/b/c")
            else:
                with pytest.raises(mqtrio.ConfigurationError, match="topic_levels"):
                    await broker.reload(path)

    asyncio.run(asynchronous())
    path.write_text("[limits]\ntopic_levels = 2\n", encoding="utf-8")
    with open_thread_broker([], config=path) as broker:
        path.write_text(again, encoding="utf-8")
        if good:
            broker.reload(path)
            broker.publish("a/b/c")
        else:
            with pytest.raises(mqtrio.ConfigurationError, match="topic_levels"):
                broker.reload(path)
