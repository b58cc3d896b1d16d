"""Who stands behind a proxy: X-Forwarded-For, from those who are trusted to tell."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import attrs

import mqtrio

Address = IPv4Address | IPv6Address


class TrustedProxies:
    """The proxies that are believed; raises ConfigurationError for a network that is none."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Sequence[str]) -> None:
        try:
            self._networks = [ip_network(each) for each in networks]
        except ValueError as error:
            raise mqtrio.ConfigurationError(f"trusted_proxies: {error}") from None

    def look_behind(self, peer: mqtrio.PeerFacts, http: mqtrio.HttpFacts) -> mqtrio.PeerFacts:
        """The facts with the client's own address, if a trusted proxy tells it.

        Each proxy puts the address of its own peer last. So they are read from the end, as far as
        those who have written them are trusted: what stands further left anybody may have written.
        Nobody who comes by a proxy is local, whatever it tells: clients of this machine may be let
        in without a password. Raises ProtocolError if a trusted proxy tells no address.
        """
        if not self._networks or not self._trusts(peer.address):
            return peer
        told = [
            each.strip()
            for name, value in http.headers
            if name == "x-forwarded-for"
            for each in value.split(",")
        ]
        if not told:
            # The proxy itself, or somebody of whom it says nothing.
            return attrs.evolve(peer, local=False)
        for each in reversed(told):
            address, port = _read(each)
            if not self._trusts(str(address)):
                break
        return attrs.evolve(peer, address=str(address), port=port, local=False, via=peer.address)

    def _trusts(self, text: str) -> bool:
        try:
            address = _plain(ip_address(text))
        except ValueError:
            return False  # a Unix socket has none
        return any(address in network for network in self._networks)


def _read(text: str) -> tuple[Address, int]:
    """One entry: an address, which some proxies write with its port."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return _plain(ip_address(host)), int(port) if port.isdecimal() else 0
    except ValueError:
        raise mqtrio.ProtocolError(
            mqtrio.ReasonCode.NOT_AUTHORIZED,
            "websocket: a trusted proxy has sent an X-Forwarded-For without an address",
        ) from None


def _plain(address: Address) -> Address:
    """An IPv4 address that was written as one of IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
