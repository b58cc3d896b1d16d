"""Opening and stopping: listeners, errors of the start, graceful ends, several in one process."""

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import mqtrio
from mqtrio import (
    Allow,
    AuthenticateEvent,
    BrokerStopped,
    ConfigurationError,
    Listener,
    PluginError,
    PublishEvent,
    ReasonCode,
    Settings,
    StoreError,
    hookimpl,
)
from mqtrio.testing import Closed, FaultyStore, Peer, open_harness
from mqtrio.wire.packets import MQTT_3_1_1, Disconnect, Will

LOOPBACK = "mqtt://127.0.0.1:0"

#: Seconds of real time that anything on a socket may take; decides about failures only.
PATIENCE = 20.0


@asynccontextmanager
async def client(broker: mqtrio.Broker, client_id: str, version: int = 5) -> AsyncIterator[Peer]:
    """A client on a real socket, not let in yet; it is gone when the block is left."""
    (address, *_) = broker.listeners
    host = {"::": "::1", "0.0.0.0": "127.0.0.1"}.get(address.host, address.host)
    async with await trio.open_tcp_stream(host, address.port) as stream:
        peer = Peer(stream, client_id=client_id, version=version)
        peer.patience = PATIENCE
        yield peer


@asynccontextmanager
async def connected(
    broker: mqtrio.Broker, client_id: str, version: int = 5, **fields: Any
) -> AsyncIterator[Peer]:
    """A client on a real socket, let in."""
    async with client(broker, client_id, version) as peer:
        await peer.connect(**fields)
        yield peer


# -- listeners


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_port_zero(host: str) -> None:
    async with mqtrio.open_broker(f"mqtt://{host}:0") as broker:
        for address in broker.listeners:
            assert address.url == f"mqtt://{host}:0"
            assert address.port > 0
            assert address.local
        async with connected(broker, "ann") as peer:
            await peer.ping()


async def test_several_listeners() -> None:
    async with mqtrio.open_broker([LOOPBACK, LOOPBACK]) as broker:
        one, two = broker.listeners
        assert one.port != two.port
        assert str(one) == f"mqtt://127.0.0.1:{one.port}"
        for address in (one, two):
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                await Peer(stream, client_id="ann").connect()


async def test_no_listener() -> None:
    async with mqtrio.open_broker([]) as broker:
        assert broker.listeners == ()
        await broker.publish("a")


async def test_listeners_of_the_settings() -> None:
    async with mqtrio.open_broker(settings=Settings(listener=(Listener(url=LOOPBACK),))) as broker:
        assert len(broker.listeners) == 1


async def test_an_address_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use") as caught:
            async with mqtrio.open_broker(f"mqtt://127.0.0.1:{taken.getsockname()[1]}"):
                raise AssertionError("not reached")
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"listen": "tcp://127.0.0.1"}, "unknown scheme"),
        ({"listen": "mqtts://8883"}, "a port stands behind a colon: mqtts://"),
        ({"listen": [], "limits": {"receive_maximum": 0}}, "receive_maximum"),
        ({"listen": [], "limits": {"no_such_limit": 1}}, "no_such_limit"),
        ({"listen": [], "session": {"owner": "nobody"}}, "owner"),
        ({"listen": [], "no_such_part": {}}, "no_such_part"),
        ({"listen": [], "settings": Settings(), "limits": {}}, "give one of config, settings"),
    ],
    ids=str,
)
async def test_settings_that_cannot_be(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        async with mqtrio.open_broker(**arguments):
            raise AssertionError("not reached")


async def test_a_plugin_that_cannot_be() -> None:
    with pytest.raises(PluginError, match="object"):
        async with mqtrio.open_broker([], plugins=[object()]):
            raise AssertionError("not reached")


async def test_a_store_that_cannot_be_read() -> None:
    store = FaultyStore()
    store.fail_next_load()
    with pytest.raises(StoreError):
        async with mqtrio.open_broker([], store=store):
            raise AssertionError("not reached")
    assert store.closed


# -- who may come in


@pytest.mark.parametrize("url", ["mqtt://0.0.0.0:0", "mqtt://:0"])
async def test_no_door_stands_open(url: str) -> None:
    """Other machines could connect and nobody would ask them anything: not without being told."""
    with pytest.raises(ConfigurationError) as caught:
        async with mqtrio.open_broker(url):
            raise AssertionError("not reached")
    for advice in ("plugin", "127.0.0.1", "allow_anonymous", url):
        assert advice in str(caught.value)


async def test_one_open_door_of_two() -> None:
    with pytest.raises(ConfigurationError, match=r"0\.0\.0\.0"):
        async with mqtrio.open_broker([LOOPBACK, "mqtt://0.0.0.0:0"]):
            raise AssertionError("not reached")


async def test_a_door_left_open_on_purpose() -> None:
    listener = Listener(url="mqtt://0.0.0.0:0", allow_anonymous=True)
    async with mqtrio.open_broker(settings=Settings(listener=(listener,))) as broker:
        async with connected(broker, "ann"):
            pass


async def test_loopback_closed_on_purpose() -> None:
    listener = Listener(url=LOOPBACK, allow_anonymous=False)
    async with mqtrio.open_broker(settings=Settings(listener=(listener,))) as broker:
        async with client(broker, "ann") as peer:
            await peer.send(peer.connect_packet())
            await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)


