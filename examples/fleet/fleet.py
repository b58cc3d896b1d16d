"""A fleet: a program mints tokens for its devices, and the broker knows by them what each may do.

    python examples/fleet/fleet.py

It needs mqtrio-jwt and paho-mqtt (`pip install mqtrio-jwt paho-mqtt`). The fleet's program has the
private key. The broker has the public one, so whoever gets into it can make no tokens. Each device
is who its token says, may do what its kind may, and is out when its token ends or is revoked.
"""

import time
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any

import jwt
import paho.mqtt.client as mqtt
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

import mqtrio
from mqtrio_jwt import Jwt, JwtSettings, TopicRules

ISSUER = "fleet"

#: What each kind of device may do; `%u` is its name, `{site}` a claim of its token.
KINDS = {
    "sensor": TopicRules(publish=("{site}/readings/%u",), subscribe=("{site}/settings/%u",)),
    "display": TopicRules(subscribe=("{site}/readings/+",)),
    "operator": TopicRules(publish=("+/settings/+",), subscribe=("#",)),
}


class Mint:
    """Makes tokens: what the fleet's own program does, far from the broker."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> bytes:
        """What the broker needs."""
        public = self._key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def token(self, name: str, kind: str, site: str, lifetime: float = 3600) -> str:
        """A token for one device; its `jti` is how it is revoked."""
        now = time.time()
        claims = {"iss": ISSUER, "aud": "mqtt", "sub": name, "iat": now, "exp": now + lifetime}
        more = {"jti": f"{name}-1", "scope": kind, "site": site}
        return jwt.encode(claims | more, self._key, algorithm="ES256")


class Device:
    """A device, as the broker's answers show it."""

    def __init__(self, port: int, name: str, token: str) -> None:
        self.said: Queue[Any] = Queue()
        self.gone: Queue[Any] = Queue()
        self.client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            name,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.username_pw_set("token", token)  # the name means nothing, the token says who it is
        client.on_connect = lambda *given: self.said.put(given[3])
        client.on_publish = lambda *given: self.said.put(given[3])
        client.on_subscribe = lambda *given: self.said.put(given[3][0])
        client.on_disconnect = lambda *given: self.gone.put(given[3])
        client.connect("127.0.0.1", port)
        client.loop_start()
        self.connected = self.said.get(timeout=10)

    def may_publish(self, topic: str) -> bool:
        """Try it."""
        self.client.publish(topic, b"hello", qos=1)
        return not self.said.get(timeout=10).is_failure

    def may_subscribe(self, topic_filter: str) -> bool:
        """Try it."""
        self.client.subscribe(topic_filter, qos=1)
        return not self.said.get(timeout=10).is_failure

    def leave(self) -> None:
        """Go."""
        self.client.disconnect()
        self.client.loop_stop()


def try_all(port: int, name: str, token: str) -> list[str]:
    """Connect a device, and find out what it may do."""
    device = Device(port, name, token)
    try:
        if device.connected.is_failure:
            return [f"{name} is refused: {device.connected}"]
        lines = []
        for topic in ("north/readings/meter-7", "south/readings/meter-7", "north/settings/meter-7"):
            may = [
                word
                for word, allowed in (
                    ("publish", device.may_publish(topic)),
                    ("subscribe", device.may_subscribe(topic)),
                )
                if allowed
            ]
            lines.append(f"{name} at {topic}: {' and '.join(may) or 'nothing'}")
        return lines
    finally:
        device.leave()


def wait_for_the_end(port: int, name: str, token: str) -> str:
    """Stay connected until the broker has had enough."""
    device = Device(port, name, token)
    try:
        return str(device.gone.get(timeout=10))
    finally:
        device.leave()


async def main() -> None:
    """Run a broker with the public key, and devices with tokens."""
    mint = Mint()
    with TemporaryDirectory() as folder:
        public_key = Path(folder) / "fleet.pem"
        public_key.write_bytes(mint.public_key)
        settings = JwtSettings(
            algorithms=("ES256",),
            public_keys=(public_key,),
            issuer=ISSUER,
            audience=("mqtt",),
            require=("exp", "jti"),
            client_id="{sub}",
            scopes=KINDS,
            leeway=0.0,
        )
        tokens = Jwt(settings, name="tokens")
        async with mqtrio.open_broker("mqtt://127.0.0.1:0", plugins=[tokens]) as broker:
            port = broker.listeners[0].port
            meter = mint.token("meter-7", "sensor", "north")
            for name, token in (
                ("meter-7", meter),
                ("wall", mint.token("wall", "display", "north")),
                ("olga", mint.token("olga", "operator", "north")),
                ("wall", meter),  # somebody else's token
                ("eve", Mint().token("eve", "operator", "north")),  # somebody else's key
            ):
                for line in await trio.to_thread.run_sync(try_all, port, name, token):
                    print(line)
            short = mint.token("guest", "display", "north", lifetime=0.5)
            end = await trio.to_thread.run_sync(wait_for_the_end, port, "guest", short)
            print(f"guest, when its token ends: {end}")
            tokens.revoke("meter-7-1")
            for line in await trio.to_thread.run_sync(try_all, port, "meter-7", meter):
                print(f"{line} (its token was revoked)")


if __name__ == "__main__":
    trio.run(main)
