"""Every row of the packet table, in both directions."""

from collections.abc import Iterable

import pytest

from mqtrio.errors import ProtocolError
from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import Connect, Disconnect, Packet, PingReq, Publish
from tests.vectors import BAD, VECTORS, Bad, Vector
from tests.wire.decoding import decode, decoder_for, outcome


def rows(vectors: Iterable[Vector]) -> list[object]:
    return [
        pytest.param(vector, version, id=f"{version}-{type(vector.packet).__name__}-{vector.name}")
        for vector in vectors
        for version in vector.versions
    ]


def is_one_sided(vector: Vector) -> bool:
    """A server's bytes, or a client's that the decoder of a server's knows to be wrong."""
    if isinstance(vector.packet, Disconnect):
        # A reason code of DISCONNECT is not held against its sender.
        return vector.packet.session_expiry_interval is not None or vector.versions != (5,)
    return vector.sender != "both" and not isinstance(vector.packet, Connect)


def senders(vector: Vector) -> list[bool]:
    return {"client": [True], "server": [False], "both": [True, False]}[vector.sender]


@pytest.mark.parametrize(("vector", "version"), rows(VECTORS))
def test_decode(vector: Vector, version: int) -> None:
    for from_client in senders(vector):
        decoder = decoder_for(vector.packet, version, from_client=from_client)
        assert decode(decoder, vector.data) == [vector.packet]
        assert decoder.version == version
        assert decoder.buffered == 0
        assert not decoder.pending


@pytest.mark.parametrize(("vector", "version"), rows(v for v in VECTORS if len(v.data) < 1000))
def test_decode_byte_by_byte(vector: Vector, version: int) -> None:
    decoder = decoder_for(vector.packet, version, from_client=senders(vector)[0])
    for index in range(len(vector.data)):
        assert decoder.take(1) == []
        assert decoder.buffered == index
        decoder.feed(vector.data[index : index + 1])
    assert decoder.pending
    assert decoder.take(1) == [vector.packet]


@pytest.mark.parametrize(("vector", "version"), rows(VECTORS))
def test_encode(vector: Vector, version: int) -> None:
    encoded = encode(vector.packet, version)
    if vector.exact:
        assert encoded == vector.data
    else:
        decoder = decoder_for(vector.packet, version, from_client=senders(vector)[0])
        assert decode(decoder, encoded) == [vector.packet]


@pytest.mark.parametrize(("vector", "version"), rows(filter(is_one_sided, VECTORS)))
def test_the_other_side_must_not_send_it(vector: Vector, version: int) -> None:
    decoder = decoder_for(vector.packet, version, from_client=vector.sender == "server")
    decoder.feed(vector.data)
    with pytest.raises(ProtocolError) as caught:
        decoder.take(1)
    assert caught.value.reason_code == 0x82


def each(bad: Iterable[Bad]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "bad", [pytest.param(row, id=f"{row.version}-{row.rule}-{row.name}") for row in bad]
    )


@each(BAD)
def test_refused(bad: Bad) -> None:
    decoder = decoder_for(None, bad.version)
    decoder.feed(bad.data)
    with pytest.raises(ProtocolError) as caught:
        decoder.take(1)
    assert caught.value.reason_code == bad.reason_code
    assert decoder.buffered == 0


@each(BAD)
def test_refused_byte_by_byte(bad: Bad) -> None:
    whole = outcome(decoder_for(None, bad.version), [bad.data])
    pieces = [bad.data[index : index + 1] for index in range(len(bad.data))]
    assert whole.error is not None
    assert outcome(decoder_for(None, bad.version), pieces) == whole


@each(row for row in BAD if row.version)
def test_refused_after_what_came_before(bad: Bad) -> None:
    before: list[Packet] = [Publish("a", b"x"), PingReq(), Publish("b", b"y", 1, packet_id=3)]
    data = b"".join(encode(packet, bad.version) for packet in before)
    decoder = decoder_for(None, bad.version)
    decoder.feed(data + bad.data + data)
    assert decoder.take(1000) == before
    for _ in range(2):
        assert decoder.pending
        with pytest.raises(ProtocolError) as caught:
            decoder.take(1000)
        assert caught.value.reason_code == bad.reason_code
    decoder.feed(data)
    assert decoder.buffered == 0


def test_the_table_has_every_packet_in_every_version() -> None:
    seen = {(type(v.packet).__name__, version) for v in VECTORS for version in v.versions}
    names = {name for name, _ in seen}
    assert len(names) == 15
    expected = {(name, version) for name in names for version in (3, 4, 5)}
    assert expected - seen == {("Auth", 3), ("Auth", 4)}
