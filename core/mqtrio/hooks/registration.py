"""One plugin as the manager knows it, and what makes it unfit to be one."""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

import pluggy

from mqtrio.errors import PluginError
from mqtrio.hooks.calls import Call
from mqtrio.hooks.specs import Hook

_REFUSED_OPTIONS: Final = ("wrapper", "hookwrapper", "tryfirst", "trylast")


class _Methods:
    """A plugin as pluggy sees it: its marked methods, as attributes of an object of our own.

    pluggy refuses a plugin that equals another one; this object equals only itself.
    """

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}


class Registry(pluggy.PluginManager):
    """pluggy, for the plugins of registrations."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """Marker options of a method; a registration has collected those of its plugin before."""
        if isinstance(plugin, _Methods):
            return plugin._options.get(name)
        return super().parse_hookimpl_opts(plugin, name)


class Registration:
    """A plugin under its name, with its bound calls, one for each hook that it implements."""

    def __init__(self, plugin: object, name: str, required: bool = False) -> None:
        self.plugin = plugin
        self.name = name
        #: Whether the broker can't do without the plugin's background task.
        self.required = required
        self.methods = _Methods()
        #: Its name for pluggy: another one than `name` only while two of one name change places.
        self.key = name
        #: Hook -> its call.
        self.calls: dict[str, Call] = {}
        #: Counts what the filters do that its compile_delivery has made.
        self.filters: Call | None = None

    def put(self, name: str, method: Callable[..., Any], options: Any) -> None:
        """Add a marked method, with the options of its marker."""
        self.methods._options[name] = options
        setattr(self.methods, name, method)

    @property
    def marked(self) -> frozenset[str]:
        """The names of the marked methods."""
        return frozenset(self.methods._options)

    @property
    def title(self) -> str:
        """How messages to people name it."""
        plugin = self.plugin
        made = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__qualname__
        return f"plugin {self.name!r} ({made})"

    def retire(self) -> None:
        """It gets no new calls but the one to `stop`."""
        for hook, call in self.calls.items():
            if hook != "stop":
                call.retire()

    async def idle(self) -> None:
        """Wait until nothing that its hooks have begun is awaited any more."""
        for call in self.calls.values():
            await call.idle()


def check_options(entry: Registration, hook: str, options: Mapping[str, Any]) -> None:
    """Refuse options of a marker that would change the order; raises PluginError."""
    for option in _REFUSED_OPTIONS:
        if options.get(option):
            raise PluginError(
                f"{entry.title} marks {hook!r} with {option}=True, which is refused: plugins are "
                f"called in the order in which they are configured, and none wraps another"
            )


def check_function(entry: Registration, hook: Hook, method: Callable[..., Any]) -> None:
    """Refuse what can't be called as this hook; raises PluginError."""
    where = f"{entry.title}: {hook.name}"
    try:
        signature = inspect.signature(method)
        signature.bind(None)
        fits = next(iter(signature.parameters)) == "event"
    except (TypeError, ValueError, StopIteration):
        fits = False
    if not fits:
        raise PluginError(f"{where} must take one argument, event: def {hook.name}(self, event)")
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise PluginError(f"{where} must return its answer: it is a generator")
    if not hook.awaits and inspect.iscoroutinefunction(method):
        raise PluginError(f"{where} must be a plain function: it is called where nothing can wait")
    if hook.name == "commands" and getattr(method, "__self__", None) is entry.plugin:
        raise PluginError(
            f"{where} must be a class method, because commands work without a configuration: "
            "@classmethod above @mqtrio.hookimpl"
        )
