"""Running the handlers that may have to wait.

A handler that asks hooks is a generator. It yields only what must be awaited, and gets the value
back, or the exception thrown in. With synchronous hooks it runs to its end at once and no task is
made. While it waits, its connection pauses; one task serves a run of consecutive waits.
"""

import inspect
from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any

import trio

from mqtrio.engine.link import HOOK_HOLD
from mqtrio.reasons import ReasonCode

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core


def discard(awaitable: object) -> None:
    """Give up something that will not be awaited, without the warning of a forgotten coroutine."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


#: A handler that may wait: yields awaitables, is sent their values.
Steps = Generator[Awaitable[Any], Any, Any]


async def walk(
    core: "Core",
    steps: Steps,
    awaitable: Awaitable[Any],
    connection: "Connection | None" = None,
) -> Any:
    """Await what a generator yields until it returns; each step is a turn of its own.

    A wait of more than `limits.hook_deadline` is thrown into the generator as trio.TooSlowError, so
    that the rule of the hook in question decides what follows. Ends early with its connection.
    """
    while True:
        error: Exception | None = None
        value: Any = None
        try:
            with trio.fail_after(core.limits.hook_deadline):
                value = await awaitable
        except Exception as caught:  # noqa: BLE001 - thrown into the generator
            error = caught
        if connection is not None and connection.closed:
            return None  # nobody is left to do it for
        core.tick()
        try:
            awaitable = steps.send(value) if error is None else steps.throw(error)
        except StopIteration as stop:
            return stop.value


async def complete(core: "Core", steps: Steps) -> Any:
    """Run a generator in the calling task and return its result."""
    try:
        awaitable = next(steps)
    except StopIteration as stop:
        return stop.value
    try:
        return await walk(core, steps, awaitable)
    finally:
        steps.close()


def detach(core: "Core", steps: Steps, connection: "Connection | None" = None) -> None:
    """Run a generator beside everything else: a will, a $SYS message, a re-authentication.

    What it raises ends `connection`, if it has one, and goes to the log.
    """
    try:
        awaitable = next(steps)
    except StopIteration:
        return

    async def drive() -> None:
        try:
            await walk(core, steps, awaitable, connection)
        except Exception as error:  # noqa: BLE001 - ends its connection, with a traceback
            if connection is None:
                core.crashed(error)
            else:
                core.blame(connection, error)
        finally:
            steps.close()
            core.flush()

    if not core.spawn(drive):
        discard(awaitable)
        steps.close()


class StepRunner:
    """Drives one connection's waiting handlers, one after the other, in the order of its input."""

    __slots__ = ("connection", "scope", "running", "pending")

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.scope: trio.CancelScope | None = None
        self.running = False
        self.pending: tuple[Steps, Awaitable[Any]] | None = None

    def start(self, steps: Steps) -> None:
        """Run a handler; if it must wait, hold the connection and let a task go on with it."""
        try:
            awaitable = next(steps)
        except StopIteration:
            return
        connection = self.connection
        connection.hold |= HOOK_HOLD
        if self.running:
            # Inside of our own task: it has just finished the previous handler and looks here next.
            self.pending = (steps, awaitable)
            return
        self.running = True
        self.scope = trio.CancelScope()
        if not connection.core.spawn(self._drive, steps, awaitable):
            self.running = False
            discard(awaitable)
            steps.close()
            connection.close(ReasonCode.SERVER_SHUTTING_DOWN, "the broker is stopping")

    async def _drive(self, steps: Steps, awaitable: Awaitable[Any]) -> None:
        connection = self.connection
        core = connection.core
        assert self.scope is not None
        try:
            with self.scope:
                while True:
                    if not await self._finish(steps, awaitable):
                        return
                    connection.unhold(HOOK_HOLD)
                    core.flush()
                    if self.pending is None or connection.closed:
                        return
                    (steps, awaitable), self.pending = self.pending, None
        finally:
            self.running = False
            self.scope = None
            steps.close()
            discard(awaitable)
            if self.pending is not None:
                (steps, awaitable), self.pending = self.pending, None
                steps.close()
                discard(awaitable)
            core.flush()

    async def _finish(self, steps: Steps, awaitable: Awaitable[Any]) -> bool:
        connection = self.connection
        core = connection.core
        try:
            await walk(core, steps, awaitable, connection)
        except Exception as error:  # noqa: BLE001 - ends its connection
            core.blame(connection, error)
            return False
        return not connection.closed

    def cancel(self) -> None:
        """The connection is gone: what it waited for has no meaning any more."""
        if self.scope is not None:
            self.scope.cancel()
