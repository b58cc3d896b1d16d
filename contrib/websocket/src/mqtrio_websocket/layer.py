"""What both ends of a WebSocket do: frames to bytes and back.

MQTT is a stream of bytes: where frames begin and end, and where the fragments of a message do,
means nothing to it [MQTT-6.0.0-2]. So the payload of a data frame goes inwards as it comes,
unmasked and without waiting for its end, and the library sees only what is more than that: the
handshake, the closing, and compressed frames.
"""

import os
import re
import struct
from logging import Logger
from typing import Final, NoReturn

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Protocol

import mqtrio

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled part for this system
    from websockets.utils import apply_mask

#: First bytes of the data frames that may come, and whether their message goes on after them: where
#: a message begins, where one may be compressed, and inside of one.
_BEGINS: Final = {0x82: False, 0x02: True}
_BEGINS_DEFLATED: Final = {**_BEGINS, 0xC2: False, 0x42: True}
_GOES_ON: Final = {0x00: True, 0x80: False}

_TEXT: Final = 0x01
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A
_CONTROLS: Final = (_CLOSE, _PING, _PONG)
#: Most bytes in a control frame.
_CONTROL: Final = 125

#: A length of 126 or 127 stands for so many bytes behind it, which have the length.
_LENGTH_BYTES: Final = {126: 2, 127: 8}

_SHORT: Final = struct.Struct("!BB").pack
_MEDIUM: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack

#: Where the head of an HTTP message ends. Lines must end in CR LF; who sends LF only is told so
#: rather than left waiting.
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")

#: Compressed frames are unpacked until so much has come out; then that is handed on first.
_ENOUGH: Final = 64 * 1024

#: What is held besides the head and compressed frames: a header, a control frame, an answer.
_SMALL: Final = 1024


def no_log() -> Logger:
    """Make a logger that says nothing: the library's tells whole requests, query strings too."""
    logger = Logger("websocket")  # noqa: LOG001 (one by getLogger is everybody's)
    logger.disabled = True
    return logger


