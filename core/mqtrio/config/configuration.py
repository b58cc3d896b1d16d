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
<<<<<<< HEAD
    layers = Layers(document, plugins.tables, plugins.specs, beside)
    layers.read()
    specs = {**layers.specs, **plugins.specs}
    problems = [*settings.problems, *plugins.problems, *layers.problems]
    problems += _wrong_listeners(document, {*layers.specs, *plugins.tables, *beside}, specs)
=======
    problems = [*settings.problems, *plugins.problems]
    problems += _same_listeners(document)
    problems += _wrong_listeners(document, {*plugins.tables, *beside}, plugins.specs)
>>>>>>> 63fdbe5 (Have mqtrio check find open doors and listeners that are the same twice)
    if settings.value is not None:
        problems += _wrong_options(document, settings.value.listener)
    if problems or settings.value is None:
        raise InvalidSettings(by_line(problems))
    # Those that a scheme enables come first: what a layer knows of a client was there before it
    # said a word.
    enabled = (*layers.specs.values(), *plugins.in_order())
    return Configuration(layers.put(settings.value), enabled, document.source)


_OF_PLUGINS: Final = ("plugin", "plugins")


<<<<<<< HEAD
=======
class _Plugins:
    """Reads the tables `[plugin.NAME]` and the array `plugins` of a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[Problem] = []
        self.specs: dict[str, PluginSpec] = {}
        self.tables = self._tables(document.content.get("plugin", {}))
        self._order = self._names(document.content.get("plugins"))

    def read(self) -> None:
        """Read all tables."""
        installed = find_installed() if self.tables else Installed(())
        for name, table in self.tables.items():
            try:
                self._read(name, table, installed)
            except PluginError as error:
                self._wrong(("plugin", name), str(error))

    def in_order(self) -> Iterable[PluginSpec]:
        """Give the plugins in the order of `plugins`, or that of their tables."""
        return (self.specs[name] for name in self._order or self.specs)

    def _wrong(self, path: KeyPath, text: str) -> None:
        self.problems.append(self._document.problem(path, text))

    def _tables(self, value: object) -> dict[str, Mapping[str, Any]]:
        if not isinstance(value, Mapping):
            self._wrong(("plugin",), f"{what_is(value)}; allowed: tables [plugin.NAME]")
            return {}
        tables = {}
        for name, table in value.items():
            path = ("plugin", str(name))
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                self._wrong(path, "the name of a plugin has letters, digits, _, - and . only")
            elif isinstance(table, Mapping):
                tables[name] = table
            elif table is None or attrs.has(type(table)):
                tables[name] = {_GIVEN: table}
            else:
                self._wrong(path, f"{what_is(table)}; allowed: a table")
        return tables

    def _names(self, value: object) -> tuple[str, ...] | None:
        """Read `plugins`, which must name the tables, each once."""
        if value is None:
            return None
        names: Any = tuple(value) if isinstance(value, list) else value
        wrong = complaint(names, tuple[str, ...], {})
        if wrong is not None:
            self._wrong(("plugins",), wrong)
            return None
        for index, name in enumerate(names):
            if name in names[:index]:
                self._wrong(("plugins", index), f"{show(name)} stands there twice")
            elif name not in self.tables:
                self._wrong(
                    ("plugins", index),
                    f"there is no table [plugin.{name}]{_meant(name, self.tables)}",
                )
        for name in self.tables:
            if name not in names:
                self._wrong(("plugin", name), "enabled, but not named in the array plugins")
        return tuple(names)

    def _read(self, name: str, table: Mapping[str, Any], installed: Installed) -> None:
        path = ("plugin", name)
        said = {key: table[key] for key in RESERVED if key in table}
        head = self._document.read(PluginTable, said, path)
        self.problems += head.problems
        use = name if said.get("use") is None else said["use"]
        if not isinstance(use, str):
            return
        found = installed.get(use)
        plugin = found.load()
        kind = settings_class_of(found, plugin)
        rest: Any = {key: value for key, value in table.items() if key not in RESERVED}
        if _GIVEN in rest:
            rest = {} if kind is None else rest[_GIVEN]
        result: Result[Any] = self._document.read(kind or _NoSettings, rest, path, also=RESERVED)
        self.problems += result.problems
        if head.value is not None and result.value is not None:
            value = None if kind is None else result.value
            self.specs[name] = PluginSpec(
                name, head.value.required, plugin, value, found, result.secrets
            )


#: Key under which an instance of a settings class stands that a program gave in place of a table.
_GIVEN: Final = ""


def settings_class_of(installed: InstalledPlugin, plugin: type[Plugin[Any]]) -> type | None:
    """Give the class of a plugin's settings; PluginError if a configuration can't fill it."""
    kind = settings_class(plugin)
    for each in attrs.fields(kind) if kind is not None else ():
        if each.name in RESERVED:
            raise PluginError(
                f"{installed} has a setting called {each.name!r}, which means something else in "
                f"every plugin's table. Install another version of {installed.distribution}"
            )
    return kind


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


>>>>>>> 63fdbe5 (Have mqtrio check find open doors and listeners that are the same twice)
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
