"""The poller's own promises: shares, no spinning, no mix-up of descriptors, quick wake-ups."""

import os
import socket
import time
from collections.abc import AsyncIterator
from itertools import groupby
from operator import itemgetter

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mqtrio.net import poller as poller_module
from mqtrio.net.link import BYTES_PER_WORK
from mqtrio.net.readiness import AVAILABLE
from mqtrio.net.sockets import SocketLink
from tests.net.kit import BUDGET, LINE_WORK, PEER, WAIT, Core, Framing, Rig, let_run, rig, until

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="only on Windows and macOS: no epoll")


@pytest.fixture
async def net() -> AsyncIterator[Rig]:
    async with rig("socket") as made:
        yield made


async def still(net: Rig) -> None:
    """The poller must be asleep: as many turns before as after a while in which nothing happens."""
    await let_run()
    before = net.poller.turns
    await let_run(500)
    assert net.poller.turns - before <= 1


async def test_an_idle_poller_sleeps(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"echo x\n")
    await client.line()
    await still(net)


async def test_a_reset_while_paused_does_not_spin(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"note a\nwait\nnote b\n")
    await until(lambda: client.connection.hold == WAIT)
    await client.vanish()
    await still(net)
    assert not client.connection.ended
    client.connection.release()
    await until(lambda: not net.poller.links)
    assert client.connection.seen == ["note a", "wait", "note b"]
    assert client.connection.ended


async def test_a_reset_while_paused_with_output_on_its_way_does_not_spin(net: Rig) -> None:
    client = await net.connect(narrow=True)
    await client.send(b"big 4000000\nwait\n")
    await until(lambda: client.connection.blocked)
    await client.vanish()
    await until(lambda: not client.connection.blocked)
    assert client.connection.drains == 1
    await still(net)
    client.connection.release()
    await until(lambda: not net.poller.links)


async def test_the_end_of_a_paused_peer_does_not_spin(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"wait\n")
    await client.end()
    await until(lambda: client.connection.hold == WAIT)
    await still(net)
    client.connection.release()
    assert await client.rest() == b""


async def test_more_input_while_paused_does_not_spin(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"wait\n")
    await until(lambda: client.connection.hold == WAIT)
    await client.send(b"echo x\n" * 10_000)
    await still(net)


async def test_lingering_does_not_spin(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"bye\n")
    await client.rest()
    await still(net)


@pytest.mark.parametrize("spent", [0, 1_000_000], ids=["in the same turn", "in a later turn"])
async def test_a_descriptor_that_is_used_again_before_its_event_is_handled(
    net: Rig, spent: int
) -> None:
    """Both are ready in one batch; handling the first replaces the second, with its number."""
    first, second = await net.connect(), await net.connect()
    link = second.connection.link
    assert isinstance(link, SocketLink)
    fd = link.fd
    other: list[socket.socket] = []

    def replace(line: str) -> None:
        mine, theirs = socket.socketpair()
        second.connection.close()
        link.abort()
        os.dup2(theirs.fileno(), fd)
        theirs.close()
        again = socket.socket(fileno=fd)
        again.setblocking(False)
        net.poller.adopt(again, PEER, None)
        other.append(mine)
        net.core.work += spent  # at a million the turn ends here

    first.connection.handle = replace  # type: ignore[method-assign]
    first.send_now(b"note x\n")
    second.send_now(b"note never\n")
    await until(lambda: other)
    await let_run()
    third = net.core.accepted[-1]
    assert (second.connection.seen, third.seen) == ([], [])
    assert not third.ended
    other[0].send(b"note third\n")
    await until(lambda: third.seen == ["note third"])
    other[0].close()
    await until(lambda: third.ended)
    assert not second.connection.ended
    assert not net.core.failures


async def test_shares_are_equal(net: Rig) -> None:
    """Connections that flood get the same number of lines handled, whatever each has sent."""
    clients = [await net.connect() for _ in range(4)]
    for number, client in enumerate(clients):
        # All begin in the same turn, and none can end before the first one.
        await client.send(b"wait\n" + b"note x\n" * (5000 * (number + 1)))
    await until(lambda: all(client.connection.hold for client in clients))
    for client in clients:
        client.connection.hold = BUDGET
        client.connection.link.again()
    net.core.seen.clear()
    await until(lambda: len(net.core.seen) >= 15_000)
    share = net.core.settings.limits.turn_budget // len(clients) // LINE_WORK
    visits = [
        (connection, len(list(lines)))
        for connection, lines in groupby(net.core.seen[:15_000], key=itemgetter(0))
    ]
    assert max(size for _, size in visits) <= share + 1
    order = [connection for connection, _ in visits]
    assert order[4:] == order[:-4], "not in turns"


