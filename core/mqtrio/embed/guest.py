"""Trio as a guest of asyncio: one run for each thread, which all of its brokers share."""

import asyncio
import contextvars
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Optional

import trio
from outcome import Error, Outcome

from mqtrio.embed.running import Running

log = logging.getLogger("mqtrio")

#: Where a thread's guest is found: in the run itself.
GUEST: Final = trio.lowlevel.RunVar["Guest | None"]("mqtrio.embed", None)

#: How often a loop is reminded of us: seldom.
YEAR: Final = 365 * 24 * 3600.0


def _trio_runs() -> bool:
    try:
        trio.lowlevel.current_root_task()
    except RuntimeError:
        return False
    return True


class Waiter:
    """Lets a task of asyncio wait for what happens in Trio."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Something has happened."""
        if self._future is not None and not self._future.done() and not self._loop.is_closed():
            self._future.set_result(None)

    async def wait(self, finished: Callable[[], bool], cancel: Callable[[], object]) -> None:
        """Wait until it is `finished`; being cancelled calls `cancel` and goes on waiting."""
        cancelled: asyncio.CancelledError | None = None
        while not finished():
            self._future = self._loop.create_future()
            try:
                await self._future
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                cancel()
            except GeneratorExit:  # nobody will ever go on with the task
                cancel()
                raise
        if cancelled is not None:
            raise cancelled


class Keeper:
    """Held by a timer of a loop and by nothing else, so that it goes when the loop is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.timer: Callable[[], asyncio.TimerHandle | None] = self.keep()

    def keep(self) -> Callable[[], asyncio.TimerHandle | None]:
        """Make the loop hold us for another while."""
        self.timer = weakref.ref(self._loop.call_later(YEAR, self.keep))
        return self.timer


class Host:
    """A loop of asyncio in which brokers are open, as the guest sees it."""

    def __init__(self, guest: "Guest", loop: asyncio.AbstractEventLoop) -> None:
        self.guest = guest
        self.loop = loop
        self.running: set[Running] = set()
        self._called = False
        # Not the context of who happens to be running when Trio has something to do.
        self._context = contextvars.Context()
        keeper = Keeper(loop)
        self._timer = weakref.ref(keeper)
        self._closed = weakref.finalize(keeper, guest.loop_closed, self)

    def call(self, *, threadsafe: bool) -> None:
        """Let the loop call the guest soon."""
        if self._called:
            return
        self._called = True
        soon = self.loop.call_soon_threadsafe if threadsafe else self.loop.call_soon
        try:
            soon(self._call, context=self._context)
        except RuntimeError:  # it is closed: `loop_closed` sees to the rest
            self._called = False

    def _call(self) -> None:
        self._called = False
        self.guest.tick()

    def forget(self) -> None:
        """The loop is no host any more."""
        self._closed.detach()
        keeper = self._timer()
        timer = keeper.timer() if keeper is not None else None
        if timer is not None:
            timer.cancel()


class Guest:
    """A run of Trio inside of asyncio; begins with the first broker and ends with the last one.

    What Trio wants to be called waits in a queue of ours, not in the loop's, so that a loop which
    is closed early takes nothing with it: `loop_closed` then runs Trio to its end.
    """

    def __init__(self) -> None:
        self._queue = SimpleQueue[Callable[[], object]]()
        self._hosts: dict[asyncio.AbstractEventLoop, Host] = {}
        self._thread = threading.get_ident()
        if _trio_runs():
            raise RuntimeError("Trio runs in this thread already: use mqtrio.open_broker there")
        self._over = trio.Event()
        self._waiters: list[Waiter] = []
        self.closing = False
        self.done = False
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._call_from_thread,
            run_sync_soon_not_threadsafe=self._call_soon,
            done_callback=self._done,
            host_uses_signal_set_wakeup_fd=True,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
        GUEST.set(self)
        self._hooks = sys.get_asyncgen_hooks()

    # -- what Trio wants

    def _call_from_thread(self, function: Callable[[], object]) -> None:
        self._queue.put(function)
        for host in list(self._hosts.values()):
            host.call(threadsafe=True)

    def _call_soon(self, function: Callable[[], object]) -> None:
        self._queue.put(function)
        for host in self._hosts.values():
            host.call(threadsafe=False)

    def tick(self) -> None:
        """Call what Trio wants to be called, as far as it wants it now."""
        for _ in range(self._queue.qsize()):
            self._step()

    def _step(self) -> None:
        function = self._queue.get()
        hooks = sys.get_asyncgen_hooks()
        try:
            function()
        except BaseException as error:
            self._finish(error)  # a second Ctrl-C can hit anywhere
            raise
        if self.done and hooks != self._hooks:
            # Trio puts back the hooks that it has found; this is another loop, with its own.
            sys.set_asyncgen_hooks(*hooks)

    async def _main(self) -> None:
        while True:
            try:
                await self._over.wait()
            except KeyboardInterrupt as error:
                for host in self._hosts.values():
                    for running in host.running:
                        running.abort(error)
            else:
                return

    def _done(self, result: Outcome[Any]) -> None:
        self._finish(result.error if isinstance(result, Error) else None)

    def _finish(self, error: BaseException | None) -> None:
        self.closing = self.done = True
        for host in list(self._hosts.values()):
            for running in list(host.running):
                running.end(error)
            host.forget()
        for waiter in self._waiters:
            waiter.ring()

    # -- what brokers want

    @staticmethod
    def current() -> Optional["Guest"]:
        """The guest of this thread, if there is one."""
        try:
            return GUEST.get()
        except RuntimeError:  # Trio doesn't run here
            return None

    @classmethod
    async def join(cls, running: Running) -> "Guest":
        """Let the guest of this thread run a broker; there will be one if there is none."""
        while (guest := cls.current()) is not None and guest.closing:
            await guest.wait_done()
        if guest is None:
            guest = cls()
        loop = asyncio.get_running_loop()
        host = guest._hosts.get(loop)
        if host is None:
            host = guest._hosts[loop] = Host(guest, loop)
            host.call(threadsafe=False)
        host.running.add(running)
        trio.lowlevel.spawn_system_task(running.run, name="mqtrio broker")
        return guest

    def leave(self, running: Running) -> None:
        """A broker has ended; the guest does with the last one. See `wait_done`."""
        for loop, host in list(self._hosts.items()):
            host.running.discard(running)
            if not host.running and len(self._hosts) > 1:
                host.forget()
                del self._hosts[loop]
        if not self.closing and not any(host.running for host in self._hosts.values()):
            self.closing = True
            self._over.set()

    async def wait_done(self) -> None:
        """Wait until a guest that is closing is gone."""
        waiter = Waiter()
        self._waiters.append(waiter)
        await waiter.wait(lambda: self.done, lambda: None)

    def loop_closed(self, host: Host) -> None:
        """A loop was closed (or the process ends) while brokers are open in it: end them here."""
        if threading.get_ident() != self._thread:
            log.error("the loop of a broker was closed in another thread, which can't end it")
            return
        for running in host.running:
            running.abort()
        while not self.done and not all(running.ended for running in host.running):
            self._step()
        for running in list(host.running):
            self.leave(running)
        while self.closing and not self.done:
            self._step()
