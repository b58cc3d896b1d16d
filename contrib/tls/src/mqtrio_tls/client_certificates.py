"""The plugin that lets clients in by their certificates."""

import time
from typing import Literal

from attrs import define

import mqtrio


@define(frozen=True, kw_only=True)
class ClientCertificatesSettings:
    """Lets clients in by their TLS certificates, which name the user."""

    username_from: Literal["cn", "san-dns", "san-uri", "subject"] = mqtrio.setting(
        "cn",
        "what of the certificate is the username: the common name, the first host name or the "
        "first URI of the alternative names, or the whole subject (CN=door,O=Example)",
    )


class ClientCertificates(mqtrio.Plugin[ClientCertificatesSettings]):
    """Lets clients in by their TLS certificates, which name the user."""

    api = 1

    @mqtrio.hookimpl
    def authenticate(self, event: mqtrio.AuthenticateEvent) -> mqtrio.Allow | mqtrio.Deny | None:
        """The user is whom the certificate names, until it expires; others are for others."""
        certificate = event.tls.certificate if event.tls is not None else None
        if certificate is None:
            return None
        username = self._username(certificate)
        if not username:
            return None
        if "\0" in username:  # no username of MQTT has it, and what compares names may stop there
            return mqtrio.Deny(why="the name in the client's certificate has a NUL in it")
        left = certificate.not_after - time.time()
        if left <= 0:  # of a session that was resumed: a handshake would have noticed
            return mqtrio.Deny(why="the client's certificate has expired")
        return mqtrio.Allow(
            username=username,
            expires_at=certificate.not_after,
            why=f"certificate {certificate.serial_number} of {certificate.issuer}",
        )

    def _username(self, certificate: mqtrio.PeerCertificate) -> str:
        match self.settings.username_from:
            case "cn":
                return certificate.common_name
            case "san-dns":
                return certificate.san_dns[0] if certificate.san_dns else ""
            case "san-uri":
                return certificate.san_uri[0] if certificate.san_uri else ""
            case "subject":
                return certificate.subject
