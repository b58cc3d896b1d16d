"""Clients who send themselves messages on a schedule: `python -m tests.limits.victims PORT`.

Each message is sent when it is due, whether or not the last one has come back, so that one long
pause of the broker counts for all the messages that it delays. Prints `ready`; when its standard
input ends, it prints what it measured, [when due, seconds under way] for each message, as JSON.
"""

import json
import select
import socket
import sys
import time
from typing import Final

from mqtrio.wire.encoder import encode
from mqtrio.wire.packets import MQTT_3_1_1, Connect, Publish, Subscribe, SubscriptionRequest

VICTIMS: Final = 10

#: Seconds between two messages of one victim.
EVERY: Final = 0.02


class Victim:
    """One connection, whose messages carry the time at which they were due."""

    def __init__(self, port: int, name: str, first: float) -> None:
        self.topic = f"victims/{name}"
        self.due = first
        self.measured: list[tuple[float, float]] = []
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._send(encode(Connect(MQTT_3_1_1, name), MQTT_3_1_1))
        self._expect(4)
        self._send(encode(Subscribe(1, (SubscriptionRequest(self.topic),)), MQTT_3_1_1))
        self._expect(5)
        self._size = len(self._frame(0.0))

    def _frame(self, due: float) -> bytes:
        return encode(Publish(self.topic, b"%020.9f" % due), MQTT_3_1_1)

    def _send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _expect(self, size: int) -> None:
        while len(self._buffer) < size:
            self._buffer += self._received()
        self._buffer = self._buffer[size:]

    def _received(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError(f"{self.topic} was disconnected")
        return data

    def send_what_is_due(self, now: float) -> None:
        """One message for each moment that has passed."""
        while self.due <= now:
            self._send(self._frame(self.due))
            self.due += EVERY

    def receive(self) -> None:
        """Take what has come back."""
        self._buffer += self._received()
        now = time.monotonic()
        size = self._size
        while len(self._buffer) >= size:
            due = float(self._buffer[size - 20 : size])
            self.measured.append((due, now - due))
            self._buffer = self._buffer[size:]


def main() -> None:
    """Measure until standard input ends."""
    port = int(sys.argv[1])
    start = time.monotonic() + 0.1
    victims = [
        Victim(port, f"victim{number}", start + EVERY * number / VICTIMS)
        for number in range(VICTIMS)
    ]
    by_socket = {victim.sock.fileno(): victim for victim in victims}
    stdin = sys.stdin.fileno()
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        for victim in victims:
            victim.send_what_is_due(now)
        pause = min(victim.due for victim in victims) - time.monotonic()
        ready, _, _ = select.select([stdin, *by_socket], [], [], max(0.0, pause))
        if stdin in ready:
            print(json.dumps([pair for victim in victims for pair in victim.measured]))
            return
        for each in ready:
            by_socket[each].receive()


if __name__ == "__main__":
    main()
