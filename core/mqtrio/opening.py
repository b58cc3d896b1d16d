"""Opening a broker: its parts put together, in order, and taken apart again in the opposite one."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from mqtrio.broker import Broker
from mqtrio.clock import Clock
from mqtrio.engine.background import Background
from mqtrio.engine.core import Core
from mqtrio.engine.plugins import Plugins
from mqtrio.engine.restore import Restorer
from mqtrio.errors import BrokerStopped, ConfigurationError, sole_error
from mqtrio.hooks import provide
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.net.network import Network, open_network
from mqtrio.net.opening import NO_SOCKETS, GivenSockets
from mqtrio.reload import Config, Reload, configuration_of, maximum_connections, reachable
from mqtrio.settings import Listener, Settings
from mqtrio.stacks import address_of, make_stacks, plugins_for
from mqtrio.store.journal import Failure, Journal
from mqtrio.store.memory import MemoryStore
from mqtrio.store.protocol import Store

if TYPE_CHECKING:
    from mqtrio.config import PluginSpec

#: Where to listen: URLs, or listeners with their rules and the options of their layers.
Listen: TypeAlias = Iterable[str | Listener] | str | Listener | None

DEFAULT_LISTENER: Final = "mqtt://127.0.0.1:1883"


@asynccontextmanager
async def open_broker(
    listen: Listen = None,
    *,
    config: Config | None = None,
    plugins: Iterable[object] = (),
    store: Store | None = None,
    settings: Settings | None = None,
    sockets: GivenSockets = NO_SOCKETS,
    **options: Any,
) -> AsyncIterator[Broker]:
    """A running broker for the length of the block.

    `listen`: URLs or Listeners, `[]` for none; default: those of the settings, else mqtt://127.0.0.1:1883.
    `config`: settings and installed plugins, as a file has them (docs/configuration.md); or only
    `settings`, or the same by keyword: `limits={"receive_maximum": 100}`, `session={...}`.
    `plugins`: objects with hooks, asked in this order, behind those of `config`. `store`: default,
    memory only. `sockets`: listening sockets that are there already, by the NAME that listeners
    systemd://NAME call them; they stay the caller's to close.

    Leaving the block stops gracefully: clients are told, wills follow the standard, and what is on
    its way gets `limits.stop_grace` seconds. Raises ConfigurationError for settings that can't be,
    PluginError for a plugin that can't, OSError for an address that can't be had, StoreError for a
    store that can't be read. What ends it while it runs cancels the block and is raised then: a
    PluginFailed of a plugin that is required, a StoreError with `session.on_store_failure` "stop".
    An exception of the block comes out as it is.
    """
    settings, specs, enabled = _configured(config, settings, options, list(plugins))
    raised: BaseException | None = None
    try:
        async with _opened(listen, specs, enabled, store, settings, sockets) as broker:
            try:
                yield broker
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as group:
        only = sole_error(group, raised)
        if only is None:
            raise
        context = only.__context__
        try:
            raise only
        finally:
            only.__context__ = context  # not the group that it has come out of


@asynccontextmanager
async def _opened(
    listen: Listen,
    specs: Iterable["PluginSpec"],
    plugins: Iterable[object],
    store: Store | None,
    settings: Settings,
    sockets: GivenSockets,
) -> AsyncIterator[Broker]:
    """`open_broker`, but what is raised comes out wrapped by nurseries."""
    listen = [listen] if isinstance(listen, str | Listener) else listen
    named = None if listen is None else list(listen)
    plugins = list(plugins)
    plugins = [*plugins_for(_listeners(named, settings), plugins), *plugins]
    hooks = HookManager(budget=settings.limits.hook_budget)
    life = Plugins(hooks, settings.limits.hook_deadline)
    try:
        await life.open(plugins)
        if store is None:
            store = await provide.open_store(hooks) or MemoryStore()
        async with _assembled(named, specs, life, store, settings, sockets) as broker:
            yield broker
    finally:
        await life.close()


@asynccontextmanager
async def _assembled(
    listen: list[str | Listener] | None,
    specs: Iterable["PluginSpec"],
    life: Plugins,
    store: Store,
    settings: Settings,
    sockets: GivenSockets,
) -> AsyncIterator[Broker]:
    """A broker of its parts, with plugins that have started and a store that is open."""
    listeners = _listeners(listen, settings)
    clock = Clock()
    journal = Journal(
        store,
        on_failed=lambda failure: _failed(restorer, failure),
        recover=lambda client_ids: restorer.recover(client_ids),  # noqa: PLW0108
        tick=lambda: core.tick(),  # noqa: PLW0108
        flush=lambda: core.flush(),  # noqa: PLW0108
        crashed=lambda waiter, error: core.waiter_crashed(waiter, error),  # noqa: PLW0108
        limit=settings.limits.uncommitted_bytes,
        grace=settings.limits.stop_grace,
    )
    hooks = life.hooks
    core = Core(settings, hooks, journal, clock)
    hooks.on_change = core.hooks_changed
    restorer = Restorer(core, store)
    async with trio.open_nursery() as outer:
        await outer.start(journal.run)
        try:
            await restorer.start()
            stacks = await make_stacks(listeners, provide.layers(hooks.layers))
            addresses = [address_of(listener, stacks) for listener in listeners]
            async with open_network(core, addresses, sockets) as network:
                _set_doors(core, network, listeners)
                reload = Reload(core, life, network, partial(_listeners, listen), specs)
                broker = Broker(core, life, network, reload)
                async with _running(core, life, network, broker):
                    yield broker
        finally:
            journal.stop()
    if core.failures:
        raise core.failures[0]


def _failed(restorer: Restorer, failure: Failure) -> None:
    restorer.core.turn(restorer.failed, failure)


def _configured(
    config: Config | None,
    settings: Settings | None,
    options: Mapping[str, Any],
    plugins: list[object],
) -> tuple[Settings, "tuple[PluginSpec, ...]", list[object]]:
    """Settings and plugins of what `open_broker` was given.

    Imports what reads configurations only where there is one: that takes longer than to start.
    """
    if sum((config is not None, settings is not None, bool(options))) > 1:
        raise ConfigurationError("give one of config, settings, or parts of them by keyword")
    if options:
        from mqtrio.config import settings_from

        return settings_from(options), (), plugins
    if config is None:
        return settings or Settings(), (), plugins
    named = {e.name if isinstance(e, Plugin) else type(e).__name__: e for e in plugins}
    read = configuration_of(config, named)
    return read.settings, read.plugins, [*read.make_plugins(), *plugins]


def _listeners(listen: list[str | Listener] | None, settings: Settings) -> list[Listener]:
    """The listeners that a program names, with their rules; else those of the settings."""
    if listen is not None:
        known = {listener.url: listener for listener in settings.listener}
        return [
            each if isinstance(each, Listener) else known.get(each) or Listener(url=each)
            for each in listen
        ]
    return list(settings.listener) or [Listener(url=DEFAULT_LISTENER)]


def _set_doors(core: Core, network: Network, listeners: list[Listener]) -> None:
    """Put the rules of listeners in force, also of those that only name a program's streams.

    Raises ConfigurationError for rules that can't be.
    """
    outside = {address.url for address in network.listeners if not address.local}
    every = {listener.url: listener for listener in (*core.settings.listener, *listeners)}
    core.doors.set(reachable(every.values(), outside))
    network.maximum = maximum_connections(every.values())


@asynccontextmanager
async def _running(
    core: Core, life: Plugins, network: Network, broker: Broker
) -> AsyncIterator[None]:
    """The tasks of a broker; its end is graceful unless it is cancelled.

    `core.fail` ends it too, gracefully.
    """
    body = trio.CancelScope()
    core.end = body.cancel
    if core.failures:  # while it started
        body.cancel()
    async with trio.open_nursery() as tasks:
        tasks.start_soon(core.timers.run, core.turn)
        tasks.start_soon(core.watch_writers)
        async with trio.open_nursery() as nursery:
            core.nursery = nursery
            life.background = core.background = Background(
                core.hooks, tasks, broker, core.limits.plugin_restarts, core.fail
            )
            core.background.refresh()
            core.ended.begin()
            network.accept()
            try:
                with body:
                    yield
                await _end(core, network)
            finally:
                core.goodbye()
                core.stopping = True
                for subscriber in core.sessions.local.values():
                    subscriber.close(BrokerStopped("the broker has stopped"))
                nursery.cancel_scope.cancel()
                tasks.cancel_scope.cancel()


async def _end(core: Core, network: Network) -> None:
    """Accept no more, let hooks finish what they think about, say goodbye, send what is left."""
    grace = core.limits.stop_grace
    deadline = trio.current_time() + grace
    network.stop_accepting()
    core.stop_reading()
    with trio.move_on_at(deadline - grace / 2):  # the rest is for sending what they decide
        await core.hooks_done()
    await network.stop(core.goodbye, max(0.0, deadline - trio.current_time()))
    with trio.move_on_at(deadline):
        await core.hooks_done()


async def serve_broker(
    listen: Listen = None,
    *,
    config: Config | None = None,
    plugins: Iterable[object] = (),
    store: Store | None = None,
    settings: Settings | None = None,
    sockets: GivenSockets = NO_SOCKETS,
    task_status: trio.TaskStatus[Broker] = trio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Run a broker as a task: `broker = await nursery.start(mqtrio.serve_broker, ["mqtt://…"])`.

    Ends when it is cancelled (at once) or after `broker.stop()` (gracefully). The arguments are
    those of `open_broker`; pass keywords with functools.partial.
    """
    async with open_broker(
        listen,
        config=config,
        plugins=plugins,
        store=store,
        settings=settings,
        sockets=sockets,
        **options,
    ) as broker:
        task_status.started(broker)
        await broker.wait_stopped()
