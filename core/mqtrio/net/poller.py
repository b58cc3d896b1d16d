"""One Trio task that serves every plain socket.

It waits for all sockets at once, takes a *batch* of what is ready, lets each connection of it
handle everything that it received, and then flushes each outbox that got something with one system
call: that is a *turn*. A turn has a budget of work; connections get equal shares of it, and who
wants more goes on in the next batch. When the budget is spent, the other tasks get theirs.
"""

import socket
import time
from collections.abc import Callable
from typing import Final

import trio

from mqtrio.engine.link import LinkCore, PeerFacts
from mqtrio.net.layers import Layer
from mqtrio.net.link import GONE, LINGER, OPEN, reraise
from mqtrio.net.readiness import ENDED, READ, Readiness
from mqtrio.net.sockets import SocketLink

#: Sockets taken into one batch. More would make a turn's flush late for the first of them.
BATCH: Final = 512

#: Of those whose peers have ended, so many are taken into a batch: when thousands leave at once,
#: which is much work and can wait, the others don't wait behind them.
ENDS: Final = 16

#: Of those who have not been let in yet, too: a CONNECT costs a hundred times what a message does.
NEWCOMERS: Final = 16

#: A handshake of this work counts as one newcomer more.
NEWCOMER_WORK: Final = 400

#: The smallest share of a turn: smaller ones cost more than they even out.
SMALLEST_SHARE: Final = 1000

#: Turns before other tasks get theirs, if the budget lasts so long.
TURNS: Final = 8

#: Seconds that a worker thread may have to wait for the GIL. Giving way costs 0.1 ms.
GIVE_WAY: Final = 0.001

#: Stands in a batch for the events of a link that goes on, rather than being ready.
GO_ON: Final = 0


