"""Who is plugged in: adds and removes plugins while the broker runs, and binds their hooks.

pluggy reads the markers, keeps the registry and knows unknown hooks and wrong arguments; calls go
through tuples of bound calls that are made anew whenever a plugin comes or goes, because an empty
pluggy call costs 760 ns and an empty tuple 10.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Final

import pluggy

from mqtrio.errors import PluginError
from mqtrio.hooks.calls import (
    FAILURES_IN_A_ROW,
    Call,
    Calls,
    CallStatistics,
    Watch,
    logger,
    nobody,
    nonsense,
)
from mqtrio.hooks.events import Origin, PluginFailedEvent
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.provide_events import HookspecsEvent
from mqtrio.hooks.registration import Registration, Registry, check_function, check_options
from mqtrio.hooks.specs import API_VERSION, HOOKS, PROJECT, Hook

#: Origins that may publish to `$` topics where nobody implements authorize_publish.
_TRUSTED: Final = frozenset({"local", "system", "bridge"})


def default_allows_publish(topic: str, origin: Origin) -> bool:
    """The rule where nobody authorizes: no client and no will publishes to `$` topics."""
    return not topic.startswith("$") or origin in _TRUSTED


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
    check_settings: Calls
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
        budget: float = math.inf,
    ) -> None:
        self.on_failure = on_failure
        self.on_change = on_change
        self.watch: Final = Watch(budget)
        self._named = 0
        #: Counts what clients' permissions do; they are asked like plugins but are none.
        self.permissions: Final = {
            name: Call("permissions", name, nobody, self._report, self.watch)
            for name in ("authorize_publish", "authorize_subscribe")
        }
        #: Plugin name -> counts what the filters do that its compile_delivery has made.
        self.delivery_filters: dict[str, Call] = {}
        self._pluggy = Registry(PROJECT)
        self._pluggy.add_hookspecs(Plugin)
        self._hooks: dict[str, Hook] = dict(HOOKS)
        self._namespaces: list[object] = []
        self._contributed: dict[str, Calls] = {}
        self._entries: dict[str, Registration] = {}
        self._prepared: set[Registration] = set()
        self._told_default = False
        self._reporting = False
        self._rebuild(self._hooks)

    # --- plugins ---------------------------------------------------------------------------------

    @property
    def plugins(self) -> Mapping[str, object]:
        """Instance name -> plugin, in the order in which they are asked."""
        return {name: entry.plugin for name, entry in self._entries.items()}

    @property
    def entries(self) -> tuple[Registration, ...]:
        """The plugins that are plugged in, in their order."""
        return tuple(self._entries.values())

    def add(self, plugin: object, name: str | None = None, *, required: bool | None = None) -> str:
        """Plug in any object with methods marked `@hookimpl`, after all others; return its name.

        `prepare` and `swap` in one: see there for names and errors.
        """
        entry = self.prepare(plugin, name, required=required)
        self.swap((*self.entries, entry))
        return entry.name

    def remove(self, name: str) -> object:
        """Unplug a plugin and return it; raises PluginError if there is none of that name.

        A call that is running in it just finishes; it gets no new ones.
        """
        return self.take(name).plugin

    def take(self, name: str) -> Registration:
        """Like `remove`, and returns the registration: what is needed to end the plugin."""
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(map(repr, self._entries)) or "none"
            raise PluginError(f"there is no plugin {name!r}; plugins are: {known}")
        self.swap([other for other in self.entries if other is not entry])
        return entry

    def prepare(
        self,
        plugin: object,
        name: str | None = None,
        *,
        required: bool | None = None,
        replaces: bool = False,
    ) -> Registration:
        """Check a plugin and bind its hooks; nothing of it is called before `swap` (but hookspecs).

        The name is `name`, else the plugin's attribute `name`, else one made of its type. Two equal
        plugins may be plugged in, two of one name may not: a name that is taken, or prepared by
        somebody else, is refused unless the plugin `replaces` the one that has it. `required`:
        whether the broker can't do without its background task; default: the plugin's attribute
        `required`, else False. Raises PluginError, and has changed nothing then, if the plugin
        can't be used. What is prepared must be swapped in or discarded.
        """
        name = self._name_for(plugin, name, replaces)
        if required is None:
            required = bool(getattr(plugin, "required", False))
        entry = Registration(plugin, name, required)
        self._collect(entry)
        self._add_hookspecs(entry)
        number = 1
        while self._pluggy.has_plugin(entry.key):  # by the one that it will replace
            number += 1
            entry.key = f"{name}#{number}"
        try:
            self._pluggy.register(entry.methods, entry.key)
        except pluggy.PluginValidationError as error:
            if self._pluggy.has_plugin(entry.key):
                self._pluggy.unregister(entry.methods, entry.key)
            raise PluginError(f"{entry.title} can't be used: {error}") from error
        try:
            self._bind(entry)
        except PluginError:
            self._pluggy.unregister(entry.methods, entry.key)
            raise
        self._prepared.add(entry)
        return entry

    def discard(self, entry: Registration) -> None:
        """Forget what was prepared and is not swapped in after all."""
        if entry in self._prepared:
            self._prepared.remove(entry)
            self._pluggy.unregister(entry.methods, entry.key)

    def swap(self, entries: Sequence[Registration]) -> list[Registration]:
        """Have exactly these plugins, in this order, from one moment to the next.

        Each is one that was prepared or is plugged in already. Returns those that have gone: they
        get no new calls. Raises PluginError, and has changed nothing, if two have one name.
        """
        before = self.entries
        after: dict[str, Registration] = {}
        for entry in entries:
            if after.setdefault(entry.name, entry) is not entry:
                raise PluginError(
                    f"there is a plugin {entry.name!r} already: each needs its own name"
                )
            if entry not in self._prepared and self._entries.get(entry.name) is not entry:
                raise PluginError(f"{entry.title} was not prepared")
        stay = [entry for entry in before if after.get(entry.name) is entry]
        gone = [entry for entry in before if after.get(entry.name) is not entry]
        moved = stay if [one for one in entries if one in stay] != stay else []
        come = [entry for entry in entries if entry in self._prepared]
        self._entries = after
        self._prepared.difference_update(come)
        self.delivery_filters = {
            entry.name: entry.filters for entry in entries if entry.filters is not None
        }
        for entry in gone:
            self._pluggy.unregister(entry.methods, entry.key)
            entry.retire()
        self._rebuild({hook for entry in (*gone, *come, *moved) for hook in entry.calls})
        return gone

    # --- calls -----------------------------------------------------------------------------------

    def calls(self, hook: str) -> Calls:
        """The bound calls of any hook, also of one that a plugin has brought."""
        if hook not in self._hooks:
            raise PluginError(f"there is no hook {hook!r}")
        if hook not in HOOKS:
            return self._contributed.get(hook, ())
        calls: Calls = getattr(self, hook)
        return calls

    def notify(self, calls: Calls, event: object) -> None:
        """Tell observers; one that fails harms nobody and is switched off when it goes on failing.

        Ask first (`if hooks.published:`) and build the event only then.
        """
        if not calls:
            return
        calls[0].told = number = calls[0].told + 1
        for call in calls:
            try:
                if number < call.due:
                    answer = call.function(event)
                else:
                    answer = call.timed(event, number)
            except Exception as error:  # noqa: BLE001 - a plugin's, reported
                self.observer_failed(call, error)
                continue
            if answer is not None:
                self.observer_failed(call, nonsense(answer, "None"))

    def statistics(self) -> list[CallStatistics]:
        """The counters of all calls, plugin by plugin in their order."""
        return [call.statistics() for call in self._all_calls()]

    def turn_took(self, seconds: float) -> None:
        """All clients have waited so long for one turn: say so in the log, if it may be a hook.

        Nothing is said if the hook has been named, because its call was one of those that are
        timed. Otherwise all hooks are timed when they are called next.
        """
        named, self._named = self._named, self.watch.named
        if named != self._named:
            return
        suspects = [call for call in self._all_calls() if call.interval > 1]
        if not suspects:
            return
        for call in suspects:
            call.due = 0
        logger.warning(
            "everybody was blocked for %.3f s: by the broker itself, or by one of %s, which were "
            "not timed",
            seconds,
            ", ".join(call.name for call in suspects),
        )

    def _all_calls(self) -> list[Call]:
        return [
            *(call for entry in self._entries.values() for call in entry.calls.values()),
            *self.delivery_filters.values(),
            *(call for call in self.permissions.values() if call.calls),
        ]

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

    def _name_for(self, plugin: object, name: str | None, replaces: bool) -> str:
        if plugin is None or inspect.isclass(plugin):
            raise PluginError(f"a plugin is an object, an instance of a class: not {plugin!r}")
        taken = {*self._entries, *(entry.name for entry in self._prepared)}
        if name is None and isinstance(plugin, Plugin):
            name = plugin.name
        if name:
            if name in taken and not replaces:
                raise PluginError(f"there is a plugin {name!r} already: each needs its own name")
            return name
        made = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__name__
        name, number = made, 1
        while name in taken:
            number += 1
            name = f"{made}-{number}"
        return name

    def _collect(self, entry: Registration) -> None:
        """Find the plugin's marked methods and check what pluggy doesn't."""
        plugin = entry.plugin
        api = getattr(plugin, "api", API_VERSION)
        if api != API_VERSION:
            raise PluginError(
                f"{entry.title} was written for version {api!r} of the hooks; this mqtrio calls "
                f"version {API_VERSION}"
            )
        for attribute in dir(plugin):
            options = self._pluggy.parse_hookimpl_opts(plugin, attribute)
            if options is None:
                continue
            method = getattr(plugin, attribute)
            hook = options.get("specname") or attribute
            check_options(entry, hook, options)
            check_function(entry, self._hooks.get(hook, Hook(hook, "contributed", True)), method)
            entry.put(attribute, method, options)
        if not entry.marked:
            raise PluginError(f"{entry.title} has no method marked with @mqtrio.hookimpl")
        if isinstance(plugin, Plugin):
            for hook in HOOKS.keys() - entry.marked:
                written = inspect.getattr_static(type(plugin), hook)
                if written is not inspect.getattr_static(Plugin, hook):
                    logger.warning(
                        "%s: its method %s is never called, because it isn't marked with "
                        "@mqtrio.hookimpl",
                        entry.title,
                        hook,
                    )

    def _add_hookspecs(self, entry: Registration) -> None:
        """Make known the hooks that the plugin itself brings, before its own are looked at."""
        bring = getattr(entry.methods, "hookspecs", None)
        if bring is None:
            return
        try:
            namespace = bring(HookspecsEvent())
        except Exception as error:
            raise PluginError(f"{entry.title}: hookspecs raised {error!r}") from error
        if any(known is namespace for known in self._namespaces):
            return
        names = [
            name
            for name in dir(namespace)
            if self._pluggy.parse_hookspec_opts(namespace, name) is not None
        ]
        for name in names:
            if name in self._hooks:
                raise PluginError(f"{entry.title} brings a hook {name!r}, which exists already")
        try:
            self._pluggy.add_hookspecs(namespace)
        except ValueError as error:
            raise PluginError(
                f"{entry.title}: hookspecs must return a class or module with functions marked "
                f"with @mqtrio.hookspec: {error}"
            ) from error
        self._namespaces.append(namespace)
        self._hooks.update({name: Hook(name, "contributed", awaits=True) for name in names})

    def _bind(self, entry: Registration) -> None:
        """Make the bound calls of a plugin that pluggy has taken."""
        for caller in self._pluggy.get_hookcallers(entry.methods) or ():
            name = caller.name
            mine = [impl for impl in caller.get_hookimpls() if impl.plugin is entry.methods]
            if name not in self._hooks:
                if all(impl.optionalhook for impl in mine):
                    continue
                near = difflib.get_close_matches(name, self._hooks, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise PluginError(
                    f"{entry.title} implements {name!r}, which is no hook{hint}. Hooks are: "
                    f"{', '.join(self._hooks)}"
                )
            if len(mine) > 1:
                raise PluginError(f"{entry.title} implements {name!r} more than once")
            call = Call(entry.name, name, mine[0].function, self._report, self.watch)
            call.origin = getattr(entry.plugin, "origin", "")
            entry.calls[name] = call
        if "compile_delivery" in entry.calls:
            entry.filters = Call(entry.name, "delivery_filter", nobody, self._report, self.watch)

    def _rebuild(self, hooks: Iterable[str]) -> None:
        """Make the tuples of these hooks anew."""
        changed = frozenset(hooks)
        for name in changed:
            calls = tuple(
                call
                for entry in self._entries.values()
                if (call := entry.calls.get(name)) is not None and not call.switched_off
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

    def observer_failed(self, call: Call, error: Exception) -> None:
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