async def test_one_that_floods_does_not_delay_the_others(net: Rig) -> None:
    flooder = await net.connect()
    others = [await net.connect() for _ in range(50)]
    await flooder.send(b"note x\n" * 50_000)
    await until(lambda: flooder.connection.seen)
    for other in others:
        await other.send(b"echo y\n")
    before = len(flooder.connection.seen)
    for other in others:
        assert await other.line() == b"y"
    lines = net.core.settings.limits.turn_budget // LINE_WORK
    assert len(flooder.connection.seen) - before < 60 * lines
    await flooder.vanish()


async def test_a_turn_ends_when_the_budget_is_spent(net: Rig) -> None:
    """What is ready and was not served keeps its place: it comes first in the next turn."""
    clients = [await net.connect() for _ in range(30)]
    budget = net.core.settings.limits.turn_budget
    for client in clients:
        await client.send(b"wait\nwork %d\n" % (budget // 3))
    await until(lambda: all(client.connection.hold for client in clients))
    net.core.seen.clear()
    turns: list[int] = []
    turn = net.poller._turn

    def note(budget: int) -> int:
        before = len(net.core.seen)
        spent = turn(budget)
        turns.append(len(net.core.seen) - before)
        return spent

    net.poller._turn = note  # type: ignore[method-assign]
    for client in clients:
        client.connection.hold = BUDGET
        client.connection.link.again()
    await until(lambda: len(net.core.seen) == len(clients))
    assert [count for count in turns if count] == [3] * 10
    assert [connection for connection, _ in net.core.seen] == [c.connection for c in clients]


async def test_other_tasks_get_their_turn(net: Rig) -> None:
    """Between two turns of another task the poller spends little more than one budget."""
    lines = net.core.settings.limits.turn_budget // LINE_WORK
    clients = [await net.connect() for _ in range(3)]
    for client in clients:
        await client.send(b"note x\n" * 20_000)
    most, last = 0, len(net.core.seen)
    while last < 60_000:
        await trio.lowlevel.checkpoint()
        now = len(net.core.seen)
        most = max(most, now - last)
        last = now
    # Trio shuffles: there may be two of the poller's turns between two of ours. And a visit that
    # begins when the budget is nearly spent may still use its whole share.
    assert most < 3 * lines


async def test_bytes_without_an_end_of_line_cost_work_too(net: Rig) -> None:
    size = 200_000
    client = await net.connect()
    spent = 0
    turn = net.poller._turn

    def note(budget: int) -> int:
        nonlocal spent
        part = turn(budget)
        spent += part
        return part

    net.poller._turn = note  # type: ignore[method-assign]
    await client.send(b"x" * size)
    await until(lambda: sum(client.connection.chunks) == size)
    assert size >> BYTES_PER_WORK >= spent > size >> BYTES_PER_WORK + 1


async def test_many_ready_sockets_are_taken_in_batches(
    monkeypatch: pytest.MonkeyPatch, net: Rig
) -> None:
    monkeypatch.setattr(poller_module, "BATCH", 8)
    clients = [await net.connect() for _ in range(30)]
    sizes: list[int] = []
    turn = net.poller._turn

    def note(budget: int) -> int:
        sizes.append(len(net.poller._batch))
        return turn(budget)

    net.poller._turn = note  # type: ignore[method-assign]
    for client in clients:
        client.send_now(b"echo x\n")
    for client in clients:
        assert await client.line() == b"x"
    assert max(sizes) == 8


async def test_many_that_end_at_once_do_not_delay_the_others(net: Rig) -> None:
    """The one that speaks came last, and is served long before the last of them is let go."""
    leaving = [await net.connect() for _ in range(25 * poller_module.ENDS)]
    speaker = await net.connect()
    connections = [client.connection for client in leaving]
    for client in leaving:
        client.send_now(b"note goodbye\n")
        client.stream.socket.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
    speaker.send_now(b"echo x\n")
    assert await speaker.line() == b"x"
    gone = sum(connection.closed for connection in connections)
    assert gone < len(connections) // 2
    await until(lambda: all(connection.closed for connection in connections))
    # What they had said before was heard.
    assert all(connection.seen == ["note goodbye"] for connection in connections)
    for client in leaving:
        await client.vanish()
    await still(net)


async def test_many_that_come_at_once_do_not_delay_the_others(net: Rig) -> None:
    coming = [await net.connect() for _ in range(50 * poller_module.NEWCOMERS)]
    speaker = await net.connect()
    connections = [client.connection for client in coming]
    for client in coming:
        client.connection.announced = False
        client.send_now(b"note hello\n")
    speaker.send_now(b"echo x\n")
    assert await speaker.line() == b"x"
    served = sum(bool(connection.seen) for connection in connections)
    assert served < len(connections) // 2
    await until(lambda: all(connection.seen for connection in connections))
    for client in coming:  # and they are heard again
        client.connection.announced = True
        client.send_now(b"note thanks\n")
    await until(lambda: all(len(connection.seen) == 2 for connection in connections))
    for client in coming:
        await client.vanish()
    await still(net)


async def test_who_is_closed_while_it_waits_to_come_in_is_let_go(net: Rig) -> None:
    coming = [await net.connect() for _ in range(4 * poller_module.NEWCOMERS)]
    last = coming[-1].connection
    for client in coming:
        client.connection.announced = False
        client.send_now(b"note hello\n")
    await until(lambda: coming[0].connection.seen)
    last.link.close()
    await until(lambda: coming[-2].connection.seen)
    for client in coming:
        await client.vanish()
    await still(net)


async def test_a_sleeping_poller_is_woken(net: Rig) -> None:
    client = await net.connect()
    connection = client.connection
    await client.send(b"wait\necho x\n")
    await until(lambda: connection.hold == WAIT)
    await wait_all_tasks_blocked()
    connection.hold = BUDGET  # as a timer or a commit would do it
    connection.link.again()
    assert await client.line() == b"x"
    await still(net)


async def test_a_kick_makes_a_turn(net: Rig) -> None:
    await wait_all_tasks_blocked()
    turns, flushes = net.poller.turns, net.core.flushes
    net.core.kick()
    net.core.kick()
    await until(lambda: net.poller.turns > turns)
    assert net.core.flushes > flushes
    await still(net)


async def test_a_flush_that_kicks_goes_on(net: Rig) -> None:
    """The engine flushes many outboxes in parts, and asks for a turn for each."""
    parts = 5
    flush = net.core.flush

    def in_parts() -> None:
        nonlocal parts
        flush()
        if parts:
            parts -= 1
            net.core.kick()

    net.core.flush = in_parts  # type: ignore[method-assign]
    net.core.kick()
    await until(lambda: not parts)
    await still(net)


async def test_lingering_ends_in_order(mock_clock: MockClock) -> None:
    async with rig("socket") as net:
        clients = []
        for _ in range(3):
            client = await net.connect()
            await client.send(b"bye\n")
            assert await client.rest() == b"bye\n"
            clients.append(client)
            mock_clock.jump(0.5)
            await let_run()
        assert len(net.poller.links) == 3
        mock_clock.jump(0.6)  # 2.1 seconds after the first
        await until(lambda: len(net.poller.links) == 2)
        mock_clock.jump(1.1)
        await until(lambda: not net.poller.links)


async def test_the_gil_is_given_up_while_a_thread_works(
    net: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = 0

    def sleep(seconds: float) -> None:
        nonlocal given_up
        assert seconds == 0
        given_up += 1

    monkeypatch.setattr(time, "sleep", sleep)
    client = await net.connect()
    await client.send(b"echo x\n")
    await client.line()
    assert not given_up
    limiter = trio.to_thread.current_default_thread_limiter()
    async with limiter:
        await client.send(b"echo x\n")
        await client.line()
    assert given_up


async def test_a_refused_socket_is_closed(net: Rig) -> None:
    net.core.refusing = True
    mine, theirs = socket.socketpair()
    with mine:
        assert net.poller.adopt(theirs, PEER, None) is None
        assert theirs.fileno() == -1
    assert not net.poller.links


async def test_work_of_a_visit_is_a_share(net: Rig) -> None:
    """One connection alone gets the whole budget; the engine's own comparison ends its visit."""
    core: Core = net.core
    client = await net.connect()
    lines = core.settings.limits.turn_budget // LINE_WORK
    handled: list[int] = []
    turn = net.poller._turn

    def note(budget: int) -> int:
        before = len(core.seen)
        spent = turn(budget)
        handled.append(len(core.seen) - before)
        return spent

    net.poller._turn = note  # type: ignore[method-assign]
    await client.send(b"note x\n" * (lines * 5))
    await until(lambda: len(core.seen) == lines * 5)
    assert max(handled) <= lines
    assert max(handled) > lines * 0.9


async def test_handshakes_come_one_by_one() -> None:
    """However many begin at once, those who are there speak between two of them."""
    began: list[int] = []

    class Costly(Framing):
        handshake_work = 6000

        def receive(self, data: bytes) -> bytes:
            if data and not self.handshake_done:
                began.append(rigged.poller.turns)
            return super().receive(data)

    async with rig("socket") as rigged:
        there = await rigged.connect()
        clients = [await rigged.connect([Costly]) for _ in range(10)]
        for client in clients:
            client.connection.announced = False
            client.send_now(Framing.frame(b"hi"))
        there.send_now(b"echo 1\n")
        for client in clients:
            assert await client.exactly(9) == Framing.frame(b"HELLOhi")
        assert await there.line() == b"1"
    assert len(set(began)) == len(clients)
