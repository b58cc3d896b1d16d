"""The layers of listeners in a configuration: their options, and the plugins that bring them."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import attrs

from mqtrio.config.document import Document, Result
from mqtrio.config.plugins import PluginSpec, settings_class_of
from mqtrio.config.problems import Problem
from mqtrio.errors import ConfigurationError, PluginError
from mqtrio.fields import complaint
from mqtrio.hooks import provide
from mqtrio.hooks.layers import LayerProvider
from mqtrio.installed import Installed, find_installed
from mqtrio.net.addresses import SCHEMES, parse_listener
from mqtrio.settings import Listener, Settings
from mqtrio.stacks import brought_by, find_layer
from mqtrio.toml_lines import KeyPath

#: Name of a layer -> the schemes that have it.
_SCHEMES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(scheme for scheme, means in SCHEMES.items() if name in means.stack)
    for name in sorted({name for means in SCHEMES.values() for name in means.stack})
}


class Layers:
    """Reads the options of the layers of all listeners of a document.

    `tables` are the names of all plugins that the configuration enables, `specs` those of them
    that are all right, `beside` those of the program: a mapping also has the plugins themselves.
    """

    def __init__(
        self,
        document: Document,
        tables: Collection[str],
        specs: Mapping[str, PluginSpec],
        beside: Collection[str],
    ) -> None:
        self._document = document
        self._tables = tables
        self._enabled = specs
        self._beside = beside if isinstance(beside, Mapping) else {}
        self._providers: dict[str, LayerProvider] | None = None
        self._installed: Installed | None = None
        self._options: dict[tuple[int, str], Any] = {}
        self.problems: list[Problem] = []
        #: The plugins that schemes enable by themselves.
        self.specs: dict[str, PluginSpec] = {}

    def read(self) -> None:
        """Read all options; what is wrong is among the `problems`."""
        for number, url, options in _listeners(self._document.content.get("listener")):
            try:
                stack = parse_listener(url).stack
            except ConfigurationError:
                continue  # told where the URL is read
            for name, schemes in _SCHEMES_OF.items():
                if name in stack:
                    self._read(number, url, name, options.get(name))
                elif options.get(name) is not None:
                    belongs = " and ".join(f"{scheme}://" for scheme in schemes)
                    self._wrong(
                        ("listener", number, name), f"{url} has no such layer; {belongs} have it"
                    )

    def put(self, settings: Settings) -> Settings:
        """Give the settings, with the options as instances of the layers' own classes."""
        listeners = list(settings.listener)
        for (number, name), value in self._options.items():
            listeners[number] = attrs.evolve(listeners[number], **{name: value})
        return attrs.evolve(settings, listener=tuple(listeners))

    def _read(self, number: int, url: str, name: str, content: object) -> None:
        try:
            provider = self._provider(name, url)
        except PluginError as error:
            self._wrong(("listener", number, "url"), str(error))
            return
        if provider is None or complaint(content, object, {}):  # both are told elsewhere
            return
        path = ("listener", number, name)
        written = {} if content is None else content
        result: Result[Any] = self._document.read(provider.settings, written, path)
        self.problems += result.problems
        if result.value is not None:
            self._options[number, name] = result.value

    def _provider(self, name: str, url: str) -> LayerProvider | None:
        """Who brings a layer; None if that can't be known because a plugin's table is wrong."""
        if self._providers is None:
            self._providers = brought_by(self._beside.values())
            for spec in self._enabled.values():
                self._providers.update(provide.layers_of(spec.plugin))
        if name not in self._providers:
            if name in self._tables and name not in self._enabled:
                return None
            if self._installed is None:
                self._installed = find_installed()
            found, kind, provider = find_layer(name, url, self._installed)
            settings = settings_class_of(found, kind)
            value = None
            if settings is not None:
                own: Result[Any] = self._document.read(settings, {}, ("plugin", name))
                self.problems += own.problems
                value = own.value
            self.specs[name] = PluginSpec(name, False, kind, value, found)
            self._providers[name] = provider
        return self._providers[name]

    def _wrong(self, path: KeyPath, text: str) -> None:
        self.problems.append(self._document.problem(path, text))


def _listeners(written: object) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Give number, URL and options of the listeners that are written as they should be."""
    for number, each in enumerate(written if isinstance(written, list | tuple) else ()):
        if isinstance(each, Listener):
            yield number, each.url, {name: getattr(each, name) for name in _SCHEMES_OF}
        elif isinstance(each, Mapping) and isinstance(each.get("url"), str):
            yield number, each["url"], each
