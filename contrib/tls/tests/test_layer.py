"""The layer by itself: two ends in memory."""

import ssl
import time
from typing import Any

import pytest

from contrib.tls.tests.authority import Authority
from mqtrio import LayersEvent, PeerFacts, ProtocolError, ReasonCode
from mqtrio.testing import check_layer
from mqtrio_tls import (
    Certificate,
    Tls,
    TlsClient,
    TlsLayer,
    TlsListener,
    client_context,
    server_context,
)

PEER = PeerFacts(address="192.0.2.7", listener="mqtts://h")


class Ends:
    """A server and its client."""

    def __init__(
        self,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        name: str | None = "localhost",
    ) -> None:
        self.server = TlsLayer(server, server_side=True)
        self.client = TlsLayer(client, server_side=False, server_name=name)

    def agree(self) -> "Ends":
        for _ in range(5):
            self.server.receive(self.client.send(b""))
            self.client.receive(self.server.send(b""))
        assert self.server.handshake_done
        assert self.client.handshake_done
        return self

    def tls(self, end: str = "server") -> Any:
        return getattr(self, end).describe(PEER).tls


def fault(ends: Ends, end: str = "server") -> ProtocolError:
    """What one end says of a handshake that fails."""
    for _ in range(5):
        for near, far in ((ends.client, ends.server), (ends.server, ends.client)):
            said = near.send(b"")
            try:
                far.receive(said)
            except ProtocolError as error:
                if far is getattr(ends, end):
                    return error
                with pytest.raises(ProtocolError) as caught:
                    getattr(ends, end).receive(far.close())  # the alert
                return caught.value
    raise AssertionError("the handshake does not fail")


def server(ca: Authority, *names: str, **options: Any) -> ssl.SSLContext:
    issued = ca.issue(*names or ("localhost",))
    return server_context(TlsListener(certificate=issued.certificate, key=issued.key, **options))


def client(ca: Authority, **options: Any) -> ssl.SSLContext:
    return client_context(TlsClient(ca=ca.file, **options))


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("mutual", [False, True])
def test_the_contract(ca: Authority, version: str, mutual: bool) -> None:
    demands = {"client_certificates": "required", "client_ca": ca.file} if mutual else {}
    ours = ca.issue("client", file="client")
    near = server(ca, **demands)
    far = client(ca, certificate=ours.certificate, key=ours.key)
    far.maximum_version = getattr(ssl.TLSVersion, version.replace(".", "_"))
    ends = Ends(near, far).agree()
    assert ends.tls().version == version
    check_layer(
        lambda: TlsLayer(near, server_side=True),
        lambda: TlsLayer(far, server_side=False, server_name="localhost"),
    )


def test_the_plugin_brings_both_ends(ca: Authority) -> None:
    issued = ca.issue("localhost")
    provider = Tls.layers(LayersEvent())["tls"]
    near: Any = provider.server(TlsListener(certificate=issued.certificate, key=issued.key))
    assert provider.client is not None
    far: Any = provider.client(TlsClient(ca=ca.file), "localhost")
    check_layer(near, far)


# -- facts -----------------------------------------------------------------------------------------


def test_what_a_handshake_finds_out(ca: Authority) -> None:
    ends = Ends(server(ca), client(ca))
    assert ends.tls() is None
    facts = ends.agree().tls()
    assert facts.version == "TLSv1.3"
    assert facts.cipher.startswith("TLS_")
    assert (facts.server_name, facts.protocol, facts.certificate) == ("localhost", "mqtt", None)
    assert not facts.resumed
    seen = ends.tls("client")
    assert (seen.server_name, seen.protocol) == ("localhost", "mqtt")
    assert seen.certificate.san_dns == ("localhost",)


def test_nothing_is_agreed_to_that_nobody_proposed(ca: Authority) -> None:
    near = server(ca)
    for proposed in ((), ("http/1.1",)):
        assert Ends(near, client(ca, alpn=proposed)).agree().tls().protocol == ""
    assert Ends(near, client(ca, alpn=("http/1.1", "mqtt"))).agree().tls().protocol == "mqtt"


def test_the_certificate_of_a_client(ca: Authority) -> None:
    ours = ca.issue("door.example", "hall.example", common_name="door", file="door")
    near = server(ca, client_certificates="required", client_ca=ca.file)
    ends = Ends(near, client(ca, certificate=ours.certificate, key=ours.key)).agree()
    shown = ends.tls().certificate
    assert shown.common_name == "door"
    assert shown.san_dns == ("door.example", "hall.example")
    assert shown.subject.startswith("CN=door,")
    assert shown.issuer.endswith("O=ca")
    assert shown.not_before < time.time() < shown.not_after
    assert int(shown.serial_number, 16) > 0
    assert shown.der == ssl.PEM_cert_to_DER_cert(ours.certificate.read_text().split("\n\n")[0])
    assert str(shown.der) not in repr(shown)


