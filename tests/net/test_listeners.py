"""Opening sockets, and accepting: its rate, its limits and its troubles."""

import errno
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mqtrio import settings
from mqtrio.net import opening
from mqtrio.net.addresses import ListenerAddress, parse_listener
from mqtrio.net.listeners import BATCH, PAUSE, Listener, Pace
from mqtrio.net.network import Network, open_network
from mqtrio.net.opening import open_listeners
from mqtrio.net.options import listener_address
from tests.net.kit import Core, let_run, until


def address_of(url: str, **options: Any) -> ListenerAddress:
    return listener_address(settings.Listener(url=url, **options))


async def opened(url: str) -> list[Listener]:
    return await open_listeners(parse_listener(url))


def close(found: list[Listener]) -> None:
    for listener in found:
        listener.close()


def connect(listener: Listener, family: int = socket.AF_INET) -> socket.socket:
    """Connected, though perhaps not accepted."""
    sock = socket.socket(family)
    sock.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", listener.bound.port))
    sock.setblocking(False)
    return sock


# -- opening


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_one_address(host: str) -> None:
    (listener,) = await opened(f"mqtt://{host}:0")
    assert listener.bound.port
    assert listener.bound.local
    assert str(listener.bound) == f"mqtt://{host}:{listener.bound.port}"
    close([listener])


async def test_a_name_with_several_addresses_has_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [
        (family, socket.SOCK_STREAM, 6, "", (host, 0))
        for family, host in [
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::1"),
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "2001:db8::1"),  # not ours: left out
        ]
    ]

    async def getaddrinfo(*_args: object, **_options: object) -> object:
        await trio.lowlevel.checkpoint()
        return names

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    found = await opened("mqtt://somewhere:0")
    assert [listener.bound.host for listener in found] == ["127.0.0.1", "::1"]
    assert len({listener.bound.port for listener in found}) == 1
    close(found)


async def test_a_free_port_must_be_free_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second address finds the first one's port taken: both begin anew with another one."""
    with socket.create_server(("127.0.0.2", 0)) as other:
        taken = other.getsockname()[1]
        create = socket.create_server
        first = True

        def create_server(address: tuple[str, int], **options: int) -> socket.socket:
            nonlocal first
            if first:
                first = False
                return create((address[0], taken), **options)  # type: ignore[arg-type]
            return create(address, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "create_server", create_server)
        names = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2")]
        sockets = opening._listen(names, 0)
    ports = {sock.getsockname()[1] for sock in sockets}
    assert len(ports) == 1
    assert taken not in ports
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("host", ["", "*", "[::]"])
async def test_everywhere_is_both_families(host: str) -> None:
    (listener,) = await opened(f"mqtt://{host}:0")
    assert not listener.bound.local
    for family in (socket.AF_INET, socket.AF_INET6):
        connect(listener, family).close()
    close([listener])


async def test_several_may_share_a_port() -> None:
    (first,) = await open_listeners(address_of("mqtt://127.0.0.1:0", reuse_port=True))
    port = first.bound.port
    (second,) = await open_listeners(address_of(f"mqtt://127.0.0.1:{port}", reuse_port=True))
    with pytest.raises(OSError, match="in use"):
        await opened(f"mqtt://127.0.0.1:{port}")
    everywhere = await open_listeners(address_of(f"mqtt://[::]:{port}", reuse_port=True))
    first.close()
    connect(second).close()
    close([second, *everywhere])


async def test_everywhere_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def create_server(
        address: tuple[str, int], *, family: int = socket.AF_INET, **options: int
    ) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")
        return create(address, family=family, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_server", create_server)
    (listener,) = await opened("mqtt://*:0")
    assert listener.bound.host == "0.0.0.0"
    close([listener])


async def test_errors_name_the_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"mqtt://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OSError, match=f"can't listen on {url}: .*in use") as caught:
            await opened(url)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r"can't listen on mqtt://192\.0\.2\.1"):
        await opened("mqtt://192.0.2.1:0")


async def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_args: object, **_options: object) -> object:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match=r"mqtt://nowhere\.invalid: Name or service not known"):
        await opened("mqtt://nowhere.invalid")


# -- accepting


def test_pace() -> None:
    pace = Pace(10, now=0)
    for _ in range(10):
        assert pace.wait(0) == 0
        pace.count()
    assert pace.wait(0) == pytest.approx(0.1)
    assert pace.wait(0.05) == pytest.approx(0.05)
    assert pace.wait(0.11) == 0
    pace.count()
    assert pace.wait(0.11) > 0.08
    # However long nobody came, no more than one second's worth comes at once.
    for _ in range(10):
        assert pace.wait(1000) == 0
        pace.count()
    assert pace.wait(1000) > 0


LOOPBACK: ListenerAddress = parse_listener("mqtt://127.0.0.1:0")


class Accepting:
    """A network that accepts on one listener, and sockets that connect to it."""

    def __init__(self, core: Core, network: Network) -> None:
        self.core = core
        self.network = network
        self.listener = network._listeners[0]
        self.sockets: list[socket.socket] = []

    def connect(self, count: int = 1) -> list[socket.socket]:
        made = [connect(self.listener) for _ in range(count)]
        self.sockets += made
        return made


async def accepting(**limits: int) -> AsyncIterator[Accepting]:
    core = Core(**limits)
    async with open_network(core, [LOOPBACK]) as network:
        network.accept()
        made = Accepting(core, network)
        yield made
        for sock in made.sockets:
            sock.close()


@pytest.fixture
async def plain() -> AsyncIterator[Accepting]:
    async for made in accepting():
        yield made


