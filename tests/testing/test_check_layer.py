"""The contract for layers: right ones keep it; each wrong one breaks the rule that it should."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from mqtrio.engine.link import PeerFacts
from mqtrio.errors import ProtocolError
from mqtrio.hooks.peer import TlsFacts
from mqtrio.net.layers import Layer
from mqtrio.testing import check_layer

GREETING = b"\x00\x05HELLO"


class Framing:
    """Each message has a length in front (2 bytes); 0 is the end. Both sides say HELLO first."""

    handshake_work = 600
    weight = 1000
    bound = 200_000

    def __init__(self) -> None:
        self.eof = False
        self.handshake_done = False
        self.greeted = False
        self.closed = False
        self.buffer = b""
        self.pending = b""
        self.fault: ProtocolError | None = None

    def receive(self, data: bytes) -> bytes:
        if self.fault is not None:
            raise self.fault
        if not self.eof:
            self.buffer += data
        inside = b""
        while len(self.buffer) >= 2 and not self.eof:
            size = int.from_bytes(self.buffer[:2], "big")
            if size > 60_000 or (not self.handshake_done and size != 5):
                self.fault = ProtocolError(0x81, "bad frame")
                break
            if len(self.buffer) < 2 + size:
                break
            frame, self.buffer = self.buffer[2 : 2 + size], self.buffer[2 + size :]
            if not size:
                self.eof = True
            elif self.handshake_done:
                inside += frame
            elif frame == b"HELLO":
                self.handshake_done = True
            else:
                self.fault = ProtocolError(0x81, "no greeting")
                break
        if self.fault is not None and not inside:
            raise self.fault
        return inside

    def frame(self, data: bytes) -> bytes:
        pieces = [data[start : start + 60000] for start in range(0, len(data), 60000)]
        return b"".join(len(piece).to_bytes(2, "big") + piece for piece in pieces)

    def send(self, data: bytes) -> bytes:
        if self.closed:
            return b""
        said = b"" if self.greeted else GREETING
        self.greeted = True
        if not self.handshake_done:
            self.pending += data
            return said
        data, self.pending = self.pending + data, b""
        return said + self.frame(data)

    def close(self) -> bytes:
        if self.closed:
            return b""
        self.closed = True
        return b"\0\0"

    def describe(self, peer: PeerFacts) -> PeerFacts:
        return attrs.evolve(peer, tls=TlsFacts(version="framed", cipher="none"))


class Xor:
    """Turns each byte over; gives what it receives in pieces of at most 10,000 bytes."""

    handshake_work = 0
    weight = 1000
    handshake_done = True
    eof = False
    bound = 1 << 16

    def __init__(self) -> None:
        self.waiting = b""

    def receive(self, data: bytes) -> bytes:
        self.waiting += data.translate(bytes(255 - value for value in range(256)))
        piece, self.waiting = self.waiting[:10_000], self.waiting[10_000:]
        return piece

    def send(self, data: bytes) -> bytes:
        return data.translate(bytes(255 - value for value in range(256)))

    def close(self) -> bytes:
        return b""

    def describe(self, peer: PeerFacts) -> PeerFacts:
        return peer


@pytest.mark.parametrize("layer", [Framing, Xor])
def test_right_layers(layer: Callable[[], Layer]) -> None:
    check_layer(layer, layer)


# -- wrong ones


class Eager(Framing):
    """Wants one whole frame in one piece."""

    def receive(self, data: bytes) -> bytes:
        if len(data) == 1 and not self.fault:
            raise ProtocolError(0x81, "half a frame")
        return super().receive(data)


class OneAtATime(Framing):
    """Forgets what came in the same piece as a frame."""

    def receive(self, data: bytes) -> bytes:
        inside = super().receive(data)
        return inside[:5000] if self.handshake_done else inside


class NotHeld(Framing):
    def send(self, data: bytes) -> bytes:
        return super().send(data if self.handshake_done else b"")


class TooSoon(Framing):
    """Lets through what comes before the greeting."""

    def receive(self, data: bytes) -> bytes:
        inside = super().receive(data)
        return inside if self.handshake_done or not self.buffer else self.buffer


class NeverDone(Framing):
    def receive(self, data: bytes) -> bytes:
        inside = super().receive(data)
        self.handshake_done = False
        return inside


class Talkative(Framing):
    """Answers each answer."""

    def send(self, data: bytes) -> bytes:
        return super().send(data) or (GREETING if not self.closed else b"")

    def receive(self, data: bytes) -> bytes:
        super().receive(data)
        return b""


class Endless(Framing):
    def receive(self, data: bytes) -> bytes:
        return super().receive(data) or (b"x" if self.handshake_done and not self.eof else b"")


class Shared(Framing):
    """Keeps half a frame in the module."""

    def __init__(self) -> None:
        super().__init__()
        SHARED.clear()

    def receive(self, data: bytes) -> bytes:
        if not self.handshake_done:
            return super().receive(data)
        self.buffer = b"".join(SHARED)
        try:
            return super().receive(data)
        finally:
            SHARED[:] = [self.buffer]


SHARED: list[bytes] = []


class Truncating(Framing):
    """Takes half a frame for the end."""

    def receive(self, data: bytes) -> bytes:
        inside = super().receive(data)
        if self.handshake_done and 2 < len(self.buffer) < 7 and int(self.buffer[1]) == 5:
            self.eof = True
        return inside


class BadError(Framing):
    def receive(self, data: bytes) -> bytes:
        try:
            return super().receive(data)
        except ProtocolError:
            raise ValueError("bad frame") from None


class FaultFirst(Framing):
    """Raises before it has returned what precedes the fault."""

    def receive(self, data: bytes) -> bytes:
        inside = super().receive(data)
        if self.fault is not None:
            raise self.fault
        return inside


class Hoarding(Framing):
    """Keeps what is no frame."""

    def receive(self, data: bytes) -> bytes:
        if not self.handshake_done and data[:1] in (b"A", b"\xff", b"\x82"):
            self.pending += data
            return b""
        return super().receive(data)


class NoEnd(Framing):
    def receive(self, data: bytes) -> bytes:
        inside = super().receive(data)
        self.eof = False
        return inside


class LosesTheLast(Framing):
    """The end overtakes what came before it."""

    def receive(self, data: bytes) -> bytes:
        inside = super().receive(data)
        return b"" if self.eof else inside


class Deaf(Framing):
    """Can't hear any more when it has closed."""

    def receive(self, data: bytes) -> bytes:
        if self.closed and data:
            raise ProtocolError(0x82, "closed")
        return super().receive(data)


