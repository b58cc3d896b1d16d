"""A toy layer with options, and plugins that bring it under the names that schemes ask for."""

from collections.abc import Mapping

from attrs import define, evolve

import mqtrio
from mqtrio.hooks.peer import HttpFacts, PeerFacts, TlsFacts


@define(frozen=True, kw_only=True)
class ShiftSettings:
    """Options of the toy."""

    by: int = mqtrio.required_setting("what is added to each byte", minimum=0, maximum=255)
    password: str = mqtrio.setting("", "not to be shown", secret=True)


class Shift:
    """Adds a number to each byte. The client's first byte is a greeting: 1 is a good one."""

    handshake_work = 500
    weight = 1000
    bound = 1 << 20
    eof = False

    def __init__(self, by: int, name: str) -> None:
        self.by = by
        self.name = name
        self.handshake_done = False

    def receive(self, data: bytes) -> bytes:
        if data and not self.handshake_done:
            if data[0] != 1:
                raise mqtrio.ProtocolError(0x81, f"{self.name}: this is no greeting")
            self.handshake_done = True
            data = data[1:]
        return shift(data, -self.by)

    def send(self, data: bytes) -> bytes:
        return shift(data, self.by)

    def close(self) -> bytes:
        return b""

    def describe(self, peer: PeerFacts) -> PeerFacts:
        if self.name == "tls":
            return evolve(peer, tls=TlsFacts(version=f"shift {self.by}", cipher="toy"))
        # As behind a proxy that has told the client's address.
        return evolve(
            peer,
            http=HttpFacts(path="/mqtt", headers=(("x", str(self.by)),)),
            address="192.0.2.9",
            local=False,
            via=peer.address,
        )


def shift(data: bytes, by: int) -> bytes:
    return bytes((value + by) % 256 for value in data)


def provider(name: str) -> mqtrio.LayerProvider:
    async def server(options: ShiftSettings) -> mqtrio.LayerFactory:
        if options.by == 13:
            raise mqtrio.ConfigurationError("13 brings bad luck")
        return lambda: Shift(options.by, name)

    return mqtrio.LayerProvider(settings=ShiftSettings, server=server)


class Toy:
    """A program's plugin."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @mqtrio.hookimpl
    def layers(self, event: mqtrio.LayersEvent) -> Mapping[str, mqtrio.LayerProvider]:
        return {name: provider(name) for name in self.names}
