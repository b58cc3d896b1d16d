"""Keys that check signatures, and whence they come: a secret, PEM files, key sets (RFC 7517)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from mqtrio import ConfigurationError
from mqtrio_jwt.algorithms import ALGORITHMS, fitting_public, fitting_secret
from mqtrio_jwt.settings import JwtSettings
from mqtrio_jwt.text import decode_base64url, read_json

#: Keys of a set that are looked at.
MOST_KEYS: Final = 100

#: Keys that are tried for one token which names none.
MOST_TRIED: Final = 4

#: The largest file, or answer of a server, with keys.
LARGEST: Final = 1024 * 1024

LONGEST_KID: Final = 256

_READERS: Final[Mapping[str, Any]] = {
    "RSA": RSAAlgorithm,
    "EC": ECAlgorithm,
    "OKP": OKPAlgorithm,
}


@define(frozen=True)
class Key:
    """A key, the algorithms that it is for, and its name (None: it has none, and fits any)."""

    material: Any = field(repr=False)
    algorithms: frozenset[str]
    kid: str | None = None


class Keys:
    """The keys of one origin."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, algorithm: str, kid: str | None) -> list[Key]:
        """The keys by which a token with this header may be signed; `kid` only looks them up."""
        return [
            key
            for key in self._keys
            if algorithm in key.algorithms and (kid is None or key.kid in (None, kid))
        ][:MOST_TRIED]


def local_keys(settings: JwtSettings) -> Keys:
    """The keys that settings have, or name files of. Raises ConfigurationError."""
    return Keys(_local(settings))


def _local(settings: JwtSettings) -> Iterator[Key]:
    wanted = frozenset(settings.algorithms)
    if settings.secret is not None:
        yield _secret(settings, wanted)
    for path in settings.public_keys:
        yield _pem(path, wanted)
    if settings.jwks_file is not None:
        try:
            found = read_set(_read(settings.jwks_file), wanted, secrets=True)
        except ValueError as error:
            raise ConfigurationError(f"{settings.jwks_file}: {error}") from None
        if not len(found):
            raise ConfigurationError(
                f"{settings.jwks_file}: it has no key for {', '.join(settings.algorithms)}"
            )
        yield from found._keys


def _secret(settings: JwtSettings, wanted: frozenset[str]) -> Key:
    assert settings.secret is not None
    try:
        secret = settings.secret.encode()
        if settings.secret_encoding == "base64url":
            secret = decode_base64url(settings.secret.rstrip("="))
        fits = fitting_secret(secret)
    except ValueError as error:
        raise ConfigurationError(f"secret: {error}") from None
    for name in sorted(wanted):
        if ALGORITHMS[name] > len(secret):
            raise ConfigurationError(f"secret: {name} needs {ALGORITHMS[name]} bytes (RFC 7518)")
    return Key(secret, fits & wanted)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ConfigurationError(f"{path}: it is larger than {LARGEST} bytes")
    return data


def _pem(path: Path, wanted: frozenset[str]) -> Key:
    data = _read(path)
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            material: Any = load_pem_x509_certificate(data).public_key()
        elif b"PRIVATE KEY-----" in data:
            raise ValueError("this is a private key: the broker needs the public one")
        else:
            material = load_pem_public_key(data)
        fits = fitting_public(material) & wanted
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not fits:
        raise ConfigurationError(f"{path}: no algorithm of the list uses this key")
    return Key(material, fits)


def read_set(data: bytes, wanted: frozenset[str], *, secrets: bool = False) -> Keys:
    """Read a key set; what is for other purposes and algorithms is passed over.

    `secrets`: take symmetric keys too, which must never come over a network. Raises ValueError if
    it is no key set, or if a key can't be what it says.
    """
    document = read_json(data)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("this is no key set: an object with an array `keys`")
    return Keys(
        key
        for entry in entries[:MOST_KEYS]
        if isinstance(entry, dict) and (key := _entry(entry, wanted, secrets)) is not None
    )


def _entry(entry: Mapping[str, Any], wanted: frozenset[str], secrets: bool) -> Key | None:
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= LONGEST_KID):
        raise ValueError("a key's `kid` is no string, or too long")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list):
        raise ValueError("a key's `key_ops` is no array")
    if entry.get("use", "sig") != "sig" or "verify" not in operations:
        return None
    fits = wanted
    if "alg" in entry:
        fits = wanted & {str(entry["alg"])}
    kind = entry.get("kty")
    if not fits or not isinstance(kind, str) or (kind == "oct" and not secrets):
        return None
    try:
        if kind == "oct":
            material: Any = decode_base64url(str(entry.get("k", "")))
            fits &= fitting_secret(material)
        elif kind in _READERS:
            public = {name: value for name, value in entry.items() if name not in _PRIVATE}
            material = _READERS[kind].from_jwk(json.dumps(public))
            fits &= fitting_public(material)
        else:
            return None
    except (ValueError, TypeError, KeyError, InvalidKeyError, UnsupportedAlgorithm) as error:
        if kind != "oct" and _is_other(entry):
            return None
        raise ValueError(f"a key of the set ({kind}) can't be used: {error}") from None
    return Key(material, fits, kid) if fits else None


#: What makes a key of a set a private one.
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def _is_other(entry: Mapping[str, Any]) -> bool:
    """Whether it is a key on a curve that no algorithm here uses (secp256k1, X25519)."""
    return entry.get("kty") in ("EC", "OKP") and entry.get("crv") not in (
        *("P-256", "P-384", "P-521"),
        *("Ed25519", "Ed448"),
    )
