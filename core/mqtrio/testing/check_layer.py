"""What every byte layer must do, as one contract: two ends talk over a wire that tears.

The layer is a black box here: the contract knows only what one end sends and the other returns.
"""

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any, Final

from mqtrio.engine.link import PeerFacts
from mqtrio.errors import ProtocolError
from mqtrio.net.layers import Layer, LayerFactory
from mqtrio.testing.rules import rule, same

#: Sizes of what is sent at once: the edges of the usual length fields.
_SIZES: Final = (1, 2, 125, 126, 127, 128, 1000, 65_535, 65_536, 200_000)

#: Most rounds of a handshake.
_ROUNDS: Final = 20

#: Most pieces that input may give: so many, and some for each byte.
_PIECES: Final = 1000
_PIECES_A_BYTE: Final = 4

_SHORT: Final = b"hello"
_LONG: Final = 1 << 20


def check_layer(make_server: LayerFactory, make_client: LayerFactory) -> None:
    """Check that a layer keeps its contract; raises AssertionError that names the broken rule.

        def test_layer():
            check_layer(lambda: Framing(server=True), lambda: Framing(server=False))

    Both functions make a new end of a connection each time. Everything is checked in both
    directions.
    """
    for check in _CHECKS:
        check(make_server, make_client)
        if check not in _ONE_WAY:
            check(make_client, make_server)


class _End:
    """One end: calls the layer as a link does, and turns what it must not raise into a rule."""

    def __init__(self, make: LayerFactory, what: str) -> None:
        self.layer: Layer = make()
        self.what = what
        self.fault: ProtocolError | None = None

    def _call(self, method: str, *arguments: bytes) -> bytes:
        """Call a method: ProtocolError passes, anything else breaks a rule."""
        function: Callable[..., Any] = getattr(self.layer, method)
        try:
            data = function(*arguments)
        except ProtocolError as error:
            self.fault = error
            raise
        except Exception as error:
            raise AssertionError(
                f"{self.what}: only ProtocolError may be raised, {method} raised {error!r}"
            ) from error
        rule(type(data) is bytes, f"{self.what}: {method} must return bytes, not {type(data)}")
        result: bytes = data
        return result

    def say(self, data: bytes = b"") -> bytes:
        return self._call("send", data)

    def close(self) -> bytes:
        return self._call("close")

    def hear(self, data: bytes) -> tuple[bytes, bytes]:
        """Bytes of the wire; what comes out inside, and what the layer answers."""
        inside: list[bytes] = []
        answers: list[bytes] = []
        for _ in range(_PIECES + _PIECES_A_BYTE * len(data)):
            before = self.layer.handshake_done
            piece = self._call("receive", data)
            rule(
                not piece or before or self.layer.handshake_done,
                f"{self.what}: nothing may come out before the handshake is done",
            )
            answers.append(self.say())
            if not piece:
                return b"".join(inside), b"".join(answers)
            inside.append(piece)
            data = b""
        raise AssertionError(f'{self.what}: receive(b"") never returns b""')


class _Pair:
    """Two ends and what is on the wire between them."""

    def __init__(self, make_near: LayerFactory, make_far: LayerFactory) -> None:
        self.near = _End(make_near, "the near end")
        self.far = _End(make_far, "the far end")

    def agree(self, split: int = 0) -> None:
        """Carry the handshake through; what came out with it must be nothing."""
        out = self.exchange(split)
        same("what came out of a handshake", out, (b"", b""))
        for end in (self.near, self.far):
            rule(
                end.layer.handshake_done,
                f"{end.what}: the handshake is not done when nothing more is said",
            )

    def exchange(self, split: int = 0, to_far: bytes = b"") -> tuple[bytes, bytes]:
        """Carry `to_far` and all that follows from it; what came out at (near, far)."""
        near_out = far_out = b""
        to_near = self.far.say()
        to_far += self.near.say()
        for _ in range(_ROUNDS):
            if not to_near and not to_far:
                return near_out, far_out
            inside, answers = _carry(to_far, self.far, split)
            far_out += inside
            to_near += answers
            inside, to_far = _carry(to_near, self.near, split)
            near_out += inside
            to_near = b""
        raise AssertionError("the two ends talk to each other without an end")


def _carry(data: bytes, end: _End, split: int = 0) -> tuple[bytes, bytes]:
    """Bring an end what the other one has sent, in which there is no fault."""
    inside = answers = b""
    try:
        for piece in _cut(data, split):
            out, answer = end.hear(piece)
            inside += out
            answers += answer
    except ProtocolError as error:
        raise AssertionError(f"{end.what} finds a fault where there is none: {error}") from error
    return inside, answers


def _cut(data: bytes, size: int) -> Iterable[bytes]:
    if not size or size >= len(data):
        return (data,) if data else ()
    return (data[start : start + size] for start in range(0, len(data), size))


