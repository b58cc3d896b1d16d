"""Another configuration for a running broker, in two phases: get everything ready, then swap.

Whatever can fail happens before the swap, and is taken back if it does. The swap waits for nothing,
so there is no moment in which half of a configuration holds.
"""

import inspect
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union

import trio
from attrs import Factory, define

from mqtrio.engine.core import Core
from mqtrio.engine.plugins import Plugins
from mqtrio.errors import BrokerStopped, ConfigurationError, PluginError
from mqtrio.hooks import provide
from mqtrio.hooks.calls import nonsense
from mqtrio.hooks.provide_events import ReconfigureEvent
from mqtrio.hooks.registration import Registration
from mqtrio.net import listeners as net
from mqtrio.net.addresses import ListenerAddress
from mqtrio.net.network import Network
from mqtrio.settings import Listener, Settings
from mqtrio.stacks import Stacks, address_of, make_stacks
from mqtrio.standing_in import StandIn

if TYPE_CHECKING:
    from mqtrio.config import Configuration, PluginSpec

log = logging.getLogger("mqtrio")

#: A configuration: the path of a TOML file, its keys in a mapping, or what load_config has read.
Config: TypeAlias = Union[str, os.PathLike[str], Mapping[str, Any], "Configuration"]


def configuration_of(config: Config, beside: Collection[str]) -> "Configuration":
    """Read what isn't read yet; `beside` are names of the program's own plugins.

    Raises ConfigurationError. Imports what reads configurations only now: that takes its time.
    """
    from mqtrio.config import Configuration, load_config

    return config if isinstance(config, Configuration) else load_config(config, beside=beside)


@define
class _Change:
    """What is ready to be swapped in, and what of it has to be taken back if it isn't."""

    configuration: "Configuration"
    listeners: list[Listener]
    #: The plugins of the configuration, in order: those that stay and those that come.
    entries: dict[str, Registration] = Factory(dict)
    #: Prepared but not started, or started: what is abandoned if anything fails.
    prepared: list[Registration] = Factory(list)
    #: What makes the layers of the listeners.
    stacks: Stacks = Factory(dict)
    opened: list[net.Listener] = Factory(list)
    #: Where to listen, by URL.
    addresses: dict[str, ListenerAddress] = Factory(dict)
    #: How the sockets were of those that stay, where that has been changed already.
    adjusted: list[ListenerAddress] = Factory(list)
    #: What puts the new settings of plugins in force that stay.
    apply: list[tuple[Registration, Callable[[], object]]] = Factory(list)
    #: Name -> what stands in for an exclusive plugin that is stopped, and that plugin.
    stand_ins: dict[str, tuple[StandIn, Registration, Registration]] = Factory(dict)


