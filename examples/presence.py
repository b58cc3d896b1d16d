"""Presence: everybody can see who is there, by retained messages and wills.

    python examples/presence.py

A client says "online" with a retained message, and leaves a will that says "offline", which the
broker publishes if the client vanishes. Clients are made with paho-mqtt (`pip install paho-mqtt`).
"""

import socket

import paho.mqtt.client as mqtt
import trio
from paho.mqtt.enums import CallbackAPIVersion

import mqtrio


def join(name: str, port: int) -> mqtt.Client:
    """Connect a client that shows its presence."""
    topic = f"presence/{name}"

    def say_online(client: mqtt.Client, *rest: object) -> None:
        client.publish(topic, b"online", 1, retain=True)

    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, reconnect_on_failure=False)
    client.will_set(topic, b"offline", qos=1, retain=True)
    client.on_connect = say_online
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def leave(client: mqtt.Client) -> None:
    """Go politely. A DISCONNECT takes the will back, so the farewell is said before."""
    client.publish("presence/ann", b"gone home", 1, retain=True).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()


def vanish(client: mqtt.Client) -> None:
    """Lose the connection, as if somebody had pulled the cable."""
    sock = client.socket()
    assert isinstance(sock, socket.socket)
    sock.shutdown(socket.SHUT_RDWR)
    client.loop_stop()


async def main() -> None:
    """Run a broker, two clients that come and go, and somebody who watches."""
    async with mqtrio.open_broker("mqtt://127.0.0.1:0") as broker:
        port = broker.listeners[0].port
        async with broker.subscribe("presence/+", qos=1) as changes:

            async def show() -> None:
                message = await changes.receive()
                await message.ack()
                print(f"{message.topic}: {message.payload.decode()} (from {message.publisher})")

            ann = await trio.to_thread.run_sync(join, "ann", port)
            await show()
            bob = await trio.to_thread.run_sync(join, "bob", port)
            await show()
            await trio.to_thread.run_sync(leave, ann)
            await show()
            await trio.to_thread.run_sync(vanish, bob)
            await show()
        # Who comes late sees the last state of all.
        async with broker.subscribe("presence/#") as late:
            states = [await late.receive() for _ in range(2)]
        for message in sorted(states, key=lambda message: message.topic):
            print(f"retained: {message.topic} is {message.payload.decode()}")


if __name__ == "__main__":
    trio.run(main)
