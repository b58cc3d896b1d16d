"""Bytes -> packets: finds the packets in a stream of bytes and decodes them.

This is the hottest loop of the broker. PUBLISH without DUP and RETAIN, plain acknowledgements and
PINGREQ are decoded in the loop itself, with local variables only; everything else goes through
bodies.py and connect.py.
"""

from typing import Final

from mqtrio.errors import MalformedPacket, ProtocolError
from mqtrio.reasons import ReasonCode
from mqtrio.wire.bodies import BODIES, read_publish
from mqtrio.wire.connect import check_version, read_connect, read_level
from mqtrio.wire.header import refusals, remaining_length
from mqtrio.wire.packets import (
    MQTT_5,
    Packet,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
)
from mqtrio.wire.primitives import Reader
from mqtrio.wire.properties import CONNECT, PUBLISH
from mqtrio.wire.topics import TopicCache

__all__ = ["Decoder", "TopicCache"]

_PINGREQ: Final = PingReq()

# A topic field that no PUBLISH may have, for a decoder that has seen none.
_NO_FIELD: Final = b"\0\1\0"


class Decoder:
    """Decodes what one peer sends. Bytes go in by `feed`, packets come out by `take`.

    `maximum_packet_size` (bytes, fixed header included) may be changed at any time; a larger packet
    is refused by its header, before its body is held. `topics` is shared by many decoders.
    `version` 0 means that a CONNECT must come first, whose version counts from then on; it is
    given where no CONNECT will be seen. `from_client` tells which side's packets are accepted.
    """

    __slots__ = (
        "version",
        "from_client",
        "refused_level",
        "_refusals",
        "_maximum_packet_size",
        "_short",
        "_topics",
        "_data",
        "_position",
        "_later",
        "_needed",
        "_reason_code",
        "_reason",
        "_last_field",
        "_last_topic",
    )

    def __init__(
        self,
        maximum_packet_size: int,
        topics: TopicCache,
        *,
        version: int = 0,
        from_client: bool = True,
    ) -> None:
        self.version = version
        self.from_client = from_client
        #: The protocol level of a CONNECT that was refused for whatever reason (without the bit
        #: that bridges set): it tells the form of the CONNACK. 0 if no level was seen.
        self.refused_level = 0
        self._refusals = refusals(version, from_client)
        self._maximum_packet_size = maximum_packet_size
        # Remaining lengths up to this are one byte long and within the limit.
        self._short = min(0x7F, maximum_packet_size - 2)
        self._topics = topics
        # Bytes to decode, from _position on, and those that came while they could not be.
        self._data = b""
        self._position = 0
        self._later = bytearray()
        # Bytes, from _position on, without which nothing can be decoded; 0: none are missing as
        # far as is known.
        self._needed = 2
        # What was wrong, as values: an error object would keep the frames that it went through.
        self._reason_code = 0
        self._reason = ""
        # The topic field of the last PUBLISH: most publishers stay with one topic.
        self._last_field = _NO_FIELD
        self._last_topic = ""

    @property
    def maximum_packet_size(self) -> int:
        """The largest packet accepted, in bytes, fixed header included."""
        return self._maximum_packet_size

    @maximum_packet_size.setter
    def maximum_packet_size(self, size: int) -> None:
        self._maximum_packet_size = size
        self._short = min(0x7F, size - 2)

    @property
    def buffered(self) -> int:
        """Bytes that are held undecoded."""
        return len(self._data) - self._position + len(self._later)

    @property
    def pending(self) -> bool:
        """True if `take` may have something to give or to raise without more bytes."""
        return self._reason_code != 0 or self.buffered >= (self._needed or 2)

    def feed(self, data: bytes) -> None:
        """Add bytes that the peer sent. After an error they are dropped."""
        if self._reason_code or not data:
            return
        rest = len(self._data) - self._position
        if self._later:
            self._later += data
        elif rest == 0:
            self._data = data
            self._position = 0
        elif self._needed and rest + len(data) >= self._needed:
            self._data = self._data[self._position :] + data
            self._position = 0
        else:
            # A packet in many pieces, or a backlog: joined once, when it is their turn.
            self._later += data

    def take(self, limit: int) -> list[Packet]:
        """Decode up to `limit` packets; an empty list means that more bytes are needed.

        Raises ProtocolError once everything before the error has been taken, and ever after.
        """
        if self._reason_code:
            raise _error(self._reason_code, self._reason)
        packets: list[Packet] = []
        try:
            while len(packets) < limit and self._refill():
                self._decode(packets, limit)
        except ProtocolError as error:
            self._reason_code = error.reason_code
            self._reason = error.message
            self._data = b""
            self._position = 0
            self._later = bytearray()
        if self._reason_code and not packets:
            raise _error(self._reason_code, self._reason)
        return packets

    def _refill(self) -> bool:
        """Join what is held, if a packet was incomplete and may no longer be; False if it is."""
        if self._needed:
            if self.buffered < self._needed:
                return False
            if self._later:
                self._data = self._data[self._position :] + self._later
                self._position = 0
                self._later = bytearray()
            self._needed = 0
        return True

    def _decode(self, packets: list[Packet], limit: int) -> None:
        """Decode until there are `limit` packets, or a CONNECT, or _data has no whole packet.

        In the last case _needed is set.
        """
        data = self._data
        position = self._position
        size = len(data)
        short = self._short
        version = self.version
        version_5 = version == MQTT_5
        refused = self._refusals
        topics = self._topics
        known = topics.known
        field = self._last_field
        topic = self._last_topic
        field_size = size + 2 if field is _NO_FIELD else len(field)
        starts_with = data.startswith
        append = packets.append
        needed = 0
        for _ in range(limit - len(packets)):
            # The fixed header (2.1): the first byte and the remaining length.
            start = position + 2
            if start > size:
                needed = 2
                break
            first = data[position]
            length = data[position + 1]
            if length > short:
                if refused[first]:
                    raise _refuse(first, refused)
                # Lengths of two bytes are common and read here.
                if length > 0x7F:
                    if start < size and 0 < data[start] < 0x80:
                        length += (data[start] << 7) - 0x80
                        start += 1
                    else:
                        length, start = remaining_length(data, position + 1, size)
                        if length < 0:
                            needed = 1 + start
                            break
                if start + length - position > self._maximum_packet_size:
                    raise _too_large(start + length - position, self._maximum_packet_size)
            end = start + length
            if end > size:
                if refused[first]:
                    raise _refuse(first, refused)
                needed = end - position
                break

            if first & 0xF9 == 0x30 and version:
                # PUBLISH without DUP and RETAIN: three quarters of all packets, in full view.
                # `body` is where its topic ends; what is not plain has it behind the end.
                if starts_with(field, start):
                    body = start + field_size
                else:
                    body = size + 1
                    if length > 2:
                        topic_end = start + 2 + (data[start] << 8) + data[start + 1]
                        if start + 2 < topic_end <= end:
                            body = topic_end
                            field = data[start:body]
                            field_size = body - start
                            found = known.get(field)
                            topic = topics.add(field) if found is None else found
                if first == 0x30:
                    if version_5:
                        plain = body < end and data[body] == 0  # no properties
                        body += 1
                    else:
                        plain = body <= end
                    if plain:
                        append(
                            Publish(
                                topic, data[body:end], 0, False, False, 0, None, data[position:end]
                            )
                        )
                        position = end
                        continue
                elif first != 0x36 and body + 2 <= end:
                    packet_id = (data[body] << 8) | data[body + 1]
                    body += 2
                    if version_5:
                        plain = body < end and data[body] == 0
                        body += 1
                    else:
                        plain = True
                    if plain and packet_id:
                        qos = 1 if first == 0x32 else 2
                        append(
                            Publish(topic, data[body:end], qos, False, False, packet_id, None, None)
                        )
                        position = end
                        continue
            elif length == 2 and version:
                # Plain acknowledgements. Each class has its own call, which the interpreter
                # specialises.
                packet_id = (data[start] << 8) | data[start + 1]
                if packet_id:
                    if first == 0x40:
                        append(PubAck(packet_id, 0, None, ()))
                        position = end
                        continue
                    if first == 0x50:
                        append(PubRec(packet_id, 0, None, ()))
                        position = end
                        continue
                    if first == 0x62:
                        append(PubRel(packet_id, 0, None, ()))
                        position = end
                        continue
                    if first == 0x70:
                        append(PubComp(packet_id, 0, None, ()))
                        position = end
                        continue
            elif first == 0xC0 and length == 0 and not refused[0xC0]:
                append(_PINGREQ)
                position = end
                continue

            if refused[first]:
                raise _refuse(first, refused)
            reader = Reader(data, start, end)
            if first >> 4 == CONNECT:
                self._connect(packets, reader)
                position = end
                break  # the version is another one now
            packet = self._other(first, reader)
            if reader.position != end:
                raise _surplus()
            if first == 0x30 and isinstance(packet, Publish) and _same_for_all(packet.properties):
                packet.frame = data[position:end]
            append(packet)
            position = end

        if needed:
            # Decoded bytes must not be kept alive by the few that are left.
            data = data[position:]
            position = 0
        self._data = data
        self._position = position
        self._needed = needed
        if field_size <= size:
            self._last_field = field
            self._last_topic = topic

    def _connect(self, packets: list[Packet], reader: Reader) -> None:
        name, level = read_level(reader)
        self.refused_level = level & 0x7F
        version = check_version(name, level)
        packet = read_connect(reader, version)
        if reader.position != reader.end:
            raise _surplus()  # [MQTT-3.1.2-16], [MQTT-3.1.2-18]
        self.refused_level = 0
        self.version = version
        self._refusals = refusals(version, self.from_client)
        packets.append(packet)

    def _other(self, first: int, reader: Reader) -> Packet:
        if first >> 4 == PUBLISH:
            return read_publish(reader, first, self.version, self.from_client, self._topics)
        return BODIES[first >> 4](reader, first, self.version, self.from_client)


def _same_for_all(properties: PublishProperties | None) -> bool:
    """True if nothing in a PUBLISH belongs to this connection alone."""
    return properties is None or (
        properties.topic_alias is None and not properties.subscription_identifiers
    )


def _refuse(first: int, refused: bytes) -> ProtocolError:
    if refused[first] == ReasonCode.MALFORMED_PACKET:
        return MalformedPacket(f"no packet begins with 0x{first:02X}")
    return ProtocolError(refused[first], f"a packet of type {first >> 4} must not come here")


def _error(reason_code: int, reason: str) -> ProtocolError:
    if reason_code == ReasonCode.MALFORMED_PACKET:
        return MalformedPacket(reason)
    return ProtocolError(reason_code, reason)


def _too_large(size: int, maximum: int) -> ProtocolError:
    return ProtocolError(
        ReasonCode.PACKET_TOO_LARGE, f"a packet of {size} bytes where {maximum} are allowed"
    )


def _surplus() -> ProtocolError:
    return MalformedPacket("a packet is longer than its fields")
