"""A paho-mqtt client with its callbacks turned into values that a test waits for."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Queue
from typing import Any

from paho.mqtt.client import (
    Client,
    ConnectFlags,
    MQTTMessage,
    MQTTMessageInfo,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.clients.serving import PATIENCE, Running
from tests.conformance.peer import unique

V3 = MQTTProtocolVersion.MQTTv31
V4 = MQTTProtocolVersion.MQTTv311
V5 = MQTTProtocolVersion.MQTTv5

#: Session expiry interval of a client that wants to be resumed, in seconds.
EXPIRY = 300


def properties(packet: int, **values: Any) -> Properties:
    """Properties for a packet of PacketTypes, by paho's names: ResponseTopic="a"."""
    made = Properties(packet)  # type: ignore[no-untyped-call]  # paho's is untyped
    for name, value in values.items():
        setattr(made, name, value)
    return made


@dataclass
class Message:
    """What has arrived; `properties` are paho's, whose names are not known to a type checker."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Any


class PahoPeer:
    """One client and its connection; made by `paho`."""

    def __init__(
        self, broker: Running, version: MQTTProtocolVersion, client_id: str, resume: bool
    ) -> None:
        self.client_id = client_id
        self.version = version
        self.resume = resume
        #: What has arrived, in order.
        self.messages: Queue[Message] = Queue()
        self.session_present = False
        self.connack: Any = None
        self._broker = broker
        self._connected: Queue[ReasonCode] = Queue()
        self._disconnected: Queue[ReasonCode] = Queue()
        self._subscribed: Queue[tuple[int, list[ReasonCode]]] = Queue()
        self._unsubscribed: Queue[int] = Queue()
        self._published: dict[int, ReasonCode] = {}
        self.client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=version,
            clean_session=None if version == V5 else not resume,
            transport=broker.transport,
            reconnect_on_failure=False,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *said: self._disconnected.put(said[3])
        client.on_subscribe = lambda *said: self._subscribed.put((said[2], said[3]))
        client.on_unsubscribe = lambda *said: self._unsubscribed.put(said[2])
        client.on_publish = lambda *said: self._published.__setitem__(said[2], said[3])
        client.on_message = self._on_message

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.session_present = flags.session_present
        self.connack = properties
        self._connected.put(code)

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        self.messages.put(
            Message(
                message.topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                message.properties,
            )
        )

    def connect(self, **wanted: Any) -> ReasonCode:
        """Connect; `wanted` are properties of the CONNECT."""
        if self.version == V5:
            if self.resume:
                wanted.setdefault("SessionExpiryInterval", EXPIRY)
            self.client.connect(
                self._broker.host,
                self._broker.port,
                clean_start=not self.resume,
                properties=properties(PacketTypes.CONNECT, **wanted),
            )
        else:
            self.client.connect(self._broker.host, self._broker.port)
        self.client.loop_start()
        return self._connected.get(timeout=PATIENCE)

    def subscribe(
        self, *topic_filters: str, qos: int = 0, wanted: Properties | None = None, **options: Any
    ) -> list[int]:
        """Subscribe to all in one packet, with SubscribeOptions; returns the codes granted."""
        if self.version == V5:
            requests: list[Any] = [(t, SubscribeOptions(qos, **options)) for t in topic_filters]
        else:
            requests = [(t, qos) for t in topic_filters]
        _, sent = self.client.subscribe(requests, properties=wanted)
        mid, codes = self._subscribed.get(timeout=PATIENCE)
        assert mid == sent
        return [code.value for code in codes]

    def unsubscribe(self, topic_filter: str) -> None:
        _, sent = self.client.unsubscribe(topic_filter)
        assert self._unsubscribed.get(timeout=PATIENCE) == sent

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False, **values: Any
    ) -> int:
        """Publish and wait until it is acknowledged; returns the reason code."""
        info = self.send(topic, payload, qos, retain, **values)
        info.wait_for_publish(PATIENCE)
        assert info.is_published()
        return int(self._published[info.mid].value)

    def send(
        self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False, **values: Any
    ) -> MQTTMessageInfo:
        """Publish, not waiting for the acknowledgement; `values` are properties."""
        wanted = properties(PacketTypes.PUBLISH, **values) if values else None
        return self.client.publish(topic, payload, qos, retain, wanted)

    def receive(self) -> Message:
        """The next message."""
        return self.messages.get(timeout=PATIENCE)

    def payloads(self, count: int) -> list[bytes]:
        """The payloads of the next `count` messages."""
        return [self.receive().payload for _ in range(count)]

    def disconnected(self) -> ReasonCode:
        """Wait for the end of the connection; returns its reason."""
        return self._disconnected.get(timeout=PATIENCE)

    def disconnect(self) -> None:
        """End the connection as the standard wants it."""
        self.client.disconnect()
        self.disconnected()
        self.client.loop_stop()

    def die(self) -> None:
        """End the connection without a DISCONNECT."""
        sock = self.client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
        self.disconnected()
        self.client.loop_stop()

    def close(self) -> None:
        """Whatever state it is in."""
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def paho(
    broker: Running,
    version: MQTTProtocolVersion = V5,
    *,
    client_id: str | None = None,
    resume: bool = False,
    will: dict[str, Any] | None = None,
    **wanted: Any,
) -> Iterator[PahoPeer]:
    """A client that is connected; `will` are arguments of paho's `will_set`."""
    peer = PahoPeer(broker, version, unique() if client_id is None else client_id, resume)
    if will is not None:
        peer.client.will_set(**will)
    try:
        code = peer.connect(**wanted)
        assert code.value == 0, code
        yield peer
    finally:
        peer.close()
