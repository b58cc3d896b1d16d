"""What plugins bring when the broker starts: a failure here is a reason not to start.

Errors are PluginErrors that name the plugin and say what to change.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import trio

from mqtrio.errors import MqtrioError, PluginError
from mqtrio.hooks.calls import Call
from mqtrio.hooks.layers import LayerProvider
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.provide_events import (
    CheckSettingsEvent,
    CommandsEvent,
    LayersEvent,
    OpenStoreEvent,
    StartEvent,
    StopEvent,
)
from mqtrio.hooks.registration import Registration
from mqtrio.hooks.specs import PROJECT

#: What tells a store from something else, before anybody uses it.
_STORE_METHODS: Final = ("load", "commit", "queued", "retained", "close")


async def provide(call: Call, event: object) -> Any:
    """Call one plugin, await its answer if it is awaitable; raises PluginError if it fails."""
    try:
        answer = call(event)
        if inspect.isawaitable(answer):
            answer = await answer
    except Exception as error:
        raise _failed(call, error) from error
    return answer


def _failed(call: Call, error: Exception) -> PluginError:
    """What is told of a hook that has raised; what is raised for people speaks for itself."""
    said = str(error) if isinstance(error, MqtrioError) else repr(error)
    return PluginError(f"{call.title}: {call.hook} failed: {said}")


async def check_settings(entry: Registration) -> None:
    """Have a plugin look at what its settings name; raises PluginError if something is wrong."""
    call = entry.calls.get("check_settings")
    if call is not None:
        await provide(call, CheckSettingsEvent())


async def start(entry: Registration) -> None:
    """Start a plugin; raises PluginError if it can't."""
    call = entry.calls.get("start")
    if call is not None:
        await provide(call, StartEvent())


async def stop(entry: Registration, deadline: float) -> None:
    """Stop a plugin within `deadline` seconds; one that fails is logged and counted."""
    call = entry.calls.get("stop")
    if call is None:
        return
    try:
        with trio.fail_after(deadline):
            await provide(call, StopEvent())
    except (PluginError, trio.TooSlowError) as error:
        call.failed(error)


async def open_store(hooks: HookManager) -> Any | None:
    """The store of the one plugin that opens one; None where none does.

    All plugins are asked. Raises PluginError if a second one opens a store too; what had been
    opened is closed then.
    """
    event = OpenStoreEvent()
    store: Any | None = None
    owner = ""
    try:
        for call in hooks.open_store:
            opened = await provide(call, event)
            if opened is None:
                continue
            if not all(hasattr(opened, method) for method in _STORE_METHODS):
                raise PluginError(
                    f"{call.title}: open_store must return a store or None, "
                    f"not {type(opened).__name__}"
                )
            if store is not None:
                await opened.close()
                raise PluginError(
                    f"plugins {owner!r} and {call.plugin!r} both open a store: use one of them"
                )
            store, owner = opened, call.plugin
    except BaseException:
        if store is not None:
            await store.close()
        raise
    return store


def layers(calls: Iterable[Call]) -> dict[str, LayerProvider]:
    """The byte layers of plugins by name; raises PluginError if two bring one name."""
    found: dict[str, LayerProvider] = {}
    owners: dict[str, str] = {}
    for call in calls:
        try:
            brought = call(LayersEvent())
        except Exception as error:
            raise _failed(call, error) from error
        _merge(call, brought, found, owners, LayerProvider, "layers (mqtrio.LayerProvider)")
    return found


def layers_of(kind: type[Plugin[Any]]) -> dict[str, LayerProvider]:
    """The byte layers that a plugin's class brings, by name; raises PluginError."""
    call = _of_class(kind, "layers")
    return {} if call is None else layers([call])


def commands(kind: type[Plugin[Any]]) -> dict[str, Callable[[Sequence[str]], int]]:
    """The subcommands that a plugin's class brings, by name; raises PluginError.

    A class is asked, not an instance: a command works without a configuration.
    """
    call = _of_class(kind, "commands")
    if call is None:
        return {}
    try:
        brought = call(CommandsEvent())
    except Exception as error:
        raise _failed(call, error) from error
    found: dict[str, Callable[..., Any]] = {}
    _merge(call, brought, found, {}, Callable, "functions")
    return found


def _of_class(kind: type[Plugin[Any]], hook: str) -> Call | None:
    """The call of a hook that a plugin's class is asked; None if it has none."""
    written = inspect.getattr_static(kind, hook)
    if written is inspect.getattr_static(Plugin, hook):
        return None
    if not isinstance(written, classmethod) or not implements(kind, hook):
        raise PluginError(
            f"plugin {kind.__qualname__!r}: {hook} must be a class method that is marked: "
            "@classmethod above @mqtrio.hookimpl"
        )
    return Call(kind.__qualname__, hook, getattr(kind, hook), _unheard)


def implements(kind: type[Plugin[Any]], hook: str) -> bool:
    """Whether a plugin's class has a marked method of this name."""
    return hasattr(getattr(kind, hook), f"{PROJECT}_impl")


def _unheard(call: Call, event: object) -> None:
    """A failure while the command line is put together: raised, nobody else is told."""


def _merge(
    call: Call,
    brought: object,
    found: dict[str, Any],
    owners: dict[str, str],
    kind: Any,
    what: str,
) -> None:
    if brought is None:
        return
    if not isinstance(brought, Mapping):
        if inspect.iscoroutine(brought):
            brought.close()
        raise PluginError(
            f"plugin {call.plugin!r}: {call.hook} must return names and {what}, "
            f"not {type(brought).__name__}"
        )
    for name, value in brought.items():
        if not isinstance(name, str) or not isinstance(value, kind):
            raise PluginError(f"plugin {call.plugin!r}: {call.hook} must return names and {what}")
        if name in found:
            raise PluginError(
                f"plugins {owners[name]!r} and {call.plugin!r} both bring {name!r} in {call.hook}"
            )
        found[name] = value
        owners[name] = call.plugin
