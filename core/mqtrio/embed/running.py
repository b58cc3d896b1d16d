"""The Trio side of a broker that another host has opened: the task it lives in, and its calls."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from mqtrio.broker import Broker
from mqtrio.embed.calls import Call, stopped
from mqtrio.engine.subscriber import Subscriber
from mqtrio.errors import sole_error

#: What `Broker.subscribe` returns.
Subscription = AbstractAsyncContextManager[Subscriber]


class Running:
    """One broker. Everything here happens in Trio's thread.

    `changed` is called when the broker runs (`broker` is there) and when it has ended (`ended`).
    """

    def __init__(
        self,
        opening: Callable[[], AbstractAsyncContextManager[Broker]],
        changed: Callable[[], object],
    ) -> None:
        self._opening = opening
        self._changed = changed
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._calls: set[Call[Any]] = set()
        self._subscriptions: set[Subscription] = set()
        self.broker: Broker | None = None
        self.ended = False
        #: Why it could not start, or why it has ended by itself.
        self.error: BaseException | None = None

    async def run(self) -> None:
        """Be the broker from its start to its end."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    try:
                        async with self._opening() as broker:
                            self.broker, self._nursery = broker, nursery
                            self._changed()
                            await self._stop.wait()
                    finally:
                        self._nursery = None
                        nursery.cancel_scope.cancel()
        except trio.Cancelled:
            raise
        except BaseExceptionGroup as group:
            self.error = self.error or sole_error(group) or group
        except BaseException as error:  # noqa: BLE001 - it is raised where the broker was opened
            self.error = self.error or error
        finally:
            for subscription in list(self._subscriptions):
                await self.leave(subscription)
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        """It has ended, perhaps because Trio itself has: nobody may wait for it any more."""
        if self.ended:
            return
        self.error = self.error or error
        self.ended = True
        for call in list(self._calls):
            call.fail(stopped())
        self._calls.clear()
        self._changed()

    def stop(self) -> None:
        """Stop gracefully."""
        self._stop.set()

    def abort(self, error: BaseException | None = None) -> None:
        """Stop without waiting for anybody, because of an error or because somebody gave up."""
        self.error = self.error or error
        self._scope.cancel()

    def start(self, call: Call[Any]) -> None:
        """Make a call in a task of its own."""
        if self._nursery is None:
            call.fail(stopped())
            return
        self._calls.add(call)
        self._nursery.start_soon(self._make, call)

    async def _make(self, call: Call[Any]) -> None:
        try:
            await call.run()
        finally:
            self._calls.discard(call)

    async def enter(self, subscription: Subscription) -> Subscriber:
        """Begin to listen; ends with the broker, if nobody leaves."""
        subscriber = await subscription.__aenter__()
        self._subscriptions.add(subscription)
        return subscriber

    async def leave(self, subscription: Subscription) -> None:
        """Listen no more; nothing happens for a subscription that was left before."""
        if subscription in self._subscriptions:
            self._subscriptions.discard(subscription)
            await subscription.__aexit__(None, None, None)
