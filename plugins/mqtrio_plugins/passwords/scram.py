"""SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's part: a password is proved, and never sent.

The client says who it is and a nonce; it is told salt, iterations and a nonce of ours; it proves
that it knows the password; and it is given the proof that we know what belongs to the password.
Nothing here takes long: the many iterations are the client's work.
"""

import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from typing import Final

from attrs import define, evolve, field

#: The authentication method of MQTT 5.
METHOD: Final = "SCRAM-SHA-256"

#: Iterations of what we write; RFC 7677 asks for 4,096 at least.
ITERATIONS: Final = 50_000
LEAST_ITERATIONS: Final = 4096

#: The longest message of a client that is looked at.
LONGEST: Final = 4096

#: Characters that no text of SASL may have (RFC 4013, 2.3).
_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


class ScramError(Exception):
    """The client breaks the protocol, or does not know the password; the text says which."""


def saslprep(text: str) -> str:
    """One form for texts that look alike (RFC 4013). Raises ValueError for what can't be in one."""
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each
        for each in text
        if not stringprep.in_table_b1(each)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if any(check(each) for each in normal for check in _PROHIBITED):
        raise ValueError("the text has characters that are not allowed")
    if any(map(stringprep.in_table_d1, normal)):  # from right to left: all of it
        ends = stringprep.in_table_d1(normal[0]) and stringprep.in_table_d1(normal[-1])
        if not ends or any(map(stringprep.in_table_d2, normal)):
            raise ValueError("the text mixes directions")
    return normal


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


@define(frozen=True)
class ScramSha256:
    """What is kept of a password: enough to check a proof of it, or it, not to make one."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of(
        cls, password: bytes, *, iterations: int = ITERATIONS, salt: bytes | None = None
    ) -> "ScramSha256":
        """What to keep of a new password. Raises ValueError for one that is no text."""
        salt = secrets.token_bytes(16) if salt is None else salt
        text = saslprep(password.decode()).encode()
        salted = hashlib.pbkdf2_hmac("sha256", text, salt, iterations)
        stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        return cls(iterations, salt, stored_key, _hmac(salted, b"Server Key"))

    def verify(self, password: bytes) -> bool:
        """Compute and compare: for who sends the password itself."""
        try:
            given = self.of(password, iterations=self.iterations, salt=self.salt)
        except ValueError:
            return False
        return hmac.compare_digest(self.stored_key, given.stored_key)

    def decoy(self, seed: bytes) -> "ScramSha256":
        """Another one, whose salt, which is told to everybody, is its own too."""
        size = len(self.salt)
        noise = hashlib.shake_256(b"scram" + seed).digest(size + 64)
        keys = noise[size : size + 32], noise[size + 32 :]
        return evolve(self, salt=noise[:size], stored_key=keys[0], server_key=keys[1])

    def __str__(self) -> str:
        """As it stands in the file."""
        parts = (self.salt, self.stored_key, self.server_key)
        texts = (b64encode(part).decode().rstrip("=") for part in parts)
        return f"$scram-sha-256${self.iterations}${'$'.join(texts)}"


class Conversation:
    """One authentication: `begin`, `challenge`, `finish`."""

    def __init__(self, nonce: str | None = None) -> None:
        self._nonce = secrets.token_urlsafe(24) if nonce is None else nonce
        self._header = ""
        self._first = ""
        self._challenge = ""
        #: What the client has been challenged with.
        self.kept: ScramSha256 | None = None
        #: Who the client says that it is.
        self.username = ""

    def begin(self, data: bytes) -> str:
        """Read client-first-message; returns the username. Raises ScramError."""
        text = _text(data)
        binding, _, rest = text.partition(",")
        if binding not in ("n", "y"):  # p=...: we have no channel binding
            raise ScramError("channel binding is not supported")
        authorization, comma, self._first = rest.partition(",")
        fields = _fields(self._first)
        if not comma or [name for name, _ in fields[:2]] != ["n", "r"]:
            raise ScramError("this is no client-first-message")
        self._header = f"{binding},{authorization},"
        self._nonce = fields[1][1] + self._nonce
        self.username = _name(fields[0][1])
        if not fields[1][1]:
            raise ScramError("the nonce is empty")
        if authorization and authorization != f"a={fields[0][1]}":
            raise ScramError("nobody may act for somebody else")
        return self.username

    def challenge(self, kept: ScramSha256) -> bytes:
        """Server-first-message, for who is known by `kept`."""
        self.kept = kept
        salt = b64encode(kept.salt).decode()
        self._challenge = f"r={self._nonce},s={salt},i={kept.iterations}"
        return self._challenge.encode()

    def finish(self, data: bytes) -> bytes:
        """Read client-final-message; returns server-final-message. Raises ScramError."""
        kept = self.kept
        text = _text(data)
        without, found, proof_text = text.rpartition(",p=")
        fields = _fields(without)
        if kept is None or not found or [name for name, _ in fields[:2]] != ["c", "r"]:
            raise ScramError("this is no client-final-message")
        if fields[0][1] != b64encode(self._header.encode()).decode():
            raise ScramError("the channel binding is another one")
        if not hmac.compare_digest(fields[1][1].encode(), self._nonce.encode()):
            raise ScramError("the nonce is another one")
        message = f"{self._first},{self._challenge},{without}".encode()
        signature = _hmac(kept.stored_key, message)
        proof = _decoded(proof_text)
        if len(proof) != len(signature):
            raise ScramError("the proof has not the right length")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), kept.stored_key):
            raise ScramError("wrong password")
        return b"v=" + b64encode(_hmac(kept.server_key, message))


def _text(data: bytes) -> str:
    try:
        if len(data) > LONGEST:
            raise ScramError("the message is too long")
        text = data.decode()
    except UnicodeDecodeError:
        raise ScramError("the message is no UTF-8") from None
    if "\0" in text:
        raise ScramError("the message has a zero byte in it")
    return text


def _fields(text: str) -> list[tuple[str, str]]:
    """The attributes of a message; `m`, which asks for extensions, comes first and is none."""
    fields: list[tuple[str, str]] = []
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if len(name) != 1 or not equals:
            raise ScramError("an attribute of the message can't be read")
        fields.append((name, value))
    return fields


def _name(text: str) -> str:
    """A saslname (RFC 5802, 5.1)."""
    name = text.replace("=2C", ",").replace("=3D", "\0")
    if "=" in name:
        raise ScramError("the username can't be read")
    try:
        name = saslprep(name.replace("\0", "="))
    except ValueError:
        raise ScramError("the username has characters that are not allowed") from None
    if not name:
        raise ScramError("the username is empty")
    return name


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ScramError("the proof is no base64") from None
