"""Who is at the other end of a connection: what the network knows, and what its layers learnt."""

from attrs import define, field

from mqtrio.hooks.credentials import PeerCredentials


@define(frozen=True, kw_only=True, weakref_slot=False)
class PeerCertificate:
    """A certificate that the peer has shown and that was verified."""

    #: The distinguished name as text, in the order of RFC 4514: "CN=door,O=Example".
    subject: str
    issuer: str
    #: Hexadecimal, in upper case.
    serial_number: str
    #: The first common name of the subject; "" for none.
    common_name: str = ""
    #: Names of hosts and URIs among the subject's alternative names.
    san_dns: tuple[str, ...] = ()
    san_uri: tuple[str, ...] = ()
    #: Seconds since 1970.
    not_before: float = 0.0
    not_after: float = 0.0
    #: The certificate itself, in DER.
    der: bytes = field(default=b"", repr=False)


@define(frozen=True, kw_only=True, weakref_slot=False)
class TlsFacts:
    """What the handshake of TLS has found out."""

    #: "TLSv1.2" or "TLSv1.3".
    version: str
    #: OpenSSL's name of the cipher suite.
    cipher: str
    #: The name that the client asked for (SNI); "" for none.
    server_name: str = ""
    #: The protocol that both have agreed upon (ALPN); "" for none.
    protocol: str = ""
    #: The peer's verified certificate, None if it has shown none.
    certificate: PeerCertificate | None = None
    #: Whether a session was resumed, without a full handshake.
    resumed: bool = False


@define(frozen=True, kw_only=True, weakref_slot=False)
class HttpFacts:
    """The HTTP request by which a WebSocket was opened. A query string may hold a token: no repr.

    The names of headers are in lower case.
    """

    path: str
    query: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    #: The page that the script belongs to; None for a client that is no browser.
    origin: str | None = None
    #: The subprotocol that was agreed upon; "" for none.
    subprotocol: str = ""

    def header(self, name: str) -> str | None:
        """The first header of this name, in whatever case; None if there is none."""
        wanted = name.lower()
        return next((value for known, value in self.headers if known == wanted), None)


@define(frozen=True, kw_only=True, weakref_slot=False)
class PeerFacts:
    """Who is at the other end, as far as the network knows.

    A layer that learns the real address from a proxy sets `address` and `port` to the client's,
    `local` to False, and `via` to the address that the proxy had here.
    """

    #: The peer's address without its port ("192.0.2.7", "2001:db8::7"), as `ipaddress` reads it;
    #: empty where there is none.
    address: str
    #: The peer's port, 0 where there is none.
    port: int = 0
    #: URL of the listener, as it was configured; for a stream that the program brought, its name.
    listener: str
    #: Whether the peer is on this machine: a loopback address or a local socket.
    local: bool = False
    #: The address of the proxy that has told `address`; empty where the peer connected itself.
    via: str = ""
    #: What TLS found out; None without TLS, and before its handshake is done.
    tls: TlsFacts | None = None
    #: The request by which the WebSocket was opened; None without one.
    http: HttpFacts | None = None
    #: The process at the other end of a Unix socket, where the system tells.
    credentials: PeerCredentials | None = None

    def __str__(self) -> str:
        if not self.port:
            return self.address or self.listener
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )
