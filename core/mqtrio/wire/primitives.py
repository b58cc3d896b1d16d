"""The data types that packets are made of (MQTT 5 section 1.5): reading and writing them."""

from typing import Final

from mqtrio.errors import MalformedPacket

#: Largest value of a variable byte integer, and so the longest remaining length (1.5.5).
LARGEST_VARIABLE: Final = 268_435_455
LARGEST_TWO_BYTE: Final = 0xFFFF
LARGEST_FOUR_BYTE: Final = 0xFFFFFFFF


class Reader:
    """Reads one value after the other from a part of a buffer; never looks past its end.

    `data` may hold more than one packet: `position` moves from the start of a body to `end`.
    Everything raises MalformedPacket where the bytes run out.
    """

    __slots__ = ("data", "position", "end")

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self.data = data
        self.position = position
        self.end = end

    def byte(self) -> int:
        """One byte, 0 to 255."""
        position = self.position
        if position >= self.end:
            raise MalformedPacket("the packet ends within a field")
        self.position = position + 1
        return self.data[position]

    def two_byte(self) -> int:
        """A two byte integer (1.5.2)."""
        position = self.position
        if position + 2 > self.end:
            raise MalformedPacket("the packet ends within a field")
        self.position = position + 2
        return (self.data[position] << 8) | self.data[position + 1]

    def four_byte(self) -> int:
        """A four byte integer (1.5.3)."""
        high = self.two_byte()
        return (high << 16) | self.two_byte()

    def variable(self) -> int:
        """A variable byte integer in its shortest encoding [MQTT-1.5.5-1]."""
        byte = self.byte()
        if byte < 0x80:
            return byte
        value = byte & 0x7F
        for shift in (7, 14, 21):
            byte = self.byte()
            value += (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0:
                    raise MalformedPacket("a variable byte integer is longer than it must be")
                return value
        raise MalformedPacket("a variable byte integer has more than four bytes")

    def binary(self) -> bytes:
        """Binary data (1.5.6): two bytes of length, then as many bytes."""
        start = self.position + 2
        if start > self.end:
            raise MalformedPacket("the packet ends within a field")
        stop = start + (self.data[start - 2] << 8) + self.data[start - 1]
        if stop > self.end:
            raise MalformedPacket("the packet ends within a field")
        self.position = stop
        return self.data[start:stop]

    def text(self) -> str:
        """A UTF-8 string (1.5.4): no surrogate [MQTT-1.5.4-1], no NUL [MQTT-1.5.4-2]."""
        return decode_text(self.binary())

    def pair(self) -> tuple[str, str]:
        """A UTF-8 string pair (1.5.7)."""
        name = self.text()
        return name, self.text()

    def rest(self) -> bytes:
        """All bytes up to the end."""
        start = self.position
        self.position = self.end
        return self.data[start : self.end]


def decode_text(data: bytes) -> str:
    """The text of a UTF-8 string; a byte order mark stays where it is [MQTT-1.5.4-3]."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        # The error's own text quotes bytes that may be a password's: it isn't passed on.
        raise MalformedPacket("a text field is not valid UTF-8") from None
    if "\0" in text:
        raise MalformedPacket("a text field holds a NUL character")
    return text


def encode_text(text: str) -> bytes:
    """A UTF-8 string with its length; ValueError if it can't stand in a packet."""
    if "\0" in text:
        raise ValueError("text for a packet must not hold a NUL character")
    return encode_binary(text.encode("utf-8"))


def encode_binary(data: bytes) -> bytes:
    """Binary data with its length; ValueError above 65,535 bytes."""
    if len(data) > LARGEST_TWO_BYTE:
        raise ValueError(f"a field of {len(data)} bytes is longer than 65,535")
    return len(data).to_bytes(2, "big") + data


def encode_two_byte(value: int) -> bytes:
    """A two byte integer; ValueError outside 0 to 65,535."""
    if not 0 <= value <= LARGEST_TWO_BYTE:
        raise ValueError(f"{value} does not fit into two bytes")
    return value.to_bytes(2, "big")


def encode_four_byte(value: int) -> bytes:
    """A four byte integer; ValueError outside 0 to 4,294,967,295."""
    if not 0 <= value <= LARGEST_FOUR_BYTE:
        raise ValueError(f"{value} does not fit into four bytes")
    return value.to_bytes(4, "big")


def encode_variable(value: int) -> bytes:
    """A variable byte integer, in as few bytes as it needs; ValueError outside its range."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    if not 0 <= value <= LARGEST_VARIABLE:
        raise ValueError(f"{value} does not fit into a variable byte integer")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append((value & 0x7F) | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL: Final = [bytes([value]) for value in range(0x80)]
