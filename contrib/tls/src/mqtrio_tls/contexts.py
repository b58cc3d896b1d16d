"""Contexts of the ssl module from settings: what all connections of a listener share."""

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import mqtrio
from mqtrio_tls.facts import certificate_facts
from mqtrio_tls.files import (
    first_certificate,
    load_authorities,
    load_key,
    load_revoked,
    wrong,
)
from mqtrio_tls.layer import TlsLayer, TlsObject
from mqtrio_tls.settings import Certificate, TlsClient, TlsListener

log = logging.getLogger("mqtrio.tls")

VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
VERIFY: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which the ssl module has no name for.
NO_CHECK_TIME: Final = 0x200000

#: Seconds before the end of a certificate in which the log warns of it.
SOON: Final = 14 * 86_400

#: Round trips that a handshake may take, and more.
_ROUNDS: Final = 10


def server_context(options: TlsListener) -> ssl.SSLContext:
    """Make the context of a listener; ConfigurationError says what is wrong with its files."""
    if options.client_certificates == "none":
        if options.client_ca is not None or options.client_crl is not None:
            raise mqtrio.ConfigurationError(
                'client_ca and client_crl mean nothing while client_certificates is "none"'
            )
    elif options.client_ca is None:
        raise mqtrio.ConfigurationError(
            f"client_certificates = {options.client_certificates!r} needs client_ca: whose "
            "certificates are good"
        )
    context = _server_context(options, options)
    names: dict[str, ssl.SSLContext] = {}
    for each in options.certificates:
        other = _server_context(options, each)
        own = each.names or try_certificate(other, each.certificate).san_dns
        if not own:
            raise wrong("certificates", each.certificate, "is for no host: give it names")
        for name in own:
            if names.setdefault(name.lower(), other) is not other:
                text = f"has the name {name}, which another one has, too"
                raise wrong("certificates", each.certificate, text)
    # All of them, and after they have been tried: OpenSSL asks the context of the certificate that
    # was chosen whom to trust.
    for each_context in {context, *names.values()}:
        _ask_clients(each_context, options)
    context.sni_callback = _by_name(names)
    return context


def client_context(options: TlsClient) -> ssl.SSLContext:
    """Make the context of connections that this side opens; raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = TlsObject
    context.minimum_version = VERSIONS[options.minimum_version]
    if options.alpn:
        context.set_alpn_protocols(options.alpn)
    if options.ca is None:
        context.load_default_certs()
    else:
        load_authorities(context, options.ca, "ca")
    if options.certificate is not None:
        load_key(context, options, options.certificate)
    elif options.key is not None or options.key_password is not None:
        raise mqtrio.ConfigurationError("key and key_password mean nothing without a certificate")
    return context


def _server_context(options: TlsListener, own: TlsListener | Certificate) -> ssl.SSLContext:
    """A context with one certificate, which is tried out."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = TlsObject
    context.minimum_version = VERSIONS[options.minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if options.ciphers is not None:
        try:
            context.set_ciphers(options.ciphers)
        except ssl.SSLError:
            raise mqtrio.ConfigurationError(
                f"ciphers: OpenSSL knows no cipher suite in {options.ciphers!r}"
            ) from None
    if options.alpn:
        context.set_alpn_protocols(options.alpn)
    if options.resumption:
        context.num_tickets = 1  # a client of MQTT has one connection, and comes back one by one
    else:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    load_key(context, own, own.certificate)
    _check_times(try_certificate(context, own.certificate), own.certificate)
    return context


def _ask_clients(context: ssl.SSLContext, options: TlsListener) -> None:
    """Have a context ask clients for certificates, and judge them, as the options say."""
    if options.client_ca is not None:
        load_authorities(context, options.client_ca, "client_ca")
    if options.client_crl is not None:
        load_revoked(context, options.client_crl, "client_crl")
    context.verify_mode = VERIFY[options.client_certificates]


def _by_name(names: Mapping[str, ssl.SSLContext]) -> Callable[..., None]:
    """What OpenSSL calls when a client has said which host it wants, or that it doesn't care."""

    def choose(connection: TlsObject, name: str | None, context: ssl.SSLContext) -> None:
        if name is None:
            return
        connection.asked = name
        name = name.lower()
        found = names.get(name) or names.get(f"*.{name.partition('.')[2]}")
        if found is not None:
            connection.context = found

    return choose


def try_certificate(context: ssl.SSLContext, path: Path) -> mqtrio.PeerCertificate:
    """Shake hands with a context as a client that trusts its certificate; what that one says.

    The ssl module doesn't read certificates, but a handshake does, and finds out whether it works.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    client.load_verify_locations(cadata=first_certificate(path))
    near, far = TlsLayer(context, server_side=True), TlsLayer(client, server_side=False)
    try:
        for _ in range(_ROUNDS):
            near.receive(far.send(b""))
            far.receive(near.send(b""))
    except mqtrio.ProtocolError as error:
        raise wrong("certificate", path, f"can't be used: {error.message}") from None
    return certificate_facts(far.tls)


def _check_times(certificate: mqtrio.PeerCertificate, path: Path) -> None:
    now = time.time()
    if certificate.not_after < now:
        raise wrong("certificate", path, f"has expired on {_day(certificate.not_after)}")
    if certificate.not_before > now:
        raise wrong("certificate", path, f"is not valid before {_day(certificate.not_before)}")
    if certificate.not_after < now + SOON:
        log.warning("the certificate %s expires on %s", path, _day(certificate.not_after))


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
