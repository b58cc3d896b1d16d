"""wss://: WebSocket over TLS, with a client of others."""

from typing import Any

import pytest
import trio

import mqtrio
from contrib.tls.tests.authority import Authority
from mqtrio import Listener, hookimpl
from mqtrio_tls import TlsClient, TlsListener, client_context

pytest.importorskip("mqtrio_websocket")
sync_client: Any = pytest.importorskip("websockets.sync.client")

CONNECT = bytes.fromhex("10 0c 0004 4d515454 04 02 003c 0000")


async def test_both_layers_in_one_listener(ca: Authority) -> None:
    seen: list[mqtrio.ClientFacts] = []

    class Watching:
        @hookimpl
        def client_connected(self, event: mqtrio.ClientConnectedEvent) -> None:
            seen.append(event.client)

    issued = ca.issue("localhost", file="server")
    options = TlsListener(certificate=issued.certificate, key=issued.key)
    context = client_context(TlsClient(ca=ca.file, alpn=()))

    def talk(port: int) -> bytes:
        with sync_client.connect(
            f"wss://localhost:{port}/mqtt", ssl=context, subprotocols=["mqtt"]
        ) as socket:
            socket.send(CONNECT)
            answer: bytes = socket.recv()
            return answer

    listener = Listener(url="wss://127.0.0.1:0", tls=options)
    with trio.fail_after(20):
        async with mqtrio.open_broker(listener, plugins=[Watching()]) as broker:
            answer = await trio.to_thread.run_sync(talk, broker.listeners[0].port)
    assert answer == bytes.fromhex("20 02 00 00")
    (client,) = seen
    assert client.tls is not None
    assert client.tls.version == "TLSv1.3"
    assert client.http is not None
    assert (client.http.path, client.http.subprotocol) == ("/mqtt", "mqtt")
