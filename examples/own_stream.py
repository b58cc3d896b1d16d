"""Embedding: a broker as one task of a Trio program, with clients that come by streams of its own.

    python examples/own_stream.py

Here they come by a Unix socket on which the program listens itself; a serial line, a tunnel or
`trio.SSLStream` would do as well: all it takes is a `trio.abc.Stream`. The client is made with
paho-mqtt (`pip install paho-mqtt`). Windows has no Unix sockets for Python.
"""

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import paho.mqtt.client as mqtt
import trio
from paho.mqtt.enums import CallbackAPIVersion

import mqtrio


@asynccontextmanager
async def unix_listener(path: Path) -> AsyncIterator[trio.SocketListener]:
    """Listen on a Unix socket."""
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with sock:
        await sock.bind(str(path))
        sock.listen()
        yield trio.SocketListener(sock)


def greet(path: Path) -> None:
    """Be a client that says hello."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "visitor", transport="unix")
    client.connect(str(path))
    client.loop_start()
    client.publish("greetings", b"hello over a Unix socket", qos=1).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()


async def serve_clients(
    broker: mqtrio.Broker, listener: trio.SocketListener, scope: trio.CancelScope
) -> None:
    """Hand each stream that comes in to the broker, until the scope is cancelled."""
    with scope:
        await trio.serve_listeners(partial(broker.serve_stream, listener="unix"), [listener])


async def main() -> None:
    """Run the broker beside other tasks, serve a client, and stop."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mqtt.sock")
        async with trio.open_nursery() as nursery, unix_listener(path) as listener:
            # No listener of its own: `listen=[]`. As a task, it starts with `nursery.start`.
            broker = await nursery.start(partial(mqtrio.serve_broker, listen=[]))
            clients = trio.CancelScope()
            nursery.start_soon(serve_clients, broker, listener, clients)
            async with broker.subscribe("greetings") as messages:
                await trio.to_thread.run_sync(greet, path)
                message = await messages.receive()
            print(f"{message.publisher}: {message.payload.decode()}")
            statistics = broker.statistics()
            print(f"{statistics.connections_opened} connection, {statistics.crashes} mistakes")
            clients.cancel()
            broker.stop()  # gracefully: clients are told, and `serve_broker` returns
        print("stopped")


if __name__ == "__main__":
    trio.run(main)
