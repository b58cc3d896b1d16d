"""Counters of one broker: plain integers, cheap enough for every message."""

from collections import Counter


class Statistics:
    """What a broker has done since it started; all counts only grow.

    `dropped` counts messages that a session or connection did not get, by reason; `refused` counts
    connections that were not let in, by reason code name.
    """

    __slots__ = (
        "started",
        "bytes_received",
        "bytes_sent",
        "packets_received",
        "messages_received",
        "messages_sent",
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
        self.messages_received = 0
        self.messages_sent = 0
        self.connections_opened = 0
        self.connections_closed = 0
        self.crashes = 0
        self.stalls = 0
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
