"""The PROXY protocol, versions 1 and 2: a proxy says first for whom it has connected.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

import attrs

from mqtrio.errors import ProtocolError
from mqtrio.hooks.peer import PeerFacts
from mqtrio.reasons import ReasonCode

#: The longest header of version 1, with its end of line (2.1).
LONGEST_LINE: Final = 107

#: The longest header of version 2 that is taken; a certificate may be in it.
LONGEST: Final = 16 * 1024

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_START: Final = len(_SIGNATURE) + 4

# Version 1.
_WORD: Final = b"PROXY "
_LINE: Final = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d+) (\d+)\r\n")
_NUMBER: Final = re.compile(rb"0|[1-9]\d{0,4}")
_HIGHEST_PORT: Final = 65_535

# Version 2: the commands, and of each address family the size of its block and of one address.
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _INET, _INET6, _UNIX = 0, 1, 2, 3
_STREAM, _DATAGRAM = 1, 2
_BLOCKS: Final = {_UNSPECIFIED: (0, 0), _INET: (12, 4), _INET6: (36, 16), _UNIX: (216, 108)}
_CRC32C: Final = 0x03


@attrs.define(frozen=True)
class TrustedProxies:
    """Who may say for whom it connects: the addresses of these networks, and local processes."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    unix: bool = False

    def trust(self, peer: PeerFacts) -> bool:
        """Whether a peer is one of them."""
        if not peer.address:
            return self.unix
        address = ip_address(peer.address)
        return any(address in network for network in self.networks)


class ProxyLayer:
    """The server's end: takes the header off, and lets everything else through."""

    bound = LONGEST
    eof = False
    handshake_work = 0
    weight = 500

    def __init__(self) -> None:
        self.handshake_done = False
        self._head = b""
        self._fault: ProtocolError | None = None
        # Of whom the header speaks; "" for one without an address, None where it doesn't say.
        self._address: str | None = None
        self._port = 0

    def wanted(self, ahead: bytes) -> int:
        """How many of the bytes that come next belong to the header; raises ProtocolError."""
        if self.handshake_done:
            return 0
        return min(len(ahead), _length(self._head + ahead) - len(self._head))

    def receive(self, data: bytes) -> bytes:
        """Bytes of the proxy; returns those behind the header."""
        if self.handshake_done:
            return data
        if self._fault is not None:
            raise self._fault
        try:
            return self._take(data)
        except ProtocolError as error:
            self._head = b""
            self._fault = error
            raise

    def send(self, data: bytes) -> bytes:
        """Bytes for the client go through; a server has nothing to say by itself."""
        return data

    def close(self) -> bytes:
        """There is no farewell."""
        return b""

    def describe(self, peer: PeerFacts) -> PeerFacts:
        """The client in the place of the proxy; never local, whatever carries it.

        The proxy's address stays where it speaks for itself (LOCAL: it looks whether we live), or
        for somebody of whom it does not say anything (UNKNOWN).
        """
        if self._address is None:
            return attrs.evolve(peer, local=False, credentials=None)
        return attrs.evolve(
            peer,
            address=self._address,
            port=self._port,
            local=False,
            via=peer.address,
            credentials=None,
        )

    def _take(self, data: bytes) -> bytes:
        head = self._head + data
        length = _length(head)
        if len(head) < length:
            self._head = head
            return b""
        header = head[:length]
        if header[0] == _SIGNATURE[0]:
            self._binary(header)
        else:
            self._text(header)
        self.handshake_done = True
        self._head = b""
        return head[length:]

    def _text(self, line: bytes) -> None:
        """A header of version 1 (2.1)."""
        if line.startswith((b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ")):
            return
        found = _LINE.fullmatch(line)
        if found is None:
            raise _fault("its line has another form")
        family, source, destination, *ports = found.groups()
        kind = IPv4Address if family == b"TCP4" else IPv6Address
        try:
            address = kind(source.decode())
            kind(destination.decode())
        except ValueError:
            raise _fault("an address in it is none") from None
        if not all(_NUMBER.fullmatch(port) and int(port) <= _HIGHEST_PORT for port in ports):
            raise _fault("a port in it is none")
        self._say(address, int(ports[0]))

    def _binary(self, header: bytes) -> None:
        """A header of version 2 (2.2)."""
        command, family, transport = header[12], header[13] >> 4, header[13] & 15
        if command == _LOCAL:
            return  # whatever follows means nothing
        if command != _PROXY:
            raise _fault("it has an unknown version or command")
        if family not in _BLOCKS or transport > _DATAGRAM:
            raise _fault("it has an unknown address family")
        block, size = _BLOCKS[family]
        if block and transport != _STREAM:
            raise _fault("it is not about a stream")
        body = header[_START:]
        if len(body) < block:
            raise _fault("its addresses are cut off")
        _check_fields(header, _START + block)
        if family == _UNIX:
            self._address = ""
        elif family != _UNSPECIFIED:
            kind = IPv4Address if family == _INET else IPv6Address
            port = body[2 * size : 2 * size + 2]
            self._say(kind(body[:size]), int.from_bytes(port, "big"))

    def _say(self, address: IPv4Address | IPv6Address, port: int) -> None:
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        self._address, self._port = str(mapped or address), port


def _length(head: bytes) -> int:
    """The length of the header which begins so, or what it has at least; raises ProtocolError.

    What there is of an incomplete header belongs to it, all of it.
    """
    if _SIGNATURE.startswith(head[: len(_SIGNATURE)]):
        if len(head) < _START:
            return _START
        length = _START + int.from_bytes(head[14:16], "big")
        if length > LONGEST:
            raise _fault(f"it is longer than {LONGEST} bytes")
        return length
    if not _WORD.startswith(head[: len(_WORD)]):
        raise _fault("there is none")
    end = head.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0 and len(head) >= LONGEST_LINE:
        raise _fault(f"its line is longer than {LONGEST_LINE} bytes")
    return LONGEST_LINE if end < 0 else end + 2


def _check_fields(header: bytes, at: int) -> None:
    """Walk over the fields behind the addresses (2.2.3); the only one that counts is a checksum."""
    while at < len(header):
        start = at + 3
        at = start + int.from_bytes(header[at + 1 : start], "big")
        if start > len(header) or at > len(header):
            raise _fault("its last field is cut off")
        if header[start - 3] == _CRC32C:
            said = header[start:at]
            rest = header[:start] + bytes(len(said)) + header[at:]
            if said != crc32c(rest).to_bytes(4, "big"):
                raise _fault("its checksum is wrong")


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720, as zlib's is not: bit by bit, for a few bytes of a few headers."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F6_3B78 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF


def _fault(what: str) -> ProtocolError:
    return ProtocolError(ReasonCode.PROTOCOL_ERROR, f"PROXY header: {what}")
