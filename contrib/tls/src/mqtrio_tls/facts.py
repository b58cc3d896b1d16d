"""What the ssl module knows of a peer, as mqtrio's facts."""

import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

import mqtrio

#: The ssl module's names of attributes -> those of RFC 4514; others keep theirs.
_SHORT: Final[Mapping[str, str]] = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}

_ESCAPED: Final = re.compile(r'[,+"\\<>;]|^[ #]|(?<=.) $')

Name = Iterable[Iterable[tuple[str, str]]]


def tls_facts(tls: ssl.SSLObject) -> mqtrio.TlsFacts:
    """What a handshake has found out; it must be done."""
    cipher = tls.cipher()
    shown = tls.getpeercert()
    return mqtrio.TlsFacts(
        version=tls.version() or "",
        cipher=cipher[0] if cipher else "",
        server_name=getattr(tls, "asked", "") if tls.server_side else tls.server_hostname or "",
        protocol=tls.selected_alpn_protocol() or "",
        certificate=certificate_facts(tls) if shown else None,
        resumed=bool(tls.session_reused),
    )


def certificate_facts(tls: ssl.SSLObject) -> mqtrio.PeerCertificate:
    """The peer's certificate, which was verified."""
    shown: Any = tls.getpeercert()
    others = shown.get("subjectAltName", ())
    common = [value for part in shown["subject"] for key, value in part if key == "commonName"]
    return mqtrio.PeerCertificate(
        subject=distinguished_name(shown["subject"]),
        issuer=distinguished_name(shown["issuer"]),
        serial_number=shown["serialNumber"],
        common_name=common[0] if common else "",
        san_dns=tuple(value for kind, value in others if kind == "DNS"),
        san_uri=tuple(value for kind, value in others if kind == "URI"),
        not_before=ssl.cert_time_to_seconds(shown["notBefore"]),
        not_after=ssl.cert_time_to_seconds(shown["notAfter"]),
        der=tls.getpeercert(binary_form=True) or b"",
    )


def distinguished_name(name: Name) -> str:
    """A name as text in the notation of RFC 4514, which begins at its end."""
    parts = [
        "+".join(f"{_SHORT.get(key, key)}={_escape(value)}" for key, value in part) for part in name
    ]
    return ",".join(reversed(parts))


def _escape(value: str) -> str:
    return _ESCAPED.sub(lambda found: f"\\{found[0]}", value).replace("\0", "\\00")
