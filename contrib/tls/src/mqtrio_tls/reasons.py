"""Why a TLS connection ends: in words that tell whoever reads the log what to mend."""

import ssl
from collections.abc import Mapping
from typing import Final

import mqtrio
from mqtrio import ProtocolError, ReasonCode

#: The first byte of a TLS record, and of the hello that older clients begin with.
_FIRST_OF_TLS: Final = frozenset({20, 21, 22, 23, 0x80})

#: The first byte of MQTT's CONNECT.
_CONNECT: Final = 0x10

#: How the two versions of the PROXY protocol begin.
_PROXY: Final = (b"PROXY ", b"\r\n\r\n")

_HTTP: Final = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN", b"PRI ")

#: OpenSSL's reason -> ours.
_REASONS: Final[Mapping[str, str]] = {
    "UNSUPPORTED_PROTOCOL": "the peer speaks no version of TLS that is allowed here",
    "NO_SHARED_CIPHER": "the peer proposes no cipher suite that is allowed here",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "the peer can't check a certificate of this kind",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client shows no certificate",
    "WRONG_VERSION_NUMBER": "this is not TLS",
    "HTTP_REQUEST": "plain HTTP is spoken to the TLS port",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer refuses the version of TLS",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know the authority of our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer does not accept our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the peer says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the peer says that our certificate is revoked",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the peer can't use our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer finds nothing that both can do",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a certificate, and was shown none",
}


def of_first_bytes(data: bytes, tls: ssl.SSLObject) -> ProtocolError | None:
    """What a peer speaks whose first bytes are not TLS; None if they may be."""
    if not tls.server_side or data[0] in _FIRST_OF_TLS:
        return None
    if data[0] == _CONNECT:
        return _error("plain MQTT is spoken to the TLS port")
    if data.startswith(_HTTP):
        return _error(_REASONS["HTTP_REQUEST"])
    if data.startswith(_PROXY):
        return _error("a PROXY header comes first, and this listener has no proxy_protocol")
    return None


def of_error(error: ssl.SSLError, tls: ssl.SSLObject) -> ProtocolError:
    """What OpenSSL has found."""
    whose = "the client's" if tls.server_side else "the server's"
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"{whose} certificate is not accepted: {error.verify_message}"
        return _error(text, ReasonCode.NOT_AUTHORIZED)
    reason = error.reason or ""
    said = _REASONS.get(reason)
    if said is None:
        said = reason.replace("_", " ").lower() or "the connection is broken"
    code = ReasonCode.PROTOCOL_ERROR
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        code = ReasonCode.NOT_AUTHORIZED
    return _error(said, code)


def _error(text: str, code: ReasonCode = ReasonCode.PROTOCOL_ERROR) -> ProtocolError:
    return mqtrio.ProtocolError(code, f"tls: {text}")
