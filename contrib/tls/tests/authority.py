"""Authorities, and their certificates in files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)


@define(frozen=True)
class Issued:
    """A certificate in files."""

    certificate: Path
    key: Path
    leaf: trustme.LeafCert


class Authority:
    """A certificate authority; its certificates stand as files in `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.authority = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self.authority.cert_pem.write_to_path(self.file)

    def issue(self, *names: str, file: str = "", **options: Any) -> Issued:
        """Issue a certificate for these names."""
        leaf = self.authority.issue_cert(*names, **options)
        stem = file or names[0].replace("*", "any")
        certificate, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return Issued(certificate, key, leaf)

    def issue_like(self, issued: Issued, *others: x509.GeneralName) -> Issued:
        """Issue the same certificate once more, with these alternative names."""
        old = certificate_of(issued)
        builder = x509.CertificateBuilder(
            subject_name=old.subject,
            issuer_name=old.issuer,
            public_key=old.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=old.not_valid_before_utc,
            not_valid_after=old.not_valid_after_utc,
        ).add_extension(x509.SubjectAlternativeName(others), critical=False)
        made = builder.sign(self._key(), hashes.SHA256())
        issued.certificate.write_bytes(made.public_bytes(Encoding.PEM))
        return issued

    def revoke(self, *issued: Issued, file: str = "revoked.crl") -> Path:
        """Write a list of revoked certificates."""
        now = datetime.now(UTC)
        own = x509.load_pem_x509_certificate(self.authority.cert_pem.bytes())
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=own.subject,
            last_update=now - timedelta(days=1),
            next_update=now + timedelta(days=1),
        )
        for each in issued:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(certificate_of(each).serial_number, now).build()
            )
        path = self.folder / file
        path.write_bytes(builder.sign(self._key(), hashes.SHA256()).public_bytes(Encoding.PEM))
        return path

    def _key(self) -> Any:
        pem = self.authority.private_key_pem.bytes()
        return serialization.load_pem_private_key(pem, None)


def certificate_of(issued: Issued) -> x509.Certificate:
    """The certificate, to look at."""
    return x509.load_pem_x509_certificate(issued.certificate.read_bytes())


def encrypt(issued: Issued, password: str) -> None:
    """Put a password on a key."""
    key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
    issued.key.write_bytes(
        key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode())
        )
    )
