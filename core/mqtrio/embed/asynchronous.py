"""A broker for asyncio programs: Trio as a guest of their loop, and methods that asyncio awaits."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from mqtrio.broker import Broker
from mqtrio.embed.calls import Call, stopped
from mqtrio.embed.guest import Guest, Waiter
from mqtrio.embed.running import Running, Subscription
from mqtrio.engine.subscriber import ReceivedMessage, Subscriber
from mqtrio.errors import BrokerStopped
from mqtrio.net.addresses import BoundAddress
from mqtrio.opening import open_broker

P = ParamSpec("P")
T = TypeVar("T")


async def call(running: Running, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run a Trio function for a task of asyncio; cancelling that cancels this."""
    waiter = Waiter()
    made = Call(waiter.ring, function, *arguments)
    running.start(made)
    await waiter.wait(lambda: made.finished, made.scope.cancel)
    return made.result()


def awaited(
    method: Callable[Concatenate[Broker, P], Awaitable[T]],
) -> Callable[Concatenate["AsyncioBroker", P], Coroutine[Any, Any, T]]:
    """A method that waits, for asyncio to await."""

    @wraps(method)
    async def called(self: "AsyncioBroker", /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_thread()
        return await call(self._running, partial(method, self._broker, *args, **kwargs))

    return called


def passed(
    method: Callable[Concatenate[Broker, P], T],
) -> Callable[Concatenate["AsyncioBroker", P], T]:
    """A method that doesn't wait: asyncio runs in Trio's thread, so it is called as it is."""

    @wraps(method)
    def called(self: "AsyncioBroker", /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_thread()
        if self._running.ended:
            raise stopped()
        return method(self._broker, *args, **kwargs)

    return called


def subscribing(
    method: Callable[Concatenate[Broker, P], AbstractAsyncContextManager[Subscriber]],
) -> Callable[Concatenate["AsyncioBroker", P], AbstractAsyncContextManager["AsyncioSubscriber"]]:
    """`subscribe` for asyncio's `async with`."""

    @wraps(method)
    def subscribe(
        self: "AsyncioBroker", /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncioSubscription:
        self._check_thread()
        return AsyncioSubscription(self._running, method(self._broker, *args, **kwargs))

    return subscribe


class AsyncioSubscriber:
    """`Subscriber` for asyncio: an asynchronous iterator of messages."""

    def __init__(self, running: Running, subscriber: Subscriber) -> None:
        self._running = running
        self._subscriber = subscriber

    @property
    def dropped(self) -> int:
        """Messages that it did not get because it was full."""
        return self._subscriber.dropped

    def __aiter__(self) -> "AsyncioSubscriber":
        return self

    async def __anext__(self) -> ReceivedMessage:
        """The next message, as `receive` gives it; no more come after `timeout` of `subscribe`."""
        try:
            return await self.receive(timeout=self._subscriber.timeout)
        except trio.TooSlowError:
            raise StopAsyncIteration from None

    async def receive(self, *, timeout: float | None = None) -> ReceivedMessage:
        """The next message, or an exception: see `mqtrio.Subscriber.receive`."""
        # Taken only here, when nothing can come between any more: being cancelled loses no message.
        await asyncio.sleep(0)
        deadline = None if timeout is None else trio.current_time() + timeout
        while not self._subscriber.ready:
            left = None if deadline is None else max(0.0, deadline - trio.current_time())
            await call(self._running, self._subscriber.wait, left)
        return self._subscriber.take()


class AsyncioSubscription(AbstractAsyncContextManager[AsyncioSubscriber]):
    """What `AsyncioBroker.subscribe` returns."""

    def __init__(self, running: Running, subscription: Subscription) -> None:
        self._running = running
        self._subscription = subscription

    async def __aenter__(self) -> AsyncioSubscriber:
        running = self._running
        try:
            subscriber = await call(running, running.enter, self._subscription)
        except BaseException:
            self._leave()  # cancelled, perhaps when it was already there
            raise
        return AsyncioSubscriber(running, subscriber)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is GeneratorExit:
            self._leave()
            return
        try:
            await call(self._running, self._running.leave, self._subscription)
        except BrokerStopped:
            pass  # and the subscription with it

    def _leave(self) -> None:
        self._running.start(Call(lambda: None, self._running.leave, self._subscription))


class AsyncioBroker:
    """`Broker` for asyncio; made by `open_asyncio_broker`, for the tasks of its loop.

    The methods are those of `Broker`, with the same arguments.
    """

    def __init__(self, running: Running) -> None:
        assert running.broker is not None
        self._running = running
        self._broker = running.broker
        self._thread = threading.get_ident()

    def _check_thread(self) -> None:
        """Nothing of a broker is made for two threads at one time."""
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "a broker of asyncio is called in the thread of its loop: from another one by "
                "asyncio.run_coroutine_threadsafe, or use mqtrio.embed.open_thread_broker"
            )

    @property
    def listeners(self) -> tuple[BoundAddress, ...]:
        """Where it listens: `url`, `host` and `port` of each, the port as it was given out."""
        return self._broker.listeners

    @property
    def plugins(self) -> Mapping[str, object]:
        """The plugins by name, in the order in which they are asked."""
        return self._broker.plugins

    publish = awaited(Broker.publish)
    subscribe = subscribing(Broker.subscribe)
    request = awaited(Broker.request)
    retained = passed(Broker.retained)
    clients = passed(Broker.clients)
    sessions = passed(Broker.sessions)
    disconnect = passed(Broker.disconnect)
    revoke = passed(Broker.revoke)
    end_session = passed(Broker.end_session)
    add_plugin = awaited(Broker.add_plugin)
    remove_plugin = awaited(Broker.remove_plugin)
    reconsider = passed(Broker.reconsider)
    reload = awaited(Broker.reload)
    explain = awaited(Broker.explain)
    statistics = passed(Broker.statistics)
    stop = passed(Broker.stop)
    wait_stopped = awaited(Broker.wait_stopped)


class AsyncioOpening(AbstractAsyncContextManager[AsyncioBroker]):
    """What `open_asyncio_broker` returns."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Broker]]) -> None:
        self._running = Running(opening, self._changed)
        self._waiter: Waiter | None = None
        self._guest: Guest | None = None
        #: The task in the block, while it is there; cancelled if the broker ends under way.
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._cancelled = False
        #: Nobody will wait for the end.
        self._abandoned = False

    def _changed(self) -> None:
        if self._waiter is not None:
            self._waiter.ring()
        if self._running.ended and self._task is not None and not self._task.done():
            self._cancelled = self._task.cancel()
        if self._running.ended and self._abandoned and self._guest is not None:
            self._guest.leave(self._running)

    async def __aenter__(self) -> AsyncioBroker:
        running = self._running
        self._waiter = Waiter()
        self._guest = await Guest.join(running)
        try:
            await self._waiter.wait(
                lambda: running.broker is not None or running.ended, running.abort
            )
        except GeneratorExit:
            self._abandoned = True
            raise
        except asyncio.CancelledError:
            await self._end()
            raise
        if running.broker is None:
            await self._end()
            assert running.error is not None
            raise running.error
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        return AsyncioBroker(running)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        running, task = self._running, self._task
        self._task = None
        if kind is None:
            running.stop()
        else:
            running.abort()
        if kind is GeneratorExit:  # the task was thrown away, and can't wait
            self._abandoned = True
            return
        await self._end()
        if self._cancelled and task is not None and task is asyncio.current_task():
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                kind = None
        if running.error is None:
            return
        if kind is None or kind is BrokerStopped:
            raise running.error
        assert error is not None
        error.add_note(f"and the broker has ended: {running.error!r}")

    async def _end(self) -> None:
        """Wait for the end of the broker, and of the guest if it was the last one."""
        running, guest = self._running, self._guest
        assert guest is not None
        waiter = self._waiter = Waiter()
        cancelled: asyncio.CancelledError | None = None
        try:
            await waiter.wait(lambda: running.ended, running.abort)
        except asyncio.CancelledError as error:
            cancelled = error
        except GeneratorExit:
            self._abandoned = True
            raise
        guest.leave(running)
        if guest.closing:
            await guest.wait_done()
        if cancelled is not None:
            raise cancelled


def opener(
    opening: Callable[P, AbstractAsyncContextManager[Broker]],
) -> Callable[P, AbstractAsyncContextManager[AsyncioBroker]]:
    """`open_broker` for asyncio's `async with`."""

    def open_asyncio_broker(
        *args: P.args, **kwargs: P.kwargs
    ) -> AbstractAsyncContextManager[AsyncioBroker]:
        """A running broker inside of a program of asyncio, for the length of the block.

        The arguments are those of `mqtrio.open_broker`, as is what is raised. Leaving the block
        stops gracefully, at once if an exception does. If the broker ends under way, the task in
        the block is cancelled, and the block raises what has ended the broker.
        """
        return AsyncioOpening(partial(opening, *args, **kwargs))

    return wraps(opening, assigned=(), updated=())(open_asyncio_broker)


open_asyncio_broker = opener(open_broker)