def _content(size: int) -> bytes:
    """Bytes of all values, of which no two places look alike."""
    return Random(size).randbytes(size)


# -- the rules


def _facts(make: LayerFactory, other: LayerFactory) -> None:
    pair = _Pair(make, other)
    peer = PeerFacts(address="192.0.2.7", listener="test")
    for moment in ("before", "after"):
        for end in (pair.near, pair.far):
            layer = end.layer
            rule(
                type(layer.bound) is int and layer.bound > 0,
                f"{end.what}: bound must be a number of bytes",
            )
            rule(
                type(layer.handshake_work) is int and layer.handshake_work >= 0,
                f"{end.what}: handshake_work must be a number, 0 or more",
            )
            rule(
                type(layer.weight) is int and layer.weight >= 0,
                f"{end.what}: weight must be a number of bytes",
            )
            rule(layer.eof is False, f"{end.what}: eof must be False {moment} the handshake")
            rule(
                isinstance(layer.describe(peer), PeerFacts),
                f"{end.what}: describe must return PeerFacts",
            )
        if moment == "before":
            pair.agree()


def _carries(make: LayerFactory, other: LayerFactory) -> None:
    """What one end sends comes out of the other, whatever its size."""
    pair = _Pair(make, other)
    pair.agree()
    for size in _SIZES:
        data = _content(size)
        _, out = pair.exchange(to_far=pair.near.say(data))
        rule(out == data, f"{size} bytes that were sent must come out as they were")
        back, _ = pair.exchange(to_far=b"")
        same("what comes out where nothing was sent", back, b"")
    same('what send(b"") says where there is nothing to say', pair.near.say(), b"")


def _split(make: LayerFactory, other: LayerFactory) -> None:
    """It doesn't matter how the network cuts."""
    data = [_content(size) for size in (1, 125, 126, 700)]
    for size in (1, 2, 3, 7, 64):
        pair = _Pair(make, other)
        pair.agree(split=size)
        wire = b"".join(pair.near.say(each) for each in data)
        _, out = pair.exchange(size, wire)
        rule(
            out == b"".join(data),
            f"what is received in pieces of {size} bytes must come out as it was sent",
        )


def _merged(make: LayerFactory, other: LayerFactory) -> None:
    """Many messages may come in one piece."""
    pair = _Pair(make, other)
    pair.agree()
    data = [_content(size) for size in (1, 1, 3, 126, 5000, 1) * 20]
    wire = b"".join(pair.near.say(each) for each in data)
    _, out = pair.exchange(to_far=wire)
    rule(out == b"".join(data), "what is received in one piece must come out as it was sent")


def _early(make: LayerFactory, other: LayerFactory) -> None:
    """What is sent before the handshake is done is held, and follows it."""
    pair = _Pair(make, other)
    data = _content(1000)
    wire = pair.near.say(data[:400]) + pair.near.say(data[400:])
    _, out = pair.exchange(to_far=wire)
    _, more = pair.exchange()
    rule(
        out + more == data,
        "what is sent before the handshake is done must follow it, once and in order",
    )


