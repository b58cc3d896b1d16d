"""Clients that come and go leave nothing for the garbage collector."""

import gc
import sys

import pytest
import trio

import mqtrio
from mqtrio.cli import process
from mqtrio.testing import Peer
from mqtrio.wire.packets import Will

#: Seconds that anything may take over a real socket: decides about failures only.
PATIENCE = 10.0


async def _visit(port: int, number: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    peer = Peer(stream, version=3 + number % 3, client_id=f"client{number}")
    peer.patience = PATIENCE
    await peer.connect(will=Will("will", b"gone"))
    await peer.subscribe("a/#", number % 3)
    await peer.publish("a/b", b"x", number % 3, retain=number % 2 == 0)
    await peer.message()
    if number % 2:
        await peer.disconnect()
    await trio.aclose_forcefully(stream)


def _of_the_broker() -> list[str]:
    """The types of the broker's objects that only the collector has found."""
    gc.collect()
    found = [type(each) for each in gc.garbage]
    gc.garbage.clear()
    return [
        f"{each.__module__}.{each.__name__}"
        for each in found
        if each.__module__.startswith("mqtrio.")
        and not each.__module__.startswith("mqtrio.testing")
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="not on Windows: no poller")
def test_clients_leave_no_garbage() -> None:
    async def main() -> None:
        async with mqtrio.open_broker("mqtt://127.0.0.1:0") as broker:
            port = broker.listeners[0].port
            await _visit(port, 100)
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for number in range(12):
                    await _visit(port, number)
                with trio.fail_after(PATIENCE):
                    while broker._network.connections:
                        await trio.lowlevel.checkpoint()
                assert _of_the_broker() == []
            finally:
                gc.set_debug(0)

    trio.run(main)


def test_what_survives_a_full_collection_is_left_out_of_the_next() -> None:
    thresholds = gc.get_threshold()
    callbacks = list(gc.callbacks)
    with process.short_collections():
        before = gc.get_freeze_count()
        kept = [[number] for number in range(1000)]
        gc.collect()
        assert gc.get_freeze_count() >= before + 1000
        assert len(kept) == 1000
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == thresholds
    assert gc.callbacks == callbacks
