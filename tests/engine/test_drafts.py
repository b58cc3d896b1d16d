"""What came to nothing in its batch is not written; what waits for it waits all the same."""

import pytest

from mqtrio.store.changes import MessagePut, QueuedPut
from mqtrio.testing import FaultyStore, open_harness
from mqtrio.wire.packets import PubAck, Publish, PubRec, PubRel
from tests.engine.agreement import agree


async def test_what_is_acknowledged_within_its_batch_is_not_written() -> None:
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("a", 1)
        other = await harness.connect("other")
        store.hang()
        await other.send(Publish("a", b"1", 1, packet_id=1))
        await peer.send(PubAck((await peer.expect(Publish, payload=b"1")).packet_id))
        await other.send(Publish("a", b"2", 1, packet_id=2))
        await peer.send(PubAck((await peer.expect(Publish, payload=b"2")).packet_id))
        await other.send(Publish("a", b"3", 1, packet_id=3))
        third = await peer.expect(Publish, payload=b"3")
        await other.nothing()
        store.go_on()
        for number in (1, 2, 3):
            await other.expect(PubAck, packet_id=number)
        changes = [change for commit in store.commits for change in commit]
        put = [each for each in changes if isinstance(each, MessagePut)]
        assert b"2" not in [each.payload for each in put]
        (last,) = [each for each in put if each.payload == b"3"]
        # The packet identifier goes with the entry.
        assert [
            each.packet_id
            for each in changes
            if isinstance(each, QueuedPut) and each.message_id == last.message_id
        ] == [third.packet_id]
        await agree(harness, store)


@pytest.mark.parametrize("reason_code", [0, 0x80])
async def test_pubrec_for_what_waits_for_its_batch_changes_nothing(reason_code: int) -> None:
    """The client can't know of it yet, nor can the store."""
    store = FaultyStore()
    async with open_harness(store=store) as harness:
        peer = await harness.connect("peer", session_expiry_interval=1000)
        await peer.subscribe("a", 2)
        other = await harness.connect("other")
        store.hang()
        await other.send(Publish("a", b"1", 2, packet_id=1))
        await other.send(Publish("a", b"2", 2, packet_id=2))
        await peer.send(PubRec(1, reason_code))
        await peer.send(PubRec(2, reason_code))
        await peer.settle()
        store.go_on()
        for number in (1, 2):
            await other.expect(PubRec, packet_id=number, reason_code=0)
        arrived = [each for each in await peer.arrived() if not isinstance(each, PubRel)]
        assert [each.payload for each in arrived if isinstance(each, Publish)] == [b"1", b"2"]
        await agree(harness, store)
