"""The harness itself: no gap in the tables, and a peer that notices what it should."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from mqtrio.wire.packets import (
    ConnAck,
    Disconnect,
    PingResp,
    PubAck,
    Publish,
    SubAck,
    UnsubAck,
)
from tests.conformance import raw
from tests.conformance.matrix import (
    FAILED,
    NOT_COVERED,
    NOT_RUN,
    PASSED,
    Line,
    Matrix,
    coverage_only,
)
from tests.conformance.peer import Peer, Peers
from tests.conformance.rules import load, rule

DOCS = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.mark.parametrize("version", [5, 3])
def test_every_rule_has_a_test(version: int) -> None:
    missing = [
        line.rule.id for line in coverage_only([version]).lines if line.result == NOT_COVERED
    ]
    assert missing == []


def test_tables() -> None:
    assert len(load(5)) == 303
    assert len(load(3)) == 159
    assert all(
        rule.text and rule.observable for version in (5, 3) for rule in load(version).values()
    )


def test_a_test_carries_at_most_three_rules() -> None:
    for ids in ((), ("A", "B", "C", "D"), ("A", "A")):
        with pytest.raises(ValueError, match="one to 3 different rules"):
            rule(*ids)


def test_matrix_is_complete_without_gaps_and_failures() -> None:
    some = list(load(5).values())[:3]
    lines = [Line(some[0], "t", PASSED), Line(some[1], "t", NOT_RUN, "why")]
    assert Matrix(lines).complete
    assert not Matrix([*lines, Line(some[2], "", NOT_COVERED)]).complete
    failed = Matrix([*lines, Line(some[0], "u", FAILED, "what")])
    assert not failed.complete
    assert failed.count() == {FAILED: 1, NOT_RUN: 1}
    assert "-> what" in failed.text(brief=True)
    assert some[1].id not in failed.text(brief=True)
    assert f"| 5 | {some[0].id} |" in failed.report("nobody")


def test_documented_deviations_are_of_known_rules() -> None:
    rows = re.findall(
        r"^\| (5|3\.1\.1) \| (\S+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert rows
    for version, rule_id in rows:
        assert rule_id in load(5 if version == "5" else 3)


# -- the peer, against servers that do wrong ------

Script = Callable[[Peer], Awaitable[object]]


async def _against(
    answer: bytes, script: Script, *, strict: bool = True, let_in: bool = True
) -> None:
    """Play `script` with a peer whose server sends `answer` and closes."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(answer)
        await stream.send_eof()
        async for _ in stream:
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        try:
            async with Peers("127.0.0.1", port, strict=strict)() as p:
                p.connack = ConnAck() if let_in else None
                await script(p)
        finally:
            nursery.cancel_scope.cancel()


async def _fails(answer: bytes, script: Script, why: str, **options: bool) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await _against(answer, script, **options)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert why in str(error)


PING = b"\xd0\x00"
MESSAGE = raw.publish(b"a", b"x")
SUBACK = b"\x90\x04\x00\x01\x00\x00"


async def test_expect() -> None:
    await _against(PING, lambda p: p.expect(PingResp))
    await _against(MESSAGE, lambda p: p.expect_packet(Publish("a", b"x")))
    await _fails(MESSAGE, lambda p: p.expect_packet(Publish("a", b"y")), "expected")
    await _fails(PING, lambda p: p.expect(PubAck), "got PingResp(), expected PubAck()")
    await _fails(b"", lambda p: p.expect(PubAck), "closed the connection")
    await _fails(b"\xd0", lambda p: p.expect(PingResp), "within a packet")
    await _fails(MESSAGE, lambda p: p.expect(Publish, payload=b"y"), "payload is b'x'")
    await _fails(SUBACK, lambda p: p.expect(UnsubAck), "expected UnsubAck")


async def test_what_no_server_may_send() -> None:
    await _fails(b"\xd0\x80\x00", lambda p: p.expect(PingResp), "shortest form")
    await _fails(b"\xd1\x00", lambda p: p.expect(PingResp), "0x81")
    await _fails(b"\x82\x00", lambda p: p.expect(SubAck), "0x8")


async def test_nothing() -> None:
    await _against(PING, lambda p: p.nothing())
    await _fails(MESSAGE + PING, lambda p: p.nothing(), "got Publish")


async def test_larger_than_allowed() -> None:
    async def script(p: Peer) -> None:
        await p.send(p.connect_packet(maximum_packet_size=5))
        await p.expect(Publish)

    await _fails(MESSAGE, script, "7 bytes came where 5 are allowed")


async def test_publish_and_subscribe_see_refusals() -> None:
    await _against(b"\x40\x02\x00\x01", lambda p: p.publish("a", b"", 1))
    await _against(MESSAGE + b"\x40\x02\x00\x01", lambda p: p.publish("a", b"", 1))
    await _fails(b"\x40\x03\x00\x01\x87", lambda p: p.publish("a", b"", 1), "0x87")
    await _fails(b"\x40\x02\x00\x02", lambda p: p.publish("a", b"", 1), "packet_id is 2")
    await _against(SUBACK, lambda p: p.subscribe("a"))
    await _fails(SUBACK, lambda p: p.subscribe("a", 1), "for QoS 1")


async def test_expect_closed() -> None:
    bye = b"\xe0\x01\x82"
    await _against(bye, lambda p: p.expect_closed(0x82))
    await _against(bye, lambda p: p.expect_closed())
    await _against(b"", lambda p: p.expect_closed())
    await _against(b"", lambda p: p.closed_silently())
    await _fails(bye, lambda p: p.closed_silently(), "before the end")
    await _fails(bye, lambda p: p.expect_closed(0x81), "expected 0x81")
    await _against(bye, lambda p: p.expect_closed(0x81), strict=False)
    await _fails(b"", lambda p: p.expect_closed(0x82), "without a reason code")
    await _against(b"", lambda p: p.expect_closed(0x82), strict=False)
    await _fails(b"", lambda p: p.expect_closed(0x82, told=True), "without", strict=False)
    await _fails(PING + bye, lambda p: p.expect_closed(0x82), "expected Disconnect")
    await _fails(bye + PING, lambda p: p.expect_closed(0x82), "got PingResp() after")
    await _fails(b"\xe0\x00", lambda p: p.expect_closed(), "failure code", strict=False)
    await _fails(bye, lambda p: p.expect_closed(0x82), "expected ConnAck", let_in=False)
    refusal = b"\x20\x03\x00\x87\x00"
    await _against(refusal, lambda p: p.expect_closed(0x87), let_in=False)
    await _fails(refusal, lambda p: p.expect_closed(0x87), "expected Disconnect")


async def test_peek() -> None:
    async def script(p: Peer) -> None:
        assert isinstance(await p.peek(), Disconnect)
        await p.expect_closed(0x82)
        assert await p.peek() is None

    await _against(b"\xe0\x01\x82", script)