# -- who is refused --------------------------------------------------------------------------------


def test_a_certificate_that_is_required(ca: Authority) -> None:
    near = server(ca, client_certificates="required", client_ca=ca.file)
    error = fault(Ends(near, client(ca)))
    assert (error.reason_code, error.message) == (
        ReasonCode.NOT_AUTHORIZED,
        "tls: the client shows no certificate",
    )


def test_a_certificate_that_is_optional(ca: Authority) -> None:
    near = server(ca, client_certificates="optional", client_ca=ca.file)
    assert Ends(near, client(ca)).agree().tls().certificate is None
    ours = ca.issue("door", file="door")
    with_one = client(ca, certificate=ours.certificate, key=ours.key)
    assert Ends(near, with_one).agree().tls().certificate.san_dns == ("door",)


@pytest.mark.parametrize("wanted", ["optional", "required"])
def test_a_certificate_of_a_stranger(ca: Authority, make_ca: Any, wanted: str) -> None:
    near = server(ca, client_certificates=wanted, client_ca=ca.file)
    theirs = make_ca("stranger").issue("door", file="theirs")
    error = fault(Ends(near, client(ca, certificate=theirs.certificate, key=theirs.key)))
    assert error.reason_code == ReasonCode.NOT_AUTHORIZED
    assert error.message.startswith("tls: the client's certificate is not accepted: unable to get")


def test_authorities_in_a_folder(ca: Authority, make_ca: Any, tmp_path: Any) -> None:
    folder = tmp_path / "authorities"
    folder.mkdir()
    other = make_ca("other")
    for number, each in enumerate((ca, other)):
        (folder / f"{number}.crt").write_bytes(each.file.read_bytes())
    near = server(ca, client_certificates="required", client_ca=folder)
    ours = other.issue("door", file="door")
    ends = Ends(near, client(ca, certificate=ours.certificate, key=ours.key)).agree()
    assert ends.tls().certificate.issuer.endswith("O=other")


@pytest.mark.parametrize("folder", [False, True])
def test_a_revoked_certificate(ca: Authority, tmp_path: Any, folder: bool) -> None:
    good, bad = ca.issue("good", file="good"), ca.issue("bad", file="bad")
    crl = ca.revoke(bad)
    if folder:
        (tmp_path / "crls").mkdir()
        crl = crl.rename(tmp_path / "crls" / "a.crl").parent
    near = server(ca, client_certificates="required", client_ca=ca.file, client_crl=crl)
    Ends(near, client(ca, certificate=good.certificate, key=good.key)).agree()
    error = fault(Ends(near, client(ca, certificate=bad.certificate, key=bad.key)))
    assert error.message == "tls: the client's certificate is not accepted: certificate revoked"


def test_a_server_that_is_not_trusted(ca: Authority, make_ca: Any) -> None:
    ends = Ends(server(ca), client(make_ca("stranger")))
    assert fault(ends).message == "tls: the peer does not know the authority of our certificate"
    ends = Ends(server(ca), client(make_ca("stranger")))
    assert fault(ends, "client").message.startswith("tls: the server's certificate is not accepted")


def test_a_server_of_another_name(ca: Authority) -> None:
    error = fault(Ends(server(ca), client(ca), "elsewhere"), "client")
    assert "Hostname mismatch" in error.message


def test_a_version_that_is_too_old(ca: Authority) -> None:
    near, far = server(ca, minimum_version="1.3"), client(ca)
    far.maximum_version = ssl.TLSVersion.TLSv1_2
    error = fault(Ends(near, far))
    assert error.message == "tls: the peer speaks no version of TLS that is allowed here"


def test_ciphers_that_nobody_shares(ca: Authority) -> None:
    near, far = server(ca, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"), client(ca)
    far.maximum_version = ssl.TLSVersion.TLSv1_2
    assert Ends(near, far).agree().tls().cipher == "ECDHE-ECDSA-AES256-GCM-SHA384"
    far.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    error = fault(Ends(near, far))
    assert error.message == "tls: the peer proposes no cipher suite that is allowed here"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (bytes.fromhex("100c00044d515454040200"), "tls: plain MQTT is spoken to the TLS port"),
        (b"GET / HTTP/1.1\r\n\r\n", "tls: plain HTTP is spoken to the TLS port"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 5 6\r\n", "tls: a PROXY header comes first, and"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "tls: a PROXY header comes first, and"),
        (b"\x00" * 20, "tls: this is not TLS"),
        (b"\x16\x03\x01\x00\x05hello", "tls: "),
    ],
)
def test_what_is_no_tls(ca: Authority, said: bytes, text: str) -> None:
    near = TlsLayer(server(ca), server_side=True)
    with pytest.raises(ProtocolError) as caught:
        near.receive(said)
    assert caught.value.message.startswith(text)