class Reload:
    """Swaps configurations of one broker, one after the other.

    `listen` are the listeners that the program named itself; they stay whatever a configuration
    says. What plugins the program has added stays, too, behind those of the configuration.
    """

    def __init__(
        self,
        core: Core,
        life: Plugins,
        network: Network,
        listeners: Callable[[Settings], list[Listener]],
        specs: Iterable["PluginSpec"],
    ) -> None:
        self._core = core
        self._life = life
        self._hooks = life.hooks
        self._network = network
        self._listeners = listeners
        self._specs: dict[str, PluginSpec] = {spec.name: spec for spec in specs}
        self._lock = trio.Lock()

    @property
    def program_plugins(self) -> dict[str, object]:
        """The plugins that come from no configuration, by name."""
        there = self._hooks.plugins
        return {name: there[name] for name in there if name not in self._specs}

    async def __call__(self, config: Config) -> None:
        """Swap; raises what keeps it from it, and has changed nothing then."""
        async with self._lock:
            self._check_running()
            configuration = configuration_of(config, self.program_plugins)
            change = _Change(configuration, self._listeners(configuration.settings))
            try:
                await self._get_ready(change)
                self._check_running()
                self._check_same(change)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._take_back(change)
                raise
            gone = self._swap(change)
            for entry in reversed(gone):
                await self._life.retire(entry)
        log.info("%s is in force", configuration.source)

    def _check_running(self) -> None:
        if self._core.stopping or self._core.leaving:
            raise BrokerStopped("the broker has stopped")

    def _check_same(self, change: _Change) -> None:
        """Nobody may have removed meanwhile what shall stay."""
        for name, entry in change.entries.items():
            if entry not in change.prepared and entry not in self._hooks.entries:
                raise PluginError(f"the plugin {name!r} was removed while it was reconfigured")
        self._check_doors(change)

    # -- phase one

    async def _get_ready(self, change: _Change) -> None:
        staying, coming = self._plan(change.configuration)
        for spec in change.configuration.plugins:
            if spec.name in coming:
                change.entries[spec.name] = self._prepare(spec)
                change.prepared.append(change.entries[spec.name])
        exclusive = [name for name in coming if self._is_exclusive(name, change)]
        for name in coming:
            if name not in exclusive:
                await self._life.start(change.entries[name])
        for name in staying:
            change.entries[name] = self._entry(name)
        calls = [each.calls["layers"] for each in self._order(change) if "layers" in each.calls]
        change.stacks = await make_stacks(change.listeners, provide.layers(calls))
        await self._bind(change)
        self._check_doors(change)
        for spec in change.configuration.plugins:
            if spec.name in staying:
                await self._reconfigure(change, spec)
        for name in exclusive:  # last, because this is what the clients may notice
            await self._exchange_exclusive(change, name)

    def _prepare(self, spec: "PluginSpec") -> Registration:
        plugin = spec.make()
        try:
            return self._hooks.prepare(plugin, spec.name, replaces=spec.name in self._specs)
        except PluginError as error:
            raise spec.installed.blame(error) from error

    def _plan(self, configuration: "Configuration") -> tuple[list[str], list[str]]:
        """Names of plugins that stay (perhaps reconfigured), and of those that come."""
        staying: list[str] = []
        coming: list[str] = []
        wanted = {spec.name: spec for spec in configuration.plugins}
        for name, spec in wanted.items():
            old = self._specs.get(name)
            if name not in self._specs and name in self._hooks.plugins:
                raise PluginError(f"there is a plugin {name!r} of the program already")
            same = old is not None and name in self._hooks.plugins and old.plugin is spec.plugin
            if same and old is not None:
                able = "reconfigure" in self._entry(name).calls
                same = able or old.settings == spec.settings
            (staying if same else coming).append(name)
        going = [
            name for name in self._specs if name not in staying and name in self._hooks.plugins
        ]
        for name in going:
            if "open_store" in self._entry(name).calls:
                raise ConfigurationError(_STORE.format(name))
        for name in coming:
            if name not in going and provide.implements(wanted[name].plugin, "open_store"):
                raise ConfigurationError(_STORE.format(name))
        return staying, coming

    def _entry(self, name: str) -> Registration:
        return next(entry for entry in self._hooks.entries if entry.name == name)

    def _is_exclusive(self, name: str, change: _Change) -> bool:
        """Whether a plugin replaces one that it can't run beside."""
        if name not in self._specs or name not in self._hooks.plugins:
            return False
        both = (self._entry(name).plugin, change.entries[name].plugin)
        return any(getattr(plugin, "exclusive", False) for plugin in both)

    async def _bind(self, change: _Change) -> None:
        """Open the listeners that there aren't yet, and have the others be as they shall be."""
        change.addresses = {each.url: address_of(each, change.stacks) for each in change.listeners}
        for address in change.addresses.values():
            before = self._network.adjust(address)
            if before is None:
                change.opened += await self._network.open(address)
            else:
                change.adjusted.append(before)

    def _check_doors(self, change: _Change) -> None:
        """Refuse rules of listeners that can't be, with the plugins as they will be."""
        order = self._order(change)
        able = [entry.name for entry in order if "authenticate" in entry.calls]
        self._core.doors.check(self._rules(change), [entry.name for entry in order], able)

    def _rules(self, change: _Change) -> list[tuple[Listener, bool]]:
        """Each listener, and whether other machines can reach it."""
        bound = [*self._network.listeners, *(each.bound for each in change.opened)]
        outside = {address.url for address in bound if not address.local}
        every = (*change.configuration.settings.listener, *change.listeners)
        return reachable({each.url: each for each in every}.values(), outside)

    def _order(self, change: _Change) -> list[Registration]:
        """All plugins as they will be: those of the configuration, then those of the program."""
        names = (spec.name for spec in change.configuration.plugins)
        others = (entry for entry in self._hooks.entries if entry.name not in self._specs)
        return [*(change.entries[name] for name in names), *others]

    async def _reconfigure(self, change: _Change, spec: "PluginSpec") -> None:
        """Ask a plugin that stays whether it takes its settings, the same ones too."""
        call = self._entry(spec.name).calls.get("reconfigure")
        if call is None:
            return
        try:
            with trio.fail_after(self._life.deadline):
                apply = call(ReconfigureEvent(spec.settings))
                if inspect.isawaitable(apply):
                    apply = await apply
        except Exception as error:
            what = "took too long" if isinstance(error, trio.TooSlowError) else str(error)
            raise PluginError(
                f"plugin {spec.name!r} (of {spec.distribution} {spec.version}) refuses its new "
                f"settings: {what or repr(error)}"
            ) from error
        if apply is None:
            return
        if not callable(apply):
            raise PluginError(
                f"plugin {spec.name!r} (of {spec.distribution} {spec.version}): reconfigure "
                f"{nonsense(apply, 'a function or None')}"
            )
        change.apply.append((self._entry(spec.name), apply))

    # -- exclusive plugins

    async def _exchange_exclusive(self, change: _Change, name: str) -> None:
        """Stop a plugin, then start its successor; `_take_back` starts the old one again."""
        old = self._entry(name)
        stand_in = StandIn(old)
        between = self._hooks.prepare(stand_in.plugin, name, required=False, replaces=True)
        change.stand_ins[name] = (stand_in, between, old)
        await self._put(between)
        await self._life.start(change.entries[name])

    async def _put(self, entry: Registration) -> None:
        """Plug a plugin in at the place of the one that has its name, which is ended."""
        each = [entry if one.name == entry.name else one for one in self._hooks.entries]
        await self._life.exchange(each)

    # -- phase two

    def _swap(self, change: _Change) -> list[Registration]:
        """Everything at once: nothing here waits, and nothing fails."""
        settings = change.configuration.settings
        self._core.reconfigure(settings)
        self._life.deadline = settings.limits.hook_deadline
        for spec in change.configuration.plugins:
            change.entries[spec.name].required = spec.required
        gone = self._hooks.swap(self._order(change))
        for stand_in, between, _ in change.stand_ins.values():
            stand_in.give_way(change.entries[between.name])
        for entry, apply in change.apply:
            try:
                apply()
            except Exception as error:  # noqa: BLE001 - a plugin's that must not fail: counted
                entry.calls["reconfigure"].failed(error)
        rules = self._rules(change)
        self._core.doors.set(rules)
        self._network.exchange(change.addresses, change.opened)
        self._network.reconfigure(maximum_connections(rule for rule, _ in rules))
        self._specs = {spec.name: spec for spec in change.configuration.plugins}
        self._core.turn(self._core.hooks_changed, frozenset({"compile_delivery"}))
        return gone

    # -- back

    async def _take_back(self, change: _Change) -> None:
        for listener in change.opened:
            listener.close()
        for address in change.adjusted:
            try:
                self._network.adjust(address)
            except OSError:
                log.exception("listener %s: its file can't be as it was before", address.url)
        for entry in reversed(change.prepared):
            await self._life.abandon(entry)
        for stand_in, between, old in change.stand_ins.values():
            await self._restart(stand_in, between, old)

    async def _restart(self, stand_in: StandIn, between: Registration, old: Registration) -> None:
        """Start an exclusive plugin again whose successor did not start."""
        if between not in self._hooks.entries:
            self._hooks.discard(between)
            return
        try:
            entry = self._hooks.prepare(old.plugin, old.name, required=old.required, replaces=True)
            await self._life.start(entry)
        except Exception:
            stand_in.give_way(None)
            log.exception(
                "plugin %s: its successor did not start, and it can't be started again: what it "
                "decides about is refused",
                old.name,
            )
            return
        each = [entry if one is between else one for one in self._hooks.entries]
        self._hooks.swap(each)
        stand_in.give_way(entry)
        await self._life.retire(between)


def reachable(
    listeners: Iterable[Listener], outside: Collection[str]
) -> list[tuple[Listener, bool]]:
    """Each listener, and whether other machines can reach it: at its address, or by a proxy."""
    return [(each, each.url in outside or each.proxy_protocol) for each in listeners]


def maximum_connections(listeners: Iterable[Listener]) -> dict[str, int]:
    """The bounds of listeners that have one, by URL."""
    return {
        listener.url: listener.max_connections
        for listener in listeners
        if listener.max_connections is not None
    }


_STORE: Final = (
    "plugin {!r} keeps what the broker stores: it can't come, go or change while the broker runs. "
    "Restart the broker for this change"
)
