"""Remote control: ask a device for something and wait for its answer (MQTT 5 request/response).

    python examples/remote_control.py

The lamp is a client on the network, made with paho-mqtt (`pip install paho-mqtt`); the program that
the broker is a part of switches it.
"""

import json
from typing import Any

import paho.mqtt.client as mqtt
import trio
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import mqtrio

COMMANDS = "devices/lamp/commands"
STATUS = "devices/lamp/status"


def lamp(port: int) -> mqtt.Client:
    """Make a device that takes commands and answers each where its sender wants it."""
    state = {"on": False}
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "lamp", protocol=MQTTProtocolVersion.MQTTv5)

    def obey(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        state.update(json.loads(message.payload))
        asked: Any = message.properties
        answer: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        answer.CorrelationData = asked.CorrelationData
        client.publish(asked.ResponseTopic, json.dumps(state), 1, properties=answer)

    def subscribe(client: mqtt.Client, *rest: object) -> None:
        client.subscribe(COMMANDS, qos=1)

    def ready(client: mqtt.Client, *rest: object) -> None:
        client.publish(STATUS, b"ready", 1, retain=True)

    client.on_connect = subscribe
    client.on_subscribe = ready
    client.on_message = obey
    client.connect("127.0.0.1", port)
    client.loop_start()  # from now on paho serves it in a thread of its own
    return client


def switch_off(client: mqtt.Client) -> None:
    """Let the device leave."""
    client.disconnect()
    client.loop_stop()


async def main() -> None:
    """Run a broker and a lamp, and switch the lamp on."""
    async with mqtrio.open_broker("mqtt://127.0.0.1:0") as broker:
        device = await trio.to_thread.run_sync(lamp, broker.listeners[0].port)
        async with broker.subscribe(STATUS) as status:
            print(f"the lamp is {(await status.receive()).payload.decode()}")
        for command in ({}, {"on": True}, {"on": False}):
            # `request` makes a response topic, subscribes to it and finds the answer by its
            # correlation data; without an answer it raises trio.TooSlowError.
            response = await broker.request(COMMANDS, json.dumps(command), timeout=5)
            print(f"{command or 'how are you?'} -> {json.loads(response.payload)}")
        await trio.to_thread.run_sync(switch_off, device)
        try:
            await broker.request(COMMANDS, b"{}", timeout=0.2)
        except trio.TooSlowError:
            print("nobody answers any more")


if __name__ == "__main__":
    trio.run(main)
