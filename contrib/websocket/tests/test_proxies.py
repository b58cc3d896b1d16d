"""Whose address it is: X-Forwarded-For of proxies that are trusted, and of nobody else."""

from typing import Any

import attrs
import pytest

import mqtrio

PROXY = mqtrio.PeerFacts(address="10.0.0.1", port=4711, listener="ws://127.0.0.1:80")
TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1")


def behind(kit: Any, told: str | None, peer: mqtrio.PeerFacts = PROXY) -> mqtrio.PeerFacts:
    layer = kit.server(trusted_proxies=TRUSTED)
    layer.receive(kit.request(x_forwarded_for=told))
    facts = layer.describe(peer)
    assert isinstance(facts, mqtrio.PeerFacts)
    return facts


@pytest.mark.parametrize(
    ("told", "address", "port"),
    [
        ("203.0.113.9", "203.0.113.9", 0),
        ("203.0.113.9:5555", "203.0.113.9", 5555),
        ("2001:db8::9", "2001:db8::9", 0),
        ("[2001:db8::9]:5555", "2001:db8::9", 5555),
        ("::ffff:203.0.113.9", "203.0.113.9", 0),
        # The client may write what it likes; what the proxy has seen stands last.
        ("198.51.100.1, 203.0.113.9", "203.0.113.9", 0),
        ("nonsense, 203.0.113.9", "203.0.113.9", 0),
        # Trusted proxies in a row.
        ("198.51.100.1, 203.0.113.9, 10.0.0.2,2001:db8:1::5", "203.0.113.9", 0),
        # All are trusted: the first of them.
        ("10.0.0.3, 10.0.0.2", "10.0.0.3", 0),
    ],
)
def test_what_a_trusted_proxy_tells(kit: Any, told: str, address: str, port: int) -> None:
    facts = behind(kit, told)
    assert (facts.address, facts.port, facts.via) == (address, port, "10.0.0.1")
    assert not facts.local


@pytest.mark.parametrize("told", ["203.0.113.9", "127.0.0.1", "127.0.0.1, 10.0.0.2", None])
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1"])
def test_nobody_who_comes_by_a_proxy_is_local(kit: Any, address: str, told: str | None) -> None:
    """Local clients may need no password, and a proxy's network can write any header."""
    peer = attrs.evolve(PROXY, address=address, local=address == "127.0.0.1")
    assert behind(kit, told, peer).local is False


def test_a_proxy_over_ipv6_that_has_an_ipv4_address(kit: Any) -> None:
    mapped = attrs.evolve(PROXY, address="::ffff:10.0.0.1")
    assert behind(kit, "203.0.113.9", mapped).address == "203.0.113.9"


def test_several_headers_are_one(kit: Any) -> None:
    layer = kit.server(trusted_proxies=TRUSTED)
    request = kit.request(x_forwarded_for="198.51.100.1")
    layer.receive(request[:-2] + b"x-forwarded-for: 203.0.113.9\r\n\r\n")
    assert layer.describe(PROXY).address == "203.0.113.9"


@pytest.mark.parametrize("address", ["192.0.2.7", ""])
def test_nobody_else_is_believed(kit: Any, address: str) -> None:
    peer = attrs.evolve(PROXY, address=address)
    facts = behind(kit, "203.0.113.9", peer)
    assert (facts.address, facts.port, facts.via) == (address, 4711, "")
    # Nobody at all, unless somebody is named.
    layer = kit.server()
    layer.receive(kit.request(x_forwarded_for="203.0.113.9"))
    assert layer.describe(PROXY).address == "10.0.0.1"


def test_a_proxy_that_tells_nothing(kit: Any) -> None:
    facts = behind(kit, None)
    assert (facts.address, facts.port, facts.via) == ("10.0.0.1", 4711, "")


@pytest.mark.parametrize("told", ["", "unknown", "203.0.113.9, unknown", "203.0.113.9,"])
def test_a_proxy_that_tells_no_address(kit: Any, told: str) -> None:
    with pytest.raises(mqtrio.ProtocolError, match="X-Forwarded-For without an address"):
        behind(kit, told)
