"""Stacking without any link: layers are sans-IO."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtrio.errors import ProtocolError
from mqtrio.net.layers import Over, build
from tests.net.kit import FRAMED, PEER, Framing, Xor


def drain(layer: Over, data: bytes) -> bytes:
    received = b""
    while piece := layer.receive(data):
        received += piece
        data = b""
    return received


def test_no_layers() -> None:
    assert build(()) is None


def test_one_layer_is_itself() -> None:
    assert isinstance(build((Xor,)), Xor)


def test_the_first_is_the_outermost() -> None:
    layer = build((Xor, Framing))
    assert isinstance(layer, Over)
    assert drain(layer, Xor.turn(Framing.frame(b"hi"))) == b""
    assert Xor.turn(layer.send(b"")) == Framing.frame(b"HELLOhi")


@given(
    texts=st.lists(st.binary(min_size=1, max_size=3000), max_size=5),
    cuts=st.lists(st.integers(1, 4000), max_size=20),
)
def test_any_split_gives_the_same(texts: list[bytes], cuts: list[int]) -> None:
    texts = [b"_" + text for text in texts]
    sent = Xor.turn(b"".join(map(Framing.frame, [b"hi", *texts, b""])) + b"\0\0")
    layer = build((Xor, Xor, Xor, Framing))
    assert isinstance(layer, Over)
    received = b""
    for cut in [*cuts, len(sent)]:
        piece, sent = sent[:cut], sent[cut:]
        if piece:
            received += drain(layer, piece)
    assert received == b"".join(texts)
    assert layer.eof


def test_what_is_sent_before_the_handshake_follows_it() -> None:
    layer = build((Xor, Framing))
    assert layer is not None
    done = [layer.handshake_done]
    assert layer.send(b"early") == b""
    layer.receive(Xor.turn(Framing.frame(b"hi")))
    assert [*done, layer.handshake_done] == [False, True]
    assert Xor.turn(layer.send(b"late")) == b"".join(
        map(Framing.frame, [b"HELLOhi", b"early", b"late"])
    )


def test_farewells_from_the_inside_out() -> None:
    outer, inner = Framing(), Framing()
    for layer in (outer, inner):
        layer.receive(Framing.frame(b"hi"))
        layer.send(b"")
    assert Over(outer, inner).close() == Framing.frame(b"\0\0") + b"\0\0"


def test_a_fault_comes_after_what_preceded_it() -> None:
    layer = build((Xor, Framing))
    assert layer is not None
    good = Framing.frame(b"hi") + Framing.frame(b"good")
    assert layer.receive(Xor.turn(good + b"\xff\xff")) == b"good"
    with pytest.raises(ProtocolError):
        layer.receive(b"")


def test_facts_and_sums() -> None:
    layer = Over(Framing(), Over(Xor(), Framing()))
    assert layer.describe(PEER).tls == FRAMED
    assert layer.handshake_work == 1200
    assert layer.bound == 2 * Framing.bound + Xor.bound
