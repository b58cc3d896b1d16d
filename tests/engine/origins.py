"""The doors by which a message comes into the broker, as functions that publish through them."""

from collections.abc import Awaitable, Callable
from typing import Final, Literal

from mqtrio import ClientFacts, RefusedError
from mqtrio.engine import local
from mqtrio.engine.publish import publish_detached
from mqtrio.state.message import Message
from mqtrio.testing import Harness
from mqtrio.wire.packets import Publish, Will

Origin = Literal["client", "will", "local", "system", "bridge"]


async def _client(harness: Harness, topic: str, payload: bytes, qos: int, retain: bool) -> None:
    peer = await harness.connect("publisher")
    await peer.send(Publish(topic, payload, qos, retain, packet_id=1 if qos else 0))
    await peer.settle()


async def _will(harness: Harness, topic: str, payload: bytes, qos: int, retain: bool) -> None:
    peer = await harness.connect("publisher", will=Will(topic, payload, qos, retain))
    await peer.drop()


async def _local(harness: Harness, topic: str, payload: bytes, qos: int, retain: bool) -> None:
    try:
        await harness.broker.publish(topic, payload, qos=qos, retain=retain)
    except RefusedError:
        pass


async def _system(harness: Harness, topic: str, payload: bytes, qos: int, retain: bool) -> None:
    core = harness.broker._core
    message = Message(topic, payload, qos, retain, None, origin="system")
    core.turn(publish_detached, core, message)


async def _bridge(harness: Harness, topic: str, payload: bytes, qos: int, retain: bool) -> None:
    client = ClientFacts("publisher")
    core = harness.broker._core
    try:
        await local.publish(core, topic, payload, qos, retain, None, "bridge", client)
    except RefusedError:
        pass


#: Publishes one message, and returns whatever becomes of it.
ORIGINS: Final[dict[Origin, Callable[[Harness, str, bytes, int, bool], Awaitable[None]]]] = {
    "client": _client,
    "will": _will,
    "local": _local,
    "system": _system,
    "bridge": _bridge,
}

#: The client identifier that events show as the publisher's.
PUBLISHER: Final[dict[Origin, str]] = {
    "client": "publisher",
    "will": "publisher",
    "local": "",
    "system": "",
    "bridge": "publisher",
}
