"""Listeners with layers in a broker: their stacks, what hooks see, reloads, and bad peers."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import mqtrio
from mqtrio import Allow, ClientFacts, Listener, hookimpl
from mqtrio.broker import Broker
from mqtrio.testing import check_layer
from tests.toy_layers import Shift, ShiftSettings, Toy, shift

CONNECT = bytes.fromhex("10 0c 0004 4d515454 04 02 003c 0000")
CONNACK = bytes.fromhex("20 02 00 00")
LOCAL = "mqtts://127.0.0.1:0"
OTHER = "mqtts://127.0.0.1:0/"


class Watching:
    """Notes what hooks see of a client."""

    def __init__(self) -> None:
        self.seen: list[ClientFacts] = []
        self.refused: list[str] = []

    @hookimpl
    def accept(self, event: mqtrio.AcceptEvent) -> None:
        assert event.tls is None
        assert event.http is None

    @hookimpl
    def authenticate(self, event: mqtrio.AuthenticateEvent) -> Allow:
        self.seen.append(event.client)
        return Allow()

    @hookimpl
    def connection_refused(self, event: mqtrio.ConnectionRefusedEvent) -> None:
        self.refused.append(event.why)


@asynccontextmanager
async def connected(broker: Broker, index: int = 0) -> AsyncIterator[trio.SocketStream]:
    address = broker.listeners[index]
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        yield stream


async def speaks(stream: trio.SocketStream, by: int) -> bool:
    await stream.send_all(b"\x01" + shift(CONNECT, by))
    return shift(bytes(await stream.receive_some()), -by) == CONNACK


async def come(broker: Broker, by: int, index: int = 0) -> bool:
    with trio.fail_after(10):
        async with connected(broker, index) as stream:
            return await speaks(stream, by)


def listener(by: int, url: str = LOCAL) -> Listener:
    return Listener(url=url, tls=ShiftSettings(by=by))


async def test_each_listener_has_its_own_options() -> None:
    toy = Toy("tls")
    async with mqtrio.open_broker([listener(3), listener(5, OTHER)], plugins=[toy]) as broker:
        assert await come(broker, 3)
        assert await come(broker, 5, index=1)


async def test_options_may_be_tables() -> None:
    made = Listener(url=LOCAL, tls={"by": 3})
    async with mqtrio.open_broker(made, plugins=[Toy("tls")]) as broker:
        assert await come(broker, 3)
        assert str(broker.listeners[0]).startswith("mqtts://127.0.0.1:")


async def test_the_settings_of_a_program_may_hold_the_options() -> None:
    async with mqtrio.open_broker(
        LOCAL, plugins=[Toy("tls")], listener=[{"url": LOCAL, "tls": {"by": 3}}]
    ) as broker:
        assert await come(broker, 3)


async def test_hooks_see_what_layers_learnt() -> None:
    watching = Watching()
    made = Listener(url="wss://127.0.0.1:0", tls=ShiftSettings(by=3), websocket=ShiftSettings(by=4))
    async with mqtrio.open_broker(made, plugins=[Toy("tls", "websocket"), watching]) as broker:
        with trio.fail_after(10):
            async with connected(broker) as stream:
                await stream.send_all(b"\x01" + shift(b"\x01" + shift(CONNECT, 4), 3))
                assert shift(bytes(await stream.receive_some()), -7) == CONNACK
                (client,) = broker.clients()
                assert client.address.startswith("192.0.2.9:")
    (seen,) = watching.seen
    assert (seen.address, seen.via) == ("192.0.2.9", "127.0.0.1")
    assert seen.tls is not None
    assert seen.tls.version == "shift 3"
    http = seen.http
    assert http is not None
    assert (http.path, http.header("X"), http.header("y")) == ("/mqtt", "4", None)


async def test_a_bad_handshake_ends_its_own_connection(caplog: pytest.LogCaptureFixture) -> None:
    watching = Watching()
    with caplog.at_level(logging.INFO):
        async with mqtrio.open_broker(listener(3), plugins=[Toy("tls"), watching]) as broker:
            with trio.fail_after(10):
                async with connected(broker) as good, connected(broker) as bad:
                    await bad.send_all(b"\x02rubbish")
                    assert await bad.receive_some() == b""
                    assert await speaks(good, 3)
    assert watching.refused == ["tls: this is no greeting"]
    assert "tls: this is no greeting" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_a_handshake_has_a_deadline() -> None:
    watching = Watching()
    async with mqtrio.open_broker(
        listener(3), plugins=[Toy("tls"), watching], limits={"connect_timeout": 0.05}
    ) as broker:
        with trio.fail_after(10):
            async with connected(broker) as stream:
                assert await stream.receive_some() == b""
    assert watching.refused == ["no handshake in time"]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (listener(13), rf"listener {LOCAL}: tls: 13 brings bad luck"),
        (Listener(url=LOCAL), "tls.by: missing; what is added to each byte"),
        (Listener(url=LOCAL, tls={"by": 3, "bye": 4}), "tls.bye: unknown; did you mean by"),
        (Listener(url=LOCAL, tls=mqtrio.Log()), "tls: it is a Log; allowed: a table"),
    ],
)
async def test_wrong_options_keep_a_broker_from_starting(made: Listener, text: str) -> None:
    with pytest.raises(mqtrio.ConfigurationError, match=text):
        async with mqtrio.open_broker(made, plugins=[Toy("tls")]):
            pass


async def test_what_makes_no_layers_is_blamed() -> None:
    class Broken:
        def __init__(self, answer: object) -> None:
            self.answer = answer

        @hookimpl
        def layers(self, event: mqtrio.LayersEvent) -> dict[str, mqtrio.LayerProvider]:
            return {"tls": mqtrio.LayerProvider(settings=ShiftSettings, server=self.server)}

        def server(self, options: object) -> mqtrio.LayerFactory:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer  # type: ignore[return-value]

    for answer, text in ((KeyError("x"), r"can't be made: KeyError\('x'\)"), (3, "not int")):
        with pytest.raises(mqtrio.PluginError, match=text):
            async with mqtrio.open_broker(listener(3), plugins=[Broken(answer)]):
                pass


async def test_layers_count_in_the_memory_of_all_clients() -> None:
    plain = Listener(url="mqtt://127.0.0.1:0")
    async with mqtrio.open_broker([listener(3), plain], plugins=[Toy("tls")]) as broker:
        held = []
        for index, said in ((0, b"\x01" + shift(CONNECT, 3)), (1, CONNECT)):
            async with connected(broker, index) as stream:
                await stream.send_all(said)
                await stream.receive_some()
                held.append(broker.statistics().memory)
                broker.disconnect(broker.clients()[0].client_id)
    assert held[0] - held[1] == Shift.weight


# -- reload ----------------------------------------------------------------------------------------


def configuration(*listeners: Listener) -> dict[str, object]:
    return {"listener": list(listeners)}


async def test_options_are_reloaded_and_connections_stay() -> None:
    with trio.fail_after(20):
        async with mqtrio.open_broker(
            config=configuration(listener(3)), plugins=[Toy("tls")]
        ) as broker:
            (bound,) = broker.listeners
            async with connected(broker) as old:
                assert await speaks(old, 3)
                await broker.reload(configuration(listener(5)))
                assert broker.listeners == (bound,)
                assert await come(broker, 5)
                await old.send_all(shift(b"\xc0\x00", 3))
                assert shift(bytes(await old.receive_some()), -3) == b"\xd0\x00"


async def test_wrong_options_change_nothing() -> None:
    with trio.fail_after(20):
        async with mqtrio.open_broker(
            config=configuration(listener(3)), plugins=[Toy("tls")]
        ) as broker:
            for wrong in (listener(13), Listener(url=LOCAL, tls={"by": 300})):
                with pytest.raises(mqtrio.ConfigurationError):
                    await broker.reload(configuration(wrong, Listener(url="mqtt://127.0.0.1:0")))
                assert len(broker.listeners) == 1
                assert await come(broker, 3)


async def test_a_layer_comes_with_a_reload() -> None:
    with trio.fail_after(20):
        plain = Listener(url="mqtt://127.0.0.1:0")
        async with mqtrio.open_broker(config=configuration(plain), plugins=[Toy("tls")]) as broker:
            await broker.reload(configuration(plain, listener(3)))
            assert await come(broker, 3, index=1)
            await broker.reload(configuration(plain))
            assert [each.scheme for each in broker.listeners] == ["mqtt"]


# -- streams ---------------------------------------------------------------------------------------


async def test_a_slow_handshake_on_a_stream(autojump_clock: MockClock) -> None:
    """The deadline counts from the beginning, whatever a peer drips."""
    from trio.testing import memory_stream_pair

    from mqtrio.engine.link import PeerFacts

    watching = Watching()
    async with mqtrio.open_broker([], plugins=[watching]) as broker, trio.open_nursery() as nursery:
        near, far = memory_stream_pair()
        peer = PeerFacts(address="192.0.2.7", listener="test", local=True)
        nursery.start_soon(broker._network.serve_stream, far, peer, [lambda: Shift(3, "tls")])
        began = trio.current_time()
        await near.send_all(b"\x01")
        assert await near.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(10, abs=0.1)
    assert watching.refused == ["no CONNECT in time"]


# -- the page ------------------------------------------------------------------------------------


async def test_the_layer_of_the_page_works() -> None:
    page = (Path(__file__).parents[2] / "docs" / "layers.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(program, "docs/layers.md", "exec", dont_inherit=True), names)
    check_layer(lambda: names["Xor"](7), lambda: names["Xor"](7))
    plugin = names["XorPlugin"](None, name="xor")
    with trio.fail_after(10):
        async with mqtrio.open_broker(Listener(url=LOCAL, tls={"mask": 9}), plugins=[plugin]) as b:
            async with connected(b) as stream:
                await stream.send_all(bytes(each ^ 9 for each in CONNECT))
                answer = bytes(await stream.receive_some())
                assert bytes(each ^ 9 for each in answer) == CONNACK
