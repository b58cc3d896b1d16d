"""The test kit: a broker in memory and in virtual time, scripted peers, stores that fail.

    import mqtrio.testing
    from mqtrio.wire.packets import Publish

    async def test_greeting(autojump_clock):
        async with mqtrio.testing.open_harness(plugins=[MyPlugin()]) as harness:
            ann = await harness.connect("ann")
            await ann.subscribe("a/+")
            bob = await harness.connect("bob", version=4)
            await bob.publish("a/b", b"hello")
            await ann.expect(Publish, topic="a/b", payload=b"hello")

With pytest-trio's `autojump_clock` (a `trio.testing.MockClock(autojump_threshold=0)`) nothing
takes real time. Internal errors of the broker are raised again when the block ends.
"""

from mqtrio.testing.harness import Harness as Harness
from mqtrio.testing.harness import open_harness as open_harness
from mqtrio.testing.peer import Closed as Closed
from mqtrio.testing.peer import Peer as Peer
from mqtrio.testing.recorder import HookRecorder as HookRecorder
from mqtrio.testing.stores import FaultyStore as FaultyStore

__all__ = ["Closed", "FaultyStore", "Harness", "HookRecorder", "Peer", "open_harness"]