class Passwords:
    """Lets in who says `sesame`, and knows nothing about others."""

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Allow | None:
        return Allow() if event.password == b"sesame" else None


@pytest.mark.parametrize("url", ["mqtt://0.0.0.0:0", LOOPBACK])
async def test_a_door_with_an_authenticator(url: str) -> None:
    async with mqtrio.open_broker(url, plugins=[Passwords()]) as broker:
        async with connected(broker, "ann", username="ann", password=b"sesame"):
            pass
        async with client(broker, "eve") as eve:
            await eve.send(eve.connect_packet())
            await eve.expect_closed(ReasonCode.NOT_AUTHORIZED)
        async with client(broker, "eve") as eve:
            await eve.send(eve.connect_packet(username="eve", password=b"please"))
            await eve.expect_closed(ReasonCode.BAD_USER_NAME_OR_PASSWORD)


# -- the end


@pytest.mark.parametrize("version", [MQTT_3_1_1, 5])
async def test_clients_are_told(autojump_clock: MockClock, version: int) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        async with mqtrio.open_broker([]) as broker:
            nursery.start_soon(broker.serve_stream, theirs)
            peer = Peer(ours, client_id="ann", version=version)
            await peer.connect()
        await peer.expect_closed(ReasonCode.SERVER_SHUTTING_DOWN if version == 5 else None)


async def test_clients_on_sockets_are_told() -> None:
    """All of them, also one that has not said a word; then nobody listens there any more."""
    async with trio.open_nursery() as nursery:
        async with mqtrio.open_broker(LOOPBACK) as broker:
            port = broker.listeners[0].port
            for number in range(20):
                await nursery.start(_stay, broker, f"c{number}", 5)
            await nursery.start(_stay, broker, "old", MQTT_3_1_1)
            await nursery.start(_stay_silently, broker)
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def _stay(
    broker: mqtrio.Broker, name: str, version: int, task_status: trio.TaskStatus[None]
) -> None:
    async with connected(broker, name, version, will=Will("w", b"x")) as peer:
        task_status.started()
        await peer.expect_closed(ReasonCode.SERVER_SHUTTING_DOWN if version == 5 else None)


async def _stay_silently(broker: mqtrio.Broker, task_status: trio.TaskStatus[None]) -> None:
    async with client(broker, "") as peer:
        task_status.started()
        await peer.expect_closed()


class Witness:
    """Notes what is published."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []

    @hookimpl
    def published(self, event: PublishEvent) -> None:
        self.seen.append((event.origin, event.payload))


async def test_wills_at_the_end(autojump_clock: MockClock) -> None:
    """The broker's end is no DISCONNECT of the client, so wills are published [MQTT-3.1.2-8].

    One with a delay waits as the standard says; it would go with the session, which stays.
    """
    witness = Witness()
    async with open_harness(plugins=[witness]) as harness:
        streams = []
        for name, will, expiry in (
            ("ann", Will("w", b"ann's"), 0),
            ("bob", Will("w", b"bob's", delay_interval=100), 0),
            ("eve", Will("w", b"eve's", delay_interval=100), 1000),
        ):
            peer = await harness.connect(name, will=will, session_expiry_interval=expiry)
            streams.append(peer)
        async with harness.broker.subscribe("w"):
            pass
        polite = await harness.connect("polite", will=Will("w", b"polite's"))
        await polite.disconnect()
        harness.peers.clear()  # so that they are there when the broker says goodbye
    assert sorted(witness.seen) == [("will", b"ann's"), ("will", b"bob's")]


async def test_a_will_reaches_a_program_that_still_listens() -> None:
    """In-process subscribers get the wills of the clients that the end disconnects."""
    got: list[bytes] = []

    async def listen(messages: mqtrio.Subscriber) -> None:
        got.append((await messages.receive()).payload)
        with pytest.raises(BrokerStopped):
            await messages.receive()

    async with trio.open_nursery() as nursery:
        async with mqtrio.open_broker(LOOPBACK) as broker:
            subscription = broker.subscribe("w")
            nursery.start_soon(listen, await subscription.__aenter__())
            await nursery.start(_stay, broker, "ann", 5)
        await subscription.__aexit__(None, None, None)
    assert got == [b"x"]


async def test_the_end_waits_for_slow_clients_no_longer_than_its_grace(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with mqtrio.open_broker([], limits={"stop_grace": 1}) as broker:
            nursery.start_soon(broker.serve_stream, theirs)
            peer = Peer(ours, client_id="ann")
            await peer.connect()
            await peer.subscribe("a")
            await broker.publish("a", b"x" * 100_000)  # which nobody reads
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(1, abs=0.1)


async def test_messages_on_their_way_arrive(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = trio.testing.memory_stream_pair()
        async with mqtrio.open_broker([]) as broker:
            nursery.start_soon(broker.serve_stream, theirs)
            peer = Peer(ours, client_id="ann")
            await peer.connect()
            await peer.subscribe("a")
            for number in range(100):
                await broker.publish("a", str(number))
        for number in range(100):
            await peer.message(str(number).encode())
        await peer.expect(Disconnect, reason_code=ReasonCode.SERVER_SHUTTING_DOWN)


async def test_an_exception_of_the_block_comes_out_as_it_is() -> None:
    """No nursery of the broker's shows through."""
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with mqtrio.open_broker([]):
            raise mine
    assert caught.value is mine
    assert caught.value.__context__ is None


