"""Scripts, and bytes, that many tests of MQTT 3.1 and 3.1.1 need."""

from typing import Any, Final

import pytest

from mqtrio.wire.packets import MQTT_3_1, MQTT_3_1_1, Packet
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers

#: Run a test in both versions: its peers speak MQTT 3.1, then 3.1.1.
both = pytest.mark.parametrize("speaks", [MQTT_3_1, MQTT_3_1_1], ids=["3.1", "3.1.1"])

#: Version -> protocol name and level.
PROTOCOLS: Final = {MQTT_3_1: ("MQIsdp", 3), MQTT_3_1_1: ("MQTT", 4)}


def connect(
    *payload: bytes,
    version: int = MQTT_3_1_1,
    flags: int = 0x02,
    keep_alive: int = 60,
    first_byte: int = raw.CONNECT,
) -> bytes:
    """A CONNECT of `version`; `payload` begins with the client identifier's field."""
    name, level = PROTOCOLS[version]
    return raw.connect(
        *payload,
        name=name,
        level=level,
        flags=flags,
        keep_alive=keep_alive,
        property_list=None,
        first_byte=first_byte,
    )


def publish(
    topic: bytes,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int = 0,
    first_byte: int | None = None,
) -> bytes:
    """A PUBLISH."""
    return raw.publish(topic, payload, qos, packet_id, None, first_byte)


def subscribe(packet_id: int, *filters: tuple[bytes, int], first_byte: int = 0x82) -> bytes:
    """A SUBSCRIBE with pairs of topic filter and the byte for its QoS."""
    return raw.subscribe(packet_id, filters, None, first_byte)


def unsubscribe(packet_id: int, *filters: bytes, first_byte: int = 0xA2) -> bytes:
    """An UNSUBSCRIBE."""
    return raw.frame(first_byte, raw.uint16(packet_id), *(raw.binary(f) for f in filters))


#: A mistake that no server overlooks: PUBLISH at QoS 3.
MALFORMED: Final = publish(b"a", b"x", 2, 1, first_byte=0x36)


async def refused(peers: Peers, *sent: Packet | bytes) -> None:
    """A client that was let in sends this, and its connection ends; MQTT 3 tells it nothing."""
    async with peers() as p:
        await p.connect()
        await p.send(*sent)
        await p.closed_silently()


async def connect_refused(peers: Peers, data: bytes, *, silently: bool = False) -> None:
    """This CONNECT ends the connection.

    `silently`: without a CONNACK [MQTT-3.1.4-1]; of our broker that is asked in any case.
    """
    async with peers() as p:
        await p.send(data)
        await p.expect_closed(told=False if silently or peers.strict else None)


async def away(peers: Peers, *topic_filters: str, qos: int = 1) -> str:
    """Leave a session with these subscriptions behind; returns its client identifier."""
    async with peers() as p:
        await p.connect(clean_start=False)
        for topic_filter in topic_filters:
            await p.subscribe(topic_filter, qos)
        await p.disconnect()
        return p.client_id


async def back(peer: Peer, **fields: Any) -> None:
    """Resume the session that was left behind; MQTT 3.1 isn't told that there is one."""
    present = peer.version == MQTT_3_1_1
    await peer.connect(session_present=present, clean_start=False, **fields)
