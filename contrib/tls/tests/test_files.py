"""What can be wrong with the files of a listener, and in which words it is said."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from contrib.tls.tests.authority import Authority, Issued, encrypt
from mqtrio import ConfigurationError
from mqtrio_tls import Certificate, TlsClient, TlsListener, client_context, server_context

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def listener(issued: Issued, **options: Any) -> TlsListener:
    return TlsListener(**{"certificate": issued.certificate, "key": issued.key} | options)


def wrong(options: TlsListener) -> str:
    with pytest.raises(ConfigurationError) as caught:
        server_context(options)
    return str(caught.value)


def test_a_key_in_the_file_of_its_certificate(ca: Authority) -> None:
    issued = ca.issue("h")
    issued.certificate.write_bytes(issued.key.read_bytes() + issued.certificate.read_bytes())
    server_context(TlsListener(certificate=issued.certificate))


def test_a_key_with_a_password(ca: Authority) -> None:
    issued = ca.issue("h")
    encrypt(issued, "hunter2")
    server_context(listener(issued, key_password="hunter2"))
    assert wrong(listener(issued)) == f"key: {issued.key} is encrypted: set key_password"
    told = wrong(listener(issued, key_password="hunter3"))
    assert told == f"key: {issued.key} can't be decrypted: is key_password right?"
    assert "hunter" not in repr(listener(issued, key_password="hunter3"))
    assert "longer than 1024 bytes" in wrong(listener(issued, key_password="x" * 2000))


def test_a_key_of_another_certificate(ca: Authority) -> None:
    one, two = ca.issue("one"), ca.issue("two")
    assert wrong(listener(one, key=two.key)) == (
        f"key: {two.key} does not belong to the certificate in {one.certificate}"
    )


def test_a_chain_in_the_wrong_order(ca: Authority) -> None:
    """The key is that of the last one, then."""
    issued = ca.issue("h")
    issued.certificate.write_bytes(ca.file.read_bytes() + issued.certificate.read_bytes())
    assert "does not belong to the certificate" in wrong(listener(issued))


@pytest.mark.parametrize("which", ["certificate", "key", "client_ca", "client_crl"])
def test_a_file_that_is_not_there(ca: Authority, tmp_path: Path, which: str) -> None:
    issued = ca.issue("h")
    missing = tmp_path / "missing.pem"
    good: dict[str, Any] = {"client_certificates": "optional", "client_ca": ca.file}
    told = wrong(listener(issued, **good | {which: missing}))
    assert told == f"{which}: {missing} can't be read: No such file or directory"


def test_what_is_in_a_file(ca: Authority, tmp_path: Path) -> None:
    issued = ca.issue("h")
    other = tmp_path / "other.pem"
    good: dict[str, Any] = {"client_certificates": "optional", "client_ca": ca.file}
    other.write_bytes(b"\xff\x00not PEM")
    assert "certificate: " in wrong(listener(issued, certificate=other))
    for which, text in (
        ("certificate", "has no certificate in it"),
        ("key", "has no private key in it"),
        ("client_ca", "has no certificate in it"),
        ("client_crl", "has no revocation list in it"),
    ):
        assert f"{which}: {other} {text}" in wrong(listener(issued, **good | {which: other}))
    broken = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"
    for which, kind in (
        ("certificate", "CERTIFICATE"),
        ("client_ca", "CERTIFICATE"),
        ("client_crl", "X509 CRL"),
    ):
        other.write_text(broken.format(kind))
        assert f"{which}: {other} can't be used: " in wrong(
            listener(issued, **good | {which: other})
        )
    other.write_text(broken.format("PRIVATE KEY"))
    assert "can't be used" in wrong(listener(issued, key=other))


def test_folders_with_nothing_in_them(ca: Authority, tmp_path: Path) -> None:
    issued = ca.issue("h")
    empty = tmp_path / "empty"
    empty.mkdir()
    good: dict[str, Any] = {"client_certificates": "optional", "client_ca": ca.file}
    told = wrong(listener(issued, **good | {"client_ca": empty}))
    assert told == f"client_ca: {empty} has no files *.pem or *.crt in it"
    told = wrong(listener(issued, **good | {"client_crl": empty}))
    assert told == f"client_crl: {empty} has no files *.pem or *.crl in it"


def test_options_that_mean_nothing_together(ca: Authority) -> None:
    issued = ca.issue("h")
    for wanted in ("optional", "required"):
        told = wrong(listener(issued, client_certificates=wanted))
        assert told.startswith(f"client_certificates = '{wanted}' needs client_ca")
    for which in ("client_ca", "client_crl"):
        assert "mean nothing while client_certificates" in wrong(
            listener(issued, **{which: ca.file})
        )
    assert "OpenSSL knows no cipher suite in 'NONSENSE'" in wrong(
        listener(issued, ciphers="NONSENSE")
    )


@pytest.mark.parametrize(
    ("begin", "end", "text"),
    [
        (NOW - 10 * DAY, NOW - DAY, "has expired on"),
        (NOW + DAY, NOW + 10 * DAY, "is not valid before"),
    ],
)
def test_times(ca: Authority, begin: datetime, end: datetime, text: str) -> None:
    issued = ca.issue("h", not_before=begin, not_after=end)
    day = (end if end < NOW else begin).strftime("%Y-%m-%d")
    assert f"certificate: {issued.certificate} {text} {day}" in wrong(listener(issued))


def test_a_certificate_that_is_about_to_expire(
    ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        server_context(listener(ca.issue("one")))
        assert not caplog.records
        server_context(listener(ca.issue("two", not_after=NOW + 5 * DAY)))
    assert "two.pem expires on" in caplog.text


def test_further_certificates_are_looked_at_as_closely(ca: Authority) -> None:
    issued, other = ca.issue("h"), ca.issue("i")
    more = Certificate(certificate=other.certificate, key=issued.key)
    assert "does not belong" in wrong(listener(issued, certificates=(more,)))
    same = (
        Certificate(certificate=other.certificate, key=other.key),
        Certificate(certificate=issued.certificate, key=issued.key, names=("I",)),
    )
    assert "has the name I, which another one has, too" in wrong(
        listener(issued, certificates=same)
    )


def test_a_certificate_for_no_host_needs_names(ca: Authority) -> None:
    issued = ca.issue("h")
    nameless = ca.issue_like(ca.issue("i"), x509.UniformResourceIdentifier("urn:example:i"))
    more = Certificate(certificate=nameless.certificate, key=nameless.key)
    assert "is for no host: give it names" in wrong(listener(issued, certificates=(more,)))


def test_what_can_be_wrong_at_a_client(
    ca: Authority, make_ca: Callable[[str], Authority], tmp_path: Path
) -> None:
    assert client_context(TlsClient()).cert_store_stats()["x509"] >= 0
    with pytest.raises(ConfigurationError, match="mean nothing without a certificate"):
        client_context(TlsClient(key=ca.file))
    with pytest.raises(ConfigurationError, match=r"ca: .*missing can't be read"):
        client_context(TlsClient(ca=tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="has no private key in it"):
        client_context(TlsClient(certificate=ca.file))
