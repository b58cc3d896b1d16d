"""The options of TLS: of a listener, and of a connection that this side opens."""

from pathlib import Path
from typing import Literal

from attrs import define

import mqtrio

Version = Literal["1.2", "1.3"]


@define(frozen=True, kw_only=True)
class Certificate:
    """One more certificate of a listener, for those who ask for one of its names (SNI)."""

    certificate: Path = mqtrio.required_setting(
        "PEM file with the certificate, then those that lead to its authority"
    )
    key: Path | None = mqtrio.setting(
        None, "PEM file with the private key; default: it stands in the file of the certificate"
    )
    key_password: str | None = mqtrio.setting(None, "password of the private key", secret=True)
    names: tuple[str, ...] = mqtrio.setting(
        (), "names for which it is used, also as *.example.org; default: those that it has"
    )


@define(frozen=True, kw_only=True)
class TlsListener:
    """TLS of one listener. The files are read at start and again at each reload."""

    certificate: Path = mqtrio.required_setting(
        "PEM file with the certificate, then those that lead to its authority"
    )
    key: Path | None = mqtrio.setting(
        None, "PEM file with the private key; default: it stands in the file of the certificate"
    )
    key_password: str | None = mqtrio.setting(None, "password of the private key", secret=True)
    certificates: tuple[Certificate, ...] = mqtrio.setting(
        (), "more certificates, chosen by the name that a client asks for (SNI)"
    )
    client_certificates: Literal["none", "optional", "required"] = mqtrio.setting(
        "none", "whether clients are asked for a certificate, and must have one"
    )
    client_ca: Path | None = mqtrio.setting(
        None, "PEM file, or folder of *.pem and *.crt, of the authorities of clients' certificates"
    )
    client_crl: Path | None = mqtrio.setting(
        None, "PEM file, or folder of *.pem and *.crl, of revoked certificates of clients"
    )
    minimum_version: Version = mqtrio.setting("1.2", "oldest version of TLS that is spoken")
    ciphers: str | None = mqtrio.setting(
        None, "cipher suites of TLS 1.2 in OpenSSL's notation; default: OpenSSL's own choice"
    )
    alpn: tuple[str, ...] = mqtrio.setting(
        ("mqtt",), "protocols that are agreed to where a client proposes some (ALPN)"
    )
    resumption: bool = mqtrio.setting(
        True, "give clients tickets, with which they resume a session without a full handshake"
    )


@define(frozen=True, kw_only=True)
class TlsClient:
    """TLS of a connection that this side opens."""

    ca: Path | None = mqtrio.setting(
        None,
        "PEM file, or folder of *.pem and *.crt, of the authorities that are trusted; default: "
        "those of the system",
    )
    server_name: str | None = mqtrio.setting(
        None, "name that the server's certificate must have; default: the host of the URL"
    )
    certificate: Path | None = mqtrio.setting(None, "PEM file with a certificate of one's own")
    key: Path | None = mqtrio.setting(
        None, "PEM file with its private key; default: it stands in the file of the certificate"
    )
    key_password: str | None = mqtrio.setting(None, "password of the private key", secret=True)
    minimum_version: Version = mqtrio.setting("1.2", "oldest version of TLS that is spoken")
    alpn: tuple[str, ...] = mqtrio.setting(("mqtt",), "protocols that are proposed (ALPN)")
