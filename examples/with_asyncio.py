"""A broker inside of an asyncio program: devices report, the program answers, and counts.

    python examples/with_asyncio.py

Nothing but mqtrio is needed; any MQTT client could stand in for the devices. The broker runs in
the loop of the program: there is no other thread to be careful of.
"""

import asyncio

import mqtrio.embed

DEVICES = ("boiler", "pump", "valve")


async def device(broker: mqtrio.embed.AsyncioBroker, name: str, ready: asyncio.Event) -> None:
    """Switch on when told so, and say that it is done."""
    async with broker.subscribe(f"{name}/switch", qos=1) as orders:
        await broker.publish(f"{name}/ready", "yes", retain=True)
        if len(broker.retained("+/ready")) == len(DEVICES):
            ready.set()
        order = await orders.receive(timeout=5)
        await broker.publish(f"{name}/state", order.payload, qos=1)


async def main() -> None:
    """Run a broker and the devices; switch all of them on."""
    async with mqtrio.embed.open_asyncio_broker("mqtt://127.0.0.1:0") as broker:
        print(f"listening on port {broker.listeners[0].port}")
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as tasks, broker.subscribe("+/state", qos=1) as states:
            for name in DEVICES:
                tasks.create_task(device(broker, name, ready))
            await ready.wait()
            for name in DEVICES:
                await broker.publish(f"{name}/switch", "on", qos=1)
            seen: dict[str, str] = {}
            while len(seen) < len(DEVICES):
                state = await states.receive(timeout=5)
                seen[state.topic] = state.payload.decode()
        for topic, value in sorted(seen.items()):
            print(f"{topic}: {value}")


if __name__ == "__main__":
    asyncio.run(main())
