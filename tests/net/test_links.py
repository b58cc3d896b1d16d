"""What a link promises, whatever carries its bytes: one suite for sockets and streams."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from mqtrio.errors import ProtocolError
from mqtrio.net import link as link_module
from mqtrio.net.link import LINGER, UNSENT_ANSWERS
from tests.net.kit import (
    FRAMED,
    WAIT,
    Core,
    Framing,
    Rig,
    Xor,
    let_run,
    pattern,
    rig,
    until,
)

MEGABYTE = 1 << 20


@pytest.fixture(params=["socket", "stream"])
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with rig(request.param) as made:
        yield made


@pytest.fixture(params=["socket", "stream"])
async def timed(request: pytest.FixtureRequest, mock_clock: MockClock) -> AsyncIterator[Rig]:
    """With a clock that stands still."""
    async with rig(request.param) as made:
        yield made


def gone(net: Rig) -> bool:
    return not net.network.connections


async def test_lines_are_answered_in_order(net: Rig) -> None:
    client = await net.connect()
    lines = [f"echo {number}" for number in range(2000)]
    await client.send("".join(f"{line}\n" for line in lines).encode())
    assert [await client.line() for _ in lines] == [line[5:].encode() for line in lines]
    assert client.connection.seen == lines


async def test_byte_at_a_time(net: Rig) -> None:
    client = await net.connect()
    for value in b"echo one\necho two\n":
        await client.send(bytes([value]))
    assert [await client.line(), await client.line()] == [b"one", b"two"]


async def test_one_flush_for_many_answers(net: Rig) -> None:
    client = await net.connect()
    await until(lambda: not client.connection.hold)
    await client.send(b"wait\n" + b"echo x\n" * 100)
    await until(lambda: client.connection.hold == WAIT)
    net.core.statistics.bytes_sent = 0
    client.connection.release()
    await client.line()
    assert net.core.statistics.bytes_sent == 200, "sent piecemeal"
    assert client.connection.progress == 200


async def test_connections_do_not_mix(net: Rig) -> None:
    clients = [await net.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        await client.send(b"echo %d\n" % number)
    for number, client in enumerate(clients):
        assert await client.line() == b"%d" % number


# -- output that the peer does not take


async def test_back_pressure(net: Rig) -> None:
    client = await net.connect(narrow=True)
    connection = client.connection
    size = 4 * MEGABYTE
    await client.send(b"big %d\n" % size)
    await until(lambda: connection.blocked)
    assert 0 < connection.queued <= size
    assert net.core.memory == connection.queued
    assert connection.drains == 0
    # More is kept behind it, and counted.
    before = connection.queued
    connection.write(b"after\n")
    net.core.flush()
    assert connection.queued == before + 6
    assert await client.exactly(size) == pattern(size)
    assert await client.line() == b"after"
    await until(lambda: connection.drains)
    assert not connection.blocked
    assert connection.queued == net.core.memory == 0
    assert connection.progress == net.core.statistics.bytes_sent == size + 6
    # And then as before.
    await client.send(b"echo x\n")
    assert await client.line() == b"x"


async def test_progress_is_seen_while_blocked(net: Rig) -> None:
    client = await net.connect(narrow=True)
    connection = client.connection
    await client.send(b"big %d\n" % (4 * MEGABYTE))
    await until(lambda: connection.blocked)
    progress, queued = connection.progress, connection.queued
    await client.exactly(2 * MEGABYTE)
    await until(lambda: connection.progress > progress)
    assert connection.queued < queued
    assert connection.blocked


async def test_input_is_read_while_output_waits(net: Rig) -> None:
    client = await net.connect(narrow=True)
    await client.send(b"big %d\n" % (4 * MEGABYTE))
    await until(lambda: client.connection.blocked)
    await client.send(b"note still here\n")
    await until(lambda: client.connection.seen[-1:] == ["note still here"])


async def test_the_outbox_is_sent_before_the_end(net: Rig) -> None:
    client = await net.connect(narrow=True)
    size = 2 * MEGABYTE
    await client.send(b"big %d\nbye\n" % size)
    await until(lambda: client.connection.closed)
    assert await client.rest() == pattern(size) + b"bye\n"


async def test_a_peer_that_takes_nothing_delays_the_end_for_a_while(
    timed: Rig, mock_clock: MockClock
) -> None:
    client = await timed.connect(narrow=True)
    await client.send(b"big %d\nbye\n" % (4 * MEGABYTE))
    await until(lambda: client.connection.closed)
    await let_run()
    assert not gone(timed)
    mock_clock.jump(LINGER + 0.1)
    await until(lambda: gone(timed))
    assert timed.core.memory == 0


# -- the end


async def test_end_of_input_ends_the_connection_after_its_answers(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"echo last\n")
    await client.end()
    assert await client.rest() == b"last\n"
    await until(lambda: gone(net))
    assert client.connection.ended


async def test_end_of_input_waits_for_its_turn(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"wait\necho after\n")
    await client.end()
    await until(lambda: client.connection.hold == WAIT)
    await let_run()
    assert not client.connection.closed
    client.connection.release()
    assert await client.rest() == b"after\n"
    await until(lambda: gone(net))


async def test_a_peer_that_vanishes(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"note x\n")
    await until(lambda: client.connection.seen)
    await client.vanish()
    await until(lambda: gone(net))
    assert client.connection.closed
    assert not net.core.failures


async def test_a_peer_that_vanishes_with_output_on_its_way(net: Rig) -> None:
    client = await net.connect(narrow=True)
    await client.send(b"big %d\n" % (4 * MEGABYTE))
    await until(lambda: client.connection.blocked)
    await client.vanish()
    await until(lambda: gone(net))
    assert client.connection.ended
    assert client.connection.drains == 1, "who waited for it waits for ever"
    assert net.core.memory == 0
    assert not net.core.failures


async def test_output_for_a_peer_that_has_vanished_goes_nowhere(net: Rig) -> None:
    """Sending fails, and yet what the peer sent before is handled first, in its order."""
    client = await net.connect()
    connection = client.connection
    await client.send(b"wait\nnote a\n")
    await until(lambda: connection.hold == WAIT)
    await client.send(b"note b\n")
    await client.vanish()
    await let_run()
    for _ in range(3):
        connection.write(b"into the void\n")
        net.core.flush()
        await let_run()
        assert not connection.out
    assert not connection.blocked
    assert not connection.closed
    connection.release()
    await until(lambda: gone(net))
    assert connection.ended
    # A reset takes what was still on its way with it, but not what had arrived.
    assert connection.seen[:2] == ["wait", "note a"]
    assert not net.core.failures


async def test_closing_for_a_peer_that_has_vanished(net: Rig) -> None:
    client = await net.connect((Framing,))
    await client.send(Framing.frame(b"hi") + Framing.frame(b"wait\n"))
    await until(lambda: client.connection.hold == WAIT)
    await client.vanish()
    await let_run()
    client.connection.write(b"farewell\n")
    client.connection.close()
    net.core.flush()
    await until(lambda: gone(net))
    assert not net.core.failures


async def test_a_bug_in_the_farewell_of_a_layer(timed: Rig, mock_clock: MockClock) -> None:
    class Broken(Xor):
        def close(self) -> bytes:
            raise RuntimeError("farewell")

    client = await timed.connect((Broken,))
    await client.send(Xor.turn(b"bye\n"))
    assert await client.exactly(4) == Xor.turn(b"bye\n")
    await until(lambda: timed.core.failures)
    mock_clock.jump(LINGER + 0.1)
    await until(lambda: gone(timed))
    assert [str(error) for _, error in timed.core.failures] == ["farewell"]


async def test_a_bug_in_the_first_words_of_a_layer(net: Rig) -> None:
    class Broken(Xor):
        def send(self, data: bytes) -> bytes:
            raise RuntimeError("first words")

    client = await net.connect((Broken,))
    assert await client.rest() == b""
    assert "first words" in [str(error) for _, error in net.core.failures]


async def test_answers_of_layers_follow_what_waits(net: Rig) -> None:
    client = await net.connect((Framing,), narrow=True)
    await client.send(Framing.frame(b"hi"))
    await client.exactly(9)
    size = 4 * MEGABYTE
    await client.send(Framing.frame(b"big %d\n" % size))
    await until(lambda: client.connection.blocked)
    await client.send(Framing.frame(b"ping 1"))
    await client.send(Framing.frame(b"echo 2\n"))
    await until(lambda: client.connection.seen[-1:] == ["echo 2"])
    assert await client.exactly(len(Framing.frame(b"x" * size))) == Framing.frame(pattern(size))
    assert await client.exactly(12) == Framing.frame(b"pong 1") + Framing.frame(b"2\n")


async def test_protocol_error_is_told_though_a_megabyte_is_unread(net: Rig) -> None:
    for _ in range(10):
        client = await net.connect()
        await client.send(b"echo 1\nbad\n" + b"j" * MEGABYTE)
        assert await client.rest() == b"1\nfail 0x82\n"
        await trio.aclose_forcefully(client.stream)
    await until(lambda: gone(net))
    assert [type(error) for _, error in net.core.failures] == [ProtocolError] * 10


async def test_after_its_end_a_peer_may_linger_for_a_while(
    timed: Rig, mock_clock: MockClock
) -> None:
    client = await timed.connect()
    await client.send(b"bye\n")
    assert await client.rest() == b"bye\n"
    await client.send(b"more that nobody reads\n")
    await let_run()
    assert not gone(timed)
    assert client.connection.seen == ["bye"]
    mock_clock.jump(LINGER + 0.1)
    await until(lambda: gone(timed))


async def test_a_lingering_peer_is_let_go_when_it_ends(timed: Rig) -> None:
    client = await timed.connect()
    await client.send(b"bye\n")
    assert await client.rest() == b"bye\n"
    await client.end()
    await until(lambda: gone(timed))


async def test_a_bug_ends_its_own_connection_only(net: Rig) -> None:
    good, bad = await net.connect(), await net.connect()
    await bad.send(b"echo before\nbug\necho never\n")
    await good.send(b"echo 1\n")
    assert await bad.rest() == b"before\n"
    assert await good.line() == b"1"
    await good.send(b"echo 2\n")
    assert await good.line() == b"2"
    assert [(found, str(error)) for found, error in net.core.failures] == [(bad.connection, "bug")]


async def test_abort(net: Rig) -> None:
    client = await net.connect(narrow=True)
    await client.send(b"big %d\n" % (4 * MEGABYTE))
    await until(lambda: client.connection.blocked)
    client.connection.close()
    client.connection.link.abort()
    await until(lambda: gone(net))
    assert net.core.memory == 0


async def test_close_twice_and_abort_after_the_end(net: Rig) -> None:
    client = await net.connect()
    link = client.connection.link
    await client.send(b"bye\n")
    await client.rest()
    link.close()
    await client.end()
    await until(lambda: gone(net))
    link.close()
    link.abort()
    link.resume()
    link.again()
    link.flush()
    await let_run()
    assert not net.core.failures


async def test_dropping_all(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"wait\n")
    await until(lambda: client.connection.hold)
    net.network.drop()
    await until(lambda: gone(net))
    assert client.connection.was_lost


# -- pausing


async def test_nothing_is_read_while_paused(net: Rig) -> None:
    client = await net.connect()
    await client.send(b"wait\n")
    await until(lambda: client.connection.hold == WAIT)
    chunks = len(client.connection.chunks)
    await client.send(b"echo x\n")
    await let_run()
    assert len(client.connection.chunks) == chunks
    client.connection.release()
    assert await client.line() == b"x"


async def test_a_spent_budget_lets_others_go_on(net: Rig) -> None:
    busy, other = await net.connect(), await net.connect()
    count = 5000
    await busy.send(b"work 5000\n" * count)
    await until(lambda: busy.connection.seen)
    await other.send(b"echo x\n")
    assert await other.line() == b"x"
    assert len(busy.connection.seen) < count
    await busy.vanish()


async def test_asking_twice_for_a_turn_gives_one(net: Rig) -> None:
    client = await net.connect()
    client.connection.hold = 4
    turns = 0
    proceed = client.connection.proceed

    def count() -> None:
        nonlocal turns
        turns += 1
        proceed()

    client.connection.proceed = count  # type: ignore[method-assign]
    client.connection.link.again()
    client.connection.link.again()
    await until(lambda: turns)
    await let_run()
    assert turns == 1


# -- layers


async def test_layers_are_stacked(net: Rig) -> None:
    layers = (Xor, Framing)
    client = await net.connect(layers)
    assert net.core.accepted[-1].link.peer.tls is None
    big = b"x" * 100_000
    said = (
        Framing.frame(b"hi")
        + Framing.frame(b"echo one\necho ")
        + Framing.frame(big)
        + Framing.frame(b"\n")
        + Framing.frame(b"ping 1")
        + Framing.frame(b"bye\n")
    )
    await client.send(Xor.turn(said))
    received = Xor.turn(await client.rest())
    texts = []
    while received:
        size = int.from_bytes(received[:2], "big")
        texts.append(received[2 : 2 + size])
        received = received[2 + size :]
    assert texts[0] == b"HELLOhi"
    assert b"pong 1" in texts
    assert texts[-1] == b"", "no farewell of the layer"
    texts.remove(b"pong 1")
    assert b"".join(texts[1:]) == b"one\n" + big + b"\nbye\n"
    assert client.connection.link.peer.tls == FRAMED


async def test_a_handshake_is_charged_once_when_it_begins(net: Rig) -> None:
    charged: list[int] = []

    class Noting(Framing):
        def receive(self, data: bytes) -> bytes:
            charged.append(net.core.work)
            return super().receive(data)

    net.core.settings = Core(turn_budget=1000).settings
    client = await net.connect((Noting,))
    if net.kind == "socket":
        net.poller.budget = 0  # so that a turn's count begins at 0
    for value in Framing.frame(b"hi"):
        await client.send(bytes([value]))
        await let_run()
    assert await client.exactly(9) == Framing.frame(b"HELLOhi")
    assert charged[0] - charged[-1] == Framing.handshake_work
    assert client.connection.peers == [client.connection.link.peer]
    assert client.connection.peers[0].tls == FRAMED


async def test_layers_byte_at_a_time(net: Rig) -> None:
    client = await net.connect((Xor, Framing))
    for value in Xor.turn(Framing.frame(b"hi") + Framing.frame(b"echo 1\n") + b"\0\0"):
        await client.send(bytes([value]))
    assert Xor.turn(await client.rest()) == (
        Framing.frame(b"HELLOhi") + Framing.frame(b"1\n") + b"\0\0"
    )
    assert client.connection.ended
    await client.end()
    await until(lambda: gone(net))


async def test_the_end_of_a_layer_waits_for_its_turn(net: Rig) -> None:
    client = await net.connect((Framing,))
    await client.send(Framing.frame(b"hi") + Framing.frame(b"wait\necho 1\n") + b"\0\0")
    await until(lambda: client.connection.hold)
    await client.exactly(9)
    client.connection.release()
    assert await client.rest() == Framing.frame(b"1\n") + b"\0\0"


async def test_what_precedes_a_fault_in_a_layer_is_handled(net: Rig) -> None:
    client = await net.connect((Framing,))
    await client.send(
        Framing.frame(b"hi") + Framing.frame(b"echo 1\n") + b"\xff\xff" + b"j" * MEGABYTE
    )
    assert await client.rest() == (
        Framing.frame(b"HELLOhi") + Framing.frame(b"1\nfail 0x81\n") + b"\0\0"
    )


async def test_answers_of_layers_that_are_not_taken_are_bounded(net: Rig) -> None:
    client = await net.connect((Framing,), narrow=True)
    await client.send(Framing.frame(b"hi"))
    await client.exactly(9)
    await client.send(Framing.frame(b"big %d\n" % (4 * MEGABYTE)))
    await until(lambda: client.connection.blocked)
    flood = Framing.frame(b"ping" + b"." * 1000)
    for _ in range(10 * UNSENT_ANSWERS // len(flood)):
        if not net.core.failures:
            await client.send(flood)
    await client.vanish()
    assert isinstance(net.core.failures[0][1], ProtocolError)
    await until(lambda: gone(net))


async def test_a_bug_in_a_layer_ends_its_own_connection_only(net: Rig) -> None:
    class Broken(Xor):
        def send(self, data: bytes) -> bytes:
            if data:
                raise RuntimeError("layer")
            return b""

    good, bad = await net.connect(), await net.connect((Broken,))
    await bad.send(Xor.turn(b"echo 1\n"))
    await good.send(b"echo 1\n")
    assert await good.line() == b"1"
    assert await bad.rest() == b""
    assert [str(error) for _, error in net.core.failures] == ["layer"]


async def test_a_client_side_layer_speaks_first(net: Rig) -> None:
    class Greets(Xor):
        greeted = False

        def send(self, data: bytes) -> bytes:
            if not self.greeted:
                self.greeted = True
                return b"GREETING" + super().send(data)
            return super().send(data)

    client = await net.connect((Greets,))
    assert await client.exactly(8) == b"GREETING"


def test_the_kit_is_an_engine() -> None:
    """For mypy: the small engine fits the protocols that the real one must fit."""
    from mqtrio.engine.link import LinkCore

    core: LinkCore = Core()
    assert core.work == 0


async def test_what_a_layer_takes_is_work(net: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few bytes it was: they may be many frames, or unpack to much."""
    clock = [0.0]
    work: list[int] = []

    class Slow(Xor):
        def receive(self, data: bytes) -> bytes:
            if data:
                clock[0] += 0.001
            else:
                work.append(net.core.work)
            return super().receive(data)

    monkeypatch.setattr(link_module, "perf_counter", lambda: clock[0])
    client = await net.connect((Slow,))
    for text in (b"echo 1\n", b"echo 2\n"):
        await client.send(Xor.turn(text))
        await client.exactly(2)
    handling, both = work[0], work[-1]
    assert both - handling == pytest.approx(10_000, abs=10)
