"""One call of a Trio function, made for somebody who isn't in Trio."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import trio

from mqtrio.errors import BrokerStopped

T = TypeVar("T")


def stopped() -> BrokerStopped:
    """What a call gets that comes too late."""
    return BrokerStopped("the broker has stopped")


class Call(Generic[T]):
    """A call, and what has become of it.

    `done` is called in Trio's thread when it has ended, however it did. Cancel `scope` (there, too)
    to end it early.
    """

    __slots__ = ("_function", "_arguments", "_done", "_value", "_error", "scope", "finished")

    def __init__(
        self,
        done: Callable[[], object],
        function: Callable[..., Awaitable[T]],
        *arguments: Any,
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._done = done
        self._value: T | None = None
        self._error: BaseException | None = None
        self.scope = trio.CancelScope()
        self.finished = False

    async def run(self) -> None:
        """Make the call; what it raises goes to the caller."""
        try:
            with self.scope:
                self._value = await self._function(*self._arguments)
        except trio.Cancelled:
            self._error = stopped()  # nobody has cancelled the call: its broker is gone
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised again where it was called
            self._error = error
        finally:
            self._finish()

    def fail(self, error: BaseException) -> None:
        """It won't be made, or not to its end."""
        if not self.finished:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._done()

    def result(self) -> T:
        """What it returned or raised."""
        if self._error is not None:
            error, self._error = self._error, None  # no cycle through the traceback
            raise error
        return self._value  # type: ignore[return-value]  # None only where T has it