async def test_an_exception_group_of_the_block_stays_one() -> None:
    mine = ExceptionGroup("mine", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with mqtrio.open_broker([]):
            raise mine
    assert caught.value is mine


# -- as a task


async def test_serve_broker() -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            broker = await nursery.start(
                partial(mqtrio.serve_broker, [LOOPBACK], limits={"receive_maximum": 7})
            )
            async with connected(broker, "ann") as peer:
                assert peer.connack is not None
                assert peer.connack.receive_maximum == 7
                broker.stop()
                await peer.expect_closed(ReasonCode.SERVER_SHUTTING_DOWN)
        with pytest.raises(BrokerStopped):
            await broker.publish("a")


async def test_serve_broker_that_does_not_start() -> None:
    with pytest.RaisesGroup(ConfigurationError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(mqtrio.serve_broker, "mqtt://0.0.0.0:0")


async def test_a_cancelled_broker_ends_at_once() -> None:
    """No grace, no waiting for clients; the store still gets what was promised."""
    store = FaultyStore()
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            async with trio.open_nursery() as nursery:
                broker = await nursery.start(
                    partial(mqtrio.serve_broker, LOOPBACK, store=store, limits={"stop_grace": 60})
                )
                peer = await stack.enter_async_context(
                    connected(broker, "ann", session_expiry_interval=100)
                )
                await peer.subscribe("a", qos=1)
                await broker.publish("a", b"kept", qos=1)
                nursery.cancel_scope.cancel()
            assert store.closed
            assert [row.payload for row in store.state.messages.values()] == [b"kept"]
            with pytest.raises(Closed):
                await _forever(peer)
    with pytest.raises(BrokerStopped):
        await broker.publish("a")


async def _forever(peer: Peer) -> None:
    while True:
        await peer.receive()


async def test_a_cancelled_block_ends_at_once() -> None:
    with trio.CancelScope() as scope:
        async with mqtrio.open_broker(LOOPBACK) as broker:
            async with connected(broker, "ann"):
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught


# -- two in one process


async def test_two_brokers_know_nothing_of_each_other() -> None:
    async with (
        mqtrio.open_broker(LOOPBACK, plugins=[Passwords()]) as one,
        mqtrio.open_broker(LOOPBACK, limits={"topic_alias_maximum": 3}) as two,
        connected(one, "ann", username="ann", password=b"sesame") as ann,
        connected(two, "ann") as other,
    ):
        assert other.connack is not None
        assert other.connack.topic_alias_maximum == 3
        await ann.subscribe("#")
        await other.subscribe("#")
        await one.publish("a", b"one", retain=True)
        await two.publish("a", b"two")
        await ann.message(b"one")
        await other.message(b"two")
        await ann.ping()
        await other.ping()
        assert len(one.retained()) == 1
        assert two.retained() == []
        assert [c.username for c in one.clients()] == ["ann"]
        assert [c.username for c in two.clients()] == [None]


async def test_one_ends_and_the_other_goes_on() -> None:
    async with mqtrio.open_broker(LOOPBACK) as stays:
        async with mqtrio.open_broker(LOOPBACK), connected(stays, "ann") as peer:
            pass
        async with connected(stays, "ann") as peer:
            await peer.ping()


async def test_one_after_the_other_on_the_same_port() -> None:
    async with mqtrio.open_broker(LOOPBACK) as broker:
        url = str(broker.listeners[0])
        async with connected(broker, "ann") as peer:
            await peer.ping()
    async with mqtrio.open_broker(url) as broker, connected(broker, "ann") as peer:
        await peer.ping()
