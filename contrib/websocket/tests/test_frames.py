"""Frames to bytes and back: cut anywhere, fragmented, out of order, too large, and the end."""

import struct
import tracemalloc
import zlib
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

import mqtrio

DATA, BEGIN, MIDDLE, LAST = 0x82, 0x02, 0x00, 0x80
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A


def drain(layer: Any, data: bytes) -> bytes:
    """All that comes out for a piece of input."""
    out = b""
    while piece := layer.receive(data):
        out += piece
        data = b""
    return out


def fault(layer: Any, data: bytes) -> tuple[bytes, int, str]:
    """What came out before a fault, the code of the Close frame, and the reason."""
    out = b""
    try:
        while piece := layer.receive(data):
            out += piece
            data = b""
    except mqtrio.ProtocolError as error:
        said = error.message
    else:
        raise AssertionError("there is no fault")
    last = layer.close()
    assert last[0] == CLOSE
    (code,) = struct.unpack("!H", last[2:4])
    return out, code, said


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_lengths(kit: Any, size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    layer = kit.open()
    assert drain(layer, kit.frame(DATA, payload)) == payload
    assert drain(layer, kit.frame(DATA, b"next")) == b"next"
    if size:
        assert layer.send(payload) == kit.frame(DATA, payload, key=None)


def test_what_is_there_of_a_frame_comes_out(kit: Any) -> None:
    layer = kit.open()
    wire = kit.frame(DATA, b"0123456789")
    assert layer.receive(wire[:5]) == b""
    assert layer.receive(wire[5:9]) == b"012"
    assert layer.receive(wire[9:]) == b"3456789"


def test_fragments_with_a_ping_between(kit: Any) -> None:
    layer = kit.open()
    wire = (
        kit.frame(BEGIN, b"one ")
        + kit.frame(PING, b"?")
        + kit.frame(MIDDLE, b"two ")
        + kit.frame(MIDDLE, b"")
        + kit.frame(LAST, b"three")
    )
    assert drain(layer, wire) == b"one two three"
    assert layer.send(b"") == kit.frame(PONG, b"?", key=None)


def test_pings(kit: Any) -> None:
    layer = kit.open()
    assert layer.receive(kit.frame(PING, b"") + kit.frame(PONG, b"whatever")) == b""
    assert layer.send(b"data") == b"\x8a\x00\x82\x04data"
    assert layer.send(b"") == b""


def test_of_many_pings_the_last_is_answered(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody makes us say much, or work much: the other answers are not even made."""
    made = []
    serialize = Frame.serialize

    def counted(frame: Frame, **options: Any) -> bytes:
        made.append(bytes(frame.data))
        return serialize(frame, **options)

    monkeypatch.setattr(Frame, "serialize", counted)
    layer = kit.open()
    assert layer.receive(b"".join(kit.frame(PING, b"%d" % each) for each in range(1000))) == b""
    assert layer.send(b"") == kit.frame(PONG, b"999", key=None)
    assert layer.send(b"") == b""
    assert made == [b"999"]


@pytest.mark.parametrize(
    ("wire", "code", "words"),
    [
        ([(TEXT, b"text")], 1003, "a text frame: MQTT needs binary ones"),
        ([(0x01, b"text")], 1003, "a text frame"),
        ([(0x83, b"")], 1002, "begins with 0x83"),
        ([(0x8B, b"")], 1002, "begins with 0x8b"),
        ([(0xC2, b"")], 1002, "begins with 0xc2"),
        ([(LAST, b"")], 1002, "begins with 0x80"),
        ([(MIDDLE, b"")], 1002, "begins with 0x00"),
        ([(BEGIN, b""), (DATA, b"")], 1002, "begins with 0x82"),
        ([(0x09, b"")], 1002, "begins with 0x09"),
        ([(PING, b"x" * 126)], 1002, "a control frame of 126 bytes"),
        ([(CLOSE, b"\x03")], 1002, "close frame too short"),
        ([(CLOSE, b"\x03\xed")], 1002, "invalid"),
        ([(CLOSE, b"\x03\xe8\xff")], 1007, "utf-8"),
    ],
)
def test_faults(kit: Any, wire: list[tuple[int, bytes]], code: int, words: str) -> None:
    bad = b"".join(kit.frame(first, payload) for first, payload in wire)
    out, got, said = fault(kit.open(), kit.frame(DATA, b"before") + bad)
    assert (out, got) == (b"before", code)
    assert words in said
    assert fault(kit.open(), bad)[:2] == (b"", code)


def test_a_frame_that_is_not_masked(kit: Any) -> None:
    out, code, said = fault(kit.open(), kit.frame(DATA, b"a") + kit.frame(DATA, b"b", key=None))
    assert (out, code) == (b"a", 1002)
    assert said == "websocket: a frame with the wrong masking"


@pytest.mark.parametrize("compression", [False, True])
def test_frames_are_bounded(kit: Any, compression: bool) -> None:
    layer = kit.open(max_frame_size=1024, compression=compression)
    assert drain(layer, kit.frame(DATA, bytes(1024))) == bytes(1024)
    # Known by its header; nothing of it is taken.
    _, code, said = fault(layer, kit.frame(DATA, b"", size=1025))
    assert (code, said) == (1009, "websocket: a frame of 1025 bytes")
    assert fault(kit.open(), kit.frame(DATA, b"", size=1 << 63))[1] == 1009


def test_a_flush_is_one_frame_unless_it_is_too_large(kit: Any) -> None:
    layer = kit.open(max_frame_size=1024)
    assert layer.send(bytes(1024)) == kit.frame(DATA, bytes(1024), key=None)
    assert layer.send(bytes(1025)) == kit.frame(DATA, bytes(1024), key=None) + b"\x82\x01\x00"


def test_we_close(kit: Any) -> None:
    layer = kit.open()
    layer.receive(kit.frame(PING, b""))
    assert layer.close() == b"\x88\x02\x03\xe8"  # 1000
    assert layer.close() == layer.send(b"") == layer.send(b"more") == b""
    assert not layer.eof
    # What was on its way is no fault; the answer is the end.
    assert layer.receive(kit.frame(DATA, b"late")) == b"late"
    assert layer.receive(kit.frame(CLOSE, b"\x03\xe8")) == b""
    assert layer.eof


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9going away", b"\x0f\xa0"])
def test_the_peer_closes(kit: Any, payload: bytes) -> None:
    layer = kit.open()
    wire = kit.frame(DATA, b"last") + kit.frame(CLOSE, payload) + kit.frame(DATA, b"ignored")
    assert layer.receive(wire) == b"last"
    assert layer.eof
    assert layer.receive(b"") == layer.receive(kit.frame(TEXT, b"ignored")) == b""
    # What is still under way goes before the answer.
    assert layer.send(b"acknowledged") == kit.frame(DATA, b"acknowledged", key=None)
    assert layer.close() == kit.frame(CLOSE, payload, key=None)


def test_closed_before_the_handshake(kit: Any) -> None:
    layer = kit.server()
    assert layer.receive(b"GET /mqtt HT") == b""
    assert layer.send(b"early") == b""
    assert layer.close() == b""


FRAMES = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.binary(max_size=300)),
        st.tuples(st.just("fragments"), st.lists(st.binary(max_size=140), min_size=2, max_size=4)),
        st.tuples(st.just("ping"), st.binary(max_size=125)),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(
    frames=FRAMES,
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    key=st.binary(min_size=4, max_size=4),
)
def test_cut_anywhere(kit: Any, frames: list[Any], cuts: list[int], key: bytes) -> None:
    """However the network cuts, what the frames carry comes out."""
    wire = expected = b""
    for kind, content in frames:
        if kind == "fragments":
            firsts = [BEGIN, *[MIDDLE] * (len(content) - 2), LAST]
            wire += b"".join(
                kit.frame(first, each, key) for first, each in zip(firsts, content, strict=True)
            )
            expected += b"".join(content)
        else:
            wire += kit.frame(DATA if kind == "data" else PING, content, key)
            expected += content if kind == "data" else b""
    layer = kit.open()
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    pieces = [wire[start:end] for start, end in pairwise(places)]
    assert b"".join(drain(layer, piece) for piece in pieces) == expected


# -- compression


OFFER = "permessage-deflate; client_max_window_bits"


def deflating(kit: Any, **options: Any) -> tuple[Any, Any]:
    """The server's end with compression, and what compresses for the client."""
    layer = kit.server(compression=True, **options)
    layer.receive(kit.request(sec_websocket_extensions=OFFER))
    assert b"Sec-WebSocket-Extensions: permessage-deflate" in layer.send(b"")
    return layer, zlib.compressobj(wbits=-12)


def deflate(compressor: Any, data: bytes) -> bytes:
    packed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert packed.endswith(b"\x00\x00\xff\xff")
    return bytes(packed[:-4])


def test_compression_only_where_it_is_asked_for(kit: Any) -> None:
    layer = kit.server()
    layer.receive(kit.request(sec_websocket_extensions=OFFER))
    assert b"Extensions" not in layer.send(b"")
    layer = kit.server(compression=True)
    layer.receive(kit.request())
    assert b"Extensions" not in layer.send(b"")
    assert layer.send(b"plain") == b"\x82\x05plain"


def test_compressed_frames(kit: Any) -> None:
    layer, compressor = deflating(kit)
    text = b"the same words " * 100
    first = kit.frame(0xC2, deflate(compressor, text))
    packed = deflate(compressor, text)
    rest = (
        kit.frame(0x42, packed[:3])
        + kit.frame(PING, b"!")
        + kit.frame(MIDDLE, packed[3:5])
        + kit.frame(LAST, packed[5:])
    )
    wire = first + rest + kit.frame(DATA, b"and a plain one")
    assert len(wire) < len(text)
    out = b"".join(drain(layer, wire[at : at + 7]) for at in range(0, len(wire), 7))
    assert out == text * 2 + b"and a plain one"
    assert layer.send(b"") == kit.frame(PONG, b"!", key=None)
    answer = layer.send(text)
    assert answer[0] == 0xC2
    assert zlib.decompressobj(wbits=-12).decompress(answer[2:] + b"\0\0\xff\xff") == text
    assert drain(layer, kit.frame(CLOSE, b"")) == b""
    assert layer.eof
    assert layer.send(b"late")[0] == 0xC2
    assert layer.close() == b"\x88\x00"


def test_a_compressed_frame_byte_by_byte(kit: Any) -> None:
    """What is held of it is not copied for each byte: a large one would keep us busy for hours."""
    layer, compressor = deflating(kit)
    content = Random(1).randbytes(300_000)
    wire = kit.frame(0xC2, deflate(compressor, content))
    cut = len(wire) - 3000
    for start, end in ((0, cut), (cut, cut + 1), (cut + 1, cut + 2)):
        assert layer.receive(wire[start:end]) == b""
    tracemalloc.start()
    try:
        for at in range(cut + 2, cut + 1000):
            assert layer.receive(wire[at : at + 1]) == b""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert drain(layer, wire[cut + 1000 :]) == content


def test_what_swells_is_bounded(kit: Any) -> None:
    layer, compressor = deflating(kit, max_frame_size=100_000)
    assert len(drain(layer, kit.frame(0xC2, deflate(compressor, bytes(100_000))))) == 100_000
    bomb = deflate(compressor, bytes(100_001))
    assert len(bomb) < 200
    assert fault(layer, kit.frame(0xC2, bomb))[1] == 1009


def test_what_swells_comes_out_in_parts(kit: Any) -> None:
    layer, compressor = deflating(kit)
    frames = b"".join(kit.frame(0xC2, deflate(compressor, bytes(50_000))) for _ in range(20))
    out = layer.receive(frames)
    assert len(out) == 100_000
    assert len(out + drain(layer, b"")) == 1_000_000


def test_what_is_no_deflate(kit: Any) -> None:
    layer, _ = deflating(kit)
    out, code, said = fault(layer, kit.frame(DATA, b"before") + kit.frame(0xC2, b"\xff" * 20))
    assert (out, code) == (b"before", 1002)
    assert "decompression failed" in said


def test_a_fault_of_the_library_is_no_fault_of_the_peer(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the connection as any bug of ours does: with a traceback in the log."""

    def broken(self: object, frame: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ServerProtocol, "recv_frame", broken)
    with pytest.raises(ZeroDivisionError):
        kit.open().receive(kit.frame(CLOSE, Close(1000, "").serialize()))


# -- beside the library's own reading of frames


ODD = st.lists(
    st.tuples(
        st.sampled_from([DATA, DATA, BEGIN, MIDDLE, LAST, PING, PONG, CLOSE, 0x83, 0xC2, 0x0A]),
        st.one_of(st.just(b"\x03\xe8"), st.binary(max_size=140)),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=100)
@given(frames=ODD, cut=st.integers(0, 1000))
def test_the_library_reads_the_same(
    kit: Any, frames: list[tuple[int, bytes, bool]], cut: int
) -> None:
    """Data, faults, their codes and the end are those that the library alone finds.

    Two things are done otherwise here: a Close may stand between fragments, as RFC 6455 has it, and
    what has come of a frame that is not whole is given out.
    """
    fragmented = False
    wire = b""
    for first, payload, masked in frames:
        if first == CLOSE and fragmented:
            continue
        fragmented = {BEGIN: True, LAST: False}.get(first, fragmented)
        rarely_unmasked = None if not masked and len(payload) % 5 == 0 else b"mask"
        wire += kit.frame(first, payload, rarely_unmasked)
    reference = ServerProtocol(state=OPEN, max_size=None)
    reference.receive_data(wire)
    theirs = b"".join(
        bytes(each.data)
        for each in reference.events_received()
        if isinstance(each, Frame) and each.opcode in (Opcode.BINARY, Opcode.CONT)
    )
    layer = kit.open()
    ours = b""
    failed = False
    try:
        for piece in (wire[:cut], b"", wire[cut:], b""):
            ours += layer.receive(piece)
    except mqtrio.ProtocolError:
        failed = True
    assert ours == theirs
    assert failed == (reference.parser_exc is not None)
    assert layer.eof == (reference.close_rcvd is not None and not failed)
    if failed:
        assert reference.close_sent is not None
        assert layer.close()[2:4] == reference.close_sent.code.to_bytes(2, "big")