def _alone(make: LayerFactory, other: LayerFactory) -> None:
    """Two connections know nothing of each other."""
    first, second = _Pair(make, other), _Pair(make, other)
    first.agree()
    wire = first.near.say(_SHORT)
    half = max(1, len(wire) // 2)
    _, out = first.exchange(to_far=wire[:half])
    second.agree()
    _, other_out = second.exchange(to_far=second.near.say(_SHORT))
    _, rest = first.exchange(to_far=wire[half:])
    rule(
        (out + rest, other_out) == (_SHORT, _SHORT),
        "two connections must not share what they hold",
    )


def _truncated(make: LayerFactory, other: LayerFactory) -> None:
    """A connection may be lost at any byte."""
    whole = _Pair(make, other)
    whole.agree()
    length = len(whole.near.say(_SHORT))
    for end in range(length):
        pair = _Pair(make, other)
        pair.agree()
        wire = pair.near.say(_SHORT)
        _, out = pair.exchange(to_far=wire[:end])
        rule(
            _SHORT.startswith(out),
            f"the first {end} bytes must give a part of what was sent, or nothing",
        )
        rule(not pair.far.layer.eof, "eof must stay False while the peer has not ended")


def _garbage(make: LayerFactory, other: LayerFactory) -> None:
    """Any bytes give ProtocolError or something, before the handshake and after it."""
    for data in _nonsense():
        for agreed in (False, True):
            pair = _Pair(make, other)
            if agreed:
                pair.agree()
            for piece in _cut(data, 100):
                if not _survives(pair.near, piece):
                    break


def _preceding(make: LayerFactory, other: LayerFactory) -> None:
    """What precedes a fault in one piece of input comes out before the fault is raised."""
    for data in _nonsense():
        # Only input that is a fault of its own shows it.
        alone = _Pair(make, other)
        alone.agree()
        if _survives(alone.far, data):
            continue
        pair = _Pair(make, other)
        pair.agree()
        wire = pair.near.say(_SHORT)
        out = b""
        try:
            piece = pair.far._call("receive", wire + data)
            while piece:
                out += piece
                piece = pair.far._call("receive", b"")
        except ProtocolError:
            pass
        rule(
            out.startswith(_SHORT),
            "what precedes a fault must be returned before ProtocolError is raised",
        )


def _survives(end: _End, data: bytes) -> bool:
    """Whether input is no fault. After a fault only ProtocolError or nothing may come."""
    try:
        end.hear(data)
    except ProtocolError:
        for method, argument in (("receive", b""), ("receive", data), ("send", b"")):
            try:
                end._call(method, argument)
            except ProtocolError:
                continue
        try:
            end.close()
        except ProtocolError:
            pass
        return False
    return True


def _nonsense() -> Iterator[bytes]:
    random = Random(7)
    yield from (b"\x00" * 300, b"\xff" * 300, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff")
    for size in (1, 2, 10, 300, 5000):
        for _ in range(6):
            yield random.randbytes(size)


def _bounded(make: LayerFactory, other: LayerFactory) -> None:
    """A layer holds no more than its bound, whatever the peer sends."""
    pair = _Pair(make, other)
    pair.agree()
    bound = pair.far.layer.bound
    _holds(pair.far, _cut(pair.near.say(_content(min(4 * bound, 8 * _LONG))), 10_000), bound)
    for byte in (b"\x00", b"A", b"\xff", b"\x82\x7f"):
        fresh = _Pair(make, other)
        bound = fresh.far.layer.bound
        chunks = (byte * 10_000 for _ in range(min(3 * bound, 4 * _LONG) // 10_000 + 2))
        _holds(fresh.far, chunks, bound)


def _holds(end: _End, chunks: Iterable[bytes], bound: int) -> None:
    """Count what goes in and comes out; a ProtocolError is a way to hold no more."""
    fed = given = 0
    for chunk in chunks:
        fed += len(chunk)
        try:
            inside, answers = end.hear(chunk)
        except ProtocolError:
            return
        given += len(inside) + len(answers)
        rule(
            fed - given <= bound + len(chunk) + fed // 4,  # a quarter: what framing may cost
            f"{end.what} took {fed} bytes, gave {given} and raised nothing: its bound is {bound}",
        )


def _closes(make: LayerFactory, other: LayerFactory) -> None:
    """The farewell comes after all that was sent; then the other end is at the end."""
    pair = _Pair(make, other)
    pair.agree()
    data = _content(3000)
    wire = pair.near.say(data)
    farewell = pair.near.close()
    inside, _ = _carry(wire + farewell, pair.far)
    rule(inside == data, "what was sent before close must come out in front of the end")
    if farewell:
        rule(pair.far.layer.eof, "eof must be True when the peer's farewell was received")
    rule(not pair.near.layer.eof, "eof is about the peer's end, not about one's own close")


def _half_closed(make: LayerFactory, other: LayerFactory) -> None:
    """One end has closed: the other one may still speak, and close, and nothing breaks."""
    pair = _Pair(make, other)
    pair.agree()
    _carry(pair.near.close(), pair.far)
    try:
        answer = pair.far.say(_SHORT) + pair.far.close()
        inside, _ = pair.near.hear(answer)
    except ProtocolError as error:
        raise AssertionError(
            f"a peer that has closed may still hear the other one: {error}"
        ) from error
    rule(
        _SHORT.startswith(inside), "what comes after one's own close is the peer's data or nothing"
    )


def _close_sequences(make: LayerFactory, other: LayerFactory) -> None:
    """Close before the handshake, twice, on both sides at once: no error, and no more words."""
    early = _Pair(make, other)
    try:
        early.near.close()
    except ProtocolError as error:
        raise AssertionError(f"close before the handshake must not fail: {error}") from error
    pair = _Pair(make, other)
    pair.agree()
    to_far, to_near = pair.near.close(), pair.far.close()
    _carry(to_far, pair.far)
    _carry(to_near, pair.near)
    if to_far and to_near:
        rule(
            pair.near.layer.eof and pair.far.layer.eof,
            "when both have closed at once, both must be at the end",
        )
    for end in (pair.near, pair.far):
        same(f"{end.what}: a second close", end.close(), b"")
        same(f'{end.what}: send(b"") after close', end.say(), b"")


_CHECKS: Final[tuple[Callable[[LayerFactory, LayerFactory], None], ...]] = (
    *(_facts, _carries, _split, _merged, _early, _truncated, _alone, _garbage),
    *(_preceding, _bounded, _closes, _half_closed, _close_sequences),
)

#: What looks at both ends already.
_ONE_WAY: Final = frozenset({_facts})
