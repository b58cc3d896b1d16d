"""The layers of listeners: which a scheme asks for, who brings them, and what makes them.

A scheme names its layers. Who brings one is an enabled plugin, or else the installed plugin that is
called like the layer, which the scheme enables by itself.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve

from mqtrio.errors import ConfigurationError, PluginError
from mqtrio.hooks import provide
from mqtrio.hooks.layers import LayerFactory, LayerProvider
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.installed import Installed, InstalledPlugin, find_installed, settings_class
from mqtrio.net.addresses import ListenerAddress, parse_listener
from mqtrio.net.options import listener_address
from mqtrio.settings import Listener

#: Listener URL -> what makes its layers, the outermost first.
Stacks = Mapping[str, tuple[LayerFactory, ...]]


def brought_by(plugins: Iterable[object]) -> dict[str, LayerProvider]:
    """The layers that these plugins bring; raises PluginError."""
    hooks = HookManager()  # only to find the marked methods
    for plugin in plugins:
        hooks.add(plugin)
    return provide.layers(hooks.layers)


def find_layer(
    name: str, url: str, installed: Installed
) -> tuple[InstalledPlugin, type[Plugin[Any]], LayerProvider]:
    """Look for the installed plugin that brings a layer, which has the layer's name.

    Raises PluginError, which names what to install.
    """
    scheme = url.partition(":")[0]
    if name not in installed.names:
        raise PluginError(
            f"{scheme}:// needs the layer {name!r}, which nothing installed brings: "
            f"pip install mqtrio-{name}"
        )
    found = installed.get(name)
    kind = found.load()
    provider = provide.layers_of(kind).get(name)
    if provider is None:
        raise PluginError(
            f"{scheme}:// needs the layer {name!r}, and {found} brings no such layer. Install "
            f"another version of {found.distribution}"
        )
    return found, kind, provider


def plugins_for(listeners: Iterable[Listener], plugins: Iterable[object]) -> list[Plugin[Any]]:
    """Make the installed plugins that listeners need besides `plugins`; raises PluginError."""
    wanted = {name: each.url for each in listeners for name in parse_listener(each.url).stack}
    if not wanted:
        return []
    there = brought_by(plugins)
    made = []
    for name, url in wanted.items():
        if name not in there:
            found, kind, _ = find_layer(name, url, find_installed())
            settings = settings_class(kind)
            made.append(found.make(kind, None if settings is None else settings(), name))
    return made


async def make_stacks(
    listeners: Iterable[Listener], providers: Mapping[str, LayerProvider]
) -> dict[str, tuple[LayerFactory, ...]]:
    """Have the layers of all listeners made ready: what their options name is read now.

    Raises ConfigurationError, which names the listener, or PluginError.
    """
    return {
        listener.url: tuple(
            [
                await _factory(listener, name, providers)
                for name in parse_listener(listener.url).stack
            ]
        )
        for listener in listeners
    }


def address_of(listener: Listener, stacks: Stacks) -> ListenerAddress:
    """Where and how to listen, with what makes the layers; raises ConfigurationError."""
    return evolve(listener_address(listener), layers=stacks[listener.url])


async def _factory(
    listener: Listener, name: str, providers: Mapping[str, LayerProvider]
) -> LayerFactory:
    provider = providers.get(name)
    if provider is None:
        raise PluginError(
            f"listener {listener.url}: no enabled plugin brings the layer {name!r}: "
            f"pip install mqtrio-{name}"
        )
    options = _options(listener, name, provider)
    try:
        factory = provider.server(options)
        if inspect.isawaitable(factory):
            factory = await factory
    except ConfigurationError as error:
        raise ConfigurationError(f"listener {listener.url}: {name}: {error}") from error
    except Exception as error:
        raise PluginError(
            f"listener {listener.url}: the layer {name!r} can't be made: {error!r}"
        ) from error
    if not callable(factory):
        raise PluginError(
            f"listener {listener.url}: what brings the layer {name!r} must return a function that "
            f"makes layers, not {type(factory).__name__}"
        )
    return factory


def _options(listener: Listener, name: str, provider: LayerProvider) -> object:
    """The options of one layer, as its provider has declared them."""
    given = getattr(listener, name)
    if isinstance(given, provider.settings):
        return given
    # Late, because it imports cattrs, which takes longer than to start.
    from mqtrio.config.document import Document, Result
    from mqtrio.config.problems import InvalidSettings

    content = {} if given is None else given
    result: Result[Any] = Document(f"listener {listener.url}", {name: content}).read(
        provider.settings, content, (name,)
    )
    if result.value is None:
        raise InvalidSettings(result.problems)
    return result.value
