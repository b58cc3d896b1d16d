"""The network as a whole: streams that the program brings, and the ways to end."""

import socket

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mqtrio.net import network as network_module
from mqtrio.net.addresses import parse_listener
from mqtrio.net.network import open_network
from tests.net.kit import PEER, WAIT, Core, Xor, let_run, pattern, rig, until

LOOPBACK = parse_listener("mqtt://127.0.0.1:0")
BOTH = pytest.mark.parametrize("kind", ["socket", "stream"])


@BOTH
async def test_stop_says_goodbye_and_waits_for_the_peers(kind: str) -> None:
    async with rig(kind) as net:
        clients = [await net.connect() for _ in range(5)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(net.network.stop, net.core.goodbye, 5.0)
            for client in clients:
                assert await client.rest() == b"stopping\n"
                assert net.network.connections
                await client.end()
        assert not net.network.connections


@BOTH
async def test_stop_sends_what_waits(kind: str) -> None:
    async with rig(kind) as net:
        client = await net.connect(narrow=True)
        await client.send(b"big 4000000\n")
        await until(lambda: client.connection.blocked)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(net.network.stop, net.core.goodbye, 60.0)
            assert await client.rest() == pattern(4_000_000) + b"stopping\n"
            await client.end()


@BOTH
async def test_stop_does_not_wait_for_ever(kind: str, mock_clock: MockClock) -> None:
    async with rig(kind) as net:
        client = await net.connect(narrow=True)
        await client.send(b"big 4000000\n")
        await until(lambda: client.connection.blocked)
        stopped = False

        async def stop() -> None:
            nonlocal stopped
            await net.network.stop(net.core.goodbye, 1.0)
            stopped = True

        net.nursery.start_soon(stop)
        await until(lambda: client.connection.closed)
        await let_run()
        assert not stopped
        mock_clock.jump(1.1)
        await until(lambda: stopped)
        await until(lambda: not net.network.connections)
        assert not client.connection.was_lost, "the engine had closed it"


async def test_stop_with_nobody_connected() -> None:
    async with open_network(Core(), [LOOPBACK]) as network:
        network.accept()
        await network.stop(lambda: None, 60.0)


async def test_stop_closes_the_listeners_first() -> None:
    core = Core()
    async with open_network(core, [LOOPBACK]) as network:
        network.accept()
        (bound,) = network.listeners

        def goodbye() -> None:
            with socket.socket() as late, pytest.raises(ConnectionRefusedError):
                late.connect((bound.host, bound.port))

        await network.stop(goodbye, 1.0)
        assert network.listeners == ()
        await let_run()
        network.stop_accepting()


async def test_stopping_while_somebody_connects_is_no_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(10):
        core = Core()
        async with open_network(core, [LOOPBACK]) as network:
            network.accept()
            (bound,) = network.listeners
            await trio.testing.wait_all_tasks_blocked()
            with socket.create_connection((bound.host, bound.port)):
                await trio.lowlevel.checkpoint()
                network.stop_accepting()
                await let_run()
    assert not caplog.records


async def test_nobody_is_served_before_accept() -> None:
    core = Core()
    async with open_network(core, [LOOPBACK]) as network:
        (bound,) = network.listeners
        with socket.create_connection((bound.host, bound.port)):
            await let_run()
            assert not core.accepted
            network.accept()
            await until(lambda: core.accepted)


@BOTH
async def test_cancelling_loses_everything_at_once(kind: str) -> None:
    core = Core()
    with trio.CancelScope() as scope:
        async with rig(kind, core) as net:
            clients = [await net.connect() for _ in range(5)]
            await clients[0].send(b"wait\n")
            await until(lambda: clients[0].connection.hold == WAIT)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert all(connection.closed for connection in core.accepted)
    assert core.accepted[0].was_lost, "it waited for a hook"
    assert not net.network.connections
    assert not core.failures


@BOTH
async def test_an_error_in_the_program_ends_the_network(kind: str) -> None:
    core = Core()
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
        async with rig(kind, core) as net:
            await net.connect()
            raise ZeroDivisionError
    assert core.accepted[0].closed


async def test_a_listener_that_cannot_be_opened_closes_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = parse_listener(f"mqtt://127.0.0.1:{other.getsockname()[1]}")
        with pytest.RaisesGroup(OSError, flatten_subgroups=True, allow_unwrapped=True):
            async with open_network(Core(), [LOOPBACK, taken]):
                pytest.fail("it is open")


async def test_serve_stream_returns_when_the_client_is_gone() -> None:
    core = Core()
    async with open_network(core) as network:
        mine, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.serve_stream, theirs, PEER, [Xor])
            await mine.send_all(Xor.turn(b"bye\n"))
            await mine.send_eof()
        assert core.accepted[0].closed
        assert not core.accepted[0].was_lost
        with pytest.raises(trio.ClosedResourceError):
            await theirs.receive_some()


async def test_serve_stream_cancelled() -> None:
    core = Core()
    async with open_network(core) as network:
        mine, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.serve_stream, theirs, PEER)
            await until(lambda: core.accepted)
            nursery.cancel_scope.cancel()
        assert core.accepted[0].was_lost
        assert not network.connections
        assert await mine.receive_some() == b""


async def test_serve_stream_refused() -> None:
    core = Core()
    core.refusing = True
    async with open_network(core) as network:
        mine, theirs = trio.testing.memory_stream_pair()
        await network.serve_stream(theirs, PEER)
        assert await mine.receive_some() == b""


async def test_a_stream_that_cannot_end_one_side() -> None:
    class Whole(trio.abc.Stream):
        """Like TLS over a socket: closing is the only end it has."""

        def __init__(self, stream: trio.abc.Stream) -> None:
            self.stream = stream

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.stream.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await self.stream.receive_some(max_bytes)

        async def aclose(self) -> None:
            await self.stream.aclose()

    core = Core()
    async with open_network(core) as network:
        mine, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.serve_stream, Whole(theirs), PEER)
            await mine.send_all(b"bye\n")
            received = b""
            while data := await mine.receive_some():
                received += data
            assert received == b"bye\n"
        assert not network.connections


async def test_without_the_poller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and macOS: each connection is served by tasks of its own."""
    monkeypatch.setattr(network_module, "AVAILABLE", False)
    core = Core()
    async with open_network(core, [LOOPBACK]) as network:
        assert network.poller is None
        network.accept()
        (bound,) = network.listeners
        stream = await trio.open_tcp_stream(bound.host, bound.port)
        async with stream:
            await stream.send_all(b"echo x\n")
            assert await stream.receive_some() == b"x\n"
            assert network.connections == 1
            # A timer writes, and has it flushed.
            core.accepted[0].write(b"kicked\n")
            core.kick()
            assert await stream.receive_some() == b"kicked\n"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(network.stop, core.goodbye, 5.0)
                assert await stream.receive_some() == b"stopping\n"
                assert await stream.receive_some() == b""
                await stream.send_eof()
        assert not network.connections


async def test_without_the_poller_a_bug_in_accept_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network_module, "AVAILABLE", False)
    core = Core()

    def broken(link: object) -> None:
        raise RuntimeError("bug")

    core.accept = broken  # type: ignore[method-assign]
    async with open_network(core, [LOOPBACK]) as network:
        network.accept()
        (bound,) = network.listeners
        async with await trio.open_tcp_stream(bound.host, bound.port) as stream:
            assert await stream.receive_some() == b""
    assert "could not be served" in caplog.text
