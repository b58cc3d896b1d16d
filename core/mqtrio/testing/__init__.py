"""The test kit: a broker in memory and in virtual time, clients, stores that fail, contracts.

    from mqtrio.testing import open_harness

    async def test_greeting(autojump_clock):
        async with open_harness(plugins=[MyPlugin()]) as harness:
            ann = await harness.client("ann")
            await ann.subscribe("a/+")
            bob = await harness.client("bob", version=4)
            await bob.publish("a/b", b"hello")
            await ann.message(b"hello", topic="a/b")

With pytest-trio's `autojump_clock` (a `trio.testing.MockClock(autojump_threshold=0)`) nothing
takes real time. Internal errors of the broker are raised again when the block ends.
"""

from mqtrio.testing.check_authenticator import check_authenticator as check_authenticator
from mqtrio.testing.check_layer import check_layer as check_layer
from mqtrio.testing.check_plugin import check_plugin as check_plugin
from mqtrio.testing.check_store import check_store as check_store
from mqtrio.testing.client import Client as Client
from mqtrio.testing.fixture import MqttBroker as MqttBroker
from mqtrio.testing.fixture import open_test_broker as open_test_broker
from mqtrio.testing.harness import Harness as Harness
from mqtrio.testing.harness import open_harness as open_harness
from mqtrio.testing.peer import Closed as Closed
from mqtrio.testing.peer import Peer as Peer
from mqtrio.testing.recorder import HookRecorder as HookRecorder
from mqtrio.testing.stores import FaultyStore as FaultyStore
from mqtrio.testing.streams import TornStream as TornStream
from mqtrio.wire.packets import Auth as Auth
from mqtrio.wire.packets import ConnAck as ConnAck
from mqtrio.wire.packets import Connect as Connect
from mqtrio.wire.packets import Disconnect as Disconnect
from mqtrio.wire.packets import PingReq as PingReq
from mqtrio.wire.packets import PingResp as PingResp
from mqtrio.wire.packets import PubAck as PubAck
from mqtrio.wire.packets import PubComp as PubComp
from mqtrio.wire.packets import Publish as Publish
from mqtrio.wire.packets import PubRec as PubRec
from mqtrio.wire.packets import PubRel as PubRel
from mqtrio.wire.packets import SubAck as SubAck
from mqtrio.wire.packets import Subscribe as Subscribe
from mqtrio.wire.packets import SubscriptionRequest as SubscriptionRequest
from mqtrio.wire.packets import UnsubAck as UnsubAck
from mqtrio.wire.packets import Unsubscribe as Unsubscribe

#: The packets, for `Peer.send` and `Peer.expect`.
PACKETS = (
    "Auth ConnAck Connect Disconnect PingReq PingResp PubAck PubComp Publish PubRec PubRel SubAck "
    "Subscribe SubscriptionRequest UnsubAck Unsubscribe"
)

__all__ = [  # noqa: PLE0604 - the packets are strings
    "Client",
    "Closed",
    "FaultyStore",
    "Harness",
    "HookRecorder",
    "MqttBroker",
    "Peer",
    "TornStream",
    "check_authenticator",
    "check_layer",
    "check_plugin",
    "check_store",
    "open_harness",
    "open_test_broker",
    *PACKETS.split(),
]