def test_a_record_may_be_cut_anywhere(ca: Authority) -> None:
    """Also in front of a byte with which another protocol would begin."""
    near, far = server(ca), client(ca)
    ends = Ends(near, far)
    hello = ends.client.send(b"")
    at = next(n for n in range(10, len(hello)) if hello[n] == 0x10)
    ends.server.receive(hello[:at])
    ends.server.receive(hello[at:])
    ends.agree()


def test_a_fault_says_which_one_it_was(ca: Authority) -> None:
    """The alert goes out in the farewell, because nothing else does any more."""
    near, far = server(ca, minimum_version="1.3"), client(ca)
    far.maximum_version = ssl.TLSVersion.TLSv1_2
    ends = Ends(near, far)
    with pytest.raises(ProtocolError):
        ends.server.receive(ends.client.send(b""))
    with pytest.raises(ProtocolError, match="the peer refuses the version of TLS"):
        ends.client.receive(ends.server.close())


# -- several names ---------------------------------------------------------------------------------


def test_a_certificate_for_each_name(ca: Authority) -> None:
    one = ca.issue("one.example", "*.sub.example", file="one")
    two = ca.issue("two.example", file="two")
    near = server(
        ca,
        "default.example",
        certificates=(
            Certificate(certificate=one.certificate, key=one.key),
            Certificate(certificate=two.certificate, key=two.key, names=("two.example", "three")),
        ),
    )
    shown = {}
    for name in ("default.example", "one.example", "a.sub.example", "two.example", "TWO.example"):
        ends = Ends(near, client(ca), name).agree()
        assert ends.tls().server_name == name
        shown[name] = ends.tls("client").certificate.san_dns[0]
    assert shown == {
        "default.example": "default.example",
        "one.example": "one.example",
        "a.sub.example": "one.example",
        "two.example": "two.example",
        "TWO.example": "two.example",
    }
    unknown = client(ca)
    unknown.check_hostname = False
    for asked in ("a.b.sub.example", "sub.example", None):
        ends = Ends(near, unknown, asked).agree()
        assert ends.tls("client").certificate.san_dns == ("default.example",)
        assert ends.tls().server_name == (asked or "")


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_clients_are_judged_alike_whatever_they_ask_for(ca: Authority, version: str) -> None:
    ours, revoked = ca.issue("door", file="door"), ca.issue("old", file="old")
    more = ca.issue("other.example")
    near = server(
        ca,
        certificates=(Certificate(certificate=more.certificate, key=more.key),),
        client_certificates="required",
        client_ca=ca.file,
        client_crl=ca.revoke(revoked),
    )
    for name in ("localhost", "other.example"):
        for shown, accepted in ((ours, True), (revoked, False), (None, False)):
            own = {} if shown is None else {"certificate": shown.certificate, "key": shown.key}
            far = client(ca, **own)
            far.maximum_version = getattr(ssl.TLSVersion, version)
            ends = Ends(near, far, name)
            if accepted:
                facts = ends.agree().tls()
                assert (facts.server_name, facts.certificate.san_dns) == (name, ("door",))
            else:
                assert fault(ends).reason_code == ReasonCode.NOT_AUTHORIZED


# -- resumption ------------------------------------------------------------------------------------


def session_of(ends: Ends) -> Any:
    """What a client keeps for the next time."""
    ends.client.receive(ends.server.send(b"x"))
    return ends.client.tls.session


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("mutual", [False, True])
def test_a_session_is_resumed(ca: Authority, version: str, mutual: bool) -> None:
    demands = {"client_certificates": "required", "client_ca": ca.file} if mutual else {}
    ours = ca.issue("door", file="door")
    near, far = server(ca, **demands), client(ca, certificate=ours.certificate, key=ours.key)
    far.maximum_version = getattr(ssl.TLSVersion, version)
    session = session_of(Ends(near, far).agree())
    again = Ends(near, far)
    again.client.tls.session = session
    facts = again.agree().tls()
    assert facts.resumed
    assert (facts.certificate is not None) is mutual


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_or_none_is(ca: Authority, version: str) -> None:
    """Where that is switched off, and where another context has taken over."""
    near, far = server(ca, resumption=False), client(ca)
    far.maximum_version = getattr(ssl.TLSVersion, version)
    session = session_of(Ends(near, far).agree())
    again = Ends(near, far)
    if session is not None:
        again.client.tls.session = session
    assert not again.agree().tls().resumed
    before, after = server(ca), server(ca)
    session = session_of(Ends(before, far).agree())
    again = Ends(after, far)
    again.client.tls.session = session
    assert not again.agree().tls().resumed
