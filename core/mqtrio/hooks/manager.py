"""Who is plugged in: adds and removes plugins while the broker runs, and binds their hooks.

pluggy reads the markers, keeps the registry and knows unknown hooks and wrong arguments; calls go
through tuples of bound calls that are made anew whenever a plugin comes or goes, because an empty
pluggy call costs 760 ns and an empty tuple 10.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final

import pluggy

from mqtrio.errors import PluginError
from mqtrio.hooks.calls import (
    FAILURES_IN_A_ROW,
    Call,
    Calls,
    CallStatistics,
    logger,
    nobody,
    nonsense,
)
from mqtrio.hooks.events import Origin, PluginFailedEvent
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.provide_events import HookspecsEvent
from mqtrio.hooks.specs import API_VERSION, HOOKS, PROJECT, Hook

_REFUSED_OPTIONS: Final = ("wrapper", "hookwrapper", "tryfirst", "trylast")

#: Origins that may publish to `$` topics where nobody implements authorize_publish.
_TRUSTED: Final = frozenset({"local", "system", "bridge"})


def default_allows_publish(topic: str, origin: Origin) -> bool:
    """The rule where nobody authorizes: no client and no will publishes to `$` topics."""
    return not topic.startswith("$") or origin in _TRUSTED


class _Registration:
    """One plugin as pluggy sees it: its marked methods, as attributes of an object of our own.

    pluggy refuses a plugin that equals another one; this object equals only itself.
    """

    def __init__(self, plugin: object, name: str) -> None:
        self._plugin = plugin
        self._name = name
        self._options: dict[str, Any] = {}
        self._calls: dict[str, Call] = {}


class _Pluggy(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """Marker options of a method; a registration has collected those of its plugin before."""
        if isinstance(plugin, _Registration):
            return plugin._options.get(name)
        return super().parse_hookimpl_opts(plugin, name)


class HookManager:
    """The plugins of one broker, in order, and for each hook the tuple of its bound calls.

    A hook that nobody implements is `()`: whoever would build an event for it looks first.
    `on_failure` is told of each failure of a hook, `on_change` of the names of the hooks whose
    calls have changed, after the change.
    """

    accept: Calls
    authenticate: Calls
    admit: Calls
    authorize_publish: Calls
    authorize_subscribe: Calls
    transform_publish: Calls
    transform_subscribe: Calls
    compile_delivery: Calls
    client_connected: Calls
    client_disconnected: Calls
    connection_refused: Calls
    session_opened: Calls
    session_ended: Calls
    subscribed: Calls
    unsubscribed: Calls
    published: Calls
    delivered: Calls
    acknowledged: Calls
    dropped: Calls
    retained_changed: Calls
    plugin_failed: Calls
    start: Calls
    stop: Calls
    open_store: Calls
    layers: Calls
    run: Calls
    reconfigure: Calls
    commands: Calls
    hookspecs: Calls

    #: True while a publish asks and tells nobody, so that it needs no event.
    publish_is_plain: bool

    def __init__(
        self,
        *,
        on_failure: Callable[[PluginFailedEvent], None] | None = None,
        on_change: Callable[[frozenset[str]], None] | None = None,
    ) -> None:
        self.on_failure = on_failure
        self.on_change = on_change
        #: Counts what clients' permissions do; they are asked like plugins but are none.
        self.permissions: Final = {
            name: Call("permissions", name, nobody, self._report)
            for name in ("authorize_publish", "authorize_subscribe")
        }
        #: Plugin name -> counts what the filters do that its compile_delivery has made.
        self.delivery_filters: Final[dict[str, Call]] = {}
        self._pluggy = _Pluggy(PROJECT)
        self._pluggy.add_hookspecs(Plugin)
        self._hooks: dict[str, Hook] = dict(HOOKS)
        self._namespaces: list[object] = []
        self._contributed: dict[str, Calls] = {}
        self._registrations: dict[str, _Registration] = {}
        self._told_default = False
        self._reporting = False
        self._rebuild(self._hooks)

    # --- plugins ---------------------------------------------------------------------------------

    @property
    def plugins(self) -> Mapping[str, object]:
        """Instance name -> plugin, in the order in which they were added."""
        return {name: entry._plugin for name, entry in self._registrations.items()}

    def add(self, plugin: object, name: str | None = None) -> str:
        """Plug in any object with methods marked `@hookimpl`, after all others; return its name.

        The name is `name`, else the plugin's attribute `name`, else one made of its type. Two equal
        plugins may be added; two of one name may not. Raises PluginError, and has changed nothing
        then, if the plugin can't be used.
        """
        name = self._name_for(plugin, name)
        entry = _Registration(plugin, name)
        self._collect(entry)
        self._add_hookspecs(entry)
        try:
            self._pluggy.register(entry, name)
        except pluggy.PluginValidationError as error:
            if self._pluggy.has_plugin(name):
                self._pluggy.unregister(entry, name)
            raise PluginError(f"{_title(entry)} can't be used: {error}") from error
        try:
            self._bind(entry)
        except PluginError:
            self._pluggy.unregister(entry, name)
            raise
        self._registrations[name] = entry
        self._rebuild(entry._calls)
        return name

    def remove(self, name: str) -> object:
        """Unplug a plugin and return it; raises PluginError if there is none of that name.

        A call that is running in it just finishes; it gets no new ones.
        """
        entry = self._registrations.pop(name, None)
        if entry is None:
            known = ", ".join(map(repr, self._registrations)) or "none"
            raise PluginError(f"there is no plugin {name!r}; plugins are: {known}")
        self._pluggy.unregister(entry, name)
        self.delivery_filters.pop(name, None)
        for call in entry._calls.values():
            call.retire()
        self._rebuild(entry._calls)
        return entry._plugin

    # --- calls -----------------------------------------------------------------------------------

    def calls(self, hook: str) -> Calls:
        """The bound calls of any hook, also of one that a plugin has brought."""
        if hook not in self._hooks:
            raise PluginError(f"there is no hook {hook!r}")
        if hook not in HOOKS:
            return self._contributed.get(hook, ())
        calls: Calls = getattr(self, hook)
        return calls

    def calls_of(self, plugin: str, hook: str) -> Calls:
        """The bound call of one plugin's hook; () where it has none or isn't plugged in."""
        entry = self._registrations.get(plugin)
        call = None if entry is None else entry._calls.get(hook)
        return () if call is None else (call,)

    def notify(self, calls: Calls, event: object) -> None:
        """Tell observers; one that fails harms nobody and is switched off when it goes on failing.

        Ask first (`if hooks.published:`) and build the event only then.
        """
        if not calls:
            return
        calls[0].told += 1
        for call in calls:
            try:
                answer = call.function(event)
            except Exception as error:  # noqa: BLE001 - a plugin's, reported
                self._observer_failed(call, error)
                continue
            if answer is not None:
                self._observer_failed(call, nonsense(answer, "None"))

    def statistics(self) -> list[CallStatistics]:
        """The counters of all calls, plugin by plugin in their order."""
        calls = [
            *(call for entry in self._registrations.values() for call in entry._calls.values()),
            *self.delivery_filters.values(),
            *(call for call in self.permissions.values() if call.calls),
        ]
        return [call.statistics() for call in calls]

    def log_default_rules(self) -> None:
        """Say once in the log what holds while nobody implements an authorize hook."""
        if self._told_default or (self.authorize_publish and self.authorize_subscribe):
            return
        self._told_default = True
        if not self.authorize_publish:
            logger.info(
                "no plugin implements authorize_publish: a client that is let in may publish to "
                "every topic that doesn't begin with $"
            )
        if not self.authorize_subscribe:
            logger.info(
                "no plugin implements authorize_subscribe: a client that is let in may subscribe "
                "to every topic filter"
            )

    # --- binding ---------------------------------------------------------------------------------

    def _name_for(self, plugin: object, name: str | None) -> str:
        if plugin is None or inspect.isclass(plugin):
            raise PluginError(f"a plugin is an object, an instance of a class: not {plugin!r}")
        if name is None and isinstance(plugin, Plugin):
            name = plugin.name
        if name:
            if name in self._registrations:
                raise PluginError(f"there is a plugin {name!r} already: each needs its own name")
            return name
        made = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__name__
        name, number = made, 1
        while name in self._registrations:
            number += 1
            name = f"{made}-{number}"
        return name

    def _collect(self, entry: _Registration) -> None:
        """Find the plugin's marked methods and check what pluggy doesn't."""
        plugin = entry._plugin
        api = getattr(plugin, "api", API_VERSION)
        if api != API_VERSION:
            raise PluginError(
                f"{_title(entry)} was written for version {api!r} of the hooks; this mqtrio calls "
                f"version {API_VERSION}"
            )
        for attribute in dir(plugin):
            options = self._pluggy.parse_hookimpl_opts(plugin, attribute)
            if options is None:
                continue
            method = getattr(plugin, attribute)
            hook = options.get("specname") or attribute
            _check_options(entry, hook, options)
            _check_function(entry, self._hooks.get(hook, Hook(hook, "contributed", True)), method)
            entry._options[attribute] = options
            setattr(entry, attribute, method)
        if not entry._options:
            raise PluginError(f"{_title(entry)} has no method marked with @mqtrio.hookimpl")
        if isinstance(plugin, Plugin):
            for hook in HOOKS.keys() - entry._options.keys():
                written = inspect.getattr_static(type(plugin), hook)
                if written is not inspect.getattr_static(Plugin, hook):
                    logger.warning(
                        "%s: its method %s is never called, because it isn't marked with "
                        "@mqtrio.hookimpl",
                        _title(entry),
                        hook,
                    )

    def _add_hookspecs(self, entry: _Registration) -> None:
        """Make known the hooks that the plugin itself brings, before its own are looked at."""
        bring = getattr(entry, "hookspecs", None)
        if bring is None:
            return
        try:
            namespace = bring(HookspecsEvent())
        except Exception as error:
            raise PluginError(f"{_title(entry)}: hookspecs raised {error!r}") from error
        if any(known is namespace for known in self._namespaces):
            return
        names = [
            name
            for name in dir(namespace)
            if self._pluggy.parse_hookspec_opts(namespace, name) is not None
        ]
        for name in names:
            if name in self._hooks:
                raise PluginError(f"{_title(entry)} brings a hook {name!r}, which exists already")
        try:
            self._pluggy.add_hookspecs(namespace)
        except ValueError as error:
            raise PluginError(
                f"{_title(entry)}: hookspecs must return a class or module with functions marked "
                f"with @mqtrio.hookspec: {error}"
            ) from error
        self._namespaces.append(namespace)
        self._hooks.update({name: Hook(name, "contributed", awaits=True) for name in names})

    def _bind(self, entry: _Registration) -> None:
        """Make the bound calls of a plugin that pluggy has taken."""
        for caller in self._pluggy.get_hookcallers(entry) or ():
            name = caller.name
            mine = [impl for impl in caller.get_hookimpls() if impl.plugin is entry]
            if name not in self._hooks:
                if all(impl.optionalhook for impl in mine):
                    continue
                near = difflib.get_close_matches(name, self._hooks, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise PluginError(
                    f"{_title(entry)} implements {name!r}, which is no hook{hint}. Hooks are: "
                    f"{', '.join(self._hooks)}"
                )
            if len(mine) > 1:
                raise PluginError(f"{_title(entry)} implements {name!r} more than once")
            entry._calls[name] = Call(entry._name, name, mine[0].function, self._report)
        if "compile_delivery" in entry._calls:
            tally = Call(entry._name, "delivery_filter", nobody, self._report)
            self.delivery_filters[entry._name] = tally

    def _rebuild(self, hooks: Iterable[str]) -> None:
        """Make the tuples of these hooks anew."""
        changed = frozenset(hooks)
        for name in changed:
            calls = tuple(
                call
                for entry in self._registrations.values()
                if (call := entry._calls.get(name)) is not None and not call.switched_off
            )
            for call in calls:
                call.settle()
            for call in calls:
                call.told = 0
                call.follow(calls[0])
            if name in HOOKS:
                setattr(self, name, calls)
            else:
                self._contributed[name] = calls
        self.publish_is_plain = not (
            self.authorize_publish or self.transform_publish or self.published
        )
        if self.on_change is not None:
            self.on_change(changed)

    # --- failures --------------------------------------------------------------------------------

    def _observer_failed(self, call: Call, error: Exception) -> None:
        """Count an observer's failure; it is called no more after too many without a success."""
        if call.switched_off:
            return  # by a failure further down, while it was being called
        call.switched_off = call.fails_in_a_row() >= FAILURES_IN_A_ROW
        call.failed(error)
        if call.switched_off:
            call.retire()
            logger.error(
                "plugin %s: %s failed %d times in a row and is called no more",
                call.plugin,
                call.hook,
                call.in_a_row,
                extra={"plugin": call.plugin, "hook": call.hook},
            )
            self._rebuild((call.hook,))

    def _report(self, call: Call, event: PluginFailedEvent) -> None:
        """Tell of a failure; what fails while it is told of is counted and logged only."""
        if self.on_failure is not None:
            self.on_failure(event)
        if self._reporting or call.hook == "plugin_failed":
            return
        self._reporting = True
        try:
            self.notify(self.plugin_failed, event)
        finally:
            self._reporting = False


def _title(entry: _Registration) -> str:
    plugin = entry._plugin
    made = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__qualname__
    return f"plugin {entry._name!r} ({made})"


def _check_options(entry: _Registration, hook: str, options: Mapping[str, Any]) -> None:
    for option in _REFUSED_OPTIONS:
        if options.get(option):
            raise PluginError(
                f"{_title(entry)} marks {hook!r} with {option}=True, which is refused: plugins are "
                f"called in the order in which they are configured, and none wraps another"
            )


def _check_function(entry: _Registration, hook: Hook, method: Callable[..., Any]) -> None:
    where = f"{_title(entry)}: {hook.name}"
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
    if hook.name == "commands" and getattr(method, "__self__", None) is entry._plugin:
        raise PluginError(
            f"{where} must be a class method, because commands work without a configuration: "
            "@classmethod above @mqtrio.hookimpl"
        )