@pytest.fixture
async def paced(mock_clock: MockClock) -> AsyncIterator[Accepting]:
    async for made in accepting(accept_rate=10):
        yield made


@pytest.fixture
async def two() -> AsyncIterator[Accepting]:
    async for made in accepting(connections=2):
        yield made


async def test_who_connects_is_known(plain: Accepting) -> None:
    (sock,) = plain.connect()
    await until(lambda: plain.core.accepted)
    peer = plain.core.accepted[0].link.peer
    assert (peer.address, peer.port) == sock.getsockname()
    assert peer.listener == "mqtt://127.0.0.1:0"
    assert peer.local
    assert peer.tls is None


async def test_many_at_once(plain: Accepting) -> None:
    sockets = plain.connect(3 * BATCH)
    await until(lambda: len(plain.core.accepted) == len(sockets))
    for number, sock in enumerate(sockets):
        sock.send(b"echo %d\n" % number)
    for number, sock in enumerate(sockets):
        await trio.lowlevel.wait_readable(sock)
        assert sock.recv(100) == b"%d\n" % number


async def test_answers_leave_at_once(plain: Accepting) -> None:
    plain.connect()
    await until(lambda: plain.core.accepted)
    link = plain.core.accepted[0].link
    assert link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # type: ignore[attr-defined]


async def test_the_rate_is_limited(paced: Accepting, mock_clock: MockClock) -> None:
    paced.connect(15)
    await until(lambda: len(paced.core.accepted) == 10)
    await let_run()
    assert len(paced.core.accepted) == 10
    mock_clock.jump(0.1)
    await until(lambda: len(paced.core.accepted) == 11)
    await let_run()
    assert len(paced.core.accepted) == 11
    for _ in range(4):
        mock_clock.jump(0.1)
        await let_run()
    assert len(paced.core.accepted) == 15


async def test_the_number_is_limited(two: Accepting, caplog: pytest.LogCaptureFixture) -> None:
    kept = two.connect(2)
    await until(lambda: len(two.core.accepted) == 2)
    with caplog.at_level(logging.WARNING, "mqtrio.net"):
        for refused in two.connect(3):
            await trio.lowlevel.wait_readable(refused)
            assert refused.recv(1) == b""
    assert len(two.core.accepted) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{two.listener.bound} accepts nobody: "
        "as many connections are open as limits.connections allows"
    ]
    kept[0].close()
    await until(lambda: two.network.connections == 1)
    two.connect()
    await until(lambda: len(two.core.accepted) == 3)


async def test_who_is_refused_is_closed(plain: Accepting) -> None:
    plain.core.refusing = True
    (sock,) = plain.connect()
    await trio.lowlevel.wait_readable(sock)
    assert sock.recv(1) == b""
    assert not plain.network.connections


async def test_a_bug_in_accept_is_logged_and_ends_nothing(
    plain: Accepting, caplog: pytest.LogCaptureFixture
) -> None:
    accept = plain.core.accept

    def broken(link: object) -> None:
        raise RuntimeError("bug")

    plain.core.accept = broken  # type: ignore[method-assign]
    (sock,) = plain.connect()
    await trio.lowlevel.wait_readable(sock)
    assert sock.recv(1) == b""
    assert "could not be served" in caplog.text
    plain.core.accept = accept  # type: ignore[method-assign]
    plain.connect()
    await until(lambda: plain.core.accepted)


class Failing:
    """A listening socket whose accept fails."""

    def __init__(self, sock: socket.socket, error: OSError) -> None:
        self.sock = sock
        self.error: OSError | None = error
        self.failed = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def accept(self) -> object:
        if self.error is not None:
            self.failed += 1
            raise self.error
        return self.sock.accept()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
async def test_no_descriptors_slow_accepting_and_nothing_else(
    number: int, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async for made in accepting():
        (early,) = made.connect()
        await until(lambda: made.core.accepted)  # noqa: B023 (called at once)
        failing = Failing(made.listener.sock, OSError(number, "cannot"))
        made.listener.sock = failing  # type: ignore[assignment]
        with caplog.at_level(logging.WARNING, "mqtrio.net"):
            made.connect()
            for failures in range(1, 6):
                await until(lambda: failing.failed == failures)  # noqa: B023
                await let_run()
                assert failing.failed == failures, "no pause"
                early.send(b"echo x\n")
                await trio.lowlevel.wait_readable(early)
                assert early.recv(10) == b"x\n"
                mock_clock.jump(PAUSE)
        assert [record.getMessage() for record in caplog.records] == [
            f"{made.listener.bound} accepts slowly: cannot"
        ]
        failing.error = None
        mock_clock.jump(PAUSE)
        await until(lambda: len(made.core.accepted) == 2)  # noqa: B023


async def test_real_want_of_descriptors(mock_clock: MockClock) -> None:
    resource = pytest.importorskip("resource", reason="only on Windows: no rlimits")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async for made in accepting():
        made.connect(2)
        await until(lambda: len(made.core.accepted) == 2)  # noqa: B023
        made.connect(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            await let_run()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(made.core.accepted) == 2
        mock_clock.jump(PAUSE)
        await until(lambda: len(made.core.accepted) == 3)  # noqa: B023


async def test_a_connection_that_was_aborted_in_the_queue(plain: Accepting) -> None:
    failing = Failing(plain.listener.sock, OSError(errno.ECONNABORTED, "aborted"))
    accept = failing.accept

    def once() -> object:
        if failing.failed:
            failing.error = None
        return accept()

    failing.accept = once  # type: ignore[method-assign]
    plain.listener.sock = failing  # type: ignore[assignment]
    plain.connect()
    await until(lambda: plain.core.accepted)
    assert failing.failed == 1
