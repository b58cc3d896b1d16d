"""TLS as a layer: an SSLObject between two buffers in memory."""

import ssl
from typing import Final, Never

from attrs import evolve

import mqtrio
from mqtrio_tls import reasons
from mqtrio_tls.facts import tls_facts

#: Bytes taken out of OpenSSL in one go; it gives a record, which has 16 KiB at most.
RECORD: Final = 16 * 1024

#: The most that OpenSSL holds for one connection: the messages of a handshake (100 KiB of
#: certificates), and a record in each direction.
BOUND: Final = 160 * 1024

#: What an idle connection takes, as measured (tests/bench, tls-idle) without what MQTT takes.
WEIGHT: Final = 18 * 1024

#: A full handshake takes a server about 0.6 ms; 10 units are about 1 us.
HANDSHAKE_WORK: Final = 6000


class TlsObject(ssl.SSLObject):
    """One connection, as OpenSSL sees it."""

    #: The name that the client has asked for, "" for none; set while it shakes hands.
    asked = ""


class TlsLayer:
    """One end of a TLS connection. `server_name`: whom a client expects at the other end."""

    __slots__ = (
        "_begun",
        "_closed",
        "_fault",
        "_held",
        "_in",
        "_out",
        "_tls",
        "eof",
        "handshake_done",
    )

    handshake_work = HANDSHAKE_WORK
    weight = WEIGHT
    bound = BOUND

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None
    ) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=server_side, server_hostname=server_name
        )
        self.eof = False
        self.handshake_done = False
        self._begun = False
        self._closed = False
        #: What was sent before the handshake is done.
        self._held = b""
        #: What is raised from now on.
        self._fault: mqtrio.ProtocolError | None = None

    @property
    def tls(self) -> ssl.SSLObject:
        """The connection, as the ssl module has it."""
        return self._tls

    def receive(self, data: bytes) -> bytes:
        """Decrypt all that has come."""
        if self._fault is not None:
            self._fail(self._fault)
        if not data:
            return b""  # each call decrypts all there is
        if not self._begun:
            self._begun = True
            foreign = reasons.of_first_bytes(data, self._tls)
            if foreign is not None:
                self._fail(foreign)
        self._in.write(data)
        if not self.handshake_done and not self._shake_hands():
            return b""
        return self._read()

    def _read(self) -> bytes:
        pieces = []
        read = self._tls.read
        try:
            while piece := read(RECORD):
                pieces.append(piece)
            self.eof = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # when both have closed
            self.eof = True
        except ssl.SSLError as error:
            self._fault = reasons.of_error(error, self._tls)
            if not pieces:
                self._fail(self._fault)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def _shake_hands(self) -> bool:
        """Go on with the handshake; True if it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self._fail(reasons.of_error(error, self._tls))
        self.handshake_done = True
        if self._held:
            held, self._held = self._held, b""
            self._write(held)
        return True

    def _fail(self, error: mqtrio.ProtocolError) -> Never:
        self._fault = error
        # Another one, because its traceback holds this layer: they would keep each other.
        raise mqtrio.ProtocolError(error.reason_code, error.message) from None

    def send(self, data: bytes) -> bytes:
        """Encrypt, and give out what there is for the peer."""
        if self._closed:
            return b""
        if not self.handshake_done:
            self._held += data
            if self._fault is None and not self._tls.server_side:
                self._shake_hands()
        elif data and self._fault is None:
            self._write(data)
        return self._out.read() if self._out.pending else b""

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]

    def close(self) -> bytes:
        """Say that nothing follows; after a fault, say which one it was."""
        if self._closed:
            return b""
        self._closed = True
        if self.handshake_done and self._fault is None:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # it has said it, and would now wait for the peer to say the same
        return self._out.read()

    def describe(self, peer: mqtrio.PeerFacts) -> mqtrio.PeerFacts:
        """What the handshake has found out."""
        return evolve(peer, tls=tls_facts(self._tls)) if self.handshake_done else peer
