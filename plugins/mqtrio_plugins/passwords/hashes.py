"""Hashes of passwords as they stand in a file: how each kind is read, checked and made.

`$scrypt$ln=14,r=8,p=1$SALT$DIGEST` is what we write: N = 2**ln, base64 without padding. The others
come from mosquitto_passwd: `$6$SALT$DIGEST` (SHA-512 of password and salt),
`$7$ITERATIONS$SALT$DIGEST` (PBKDF2 with HMAC-SHA-512), and `$argon2id$...`, for which argon2-cffi
must be installed. `$scram-sha-256$ITERATIONS$SALT$STOREDKEY$SERVERKEY` is ours too (scram.py).
"""

import hashlib
import hmac
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Protocol

from attrs import define, evolve, field

from mqtrio_plugins.passwords.scram import LEAST_ITERATIONS, ScramSha256

#: The cost of what we write, log2 of N: 16 MiB of memory and some 50 ms for each check.
LN: Final = 14
R: Final = 8
P: Final = 1

#: Bounds on what one check may take, whatever stands in the file.
LARGEST_LN: Final = 20
LARGEST_MEMORY: Final = 1 << 30
MOST_ITERATIONS: Final = 10_000_000


class Hash(Protocol):
    """A password that can be checked but not read. Equal ones are of the same password and salt."""

    def verify(self, password: bytes) -> bool:
        """Say whether it is this one; takes its time, so call it in a thread."""

    def decoy(self, seed: bytes) -> "Hash":
        """One that costs the same to check and that no password fits; the same for one seed."""


@define(frozen=True)
class Scrypt:
    """RFC 7914: slow, and needs memory."""

    ln: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def verify(self, password: bytes) -> bool:
        """Compute and compare."""
        return hmac.compare_digest(self.digest, self._compute(password))

    def decoy(self, seed: bytes) -> "Scrypt":
        """Another digest, which nothing is known to lead to."""
        return evolve(self, digest=_noise(seed, len(self.digest)))

    @classmethod
    def of(cls, password: bytes, *, ln: int = LN) -> "Scrypt":
        """Hash a new password."""
        empty = cls(ln, R, P, os.urandom(16), bytes(32))
        return evolve(empty, digest=empty._compute(password))

    def _compute(self, password: bytes) -> bytes:
        n = 1 << self.ln
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=n,
            r=self.r,
            p=self.p,
            maxmem=128 * self.r * (n + self.p + 4),
            dklen=len(self.digest),
        )

    def __str__(self) -> str:
        """As it stands in the file."""
        salt, digest = (b64encode(part).decode().rstrip("=") for part in (self.salt, self.digest))
        return f"$scrypt$ln={self.ln},r={self.r},p={self.p}${salt}${digest}"


@define(frozen=True)
class Sha512:
    """What mosquitto_passwd wrote before version 2.0: salted, but much too fast."""

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def verify(self, password: bytes) -> bool:
        """Compute and compare."""
        return hmac.compare_digest(self.digest, hashlib.sha512(password + self.salt).digest())

    def decoy(self, seed: bytes) -> "Sha512":
        """Another digest, which nothing is known to lead to."""
        return evolve(self, digest=_noise(seed, len(self.digest)))


@define(frozen=True)
class Pbkdf2:
    """What mosquitto_passwd 2.0 writes."""

    iterations: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def verify(self, password: bytes) -> bool:
        """Compute and compare."""
        size = len(self.digest)
        digest = hashlib.pbkdf2_hmac("sha512", password, self.salt, self.iterations, size)
        return hmac.compare_digest(self.digest, digest)

    def decoy(self, seed: bytes) -> "Pbkdf2":
        """Another digest, which nothing is known to lead to."""
        return evolve(self, digest=_noise(seed, len(self.digest)))


@define(frozen=True)
class Argon2id:
    """What mosquitto_passwd 2.1 writes; RFC 9106. The text is the one of the file."""

    text: str = field(repr=False)

    def verify(self, password: bytes) -> bool:
        """Have argon2-cffi compute and compare."""
        argon2 = _argon2()
        try:
            return bool(argon2.PasswordHasher().verify(self.text, password))
        except argon2.exceptions.VerifyMismatchError:
            return False

    def decoy(self, seed: bytes) -> "Argon2id":
        """Another digest, which nothing is known to lead to."""
        before, _, digest = self.text.rpartition("$")
        noise = b64encode(_noise(seed, len(_decoded(digest)))).decode().rstrip("=")
        return Argon2id(f"{before}${noise}")