class Poller:
    """The task, its sockets, and the sockets that linger.

    `released` is called whenever a link is gone, with its peer.
    """

    def __init__(
        self, core: LinkCore, released: Callable[[PeerFacts], object] = lambda peer: None
    ) -> None:
        self.core = core
        self.readiness = Readiness()
        self.links: dict[int, SocketLink] = {}
        #: Turns made; for tests and statistics.
        self.turns = 0
        #: Work in a turn before other tasks get theirs.
        self.budget = core.settings.limits.turn_budget
        self._threads = trio.to_thread.current_default_thread_limiter()
        self._gave_way = 0.0
        self._released = released
        # Those that go on, for the next batch; and what a spent budget left of the last one.
        self._next: list[tuple[SocketLink, int]] = []
        self._batch: list[tuple[SocketLink, int]] = []
        # Those whose peers have ended, and who are not watched meanwhile.
        self._ended: list[SocketLink] = []
        # Those who are about to come in, not watched either.
        self._newcomers: list[SocketLink] = []
        # Work that one visit of this batch may be.
        self._share = self.budget
        self._waiting = False
        self._kicked = False
        # In the order of their deadlines, because all linger equally long.
        self._lingering: dict[SocketLink, float] = {}
        self._lingers = trio.Event()

    def adopt(self, sock: socket.socket, peer: PeerFacts, layer: Layer | None) -> SocketLink | None:
        """Serve a connected, non-blocking socket; None (and a closed socket) if it is refused."""
        link = SocketLink(self.core, peer, layer, self, sock)
        try:
            connection = self.core.accept(link)
        except BaseException:
            sock.close()
            raise
        if connection is None:
            sock.close()
            return None
        link.conn = connection
        self.links[link.fd] = link
        try:
            link.watch(READ)
            link.begin()
        except Exception as error:  # noqa: BLE001 (the engine judges it)
            self.core.guard(connection, reraise, error)
        return link

    # -- for links

    def enqueue(self, link: SocketLink) -> None:
        """Let a link's connection go on in the next batch."""
        self._next.append((link, GO_ON))
        self._ring()

    def kick(self) -> None:
        """Make a turn soon, though nothing may be ready."""
        self._kicked = True
        self._ring()

    def _ring(self) -> None:
        if self._waiting:
            self._waiting = False
            self.readiness.ring()

    def linger(self, link: SocketLink) -> None:
        """Close a link in LINGER seconds, unless it is gone by then."""
        self._lingering.pop(link, None)
        self._lingering[link] = trio.current_time() + LINGER
        self._lingers.set()

    def forget(self, link: SocketLink) -> None:
        """A link is gone."""
        del self.links[link.fd]
        self._lingering.pop(link, None)
        self._released(link.peer)

    # -- the tasks

    async def run(self) -> None:
        """Serve for ever."""
        budget = self.budget
        while True:
            if self._batch or self._next or self._ended or self._newcomers or self._kicked:
                await trio.lowlevel.checkpoint()
            else:
                self._waiting = True
                await trio.lowlevel.wait_readable(self.readiness.fileno())
                self._waiting = False
            spent = 0
            for _ in range(TURNS):
                if not self._gather():
                    break
                spent += self._turn(budget - spent)
                if spent >= budget:
                    break

    async def sweep(self) -> None:
        """Close the sockets whose peers don't end, for ever."""
        lingering = self._lingering
        while True:
            if not lingering:
                self._lingers = trio.Event()
                await self._lingers.wait()
                continue
            await trio.sleep_until(next(iter(lingering.values())))
            now = trio.current_time()
            for link, deadline in list(lingering.items()):
                if deadline > now:
                    break
                link.dispose()

    def drop(self) -> None:
        """Let all links go at once; connections that the engine has not closed are lost."""
        for link in list(self.links.values()):
            if not link.conn.closed:
                self.core.guard(link.conn, link.conn.lost)
        self.core.flush()
        for link in list(self.links.values()):
            link.dispose()

    def close(self) -> None:
        """Give the descriptors back; `run` must have ended."""
        self.readiness.close()

    # -- a turn

    def _gather(self) -> bool:
        """Fill the batch, unless the last one is not finished; False if there is nothing to do."""
        if self._batch:
            return True
        batch = self._next
        self._next = []
        links = self.links
        room = NEWCOMERS
        # Descriptors are resolved now: a batch may last for several turns, and a descriptor be
        # another connection's by then.
        for fd, events in self.readiness.ready(BATCH):
            link = links.get(fd)
            if link is None:
                self.readiness.hush(fd)
            elif events & ENDED and link.state == OPEN and link.tail is None:
                link.watch(0)
                self._ended.append(link)
            elif events == READ and not link.conn.announced and link.state == OPEN:
                if room > 0 and not self._newcomers:
                    room -= 1 + link.handshake_work // NEWCOMER_WORK
                    batch.append((link, events))
                else:
                    link.watch(0)
                    self._newcomers.append(link)
            else:
                batch.append((link, events))
        if self._newcomers and room > 0:
            self._admit(batch, self._newcomers, room)
        if self._ended:
            self._admit(batch, self._ended, ENDS)
        self._batch = batch
        self._share = max(SMALLEST_SHARE, self.budget // max(1, len(batch)))
        return bool(batch) or self._kicked

    def _admit(
        self, batch: list[tuple[SocketLink, int]], queue: list[SocketLink], most: int
    ) -> None:
        """Take some of those who wait behind the others into the batch, and watch them again."""
        taken = 0
        for link in queue:
            if most <= 0:
                break
            taken += 1
            most -= 1 + link.handshake_work // NEWCOMER_WORK
            if link.state != GONE:
                link.watch(link.watched | READ)
                batch.append((link, READ))
        del queue[:taken]

    def _turn(self, budget: int) -> int:
        """Serve the batch within a budget, then flush; returns the work that it was."""
        core = self.core
        begin = time.perf_counter()
        core.tick()
        self.turns += 1
        self._kicked = False
        batch = self._batch
        # A thread beside a busy loop starves: whenever the GIL is free for a moment only, it
        # begins to wait anew. While one is at work turns are short, and give way to it.
        beside = self._threads.borrowed_tokens
        if beside:
            budget //= 4
        share = min(self._share, max(SMALLEST_SHARE, budget))
        # The engine stops a connection when `work` reaches the whole budget, so that a count which
        # begins just below it gives a share.
        start = self.budget - share
        spent = served = 0
        for link, events in batch:
            core.work = start
            served += 1
            try:
                if events == READ:
                    link.readable()
                elif events:
                    link.signalled(events)
                else:
                    link.proceed()
            except Exception as error:  # noqa: BLE001 (the engine judges it)
                core.guard(link.conn, reraise, error)
            spent += core.work - start
            if spent >= budget:
                break
        self._batch = batch[served:]
        core.work = 0
        core.flush()
        core.turn_took(time.perf_counter() - begin)
        if beside and time.perf_counter() - self._gave_way > GIVE_WAY:
            time.sleep(0)
            self._gave_way = time.perf_counter()
        return spent + core.work
