"""A broker in a program that doesn't run Trio: in asyncio, or with threads.

    async with mqtrio.embed.open_asyncio_broker("mqtt://127.0.0.1:1883") as broker:
        await broker.publish("greeting", "hello", retain=True)

    with mqtrio.embed.open_thread_broker("mqtt://127.0.0.1:1883") as broker:
        broker.publish("greeting", "hello", retain=True)

The methods of the two are those of `mqtrio.Broker`, with the same arguments.
"""

from mqtrio.embed.asynchronous import AsyncioBroker as AsyncioBroker
from mqtrio.embed.asynchronous import AsyncioSubscriber as AsyncioSubscriber
from mqtrio.embed.asynchronous import open_asyncio_broker as open_asyncio_broker
from mqtrio.embed.threads import BlockingBroker as BlockingBroker
from mqtrio.embed.threads import BlockingSubscriber as BlockingSubscriber
from mqtrio.embed.threads import open_thread_broker as open_thread_broker

__all__ = [
    "AsyncioBroker",
    "AsyncioSubscriber",
    "BlockingBroker",
    "BlockingSubscriber",
    "open_asyncio_broker",
    "open_thread_broker",
]
