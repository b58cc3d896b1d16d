"""A whole configuration: the broker's settings, and which plugins are enabled with which."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
from attrs import define

from mqtrio.config.document import Document, read_toml
from mqtrio.config.layers import Layers
from mqtrio.config.plugins import PluginSpec, PluginTables, meant
from mqtrio.config.problems import InvalidSettings, Problem, by_line
from mqtrio.errors import ConfigurationError, PluginError
from mqtrio.fields import show
from mqtrio.hooks import provide
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.net.options import listener_address
from mqtrio.settings import Listener, Settings
from mqtrio.toml_lines import KeyPath


@define(frozen=True)
class Configuration:
    """What `load_config` has read: settings, and the enabled plugins in their order."""

    settings: Settings = attrs.Factory(Settings)
    plugins: tuple[PluginSpec, ...] = ()
    #: Where it was read from, for messages.
    source: str = "configuration"

    def make_plugins(self) -> list[Plugin[Any]]:
        """Make an instance of each enabled plugin, in order, and check its hooks.

        Raises PluginError, with all errors in its text: each names plugin and distribution.
        """
        hooks = HookManager()  # only to see whether they fit, each behind those before it
        made, errors = [], []
        for spec in self.plugins:
            try:
                plugin = spec.make()
                spec.installed.add(hooks, plugin)
                made.append(plugin)
            except PluginError as error:
                errors.append(str(error))
        if errors:
            raise PluginError("\n".join(errors))
        return made


def load_config(
    config: str | os.PathLike[str] | Mapping[str, Any], *, beside: Collection[str] = ()
) -> Configuration:
    """Read a TOML file, or the same keys from a program's mapping.

    Imports the classes of the plugins that it enables, makes no instance of them. `beside` are
    names of plugins that the program gives as objects: listeners may name them, too. With a mapping
    from names to these objects, listeners may also have the layers that they bring. A mapping as
    `config` may hold instances of settings classes in place of tables. Raises ConfigurationError,
    with all errors in its text.
    """
    if isinstance(config, Mapping):
        return read_configuration(Document("configuration", config), beside)
    return read_configuration(read_toml(Path(config)), beside)


def settings_from(values: Mapping[str, Any], *, source: str = "settings") -> Settings:
    """Make the broker's settings of a program's keywords: tables, or instances of the classes.

    `settings_from({"limits": {"queue_bytes": "1MiB"}, "session": SessionRules(owner="any")})`.
    `source` names the origin in errors. Raises ConfigurationError, with all errors in its text.
    """
    result = Document(source, values).read(Settings, values)
    if result.value is None:
        raise InvalidSettings(result.problems)
    return result.value


def read_configuration(document: Document, beside: Collection[str] = ()) -> Configuration:
    """Read a configuration from a document; see `load_config`."""
    own = {key: value for key, value in document.content.items() if key not in _OF_PLUGINS}
    settings = document.read(Settings, own, also=_OF_PLUGINS)
    plugins = PluginTables(document)
    plugins.read()
    layers = Layers(document, plugins.tables, plugins.specs, beside)
    layers.read()
    specs = {**layers.specs, **plugins.specs}
    problems = [*settings.problems, *plugins.problems, *layers.problems]
    problems += _same_listeners(document)
    problems += _wrong_listeners(document, {*layers.specs, *plugins.tables, *beside}, specs)
    if settings.value is not None:
        problems += _wrong_options(document, settings.value.listener)
    if problems or settings.value is None:
        raise InvalidSettings(by_line(problems))
    # Those that a scheme enables come first: what a layer knows of a client was there before it
    # said a word.
    enabled = (*layers.specs.values(), *plugins.in_order())
    return Configuration(layers.put(settings.value), enabled, document.source)


_OF_PLUGINS: Final = ("plugin", "plugins")


def _same_listeners(document: Document) -> Iterable[Problem]:
    """Look for listeners whose URL is another's: what a client may do goes by the URL."""
    listeners = document.content.get("listener")
    seen: dict[object, int] = {}
    for number, listener in enumerate(listeners if isinstance(listeners, list | tuple) else ()):
        url = listener.get("url") if isinstance(listener, Mapping) else None
        if not isinstance(url, str):
            continue
        first = seen.setdefault(url, number)
        if first != number:
            text = f"listener[{first}] has the same one: give one of them another port"
            yield document.problem(("listener", number, "url"), text)


def _wrong_listeners(
    document: Document, names: Collection[str], specs: Mapping[str, PluginSpec]
) -> Iterable[Problem]:
    """Look for those who shall authenticate at a listener and aren't enabled, or never do.

    In what was written, so that it is told together with what else is wrong there.
    """
    for path, name in _authenticators(document.content.get("listener")):
        if name not in names:
            text = f"no enabled plugin is called {show(name)}{meant(name, names)}"
            yield document.problem(path, text)
        elif name in specs and not provide.implements(specs[name].plugin, "authenticate"):
            yield document.problem(path, f"the plugin {show(name)} authenticates nobody")


def _wrong_options(document: Document, listeners: Iterable[Listener]) -> Iterable[Problem]:
    """Look for options of listeners that don't go with their URLs."""
    for number, listener in enumerate(listeners):
        try:
            listener_address(listener)
        except ConfigurationError as error:
            yield document.problem(("listener", number), str(error))


def _authenticators(listeners: object) -> Iterator[tuple[KeyPath, str]]:
    """Give what listeners name, as far as it is written as it should be."""
    for number, listener in enumerate(listeners if isinstance(listeners, list | tuple) else ()):
        if isinstance(listener, Listener):
            named: object = listener.authenticate
        else:
            named = listener.get("authenticate") if isinstance(listener, Mapping) else None
        for index, name in enumerate(named if isinstance(named, list | tuple) else ()):
            if isinstance(name, str):
                yield ("listener", number, "authenticate", index), name
