"""A broker for programs without an event loop: Trio in a thread of its own, and blocking calls."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, suppress
from functools import partial, wraps
from queue import SimpleQueue
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import trio

from mqtrio.broker import Broker
from mqtrio.embed.calls import Call, stopped
from mqtrio.embed.running import Running
from mqtrio.engine.subscriber import ReceivedMessage, Subscriber
from mqtrio.errors import BrokerStopped
from mqtrio.net.addresses import BoundAddress
from mqtrio.opening import open_broker
from mqtrio.state.session import Delivery

P = ParamSpec("P")
T = TypeVar("T")

#: Messages that one way to the broker's thread brings along.
BATCH: Final = 100


class BrokerThread:
    """The thread of one broker, and the way to it for all others."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Broker]]) -> None:
        self._changed = SimpleQueue[None]()
        self._process = os.getpid()
        #: Set when Trio runs in the thread, or never will.
        self._began = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self.running = Running(opening, changed=lambda: self._changed.put(None))
        # A daemon: whoever never leaves the block must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="mqtrio broker", daemon=True)

    def _work(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - it is raised where the broker was opened
            self.running.end(error)
        finally:
            self._began.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._began.set()
        await self.running.run()

    def start(self) -> None:
        """Return when the broker runs, or couldn't. Ctrl-C ends it, and is raised."""
        self._thread.start()
        try:
            self._changed.get()
        except BaseException:
            self.leave(self.running.abort)
            raise

    def leave(self, how: Callable[[], object]) -> None:
        """Stop the broker, `how` it is said, and wait for its end; Ctrl-C shortens that."""
        interrupted: KeyboardInterrupt | None = None
        self._say(how)
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt as error:
                interrupted = error
                self._say(self.running.abort)
        if interrupted is not None:
            raise interrupted

    def _say(self, what: Callable[[], object]) -> None:
        if os.getpid() != self._process:
            return  # a fork has the broker's sockets, but not its thread
        self._began.wait()
        with suppress(trio.RunFinishedError):
            if self._token is not None:
                self._token.run_sync_soon(what)

    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run a Trio function in the broker's thread, and wait for it."""
        ended = SimpleQueue[None]()
        call = Call(lambda: ended.put(None), function, *arguments)
        self._ask(partial(self.running.start, call))
        try:
            ended.get()
        except BaseException:  # Ctrl-C: nobody waits for it any more
            self._say(call.scope.cancel)
            raise
        return call.result()

    def call_sync(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the broker's thread, and wait for it."""

        async def call() -> T:
            return function(*arguments)

        return self.call(call)

    def _ask(self, what: Callable[[], object]) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a blocking call in the broker's own thread would wait for itself: "
                "plugins use event.broker"
            )
        if os.getpid() != self._process:
            raise BrokerStopped("the broker runs in the process that this one was forked from")
        assert self._token is not None
        try:
            self._token.run_sync_soon(what)
        except trio.RunFinishedError:
            raise stopped() from None


def blocking(
    method: Callable[Concatenate[Broker, P], Awaitable[T]],
) -> Callable[Concatenate["BlockingBroker", P], T]:
    """A method that waits, for callers that block."""

    @wraps(method)
    def call(self: "BlockingBroker", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.call(partial(method, self._broker, *args, **kwargs))

    return call


def passed(
    method: Callable[Concatenate[Broker, P], T],
) -> Callable[Concatenate["BlockingBroker", P], T]:
    """A method that doesn't wait, called in the broker's thread."""

    @wraps(method)
    def call(self: "BlockingBroker", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.call_sync(partial(method, self._broker, *args, **kwargs))

    return call


def subscribing(
    method: Callable[Concatenate[Broker, P], AbstractAsyncContextManager[Subscriber]],
) -> Callable[Concatenate["BlockingBroker", P], AbstractContextManager["BlockingSubscriber"]]:
    """`subscribe` for a `with` block."""

    @wraps(method)
    @contextmanager
    def subscribe(
        self: "BlockingBroker", /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[BlockingSubscriber]:
        thread = self._thread
        subscription = method(self._broker, *args, **kwargs)
        subscriber = thread.call(thread.running.enter, subscription)
        try:
            yield BlockingSubscriber(thread, subscriber)
        finally:
            with suppress(BrokerStopped):
                thread.call(thread.running.leave, subscription)

    return subscribe


class BlockingSubscriber:
    """`Subscriber` for programs that block: an iterator of messages, for one thread or several."""

    def __init__(self, thread: BrokerThread, subscriber: Subscriber) -> None:
        self._thread = thread
        self._subscriber = subscriber
        self._taken = deque[ReceivedMessage]()

    @property
    def dropped(self) -> int:
        """Messages that it did not get because it was full."""
        return self._subscriber.dropped

    def __iter__(self) -> "BlockingSubscriber":
        return self

    def __next__(self) -> ReceivedMessage:
        """The next message, as `receive` gives it; no more come after `timeout` of `subscribe`."""
        try:
            return self.receive(timeout=self._subscriber.timeout)
        except trio.TooSlowError:
            raise StopIteration from None

    def receive(self, *, timeout: float | None = None) -> ReceivedMessage:
        """The next message, or an exception: see `mqtrio.Subscriber.receive`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._taken.popleft()
            except IndexError:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._thread.call(self._fill, left)

    async def _fill(self, timeout: float | None) -> None:
        """Bring over what is there. An interrupted caller loses nothing: the next one gets it."""
        subscriber = self._subscriber
        if self._taken:
            return
        if not subscriber.ready:
            await subscriber.wait(timeout)
        for _ in range(min(BATCH, max(1, len(subscriber)))):
            message = subscriber.take()
            if message._subscriber is not None:
                message._subscriber = self
            self._taken.append(message)

    def acknowledge(self, delivery: Delivery) -> None:
        """A message of a durable session is dealt with."""
        self._thread.call_sync(self._subscriber.acknowledge, delivery)


class BlockingBroker:
    """`Broker` for programs that block; made by `open_thread_broker`, for all of its threads.

    The methods are those of `Broker`, with the same arguments, and wait where those are awaited.
    """

    def __init__(self, thread: BrokerThread) -> None:
        assert thread.running.broker is not None
        self._thread = thread
        self._broker = thread.running.broker

    @property
    def listeners(self) -> tuple[BoundAddress, ...]:
        """Where it listens: `url`, `host` and `port` of each, the port as it was given out."""
        return self._broker.listeners

    @property
    def plugins(self) -> Mapping[str, object]:
        """The plugins by name, in the order in which they are asked."""
        return self._thread.call_sync(lambda: dict(self._broker.plugins))

    publish = blocking(Broker.publish)
    subscribe = subscribing(Broker.subscribe)
    request = blocking(Broker.request)
    retained = passed(Broker.retained)
    clients = passed(Broker.clients)
    sessions = passed(Broker.sessions)
    disconnect = passed(Broker.disconnect)
    revoke = passed(Broker.revoke)
    end_session = passed(Broker.end_session)
    add_plugin = blocking(Broker.add_plugin)
    remove_plugin = blocking(Broker.remove_plugin)
    reconsider = passed(Broker.reconsider)
    reload = blocking(Broker.reload)
    explain = blocking(Broker.explain)
    statistics = passed(Broker.statistics)
    stop = passed(Broker.stop)
    wait_stopped = blocking(Broker.wait_stopped)


def opener(
    opening: Callable[P, AbstractAsyncContextManager[Broker]],
) -> Callable[P, AbstractContextManager[BlockingBroker]]:
    """`open_broker` for a `with` block."""

    @contextmanager
    def open_thread_broker(*args: P.args, **kwargs: P.kwargs) -> Iterator[BlockingBroker]:
        """A running broker in a thread of its own, for the length of the block.

        The arguments are those of `mqtrio.open_broker`, as is what is raised. Leaving the block
        stops gracefully, at once if an exception does. If the broker ends under way, those who call
        it get BrokerStopped, and the block raises what has ended it.
        """
        thread = BrokerThread(partial(opening, *args, **kwargs))
        thread.start()
        running = thread.running
        try:
            if running.broker is not None:
                yield BlockingBroker(thread)
        except BaseException as error:
            if sys.is_finalizing():  # nobody has ever left the block, and threads run no more
                raise
            thread.leave(running.abort)
            if running.error is None:
                raise
            if not isinstance(error, BrokerStopped):
                error.add_note(f"and the broker has ended: {running.error!r}")
                raise
        else:
            thread.leave(running.stop)
        if running.error is not None:
            raise running.error

    return wraps(opening, assigned=(), updated=())(open_thread_broker)


open_thread_broker = opener(open_broker)