def parse(text: str) -> Hash:
    """Read a hash; raises ValueError, whose text says what is wrong and holds nothing of it."""
    kind, _, rest = text.removeprefix("$").partition("$")
    read = _KINDS.get(kind) if text.startswith("$") else None
    if read is None:
        known = ", ".join(f"${each}$" for each in _KINDS)
        raise ValueError(f"this is no password hash that is known here ({known})")
    return read(rest)


def kind_of(kept: Hash) -> str:
    """The name of the kind of a hash."""
    return type(kept).__name__.lower()


def _scrypt(rest: str) -> Scrypt:
    found = re.fullmatch(r"ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([^$]+)\$([^$]+)", rest)
    if found is None:
        raise ValueError("a $scrypt$ hash has the form $scrypt$ln=14,r=8,p=1$SALT$DIGEST")
    ln, r, p = (int(found[number]) for number in (1, 2, 3))
    if not (1 <= ln <= LARGEST_LN and r and p) or (128 * r << ln) > LARGEST_MEMORY:
        raise ValueError("ln, r or p of this $scrypt$ hash is out of range")
    return Scrypt(ln, r, p, _decoded(found[4]), _decoded(found[5]))


def _sha512(rest: str) -> Sha512:
    found = re.fullmatch(r"([^$]+)\$([^$]+)", rest)
    if found is None:
        raise ValueError("a $6$ hash has the form $6$SALT$DIGEST")
    return Sha512(_decoded(found[1]), _decoded(found[2], 64))


def _pbkdf2(rest: str) -> Pbkdf2:
    found = re.fullmatch(r"(\d{1,8})\$([^$]+)\$([^$]+)", rest)
    if found is None:
        raise ValueError("a $7$ hash has the form $7$ITERATIONS$SALT$DIGEST")
    if not 1 <= int(found[1]) <= MOST_ITERATIONS:
        raise ValueError(f"the iterations of a $7$ hash are 1 to {MOST_ITERATIONS:,}")
    return Pbkdf2(int(found[1]), _decoded(found[2]), _decoded(found[3], 64))


def _scram(rest: str) -> ScramSha256:
    found = re.fullmatch(r"(\d{1,8})\$([^$]+)\$([^$]+)\$([^$]+)", rest)
    if found is None:
        raise ValueError("a $scram-sha-256$ verifier has the form $scram-sha-256$ITERATIONS$SALT$…")
    if not LEAST_ITERATIONS <= int(found[1]) <= MOST_ITERATIONS:
        raise ValueError(
            f"the iterations of SCRAM-SHA-256 are {LEAST_ITERATIONS:,} to {MOST_ITERATIONS:,}"
        )
    keys = _decoded(found[3], 32), _decoded(found[4], 32)
    return ScramSha256(int(found[1]), _decoded(found[2]), *keys)


def _argon2id(rest: str) -> Argon2id:
    argon2 = _argon2()
    text = f"$argon2id${rest}"
    try:
        cost = argon2.extract_parameters(text)
    except argon2.exceptions.InvalidHashError:
        raise ValueError("this $argon2id$ hash can't be read") from None
    if cost.memory_cost * 1024 > LARGEST_MEMORY:
        raise ValueError("this $argon2id$ hash takes more memory than is allowed here")
    return Argon2id(text)


def _argon2() -> Any:
    """The module, which is no dependency: only a file with such hashes needs it."""
    try:
        return import_module("argon2")
    except ImportError:
        raise ValueError(
            "an $argon2id$ hash needs argon2-cffi: pip install 'mqtrio[argon2]'"
        ) from None


def _decoded(text: str, size: int | None = None) -> bytes:
    try:
        data = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("the salt or the digest of this hash is not base64") from None
    if not data or (size is not None and len(data) != size):
        raise ValueError("the salt or the digest of this hash has not the right length")
    return data


def _noise(seed: bytes, size: int) -> bytes:
    return hashlib.shake_256(seed).digest(size)


_KINDS: Final[Mapping[str, Callable[[str], Hash]]] = {
    "scrypt": _scrypt,
    "6": _sha512,
    "7": _pbkdf2,
    "argon2id": _argon2id,
    "scram-sha-256": _scram,
}
