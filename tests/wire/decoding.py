"""What the tests of wire share: decode a stream and say how it ended."""

from collections.abc import Iterable
from typing import NamedTuple

from mqtrio.errors import ProtocolError
from mqtrio.wire.decoder import Decoder, TopicCache
from mqtrio.wire.packets import Connect, Packet

LIMIT = 1 << 20


class Outcome(NamedTuple):
    """The packets of a stream, its end (reason code and text, or None) and what was left over."""

    packets: list[Packet]
    error: tuple[int, str] | None
    left: int


def decoder_for(
    packet: Packet | None, version: int, *, from_client: bool = True, limit: int = LIMIT
) -> Decoder:
    """A decoder in the state in which `packet` may come."""
    known = 0 if isinstance(packet, Connect) else version
    return Decoder(limit, TopicCache(), version=known, from_client=from_client)


def outcome(decoder: Decoder, chunks: Iterable[bytes], take: int = 1000) -> Outcome:
    """Feed chunk after chunk and take everything, `take` packets at a time."""
    packets: list[Packet] = []
    for chunk in chunks:
        decoder.feed(chunk)
        while decoder.pending:
            try:
                taken = decoder.take(take)
            except ProtocolError as error:
                return Outcome(packets, (error.reason_code, error.message), decoder.buffered)
            if not taken:
                break
            packets += taken
    return Outcome(packets, None, decoder.buffered)


def decode(decoder: Decoder, data: bytes) -> list[Packet]:
    """All packets of `data`; an error is raised."""
    decoder.feed(data)
    packets = decoder.take(1000)
    assert decoder.take(1000) == []
    return packets
