"""Peers that take nothing, or slowly, and what the tests of limits ask again and again."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio
from trio.testing import lockstep_stream_pair

from mqtrio.hooks.answers import Challenge
from mqtrio.hooks.events import AuthenticateEvent
from mqtrio.hooks.specs import hookimpl
from mqtrio.testing import Harness, Peer
from mqtrio.wire.packets import MQTT_5, PubAck, Publish

MIB = 1024 * 1024


async def narrow(harness: Harness, client_id: str, *, version: int = MQTT_5, **fields: Any) -> Peer:
    """A client whose stream holds nothing: what it does not receive stays in the broker."""
    ours, theirs = lockstep_stream_pair()
    peer = harness.adopt(ours, theirs, client_id, version=version)
    await peer.connect(**fields)
    return peer


def numbered(
    topic: str, count: int, qos: int = 0, *, first: int = 1, payload: bytes = b""
) -> list[Publish]:
    """Messages whose payloads begin with their numbers, and whose identifiers are their numbers."""
    return [
        Publish(
            topic,
            number.to_bytes(4, "big") + payload,
            qos,
            packet_id=number if qos else 0,
        )
        for number in range(first, first + count)
    ]


def numbers(packets: Iterable[object]) -> list[int]:
    """The numbers in the payloads of those packets that are PUBLISH, in their order."""
    return [
        int.from_bytes(packet.payload[:4], "big")
        for packet in packets
        if isinstance(packet, Publish)
    ]


async def acknowledge(peer: Peer, count: int) -> list[int]:
    """Receive so many QoS 1 messages, acknowledge each, and return their numbers."""
    got = []
    for _ in range(count):
        message = await peer.expect(Publish, qos=1)
        await peer.send(PubAck(message.packet_id))
        got.append(message)
    return numbers(got)


async def puback_codes(peer: Peer, count: int) -> list[int]:
    """The reason codes of the next acknowledgements."""
    return [(await peer.expect(PubAck)).reason_code for _ in range(count)]


async def seconds(function: Callable[[], Awaitable[object]]) -> float:
    """What a call takes, in virtual time."""
    start = trio.current_time()
    await function()
    return trio.current_time() - start


class EndlessExchange:
    """A plugin that answers every authentication with one more challenge."""

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Challenge | None:
        return Challenge(b"more") if event.method is not None else None
