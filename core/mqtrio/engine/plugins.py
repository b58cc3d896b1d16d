"""The life of plugins: started before anybody sees them, stopped when nothing of them runs."""

import logging
from collections.abc import Iterable, Sequence

import trio

from mqtrio.engine.background import Background
from mqtrio.errors import BrokerStopped
from mqtrio.hooks import provide
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.registration import Registration

log = logging.getLogger("mqtrio.hooks")


class Plugins:
    """Brings plugins in and takes them out, in the order that their contract promises.

    `deadline` (seconds) bounds each of the waits at the end of a plugin.
    """

    def __init__(self, hooks: HookManager, deadline: float) -> None:
        self.hooks = hooks
        self.deadline = deadline
        #: Their background tasks, once the broker runs.
        self.background: Background | None = None
        self._started: list[Registration] = []
        self._closed = False

    async def open(self, plugins: Iterable[object]) -> None:
        """Start the first plugins one after the other; raises PluginError.

        All are checked before the first one is started. What was started when one fails is stopped
        by `close`.
        """
        entries = [self.hooks.prepare(plugin) for plugin in plugins]
        for entry in entries:
            await self.start(entry)
        self.hooks.swap(entries)

    async def add(
        self, plugin: object, name: str | None = None, *, required: bool | None = None
    ) -> str:
        """Start a plugin and plug it in behind the others; returns its name.

        Raises PluginError, and has changed nothing then, if it can't be used or doesn't start.
        """
        entry = self.hooks.prepare(plugin, name, required=required)
        await self.start(entry)
        self.hooks.swap((*self.hooks.entries, entry))
        return entry.name

    async def remove(self, name: str) -> object:
        """Unplug a plugin at once, end it, and return it; raises PluginError if there is none."""
        entry = self.hooks.take(name)
        await self.retire(entry)
        return entry.plugin

    async def exchange(self, entries: Sequence[Registration]) -> None:
        """Have these plugins in this order from one moment to the next; end those that go.

        Each is plugged in, or was prepared and started. Raises PluginError, and has changed
        nothing, if two have one name.
        """
        for entry in reversed(self.hooks.swap(entries)):
            await self.retire(entry)

    async def start(self, entry: Registration) -> None:
        """Start what was prepared; if that fails it is discarded, and PluginError raised."""
        try:
            await provide.start(entry)
        except BaseException:
            self.hooks.discard(entry)
            raise
        self._started.append(entry)
        if self._closed:
            await self.abandon(entry)
            raise BrokerStopped("the broker has stopped")

    async def abandon(self, entry: Registration) -> None:
        """Stop what was started and is not plugged in after all."""
        self.hooks.discard(entry)
        await self._stop(entry)

    async def retire(self, entry: Registration) -> None:
        """End a plugin that was unplugged: its calls, its background task, itself.

        Goes on to the end even if the caller is cancelled; takes three deadlines at most.
        """
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self.deadline) as scope:
                await entry.idle()
            if scope.cancelled_caught:
                log.warning(
                    "plugin %s: a call in it has not ended within %g s of its removal",
                    entry.name,
                    self.deadline,
                )
            if self.background is not None:
                await self.background.end(entry, self.deadline)
            await self._stop(entry)

    async def close(self) -> None:
        """Stop all plugins, the one that was started last first; nothing else of them runs."""
        self._closed = True
        with trio.CancelScope(shield=True):
            for entry in reversed(self._started.copy()):
                await self._stop(entry)

    async def _stop(self, entry: Registration) -> None:
        if entry in self._started:  # nobody else has stopped it, or is about to
            self._started.remove(entry)
            with trio.CancelScope(shield=True):
                await provide.stop(entry, self.deadline)
