"""The background tasks of plugins (`run`): supervised, and ended with their plugins."""

import logging
from collections.abc import Callable
from typing import Any, Final

import trio

from mqtrio.errors import PluginError, PluginFailed, sole_error
from mqtrio.hooks import provide
from mqtrio.hooks.calls import Call
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.provide_events import RunEvent
from mqtrio.hooks.registration import Registration

log = logging.getLogger("mqtrio.hooks")

#: Pause before the first restart of a crashed task and the longest one, in seconds. Each is twice
#: as long as the one before.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

#: A task that ran for so many seconds was well: its next crash counts as the first one.
WELL: Final = 60.0


class Background:
    """One task for each plugin that has a `run`, for as long as the plugin is there.

    A task that crashes is started again, `restarts` times in a row at most. Then it is given up: if
    its plugin is required, `fail` is called with the error that ends the broker.
    """

    def __init__(
        self,
        hooks: HookManager,
        nursery: trio.Nursery,
        broker: Any,
        restarts: int,
        fail: Callable[[PluginFailed], object],
    ) -> None:
        self._hooks = hooks
        self._nursery = nursery
        self._broker = broker
        self.restarts = restarts
        self._fail = fail
        self._tasks: dict[Registration, _Task] = {}

    def refresh(self) -> None:
        """Start the tasks of plugins that have come, cancel those of plugins that have gone."""
        entries = self._hooks.entries
        for entry, task in self._tasks.items():
            if entry not in entries:
                task.scope.cancel()
        for entry in entries:
            if "run" in entry.calls and entry not in self._tasks:
                task = self._tasks[entry] = _Task()
                self._nursery.start_soon(self._run, entry, entry.calls["run"], task)

    async def end(self, entry: Registration, deadline: float) -> None:
        """Wait until the task of a plugin that has gone has ended, `deadline` seconds at most."""
        task = self._tasks.pop(entry, None)
        if task is None:
            return
        task.scope.cancel()
        with trio.move_on_after(deadline) as scope:
            await task.ended.wait()
        if scope.cancelled_caught:
            log.warning(
                "plugin %s: its background task has not ended within %g s of its removal",
                entry.name,
                deadline,
            )

    async def _run(self, entry: Registration, call: Call, task: "_Task") -> None:
        crashes = 0
        try:
            with task.scope:
                while True:
                    began = trio.current_time()
                    error = await self._once(call)
                    if error is None:
                        return
                    well = trio.current_time() - began >= WELL
                    crashes = 1 if well else crashes + 1
                    if crashes > self.restarts:
                        self._give_up(entry, call, error, crashes)
                        return
                    call.failed(error)
                    pause = min(FIRST_PAUSE * 2 ** (crashes - 1), LONGEST_PAUSE)
                    log.warning(
                        "plugin %s: its background task starts again in %g s", call.plugin, pause
                    )
                    await trio.sleep(pause)
        finally:
            task.ended.set()

    async def _once(self, call: Call) -> Exception | None:
        """Run it until it ends, with all that it has started; returns what it has raised."""
        raised: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await provide.provide(call, RunEvent(self._broker, nursery))
                except PluginError as error:
                    raised = error
                    nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - a plugin's: logged and counted
            group = isinstance(error, ExceptionGroup)
            only = sole_error(error) if group else error  # type: ignore[arg-type]
            raised = only if isinstance(only, Exception) else error
        return raised

    def _give_up(self, entry: Registration, call: Call, error: Exception, crashes: int) -> None:
        """Go on without the task, loudly, or not at all. Its hooks stay: they may guard a door."""
        call.switched_off = True
        call.failed(error)
        often = "" if crashes == 1 else f" {crashes} times in a row"
        what = f"{call.title}: its background task has crashed{often}"
        if entry.required:
            failure = PluginFailed(f"{what}, and the plugin is required: the broker stops")
            failure.__cause__ = error
            log.critical("%s", failure, extra={"plugin": entry.name, "hook": "run"})
            self._fail(failure)
        else:
            log.error(
                "%s and is given up: the broker goes on without it, the plugin's other hooks are "
                "called as before",
                what,
                extra={"plugin": entry.name, "hook": "run"},
            )


class _Task:
    """One background task: how to end it, and whether it has ended."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
