"""Bytes -> packets: finds the packets in a stream of bytes and decodes them.

This is the hottest loop of the broker. PUBLISH without DUP and RETAIN, and plain acknowledgements
are decoded in the loop itself, with local variables only; everything else goes through bodies.py
and connect.py.
"""

from typing import Final

from mqtrio.errors import MalformedPacket, ProtocolError
from mqtrio.reasons import ReasonCode
from mqtrio.wire.bodies import BODIES, read_publish
from mqtrio.wire.connect import check_version, read_connect, read_level
from mqtrio.wire.header import refusals, remaining_length
from mqtrio.wire.packets import (
    MQTT_5,
    Acknowledgement,
    Connect,
    Packet,
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

#: First byte -> acknowledgement.
ACKNOWLEDGEMENTS: Final[dict[int, type[Acknowledgement]]] = {
    0x40: PubAck,
    0x50: PubRec,
    0x62: PubRel,
    0x70: PubComp,
}

#: An interpreter makes a PUBLISH a sixth faster by __new__ and assignments than by calling the
#: class. Compiled, it is the other way round, and __new__ would call __init__.
INTERPRETED: Final = hasattr(Publish.__init__, "__code__")


#: What somebody speaks who doesn't begin with a CONNECT: by the first byte of a header of the PROXY
#: protocol (version 2), of a handshake of TLS, of HTTP's GET, of its POST and PROXY's version 1.
_FOREIGN: Final = {
    0x0D: "a PROXY header",
    0x16: "TLS",
    0x47: "HTTP",
    0x50: "HTTP or a PROXY header",
}


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
        "idle",
        "_refusals",
        "_maximum_packet_size",
        "_short",
        "_topics",
        "_data",
        "_position",
        "_later",
        "_needed",
        "_fresh",
        "_reason_code",
        "_reason",
        "_last_field",
        "_last_size",
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
        #: True while nothing is held: `take` has nothing to give or raise before more bytes come.
        self.idle = True
        self._refusals = refusals(version, from_client)
        self._maximum_packet_size = maximum_packet_size
        # Remaining lengths up to this are one byte long and within the limit.
        self._short = min(0x7F, maximum_packet_size - 2)
        self._topics = topics
        # Bytes to decode, from _position on; empty if nothing is held.
        self._data = b""
        self._position = 0
        # What came while _data could not be decoded: joined once, when it is its turn.
        self._later = bytearray()
        # Bytes, from _position on, without which _data gives no packet; 0 if it may give one.
        self._needed = 0
        # What was wrong, as values: an error object would keep the frames that it went through.
        self._reason_code = 0
        self._reason = ""
        # The topic field of the last PUBLISH, its size and its text: most publishers stay with one
        # topic. At first a field that no PUBLISH has, longer than any packet.
        self._last_field = b"\0\1\0"
        self._last_size = 1 << 32
        self._last_topic = ""
        # _data holds one read as it came, and `take` has not looked at it.
        self._fresh = False

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
        self.idle = False
        if self._reason_code:
            return
        if not self._data:
            self._data = data
            self._fresh = True
        elif self._later or not 0 < self._needed <= self.buffered + len(data):
            self._later += data
        else:
            self._data = self._data[self._position :] + data
            self._position = 0

    def take(self, limit: int) -> list[Packet]:
        """Decode up to `limit` packets; an empty list means that more bytes are needed.

        Raises ProtocolError once everything before the error has been taken, and ever after.
        """
        if self._fresh:
            self._fresh = False
            data = self._data
            size = len(data)
            # What small devices send: one short QoS 0 message in a read of its own, to the topic
            # of the last one. It spares the preparations of the loop.
            if (
                size <= self._short
                and data.startswith(self._last_field, 2)
                and data[0] == 0x30
                and data[1] == size - 2
            ):
                body = 2 + self._last_size
                if self.version == MQTT_5:
                    plain = body < size and data[body] == 0
                    body += 1
                else:
                    plain = body <= size
                if plain:
                    self._data = b""
                    self.idle = True
                    return [Publish(self._last_topic, data[body:], 0, False, False, 0, None, data)]
        packets: list[Packet] = []
        if self._needed:
            if self.buffered < self._needed:
                return packets
            if self._later:
                self._data = self._data[self._position :] + self._later
                self._position = 0
                self._later = bytearray()
            self._needed = 0
        try:
            self._decode(packets, limit)
        except ProtocolError as error:
            self._reason_code = error.reason_code
            self._reason = error.message
            self._data = b""
            self._position = 0
            self._later = bytearray()
            self._needed = 0
        if self._reason_code and not packets:
            raise _error(self._reason_code, self._reason)
        if self._later and len(packets) < limit:
            # Some bytes were missing at the end of _data, and may have come already.
            packets += self.take(limit - len(packets))
        return packets

    def _decode(self, packets: list[Packet], limit: int) -> None:
        """Decode until there are `limit` packets or _data has no whole one: _needed is set then."""
        data = self._data
        position = self._position
        size = len(data)
        short = self._short
        version = self.version
        version_5 = version == MQTT_5
        field = self._last_field
        field_size = self._last_size
        topic = self._last_topic
        starts_with = data.startswith
        append = packets.append
        new = Packet.__new__
        needed = 0
        for _ in range(limit):
            # The fixed header (2.1): the first byte and the remaining length.
            start = position + 2
            if start > size:
                needed = 2
                break
            first = data[position]
            length = data[position + 1]
            if length > short:
                if self._refusals[first]:
                    raise self._refused(first)
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
                    raise self._too_large(start + length - position)
            end = start + length
            if end > size:
                if self._refusals[first]:
                    raise self._refused(first)
                needed = end - position
                break

            if first & 0xF9 == 0x30 and version:
                # PUBLISH without DUP and RETAIN: three quarters of all packets, in full view.
                # `body` is where its topic ends; beyond `end` if this is none of the plain ones.
                if starts_with(field, start):
                    body = start + field_size
                else:
                    body = size + 1
                    if length > 2 and first != 0x36:
                        topic_end = start + 2 + (data[start] << 8) + data[start + 1]
                        if start + 2 < topic_end <= end:
                            body = topic_end
                            field = data[start:body]
                            found = self._topics.known.get(field)
                            topic = self._topics.add(field) if found is None else found
                            field_size = body - start
                            self._last_field = field
                            self._last_size = field_size
                            self._last_topic = topic
                if first == 0x30:
                    qos = packet_id = 0
                    plain = body <= end
                elif body + 2 <= end:
                    qos = (first >> 1) & 0x03
                    packet_id = (data[body] << 8) | data[body + 1]
                    plain = packet_id != 0 and qos != 3
                    body += 2
                else:
                    plain = False
                if version_5:
                    # A property length of 0: no properties.
                    plain = plain and body < end and data[body] == 0
                    body += 1
                if plain:
                    if INTERPRETED:
                        publish = new(Publish)
                        publish.topic = topic
                        publish.payload = data[body:end]
                        publish.qos = qos
                        publish.retain = publish.dup = False
                        publish.packet_id = packet_id
                        publish.properties = None
                    else:
                        publish = Publish(
                            topic, data[body:end], qos, False, False, packet_id, None, None
                        )
                    publish.frame = None if qos else data[position:end]
                    append(publish)
                    position = end
                    continue
            elif length == 2 and version:
                # An acknowledgement without reason code.
                kind = ACKNOWLEDGEMENTS.get(first)
                packet_id = (data[start] << 8) | data[start + 1]
                if packet_id and kind is not None:
                    if INTERPRETED:
                        answer = new(kind)
                        answer.packet_id = packet_id
                        answer.reason_code = 0
                        answer.reason_string = None
                        answer.user_properties = ()
                    else:
                        answer = kind(packet_id)
                    append(answer)
                    position = end
                    continue

            if self._refusals[first]:
                raise self._refused(first)
            reader = Reader(data, start, end)
            packet = self._read(first, reader)
            if reader.position != end:
                raise MalformedPacket("a packet is longer than its fields")
            if first == 0x30 and isinstance(packet, Publish) and _same_for_all(packet.properties):
                packet.frame = data[position:end]
            if isinstance(packet, Connect):
                version = self._begin(packet)
                version_5 = version == MQTT_5
            append(packet)
            position = end

        if position == size:
            self._position = 0
            if self._later:
                self._data = bytes(self._later)
                self._later = bytearray()
            else:
                self._data = b""
                self.idle = True
        elif needed:
            # Decoded bytes must not be kept alive by the few that are left.
            self._data = data[position:]
            self._position = 0
            self._needed = needed
        else:
            self._position = position

    def _refused(self, first: int) -> ProtocolError:
        """A packet is refused by its first byte before anything else [MQTT-2.1.3-1]."""
        reason_code = self._refusals[first]
        if not self.version and first in _FOREIGN:
            said = f"this is {_FOREIGN[first]}, spoken to a listener of MQTT"
        elif reason_code == ReasonCode.MALFORMED_PACKET:
            said = f"no packet begins with 0x{first:02X}"
        else:
            said = f"a packet of type {first >> 4} must not come here"
        if reason_code == ReasonCode.MALFORMED_PACKET:
            return MalformedPacket(said)
        return ProtocolError(reason_code, said)

    def _too_large(self, size: int) -> ProtocolError:
        return ProtocolError(
            ReasonCode.PACKET_TOO_LARGE,
            f"a packet of {size} bytes where {self._maximum_packet_size} are allowed",
        )

    def _read(self, first: int, reader: Reader) -> Packet:
        packet = first >> 4
        if packet == PUBLISH:
            return read_publish(reader, first, self.version, self.from_client, self._topics)
        if packet == CONNECT:
            name, level = read_level(reader)
            self.refused_level = level & 0x7F
            return read_connect(reader, check_version(name, level))
        return BODIES[packet](reader, first, self.version, self.from_client)

    def _begin(self, packet: Connect) -> int:
        """The CONNECT is right: what follows is of its version."""
        self.refused_level = 0
        self.version = packet.version
        self._refusals = refusals(packet.version, self.from_client)
        return packet.version


def _same_for_all(properties: PublishProperties | None) -> bool:
    """True if nothing in a PUBLISH belongs to this connection alone."""
    return properties is None or (
        properties.topic_alias is None and not properties.subscription_identifiers
    )


def _error(reason_code: int, reason: str) -> ProtocolError:
    if reason_code == ReasonCode.MALFORMED_PACKET:
        return MalformedPacket(reason)
    return ProtocolError(reason_code, reason)
