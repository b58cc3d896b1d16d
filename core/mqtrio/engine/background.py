"""The background tasks of plugins (`run`): started with the broker, again when they crash."""

import logging
from typing import Any, Final

import trio

from mqtrio.hooks import provide
from mqtrio.hooks.calls import Call
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.provide_events import RunEvent

log = logging.getLogger("mqtrio.hooks")

#: Pause before the first restart of a crashed task and the longest one, in seconds.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0


class Background:
    """One task for each plugin that has a `run`, for as long as the plugin is there."""

    def __init__(self, hooks: HookManager, nursery: trio.Nursery, broker: Any) -> None:
        self._hooks = hooks
        self._nursery = nursery
        self._broker = broker
        self._scopes: dict[Call, trio.CancelScope] = {}

    def refresh(self) -> None:
        """Start the tasks of plugins that have come, cancel those of plugins that have gone."""
        calls = set(self._hooks.run)
        for call in list(self._scopes):
            if call not in calls:
                self._scopes.pop(call).cancel()
        for call in self._hooks.run:
            if call not in self._scopes:
                scope = self._scopes[call] = trio.CancelScope()
                self._nursery.start_soon(self._run, call, scope)

    async def _run(self, call: Call, scope: trio.CancelScope) -> None:
        pause = FIRST_PAUSE
        with scope:
            while True:
                try:
                    await provide.provide(call, RunEvent(self._broker))
                except Exception as error:  # noqa: BLE001 - a plugin's: logged and counted
                    call.failed(error)
                else:
                    return
                log.warning(
                    "plugin %s: its background task starts again in %g s", call.plugin, pause
                )
                await trio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
