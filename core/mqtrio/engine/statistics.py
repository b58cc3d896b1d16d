"""Counters of one broker: plain integers, cheap enough for every message."""

from collections import Counter


class Statistics:
    """What a broker has done since it started; all counts only grow.

    `dropped` counts messages that a session or connection did not get, by reason; `refused` counts
    connections that were not let in, by reason code name. `packets_sent` are MQTT packets of all
    types that were handed to the network; `sockets_accepted` are connections before their first
    byte, also those that never say CONNECT.
    """

    __slots__ = (
        "started",
        "bytes_received",
        "bytes_sent",
        "packets_received",
        "packets_sent",
        "messages_received",
        "messages_sent",
        "sockets_accepted",
        "connections_opened",
        "connections_closed",
        "crashes",
        "stalls",
        "dropped",
        "refused",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self.bytes_received = 0
        self.bytes_sent = 0
        self.packets_received = 0
        self.packets_sent = 0
        self.messages_received = 0
        self.messages_sent = 0
        self.sockets_accepted = 0
        self.connections_opened = 0
        self.connections_closed = 0
        self.crashes = 0
        self.stalls = 0
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
