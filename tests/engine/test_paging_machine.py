"""Paging beside a plain list: whatever happens, each client gets what it was promised, in order.

Two sessions have the same messages: one takes them at QoS 1, the other at QoS 2. Two more share a
subscription to others. Messages are numbered in the order in which they are published; commits and
reads fail, brokers crash, clients come and go and take over their sessions. MQTRIO_EXAMPLES says
how many such stories are told (a few, if it isn't set).
"""

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from trio.testing import MockClock

from mqtrio import RefusedError, StoreError
from mqtrio.testing import FaultyStore, Harness, Peer, open_harness
from mqtrio.wire.packets import PubAck, PubComp, Publish, PubRec, PubRel
from tests.engine.agreement import agree

EXAMPLES = int(os.environ.get("MQTRIO_EXAMPLES", "12"))

#: The wall clock when a story begins.
NOON = 1_700_000_000.0

#: Lifetime of those messages that have one, in seconds.
SHORT = 20

Step = Callable[[], Awaitable[Any]]


class Listener:
    """A client with a lasting session, and the plain list of what it must still get."""

    def __init__(self, name: str, qos: int) -> None:
        self.name = name
        self.qos = qos
        self.peer: Peer | None = None
        #: Numbers that it was promised, with the time when each expires.
        self.expected: list[tuple[int, float]] = []
        #: Taken, and perhaps the store does not know it: at QoS 1 they may come again.
        self.unsure: set[int] = set()
        #: Left out because they had expired; perhaps the store does not know it.
        self.expired: set[int] = set()
        #: Refused to the publisher; at QoS 1 they may have been sent before.
        self.refused: set[int] = set()
        #: Packet identifiers of QoS 2 messages that were received and not released.
        self.held: set[int] = set()
        self.last = -1

    async def connect(self, harness: Harness, window: int) -> None:
        self.last = -1
        peer = harness.peer(self.name)
        await peer.connect(
            clean_start=False, session_expiry_interval=100_000, receive_maximum=window
        )
        self.peer = peer

    async def drop(self) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            await peer.drop()

    async def take(self, count: int) -> int:
        """Take and acknowledge `count` messages, or what there is; returns how many that were."""
        taken = 0
        while taken < count and self.peer is not None:
            packet = await self._next(self.peer)
            if packet is None:
                break
            if isinstance(packet, Publish):
                taken += await self._take(self.peer, packet)
            elif isinstance(packet, PubRel):
                self.held.discard(packet.packet_id)
                await self._send(PubComp(packet.packet_id))
        return taken

    async def _next(self, peer: Peer) -> Any:
        try:
            with trio.move_on_after(30):  # while the store is slow
                return await peer.receive()
        except AssertionError:  # the broker has closed the connection
            self.peer = None
        return None

    async def _send(self, packet: Any) -> None:
        if self.peer is not None:
            try:
                await self.peer.send(packet)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.peer = None

    async def _take(self, peer: Peer, packet: Publish) -> bool:
        number = int(packet.payload)
        assert packet.qos == self.qos
        if packet.qos == 1:
            assert number > self.last, "out of order, or twice on one connection"
            self.last = number
            if number not in self.unsure and not (number in self.refused and not packet.dup):
                self._came(number)
            self.unsure.add(number)
            await self._send(PubAck(packet.packet_id))
            return True
        fresh = packet.packet_id not in self.held
        if fresh:
            assert number not in self.refused
            self._came(number)
            self.unsure.add(number)
            self.held.add(packet.packet_id)
        await self._send(PubRec(packet.packet_id))
        return fresh

    def _came(self, number: int) -> None:
        """The next one that it was promised; what has expired may be left out."""
        while self.expected and self.expected[0][0] < number:
            skipped, expires = self.expected.pop(0)
            assert expires <= trio.current_time(), f"{skipped} is missing before {number}"
            self.expired.add(skipped)
        assert self.expected, f"{number} was not promised, or came twice"
        assert self.expected[0][0] == number
        self.expected.pop(0)

    def refuse(self, number: int) -> None:
        """A message could not be stored after all."""
        self.refused.add(number)
        if self.expected and self.expected[-1][0] == number:
            self.expected.pop()
        else:
            assert self.qos == 1, "it was sent before it was stored"

    def outlived(self) -> list[int]:
        """What it must get in any case."""
        now = trio.current_time()
        return [number for number, expires in self.expected if expires > now]


class Group:
    """What the members of a shared subscription must get between them."""

    def __init__(self) -> None:
        self.qos = 2
        self.expected: dict[int, float] = {}
        self.refused: set[int] = set()
        self.got: Counter[int] = Counter()

    def refuse(self, number: int) -> None:
        """A message could not be stored after all."""
        del self.expected[number]
        self.refused.add(number)
        assert self.qos == 1 or not self.got[number], "it was sent before it was stored"

    def outlived(self) -> set[int]:
        """What they must still get in any case."""
        now = trio.current_time()
        return {
            number
            for number, expires in self.expected.items()
            if expires > now and not self.got[number]
        }


