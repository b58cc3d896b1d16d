"""What holds for all packets and for all bytes."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import Connect, Packet
from tests.vectors import VECTORS
from tests.wire.decoding import Outcome, decode, decoder_for, outcome
from tests.wire.strategies import connects, from_client, from_server

VERSIONS = [3, 4, 5]

#: What the decoder may answer to bytes: the rest is for the engine to say.
REASON_CODES = {0x81, 0x82, 0x84, 0x90, 0x94, 0x95, 0x97}

versions = st.sampled_from(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_encode_then_decode(version: int, data: st.DataObject) -> None:
    for client in (True, False):
        packets = data.draw(
            st.lists(from_client(version) if client else from_server(version), max_size=5)
        )
        decoder = decoder_for(None, version, from_client=client)
        assert decode(decoder, b"".join(encode(p, version) for p in packets)) == packets


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_encode_then_decode_a_connect(version: int, data: st.DataObject) -> None:
    packet = data.draw(connects(version))
    decoder = decoder_for(packet, version)
    assert decode(decoder, encode(packet, version)) == [packet]
    assert decoder.version == version
    assert decoder.refused_level == 0


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, bytes]:
    """A version and bytes that look like what its client sends, whole or damaged somewhere."""
    version = draw(versions)
    first = draw(st.booleans())
    packets: list[Packet] = draw(st.lists(from_client(version), max_size=5))
    if first:
        packets.insert(0, draw(connects(version)))
    data = bytearray(b"".join(encode(packet, version) for packet in packets))
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["change", "delete", "insert"]))
        at = draw(st.integers(0, len(data)))
        if kind == "insert":
            data[at:at] = draw(st.binary(max_size=3))
        elif kind == "delete":
            del data[at : at + 1]
        elif at < len(data):
            data[at] = draw(st.integers(0, 255))
    return 0 if first else version, bytes(data)


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """`data` in pieces, some of them empty."""
    ends = sorted(place % (len(data) + 1) for place in places)
    for start, end in pairwise([0, *ends, len(data)]):
        yield data[start:end]


def check(result: Outcome) -> None:
    if result.error is not None:
        code, message = result.error
        assert code in REASON_CODES
        assert message
        assert result.left == 0


@given(st.sampled_from([0, *VERSIONS]), st.booleans(), st.binary(max_size=60))
def test_any_bytes_give_packets_or_a_protocol_error(
    version: int, client: bool, data: bytes
) -> None:
    check(outcome(decoder_for(None, version, from_client=client or version == 0), [data]))


@given(streams())
def test_damaged_streams_give_packets_or_a_protocol_error(stream: tuple[int, bytes]) -> None:
    version, data = stream
    check(outcome(decoder_for(None, version), [data]))


@given(streams(), st.lists(st.integers(0, 2000), max_size=6), st.integers(1, 4))
def test_any_split_gives_the_same(stream: tuple[int, bytes], places: list[int], take: int) -> None:
    version, data = stream
    whole = outcome(decoder_for(None, version), [data])
    assert outcome(decoder_for(None, version), cut(data, places), take) == whole


@given(versions, st.data())
def test_any_split_of_the_server_s_gives_the_same(version: int, data: st.DataObject) -> None:
    packets = data.draw(st.lists(from_server(version), max_size=5))
    stream = b"".join(encode(packet, version) for packet in packets)
    places = data.draw(st.lists(st.integers(0, 2000), max_size=6))
    decoder = decoder_for(None, version, from_client=False)
    assert outcome(decoder, cut(stream, places)) == Outcome(packets, None, 0)


def test_every_prefix_of_every_vector_waits() -> None:
    """A packet that isn't complete gives nothing, neither a packet nor an error."""
    for vector in VECTORS:
        for version in vector.versions:
            if len(vector.data) > 1000:
                continue
            client = vector.sender != "server"
            for end in range(len(vector.data)):
                decoder = decoder_for(vector.packet, version, from_client=client)
                decoder.feed(vector.data[:end])
                assert decoder.take(1) == []
                assert decoder.buffered == end


def test_every_change_of_one_byte() -> None:
    """All 255 changes of each byte of each small vector: packets, nothing yet or ProtocolError."""
    for vector in VECTORS:
        version = vector.versions[-1]
        if len(vector.data) > 40:
            continue
        known = 0 if isinstance(vector.packet, Connect) else version
        for place in range(len(vector.data)):
            for value in range(256):
                data = bytearray(vector.data)
                data[place] = value
                check(outcome(decoder_for(None, known), [bytes(data)]))