class WebSocketLayer:
    """One end of a WebSocket that carries MQTT; see mqtrio.Layer.

    What a subclass adds is the handshake: `_agree` gets the peer's head, and calls `_open` or
    `_refuse`.
    """

    __slots__ = (
        "_buffer",
        "_closed",
        "_deflates",
        "_early",
        "_farewell",
        "_fault",
        "_fragmented",
        "_key",
        "_left",
        "_max_frame",
        "_max_head",
        "_needed",
        "_ping",
        "_protocol",
        "_said",
        "_unpacked",
        "eof",
        "handshake_done",
    )

    #: Measured: 100 to 200 us, in units of 0.1 us.
    handshake_work = 1500
    weight = 6000

    #: The server's end gets masked frames, the client's sends them.
    _server: bool

    def __init__(self, protocol: Protocol, max_head: int, max_frame: int) -> None:
        self.eof = False
        self.handshake_done = False
        self._protocol = protocol
        self._max_head = max_head
        self._max_frame = max_frame
        # Input: what is not understood yet, and how much it must be before it can; and of the data
        # frame under way how much is still to come, its mask from there on, and whether its
        # message goes on after it.
        self._buffer: bytes | bytearray = b""
        self._needed = 0
        self._left = 0
        self._key = b""
        self._fragmented = False
        self._deflates = False
        self._unpacked = 0
        self._fault: mqtrio.ProtocolError | None = None
        # Output: what stands before all else, the last ping (its mask and its payload), what waits
        # for the handshake, and the last words.
        self._said = b""
        self._ping: tuple[bytes, bytes] | None = None
        self._early = b""
        self._farewell = b""
        self._closed = False

    @property
    def bound(self) -> int:
        """The most bytes that it holds, without what waits for the handshake."""
        # A compressed frame is held whole, and once more unpacked.
        return self._max_head + _SMALL + (2 * self._max_frame if self._deflates else 0)

    def describe(self, peer: mqtrio.PeerFacts) -> mqtrio.PeerFacts:
        """Nothing is learnt of a peer, unless a subclass says so."""
        return peer

    # -- the handshake

    def _agree(self, head: bytes) -> None:
        """The peer's head is there: `_open` or `_refuse`."""
        raise NotImplementedError

    def _check_begin(self, begin: bytes) -> None:
        """Look at the first bytes of what is no head yet; `_refuse` if they can't become one."""

    def _refuse(self, said: str, farewell: bytes = b"") -> NoReturn:
        """Raise, now and whenever asked again; `farewell` is for the peer."""
        self._farewell = farewell
        raise self._give_up(said)

    def _too_large(self) -> NoReturn:
        """The peer's head is larger than allowed."""
        self._refuse(f"more than {self._max_head} bytes without an end of the HTTP headers")

    def _open(self, said: bytes) -> None:
        """Both have agreed; `said` is what the peer still has to hear of it."""
        self.handshake_done = True
        self._deflates = bool(self._protocol.extensions)
        early, self._early = self._early, b""
        self._said = said
        if early:
            self._said += self._frame(early)

    def _shake_hands(self, data: bytes) -> bytes:
        """Wait for the peer's head; returns what follows it."""
        self._check_begin(data)
        end = _END_OF_HEAD.search(data)
        size = end.end() if end else len(data)
        if size > self._max_head:
            self._too_large()
        if end is None:
            self._buffer = data
            return b""
        self._agree(data[:size])
        return data[size:]

    # -- input

    def receive(self, data: bytes) -> bytes:
        """Frames of the network; returns what they carry."""
        if self._fault is not None:
            raise self._fault
        if self._buffer:
            data = self._fill_up(data)
        if not self.handshake_done:
            data = self._shake_hands(data)
        if not data or self.eof:
            return b""
        out: list[bytes] = []
        self._unframe(data, out)
        if not out and self._fault is not None:
            raise self._fault
        return out[0] if len(out) == 1 else b"".join(out)

    def _fill_up(self, data: bytes) -> bytes:
        """All that is not understood yet; b"" while it can't be, however small the pieces are."""
        buffer = self._buffer
        if not self._needed:
            self._buffer = b""
            return bytes(buffer + data)
        if not isinstance(buffer, bytearray):
            buffer = self._buffer = bytearray(buffer)
        buffer += data  # in its place: a large frame may come byte by byte
        if len(buffer) < self._needed:
            return b""
        self._buffer = b""
        self._needed = 0
        return bytes(buffer)

    def _unframe(self, data: bytes, out: list[bytes]) -> None:
        """Take frames apart; what is no whole header or control frame waits for more."""
        masked = self._server
        key = self._key
        left = self._left
        at = 0
        end = len(data)
        if masked and not (left or self._fragmented or self._deflates):
            at = self._unmask(data, out)
        while at < end:
            if left:
                piece = data[at : at + left]
                size = len(piece)
                at += size
                left -= size
                out.append(apply_mask(piece, key) if masked else piece)
                if left and masked:
                    size &= 3
                    key = key[size:] + key[:size]
                continue
            start = at + 2
            if start > end:
                break
            size = data[at + 1]
            if (size > 127) is not masked:
                self._fail(CloseCode.PROTOCOL_ERROR, "a frame with the wrong masking")
                break
            size &= 127
            if size > _CONTROL:
                start += _LENGTH_BYTES[size]
                size = int.from_bytes(data[at + 2 : start], "big")
            if masked:
                key = data[start : start + 4]
                start += 4
            if start > end:
                break
            goes_on = (_GOES_ON if self._fragmented else _BEGINS).get(data[at])
            if goes_on is not None and size <= self._max_frame and not self._deflates:
                self._fragmented = goes_on
                at = start
                left = size
                continue
            stop = start + size
            if not self._may_come(data[at], size):
                break
            if stop > end:
                self._needed = stop - at
                break
            at = self._whole(data, at, start, stop, out)
            if self._unpacked >= _ENOUGH:
                self._unpacked = 0
                break
        self._key = key
        self._left = left
        if at < end and self._fault is None and not self.eof:
            self._buffer = data[at:]

    def _unmask(self, data: bytes, out: list[bytes]) -> int:
        """Take the plain and whole messages at the front of the input; returns where they end.

        Most of what clients send is nothing else, a packet in each. This is the loop of `_unframe`
        without all that does not happen there, at half its cost. What it doesn't take that has.
        """
        at = 0
        end = len(data)
        most = self._max_frame
        add = out.append
        while at + 5 < end and data[at] == 0x82:
            size = data[at + 1] - 128
            if 0 < size <= _CONTROL:
                start = at + 6
            elif size == 126:
                size = data[at + 2] << 8 | data[at + 3]
                start = at + 8
            else:
                break
            stop = start + size
            if stop > end or size > most:
                break
            add(apply_mask(data[start:stop], data[start - 4 : start]))
            at = stop
        return at

    def _may_come(self, first: int, size: int) -> bool:
        """Whether a frame that begins so is in order; if not, that is a fault."""
        begins = _BEGINS_DEFLATED if self._deflates else _BEGINS
        if first in _CONTROLS:
            if size > _CONTROL:
                self._fail(CloseCode.PROTOCOL_ERROR, f"a control frame of {size} bytes")
        elif first & 0x0F == _TEXT:
            self._fail(CloseCode.UNSUPPORTED_DATA, "a text frame: MQTT needs binary ones")
        elif first not in (_GOES_ON if self._fragmented else begins):
            self._fail(CloseCode.PROTOCOL_ERROR, f"a frame that begins with 0x{first:02x}")
        elif size > self._max_frame:
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"a frame of {size} bytes")
        return self._fault is None

    def _whole(self, data: bytes, at: int, start: int, stop: int, out: list[bytes]) -> int:
        """A whole frame that is no plain data; returns where to go on, the end for nowhere."""
        first = data[at]
        if first == _PING:
            # Only the last one that was not answered yet has to be (RFC 6455, 5.5.3).
            key = data[start - 4 : start] if self._server else b""
            self._ping = (key, data[start:stop])
        elif first != _PONG:
            self._hand_over(data[at:stop], out)
            if first == _CLOSE:
                return len(data)
            self._fragmented = (_GOES_ON if self._fragmented else _BEGINS_DEFLATED)[first]
        return stop

    def _hand_over(self, frame: bytes, out: list[bytes]) -> None:
        """Let the library handle a whole frame: the peer's Close, or a compressed one."""
        protocol = self._protocol
        protocol.receive_data(frame)
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.opcode is not Opcode.CLOSE:
                self._unpacked += len(event.data)
                if event.data:
                    out.append(bytes(event.data))
        error = protocol.parser_exc
        if error is not None:
            if not isinstance(error, ProtocolError | PayloadTooBig | UnicodeDecodeError):
                raise error  # not the peer's fault
            self._give_up(str(error))
        elif protocol.close_rcvd is not None:
            self.eof = True

    def _fail(self, code: CloseCode, text: str) -> None:
        """A fault of the peer: what came before it is returned first."""
        self._protocol.fail(code, text)
        self._give_up(text)

    def _give_up(self, text: str) -> mqtrio.ProtocolError:
        self._fault = mqtrio.ProtocolError(mqtrio.ReasonCode.PROTOCOL_ERROR, f"websocket: {text}")
        return self._fault

    # -- output

    def send(self, data: bytes) -> bytes:
        """Bytes of MQTT as one frame, behind what the layer has to say itself."""
        if self._closed:
            return b""
        said = self._said
        if said:
            self._said = b""
        if not self.handshake_done:
            self._early += data
            return said
        if self._ping is not None:
            said += self._answer(*self._ping)
            self._ping = None
        return said + self._frame(data) if data else said

    def _answer(self, key: bytes, body: bytes) -> bytes:
        """The answer to a ping."""
        pong = Frame(Opcode.PONG, apply_mask(body, key) if key else body)
        return pong.serialize(mask=not self._server)

    def _frame(self, data: bytes) -> bytes:
        """Bytes of MQTT as one frame, or as several where one would be too large."""
        size = len(data)
        most = self._max_frame
        if size > most:
            return b"".join(
                [self._frame(data[start : start + most]) for start in range(0, size, most)]
            )
        if self._deflates:
            frame = Frame(Opcode.BINARY, data)
            return frame.serialize(mask=not self._server, extensions=self._protocol.extensions)
        bit = 0 if self._server else 0x80
        if size <= _CONTROL:
            head = _SHORT(0x82, bit | size)
        elif size < 1 << 16:
            head = _MEDIUM(0x82, bit | 126, size)
        else:
            head = _LONG(0x82, bit | 127, size)
        if self._server:
            return head + data
        key = os.urandom(4)
        return head + key + apply_mask(data, key)

    def close(self) -> bytes:
        """The Close frame, the answer to the peer's one, or why the handshake was refused."""
        if self._closed:
            return b""
        self._closed = True
        self._early = b""
        protocol = self._protocol
        if self.handshake_done and protocol.state is OPEN:
            protocol.send_close(CloseCode.NORMAL_CLOSURE)
        return self._farewell + b"".join(protocol.data_to_send())
