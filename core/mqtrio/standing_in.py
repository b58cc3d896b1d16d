"""What keeps the door closed while an exclusive plugin is stopped and its successor isn't there."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from mqtrio.errors import PluginError
from mqtrio.hooks.answers import Deny
from mqtrio.hooks.registration import Registration
from mqtrio.hooks.specs import hookimpl

#: Hooks whose answer can wait for the successor. Nothing is decided without it.
_WAIT: Final = (
    "authenticate",
    "admit",
    "authorize_publish",
    "authorize_subscribe",
    "transform_publish",
    "transform_subscribe",
)


class StandIn:
    """Has the place of an exclusive plugin in between; `plugin` is what is plugged in.

    Who asks waits for the successor (within `limits.hook_deadline`) and gets its answer. Where
    nothing can wait, connections are refused, and subscriptions that it filters get nothing.
    """

    def __init__(self, entry: Registration) -> None:
        self._name = entry.name
        self._successor: Registration | None = None
        self._ready = trio.Event()
        methods: dict[str, Any] = {"start": _nothing}
        methods.update((hook, self._asking(hook)) for hook in _WAIT if hook in entry.calls)
        if "accept" in entry.calls:
            methods["accept"] = _refuse
        if "compile_delivery" in entry.calls:
            methods["compile_delivery"] = _compile_nothing
        marked = {name: hookimpl(method) for name, method in methods.items()}
        self.plugin: object = type("StandIn", (), marked)()

    def give_way(self, successor: Registration | None) -> None:
        """Whoever waits is answered by the successor; without one, with a failure."""
        self._successor = successor
        self._ready.set()

    def _asking(self, hook: str) -> Callable[[object, Any], Awaitable[Any]]:
        async def ask(_plugin: object, event: Any) -> Any:
            await self._ready.wait()
            if self._successor is None:
                raise PluginError(f"plugin {self._name!r} could not be started again")
            call = self._successor.calls.get(hook)
            if call is None:
                return None
            answer = call(event)
            return await answer if inspect.isawaitable(answer) else answer

        return ask


def _nothing(self: object, event: Any) -> None:
    """Be a plugin, whatever else there is."""


def _refuse(self: object, event: Any) -> Deny:
    return Deny(why="a plugin is being replaced")


def _compile_nothing(self: object, event: Any) -> Callable[[Any], None]:
    def deliver_nothing(message: Any) -> None:
        return None

    return deliver_nothing
