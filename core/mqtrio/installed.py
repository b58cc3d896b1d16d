"""The plugins that are installed: found by entry points, loaded one by one, blamed by name.

A distribution announces its plugins in the entry-point group `mqtrio.plugins`: name -> class. Being
installed enables nothing: a class is imported when a configuration names it.
"""

import difflib
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, get_args, get_origin

import attrs
from attrs import define, field

from mqtrio.errors import PluginError
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.specs import API_VERSION

GROUP: Final = "mqtrio.plugins"


@define(frozen=True)
class InstalledPlugin:
    """One entry point: the name of a plugin, and the distribution that brings it."""

    name: str
    distribution: str
    version: str
    #: Where its class is: "module:Class".
    value: str
    _entry: importlib.metadata.EntryPoint = field(repr=False, eq=False)

    def __str__(self) -> str:
        return f"plugin {self.name!r} (of {self.distribution} {self.version})"

    def load(self) -> type[Plugin[Any]]:
        """Import its class. Raises PluginError, which says what to install or to change."""
        try:
            found = self._entry.load()
        except ModuleNotFoundError as error:
            raise PluginError(
                f"{self} can't be imported: there is no module {error.name!r}. Install what brings "
                f"it, or install {self.distribution} again"
            ) from error
        except AttributeError as error:
            raise PluginError(
                f"{self} can't be imported from {self.value!r}: {error}. Install another version "
                f"of {self.distribution}"
            ) from error
        except Exception as error:
            raise PluginError(
                f"{self} can't be imported: {type(error).__name__}: {error}. Install another "
                f"version of {self.distribution}, or take the plugin out of the configuration"
            ) from error
        if not (isinstance(found, type) and issubclass(found, Plugin)):
            raise PluginError(
                f"{self}: {self.value!r} is no class derived from mqtrio.Plugin. Install another "
                f"version of {self.distribution}"
            )
        if found.api != API_VERSION:
            raise PluginError(
                f"{self} was written for version {found.api!r} of the hooks; this mqtrio calls "
                f"version {API_VERSION}. Install a version of {self.distribution} for it"
            )
        return found

    def make(self, kind: type[Plugin[Any]], settings: object, name: str) -> Plugin[Any]:
        """Make an instance; raises PluginError, naming the distribution, if that fails."""
        try:
            made = kind(settings, name=name)
        except Exception as error:
            raise PluginError(
                f"{self} can't be made as {name!r}: {type(error).__name__}: {error}"
            ) from error
        if made.name != name:
            raise PluginError(f"{self} takes another name than it is given: {made.name!r}")
        return made

    def add(self, hooks: HookManager, plugin: Plugin[Any]) -> None:
        """Plug an instance in; raises PluginError, naming the distribution, if it doesn't fit."""
        try:
            hooks.add(plugin)
        except PluginError as error:
            raise self.blame(error) from error

    def blame(self, error: PluginError) -> PluginError:
        """Say the distribution, too, where an instance of its plugin can't be plugged in."""
        return PluginError(
            f"{error}. It comes with {self.distribution} {self.version}: install another version "
            "of that"
        )


@define(frozen=True)
class Installed:
    """All plugins that are installed; made by `find_installed`."""

    #: In the order of their names; a name that two distributions claim stands there twice.
    plugins: tuple[InstalledPlugin, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, each once."""
        return tuple(dict.fromkeys(each.name for each in self.plugins))

    def get(self, name: str) -> InstalledPlugin:
        """Look one up. Raises PluginError if nobody brings it, or more than one distribution."""
        found = [each for each in self.plugins if each.name == name]
        if len(found) == 1:
            return found[0]
        if not found:
            raise PluginError(f"no plugin {name!r} is installed; {self._hint(name)}")
        claims = " and ".join(f"{each.distribution} {each.version}" for each in found)
        raise PluginError(
            f"{claims} both bring a plugin {name!r}: uninstall one of these distributions"
        )

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names, n=1)
        if close:
            return f"did you mean {close[0]!r}?"
        brings = _optional_distributions().get(_normal(f"mqtrio-{name}"))
        if brings is not None:
            return f"install {brings}"
        known = ", ".join(map(repr, self.names)) or "none"
        return f"install the distribution that brings it, or use one of those installed: {known}"


def find_installed() -> Installed:
    """Look for the installed plugins; imports none of them."""
    found: dict[tuple[str, str, str], InstalledPlugin] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        distribution = entry.dist
        name = "an unknown distribution" if distribution is None else distribution.name
        version = "" if distribution is None else distribution.version
        installed = InstalledPlugin(entry.name, name, version, entry.value, entry)
        # The same distribution may be on the path twice; the first one counts.
        found.setdefault((entry.name, _normal(name), entry.value), installed)
    return Installed(tuple(sorted(found.values(), key=lambda each: (each.name, each.distribution))))


def settings_class(kind: type[Plugin[Any]]) -> type | None:
    """The class of a plugin's settings: Plugin[X] -> X; None for a plugin that has no settings.

    Raises PluginError if X is no attrs class, which a configuration could not fill.
    """
    found = _argument(kind, {})
    if found is None or found is Any or found is type(None) or isinstance(found, TypeVar):
        return None
    if isinstance(found, type) and attrs.has(found):
        return found
    raise PluginError(
        f"the settings of {kind.__qualname__} must be an attrs class or None, not {found!r}: write "
        "mqtrio.Plugin[ItsSettings]"
    )


def _argument(kind: type, known: Mapping[Any, Any]) -> Any:
    """Find what `Plugin[...]` was given among the bases of a class, through generic ones."""
    for base in getattr(kind, "__orig_bases__", kind.__bases__):
        origin: Any = get_origin(base) or base
        if not (isinstance(origin, type) and issubclass(origin, Plugin)):
            continue
        given = [known.get(each, each) for each in get_args(base)]
        if origin is Plugin:
            return _resolve(given[0], kind) if given else None
        return _argument(
            origin, dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))
        )
    return None


def _resolve(argument: Any, kind: type) -> Any:
    """Look up a class that was written as a string."""
    name = getattr(argument, "__forward_arg__", None)
    return argument if name is None else getattr(sys.modules[kind.__module__], name, argument)


def _optional_distributions() -> dict[str, str]:
    """The distributions that mqtrio's extras name: normalised name -> what to install."""
    try:
        required: Iterable[str] = importlib.metadata.requires("mqtrio") or ()
    except importlib.metadata.PackageNotFoundError:  # run from a source tree, not installed
        return {}
    names = (re.match(r"[A-Za-z0-9._-]+", each) for each in required if "extra ==" in each)
    return {_normal(each[0]): each[0] for each in names if each is not None}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
