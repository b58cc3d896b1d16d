"""What plugins bring when the broker starts, and why it does not start."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from mqtrio.errors import PluginError
from mqtrio.hooks import provide
from mqtrio.hooks.layers import LayerProvider
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.provide_events import CommandsEvent, LayersEvent, StartEvent, StopEvent
from mqtrio.hooks.specs import hookimpl
from mqtrio.opening import open_broker
from tests.hooks.driver import plugin_of
from tests.net.kit import Xor


class Shelf:
    """Looks like a store; notes that it was closed."""

    load = commit = queued = retained = None

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


def plugged(hook: str, *answers: Any) -> HookManager:
    manager = HookManager()
    for number, answer in enumerate(answers):

        def method(self: object, event: object, made: Any = answer) -> Any:
            if isinstance(made, Exception):
                raise made
            return made

        manager.add(plugin_of(hook, method), f"p{number}")
    return manager


async def soon(value: Any) -> Any:
    return value


async def test_nobody_opens_a_store() -> None:
    assert await provide.open_store(HookManager()) is None
    assert await provide.open_store(plugged("open_store", None)) is None


async def test_a_store_may_take_its_time_to_open() -> None:
    shelf = Shelf()
    assert await provide.open_store(plugged("open_store", None, soon(shelf))) is shelf


async def test_two_stores_are_one_too_many_and_both_are_closed() -> None:
    first, second = Shelf(), Shelf()
    with pytest.raises(PluginError, match="plugins 'p0' and 'p1' both open a store"):
        await provide.open_store(plugged("open_store", first, second))
    assert first.closed
    assert second.closed


async def test_a_store_is_closed_if_the_next_plugin_fails() -> None:
    shelf = Shelf()
    with pytest.raises(PluginError, match="plugin 'p1': open_store failed: LookupError"):
        await provide.open_store(plugged("open_store", shelf, LookupError()))
    assert shelf.closed


async def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(PluginError, match="plugin 'p0': open_store must return a store or None"):
        await provide.open_store(plugged("open_store", "sqlite"))


class Bringer:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def layers(self, event: LayersEvent) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


LAYER = LayerProvider(settings=LayerProvider, server=lambda options: Xor)


def layers(*answers: Any) -> Any:
    manager = HookManager()
    for number, answer in enumerate(answers):
        manager.add(Bringer(answer), f"p{number}")
    return provide.layers(manager.layers)


def test_layers_are_put_together() -> None:
    assert layers({"tls": LAYER}, {"websocket": LAYER}, None) == {"tls": LAYER, "websocket": LAYER}


def test_a_layer_has_one_maker() -> None:
    with pytest.raises(PluginError, match="plugins 'p0' and 'p1' both bring 'tls' in layers"):
        layers({"tls": LAYER}, {"tls": LAYER})


@pytest.mark.parametrize("nonsense", ["tls", {"tls": None}, {"tls": len}, {1: LAYER}, KeyError()])
def test_layers_that_are_none_are_refused(nonsense: Any) -> None:
    with pytest.raises(PluginError, match="plugin 'p0': layers"):
        layers(nonsense)


def test_a_class_brings_layers() -> None:
    class Bringing(Plugin[None]):
        @classmethod
        @hookimpl
        def layers(cls, event: LayersEvent) -> Mapping[str, LayerProvider]:
            return {"tls": LAYER}

    assert provide.layers_of(Bringing) == {"tls": LAYER}
    assert provide.layers_of(Plugin) == {}


def test_layers_of_an_instance_are_refused() -> None:
    class Late(Plugin[None]):
        @hookimpl
        def layers(self, event: LayersEvent) -> Any:  # type: ignore[override]
            return {}

    with pytest.raises(PluginError, match=r"@classmethod above @mqtrio\.hookimpl"):
        provide.layers_of(Late)


def bringing(answer: Any) -> type[Plugin[None]]:
    class Bringing(Plugin[None]):
        @classmethod
        @hookimpl
        def commands(cls, event: CommandsEvent) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    return Bringing


def test_a_class_brings_commands() -> None:
    assert provide.commands(bringing({"passwd": len})) == {"passwd": len}
    assert provide.commands(bringing(None)) == {}
    assert provide.commands(Plugin) == {}
    manager = HookManager()
    manager.add(bringing({"passwd": len})(None, name="p"))
    assert [call.plugin for call in manager.commands] == ["p"]


def test_commands_that_are_none_are_refused() -> None:
    for nonsense in ("passwd", {"passwd": 1}, LookupError(), soon({})):
        with pytest.raises(PluginError, match=r"plugin '.*Bringing': commands"):
            provide.commands(bringing(nonsense))


def test_commands_of_an_instance_are_refused_where_they_are_found() -> None:
    class Late(Plugin[None]):
        @hookimpl
        def commands(self, event: CommandsEvent) -> Any:  # type: ignore[override]
            return {}

    class Unmarked(Plugin[None]):
        @classmethod
        def commands(cls, event: CommandsEvent) -> Any:
            return {}

    for kind in (Late, Unmarked):
        with pytest.raises(PluginError, match=r"@classmethod above @mqtrio\.hookimpl"):
            provide.commands(kind)
    with pytest.raises(PluginError, match="commands must be a class method"):
        HookManager().add(Late(None, name="late"))


class Timed:
    """Notes when it was started and stopped; fails where it is told to."""

    def __init__(self, name: str, notes: list[str], failing: str = "") -> None:
        self.name = name
        self.notes = notes
        self.failing = failing

    @hookimpl
    async def start(self, event: StartEvent) -> None:
        await self.note("start")

    @hookimpl
    async def stop(self, event: StopEvent) -> None:
        await self.note("stop")

    async def note(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        self.notes.append(f"{what} {self.name}")
        if self.failing == what:
            raise LookupError("no")
        if self.failing == f"{what} hangs":
            await trio.sleep_forever()


async def test_plugins_are_started_in_order_and_stopped_in_the_opposite_one() -> None:
    notes: list[str] = []
    async with open_broker([], plugins=[Timed("a", notes), Timed("b", notes)]):
        assert notes == ["start a", "start b"]
    assert notes == ["start a", "start b", "stop b", "stop a"]


async def test_one_that_does_not_start_keeps_the_broker_from_it() -> None:
    notes: list[str] = []
    plugins = [Timed("a", notes), Timed("b", notes, "start"), Timed("c", notes)]
    with pytest.raises(PluginError, match="plugin 'Timed-2': start failed: LookupError"):
        async with open_broker([], plugins=plugins):
            raise AssertionError("it must not start")
    assert notes == ["start a", "start b", "stop a"]


@pytest.mark.parametrize("failing", ["stop", "stop hangs"])
async def test_one_that_does_not_stop_keeps_no_other_from_it(
    failing: str, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[str] = []
    plugins = [Timed("a", notes), Timed("b", notes, failing)]
    async with open_broker([], plugins=plugins):
        pass
    assert notes == ["start a", "start b", "stop b", "stop a"]
    [record] = [record for record in caplog.records if record.name == "mqtrio.hooks"]
    assert "Timed-2: stop" in record.getMessage()
