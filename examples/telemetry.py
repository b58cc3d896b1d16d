"""Telemetry: sensors publish, the program that the broker is a part of adds up what they say.

    python examples/telemetry.py

Nothing but mqtrio is needed: the sensors are tasks of this program. Any MQTT client could stand in
for them, as the broker listens on a port like every other.
"""

import json
import random
from collections import defaultdict
from statistics import fmean

import trio

import mqtrio

ROOMS = ("kitchen", "cellar", "attic")
READINGS = 20


async def sensor(broker: mqtrio.Broker, room: str) -> None:
    """Publish the temperature of a room, as a sensor does."""
    temperature = random.uniform(15, 25)
    for _ in range(READINGS):
        temperature += random.uniform(-0.5, 0.5)
        await broker.publish(
            f"sensors/{room}/temperature",
            json.dumps({"celsius": round(temperature, 2)}),
            qos=1,
            content_type="application/json",
            message_expiry_interval=60,  # nobody wants to know a minute later
        )
        await trio.sleep(0.01)


async def aggregate(messages: mqtrio.Subscriber) -> dict[str, list[float]]:
    """Collect the readings of all rooms."""
    readings: dict[str, list[float]] = defaultdict(list)
    for _ in range(len(ROOMS) * READINGS):
        message = await messages.receive()
        room = message.topic.split("/")[1]
        readings[room].append(json.loads(message.payload)["celsius"])
        await message.ack()
    return readings


async def main() -> None:
    """Run a broker, the sensors and what listens to them, until all have spoken."""
    async with mqtrio.open_broker("mqtt://127.0.0.1:0") as broker:
        print(f"listening on {broker.listeners[0]}")
        # Subscribed before the first sensor speaks, so that nothing is missed.
        async with broker.subscribe("sensors/+/temperature", qos=1) as messages:
            async with trio.open_nursery() as nursery:
                for room in ROOMS:
                    nursery.start_soon(sensor, broker, room)
                readings = await aggregate(messages)
        for room, values in sorted(readings.items()):
            print(f"{room}: {len(values)} readings, {fmean(values):.1f} degrees on average")
            await broker.publish(f"averages/{room}", f"{fmean(values):.1f}", retain=True)
        # Who subscribes later gets the averages at once: they are retained.
        print(f"{len(broker.retained('averages/#'))} averages are retained")


if __name__ == "__main__":
    trio.run(main)
