"""A first plugin: who may come in, and who may do what.

    python examples/first_plugin.py

Passwords stand in a dictionary here, as salted hashes; a real plugin asks a file, a database or a
web service. The clients that try it are made with paho-mqtt (`pip install paho-mqtt`).
"""

import hashlib
import hmac
import os
from queue import Queue

import paho.mqtt.client as mqtt
import trio
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

import mqtrio
from mqtrio import Allow, AuthenticateEvent, Deny, PublishEvent, SubscribeEvent, hookimpl

#: Made once, as these hooks run for every message.
YES = Allow()
NO = Deny(why="not its own topic")


def digest(password: bytes, salt: bytes) -> bytes:
    """What is kept of a password; takes some milliseconds on purpose."""
    return hashlib.scrypt(password, salt=salt, n=2**12, r=8, p=1)


class Accounts:
    """Clients have a password. Each may use the topics below its name, and read announcements."""

    def __init__(self, passwords: dict[str, str]) -> None:
        self.salt = os.urandom(16)
        self.accounts = {
            name: digest(password.encode(), self.salt) for name, password in passwords.items()
        }

    @hookimpl
    async def authenticate(self, event: AuthenticateEvent) -> Allow | Deny | None:
        """Compare the password; nobody else waits while a thread does the work."""
        known = self.accounts.get(event.username or "")
        if known is None:
            return None  # perhaps another plugin knows this client; if none does, it stays out
        said = await trio.to_thread.run_sync(digest, event.password or b"", self.salt)
        if hmac.compare_digest(said, known):
            return YES
        return Deny(mqtrio.ReasonCode.BAD_USER_NAME_OR_PASSWORD)

    @hookimpl
    def authorize_publish(self, event: PublishEvent) -> Allow | Deny:
        """Say yes to the program itself, and to clients on their own topics."""
        own = event.topic.startswith(f"{event.username}/")
        return YES if own or event.origin == "local" else NO

    @hookimpl
    def authorize_subscribe(self, event: SubscribeEvent) -> Allow | Deny:
        """Say yes to the same topics, and to announcements."""
        own = event.topic_filter.startswith(f"{event.username}/")
        return YES if own or event.topic_filter == "announcements" else NO


def attempt(port: int, username: str, password: str, topic: str) -> list[str]:
    """Connect, publish to a topic and subscribe to it; returns what the broker said to each."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(username, password)
    said: Queue[ReasonCode] = Queue()
    client.on_connect = lambda *given: said.put(given[3])
    client.on_publish = lambda *given: said.put(given[3])
    client.on_subscribe = lambda *given: said.put(given[3][0])
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        answers = [said.get(timeout=5)]
        if not answers[0].is_failure:
            client.publish(topic, b"hello", qos=1)
            answers.append(said.get(timeout=5))
            client.subscribe(topic, qos=1)
            answers.append(said.get(timeout=5))
        return [str(answer) for answer in answers]
    finally:
        client.disconnect()
        client.loop_stop()


async def main() -> None:
    """Run a broker with the plugin, and clients that find out what they may do."""
    accounts = Accounts({"ann": "correct horse", "bob": "battery staple"})
    async with mqtrio.open_broker("mqtt://127.0.0.1:0", plugins=[accounts]) as broker:
        port = broker.listeners[0].port
        for username, password, topic in (
            ("ann", "correct horse", "ann/door"),
            ("ann", "correct horse", "bob/door"),
            ("ann", "correct horse", "announcements"),
            ("ann", "a guess", "ann/door"),
            ("eve", "anything", "ann/door"),
        ):
            answers = await trio.to_thread.run_sync(attempt, port, username, password, topic)
            print(f"{username} with {password!r} at {topic}: {', '.join(answers)}")


if __name__ == "__main__":
    trio.run(main)
