"""The plugins of a configuration: their tables, and what is made of them."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
from attrs import define, field

from mqtrio.config.document import Document, Result
from mqtrio.config.problems import Problem
from mqtrio.errors import PluginError
from mqtrio.fields import complaint, setting, show, what_is
from mqtrio.hooks.plugin import Plugin
from mqtrio.installed import Installed, InstalledPlugin, find_installed, settings_class
from mqtrio.toml_lines import KeyPath

#: Names of plugins stand in topics below $SYS and in logs.
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


@define(frozen=True, kw_only=True)
class PluginTable:
    """What the table of every enabled plugin may say, beside the plugin's own settings."""

    use: str | None = setting(None, "name of the installed plugin; default: the table's own")
    required: bool = setting(
        False,
        "stop the broker when its background task has failed for good, instead of going on without",
    )


#: Keys of a plugin's table that no setting of a plugin may be called like.
RESERVED: Final = tuple(each.name for each in attrs.fields(PluginTable))


@define(frozen=True)
class _NoSettings:
    """The settings of a plugin that has none."""


@define(frozen=True)
class PluginSpec:
    """One enabled plugin."""

    #: The name of this instance.
    name: str
    required: bool
    #: Its class, and the settings that its instance is made of (None if it has none).
    plugin: type[Plugin[Any]]
    settings: Any = field(repr=False)
    installed: InstalledPlugin
    _secrets: frozenset[str] = field(default=frozenset(), repr=False, eq=False)

    @property
    def use(self) -> str:
        """The name under which it is installed."""
        return self.installed.name

    @property
    def distribution(self) -> str:
        """The distribution that brings it."""
        return self.installed.distribution

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self.installed.version

    def make(self) -> Plugin[Any]:
        """Make an instance; raises PluginError, which names plugin and distribution."""
        plugin = self.installed.make(self.plugin, self.settings, self.name)
        plugin.required = self.required
        plugin.origin = f"{self.distribution} {self.version}"
        return plugin

    def shown(self) -> Any:
        """Give the settings as plain values to look at, without the secrets in them."""
        return None if self.settings is None else _shown(self.settings, self._secrets)


class PluginTables:
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
                    f"there is no table [plugin.{name}]{meant(name, self.tables)}",
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


def _shown(value: Any, secrets: frozenset[str]) -> Any:
    if attrs.has(type(value)):
        return {
            each.name: "***"
            if each.metadata.get("secret")
            else _shown(getattr(value, each.name), secrets)
            for each in attrs.fields(type(value))
        }
    if isinstance(value, Mapping):
        return {str(key): _shown(each, secrets) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(each, secrets) for each in value]
    if isinstance(value, str) and value in secrets:
        return "***"
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def meant(name: str, names: Iterable[str]) -> str:
    """Say which of the enabled plugins may have been meant."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; enabled are: {', '.join(known) or 'none'}"