class EndsItself(Framing):
    def close(self) -> bytes:
        said = super().close()
        self.eof = True
        return said


class EarlyCloseFails(Framing):
    def close(self) -> bytes:
        if not self.handshake_done:
            raise ProtocolError(0x82, "no connection yet")
        return super().close()


class ClosesTwice(Framing):
    def close(self) -> bytes:
        self.closed = True
        return b"\0\0"


class Text(Framing):
    def receive(self, data: bytes) -> Any:
        return bytearray(super().receive(data))


class NoBound(Framing):
    bound = 0


class NoFacts(Framing):
    def describe(self, peer: PeerFacts) -> Any:
        return None


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Eager, "finds a fault where there is none"),
        (OneAtATime, "must come out as"),
        (NotHeld, "must follow it, once and in order"),
        (NeverDone, "the handshake is not done|nothing may come out"),
        (Talkative, "talk to each other without an end"),
        (Endless, 'receive.b"". never returns'),
        (Shared, "must not share"),
        (Truncating, "eof must stay False|must come out"),
        (BadError, r"only ProtocolError may be raised, receive raised ValueError"),
        (FaultFirst, "what precedes a fault"),
        (Hoarding, "its bound is 200000"),
        (NoEnd, "eof must be True when the peer's farewell"),
        (LosesTheLast, "in front of the end"),
        (Deaf, "may still hear"),
        (EndsItself, "eof is about the peer's end"),
        (EarlyCloseFails, "close before the handshake"),
        (ClosesTwice, "a second close"),
        (Text, "must return bytes"),
        (NoBound, "bound must be"),
        (NoFacts, "describe must return"),
    ],
)
def test_a_wrong_layer_is_found(layer: Callable[[], Layer], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        check_layer(layer, layer)
