"""PEM files: read with errors that say which file it is and what is wrong with it."""

import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import mqtrio
from mqtrio_tls.settings import Certificate, TlsClient, TlsListener

#: What `certificate`, `key` and `key_password` stand in.
HasKey = TlsListener | TlsClient | Certificate

_CERTIFICATE: Final = re.compile(
    "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)
_KEY: Final = "PRIVATE KEY-----"
_CRL: Final = "-----BEGIN X509 CRL-----"


def read(path: Path, what: str) -> str:
    """The text of a file; ConfigurationError if it can't be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise wrong(what, path, f"can't be read: {error.strerror or error}") from None


def first_certificate(path: Path) -> str:
    """The first certificate of a file, as PEM: that of whoever has the key."""
    found = _CERTIFICATE.search(read(path, "certificate"))
    if found is None:
        raise wrong("certificate", path, "has no certificate in it (PEM: BEGIN CERTIFICATE)")
    return found[0]


def load_key(context: ssl.SSLContext, options: HasKey, certificate: Path) -> None:
    """Give a context its certificate and key; ConfigurationError says what is wrong with them."""
    first_certificate(certificate)
    key = options.key or certificate
    if _KEY not in read(key, "key"):
        raise wrong("key", key, "has no private key in it (PEM: BEGIN PRIVATE KEY)")
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return options.key_password or ""

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if asked and not options.key_password:
            raise wrong("key", key, "is encrypted: set key_password") from None
        if asked:
            raise wrong("key", key, "can't be decrypted: is key_password right?") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"does not belong to the certificate in {certificate}"
            raise wrong("key", key, text) from None
        raise wrong("certificate", certificate, f"can't be used: {spoken(error)}") from None
    except ValueError as error:  # a password of more than 1024 bytes
        raise wrong("key_password", key, str(error)) from None


def load_authorities(context: ssl.SSLContext, path: Path, what: str) -> None:
    """Have a context trust the authorities of a file, or of all files of a folder."""
    before = context.cert_store_stats()["x509"]
    for file in _files(path, what, ("*.pem", "*.crt")):
        text = "\n".join(_CERTIFICATE.findall(read(file, what)))
        if not text:
            raise wrong(what, file, "has no certificate in it (PEM: BEGIN CERTIFICATE)")
        try:
            context.load_verify_locations(cadata=text)
        except ssl.SSLError as error:
            raise wrong(what, file, f"can't be used: {spoken(error)}") from None
    if context.cert_store_stats()["x509"] == before:
        raise wrong(what, path, "has no files *.pem or *.crt in it")


def load_revoked(context: ssl.SSLContext, path: Path, what: str) -> None:
    """Have a context look at revocation lists: those of a file, or of all files of a folder."""
    before = context.cert_store_stats()["crl"]
    for file in _files(path, what, ("*.pem", "*.crl")):
        if _CRL not in read(file, what):
            raise wrong(what, file, "has no revocation list in it (PEM: BEGIN X509 CRL)")
        try:
            context.load_verify_locations(cafile=file)
        except ssl.SSLError as error:
            raise wrong(what, file, f"can't be used: {spoken(error)}") from None
    if context.cert_store_stats()["crl"] == before:
        raise wrong(what, path, "has no files *.pem or *.crl in it")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _files(path: Path, what: str, patterns: Iterable[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        return sorted({file for pattern in patterns for file in path.glob(pattern)})
    except OSError as error:
        raise wrong(what, path, f"can't be read: {error.strerror or error}") from None


def wrong(what: str, path: Path, text: str) -> mqtrio.ConfigurationError:
    """An error about the file that an option names."""
    return mqtrio.ConfigurationError(f"{what}: {path} {text}")


def spoken(error: ssl.SSLError) -> str:
    """OpenSSL's reason in lower case, as words."""
    return (error.reason or "unknown error").replace("_", " ").lower()