class Member(Listener):
    """A client with a lasting session and its part of a shared subscription."""

    def __init__(self, name: str, group: Group) -> None:
        super().__init__(name, 0)
        self.group = group

    async def _take(self, peer: Peer, packet: Publish) -> bool:
        group = self.group
        assert packet.qos == group.qos
        fresh = packet.qos == 1 or packet.packet_id not in self.held
        if fresh:
            number = int(packet.payload)
            group.got[number] += 1
            assert number in group.expected or number in group.refused
            if packet.qos == 2:
                assert number not in group.refused
                assert group.got[number] == 1, f"{number} came twice"
                self.held.add(packet.packet_id)
        await self._send((PubAck if packet.qos == 1 else PubRec)(packet.packet_id))
        return fresh


#: Of all sessions.
WHICH = st.integers(0, 3)


class Paging(RuleBasedStateMachine):
    """A broker with a tiny window, in a thread that does one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        wall = SimpleNamespace(time=lambda: NOON + trio.current_time())
        self.patch.setattr("mqtrio.clock.time", wall)
        self.steps: SimpleQueue[Step | None] = SimpleQueue()
        self.answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self.listeners = (Listener("once or more", 1), Listener("once", 2))
        self.group = Group()
        self.members = (Member("left", self.group), Member("right", self.group))
        self.clients = (*self.listeners, *self.members)
        self.published = 0
        self.store = FaultyStore()
        self.limits: dict[str, Any] = {}
        self.crashed = False
        self.thread = Thread(target=self._thread)
        self.thread.start()

    # -- the thread

    def _thread(self) -> None:
        try:
            trio.run(self._lives, clock=MockClock(autojump_threshold=0))
        except BaseException as error:  # noqa: BLE001 - raised by `do`
            self.answers.put(error)

    async def _lives(self) -> None:
        """One broker after the other, each on what the last one has left in the store."""
        while await self._life():
            self.store = FaultyStore(self.left)

    async def _life(self) -> bool:
        first = self.steps.get()
        if first is None:
            return False
        async with open_harness(store=self.store, limits=self.limits) as self.harness:
            step: Step | None = first
            while step is not None:
                error: BaseException | None = None
                try:
                    await step()
                except Exception as raised:  # noqa: BLE001 - raised by `do`
                    error = raised
                self.answers.put(error)
                if self.crashed:
                    self.crashed = False
                    return True
                step = self.steps.get()
        return False

    def do(self, step: Step) -> None:
        """Let the thread do it."""
        self.steps.put(step)
        error = self.answers.get()
        if error is not None:
            raise error

    # -- what happens

    @initialize(
        window=st.integers(1, 4),
        page=st.integers(1, 3),
        size=st.sampled_from((1, 500, 1 << 18)),
        shared=st.integers(1, 2),
    )
    def begin(self, window: int, page: int, size: int, shared: int) -> None:
        self.group.qos = shared
        self.limits = {
            "window_messages": window,
            "page_messages": page,
            "page_bytes": size,
            "maximum_inflight": 3,
        }

        async def step() -> None:
            for listener in self.listeners:
                peer = await self.harness.connect(listener.name, session_expiry_interval=100_000)
                await peer.subscribe("t", listener.qos)
                await peer.drop()
            for member in self.members:
                await self._join(member)

        self.do(step)

    async def _join(self, member: Member) -> None:
        peer = await self.harness.connect(member.name, session_expiry_interval=100_000)
        await peer.subscribe("$share/g/s", self.group.qos)
        await peer.drop()

    @rule(topic=st.sampled_from("ts"), count=st.integers(1, 12), short=st.booleans())
    def publish(self, topic: str, count: int, short: bool) -> None:
        async def step() -> None:
            for _ in range(count):
                await self._publish(topic, short)

        self.do(step)

    async def _publish_some(self, topic: str, count: int) -> None:
        for _ in range(count):
            await self._publish(topic, False)

    async def _publish(self, topic: str, short: bool) -> None:
        number = self.published
        self.published += 1
        interval = SHORT if short else None
        expires = trio.current_time() + SHORT if short else float("inf")
        receivers = self.listeners if topic == "t" else (self.group,)
        if topic == "t":
            for listener in self.listeners:
                listener.expected.append((number, expires))
        else:
            self.group.expected[number] = expires
        try:
            await self.harness.broker.publish(
                topic, b"%d" % number, qos=2, message_expiry_interval=interval
            )
        except (StoreError, RefusedError):
            for receiver in receivers:
                receiver.refuse(number)

    @rule(which=WHICH, window=st.integers(1, 4))
    def come(self, which: int, window: int) -> None:
        """Maybe by another connection, which takes over."""

        async def step() -> None:
            await self._heal()
            await self.clients[which].connect(self.harness, window)

        self.do(step)

    @rule(which=WHICH, count=st.integers(1, 12))
    def take(self, which: int, count: int) -> None:
        self.do(lambda: self.clients[which].take(count))

    @rule(which=WHICH)
    def go(self, which: int) -> None:
        self.do(self.clients[which].drop)

    @rule(which=WHICH, count=st.integers(1, 8))
    def publish_and_take(self, which: int, count: int) -> None:
        """Pages are read while the journal fills."""

        async def step() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._publish_some, "t" if which < 2 else "s", count)
                await self.clients[which].take(count)

        self.do(step)

    @precondition(lambda self: self.group.qos == 1)
    @rule(which=st.integers(0, 1))
    def end(self, which: int) -> None:
        """A member's session ends, and begins anew: the other one gets what it was to get."""

        async def step() -> None:
            await self._heal()
            member = self.members[which]
            await member.drop()
            self.harness.broker.end_session(member.name)
            await self._join(member)

        self.do(step)

    @rule(delay=st.sampled_from((0.0, 0.01, 1.0)), read_delay=st.sampled_from((0.0, 0.5)))
    def slow_down(self, delay: float, read_delay: float) -> None:
        self.store.delay = delay
        self.store.read_delay = read_delay

    @rule()
    def fail_a_commit(self) -> None:
        self.store.fail_next()

    @rule()
    def fail_a_read(self) -> None:
        self.store.fail_next_read()

    @rule(seconds=st.sampled_from((0.05, 5, SHORT + 1)))
    def wait(self, seconds: float) -> None:
        async def step() -> None:
            await trio.sleep(seconds)

        self.do(step)

    @rule()
    def crash(self) -> None:
        """The broker is gone, with all that the store has not committed."""

        async def step() -> None:
            for client in self.clients:
                await client.drop()
            self.left = self.store.state.copy()
            self.crashed = True

        self.do(step)

    @precondition(lambda self: self.published > 0)
    @rule()
    def rest(self) -> None:
        """When all is still, memory and store agree, and nothing promised is missing."""
        self.do(self._rest)

    async def _rest(self) -> None:
        await self._heal()
        await agree(self.harness, self.store)
        for info in self.harness.broker.sessions():
            assert len(self._stored(info.client_id)) == info.waiting + info.inflight
        for listener in self.listeners:
            stored = self._stored(listener.name)
            listener.unsure.intersection_update(stored)
            listener.expired.intersection_update(stored)
            wanted = {number for number, _ in listener.expected}
            assert wanted | listener.unsure | listener.expired >= set(stored)
            assert set(stored) >= set(listener.outlived())
        shared = {number for each in self.members for number in self._stored(each.name)}
        assert shared >= self.group.outlived()

    def _stored(self, client_id: str) -> list[int]:
        state = self.store.state
        queue = state.queues[client_id].values()
        return [int(state.messages[entry.message_id].payload) for entry in queue]

    async def _heal(self) -> None:
        self.store.heal()
        await trio.sleep(20)

    @invariant()
    def memory_is_bounded(self) -> None:
        if not self.limits or self.crashed:
            return

        async def step() -> None:
            page = self.limits["page_messages"]
            for session in self.harness.broker._core.sessions.by_id.values():
                if session.stored:
                    bound = max(self.limits["window_messages"], page + page // 2) + 1
                    assert len(session.queue or ()) <= bound + 3  # those that come again
                    assert len(session.inflight) <= 3

        self.do(step)

    def teardown(self) -> None:
        try:
            if self.limits and self.thread.is_alive():
                self.do(self._all_arrives)
        finally:
            self.steps.put(None)
            self.thread.join()
            self.patch.undo()

    async def _all_arrives(self) -> None:
        self.store.delay = 0
        await self._rest()
        for client in self.clients:
            await client.drop()
            await client.connect(self.harness, 3)
            while await client.take(10):
                pass
            await client.drop()
        await self._rest()
        assert [each.outlived() for each in self.listeners] == [[], []]
        assert self.group.outlived() == set()
        # Identifiers of QoS 2 messages that the client has not released are all that may be left.
        assert self.store.state.messages == {}
        memory = self.harness.broker._core.memory
        async with open_harness(store=FaultyStore(self.store.state.copy())) as fresh:
            assert memory == fresh.broker._core.memory


TestPaging = Paging.TestCase
TestPaging.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
