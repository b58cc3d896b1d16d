"""Scripts that many tests play: bytes that end a connection, messages for a client that is away."""

from typing import Any, Final

from mqtrio.wire.packets import Packet
from tests.conformance import raw
from tests.conformance.peer import Peer, Peers

#: A mistake that no server overlooks: PUBLISH at QoS 3.
MALFORMED: Final = raw.publish(b"a", b"x", 2, 1, first_byte=0x36)


async def refused(peers: Peers, *sent: Packet | bytes, codes: tuple[int, ...] = (0x81,)) -> None:
    """A client that was let in sends this, and its connection ends with one of `codes`."""
    async with peers() as p:
        await p.connect()
        await p.send(*sent)
        await p.expect_closed(*codes)


async def connect_refused(peers: Peers, data: Packet | bytes, *codes: int) -> None:
    """This CONNECT ends the connection, after a CONNACK with one of `codes` or none."""
    async with peers() as p:
        await p.send(data)
        await p.expect_closed(*codes)


async def away(peers: Peers, *topic_filters: str, qos: int = 1, **options: Any) -> str:
    """Leave a session with these subscriptions behind; returns its client identifier."""
    async with peers() as p:
        await p.connect(session_expiry_interval=60)
        for topic_filter in topic_filters:
            await p.subscribe(topic_filter, qos, **options)
        await p.disconnect()
        return p.client_id


async def back(peer: Peer, **fields: Any) -> None:
    """Resume the session that was left behind."""
    fields = {"clean_start": False, "session_expiry_interval": 60} | fields
    await peer.connect(session_present=True, **fields)
