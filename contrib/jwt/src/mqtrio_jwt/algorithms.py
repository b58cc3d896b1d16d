"""The algorithms of RFC 7518 and RFC 8037, and which keys fit which of them."""

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

#: Name -> the least bytes of a secret (RFC 7518, 3.2), or 0 for public keys.
ALGORITHMS: Final = {
    "HS256": 32,
    "HS384": 48,
    "HS512": 64,
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), 0),
    **dict.fromkeys(("ES256", "ES384", "ES512", "EdDSA"), 0),
}

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_EDDSA: Final = frozenset({"EdDSA"})

#: Sizes of an RSA modulus: RFC 7518 asks for 2048 at least, and larger ones take long.
SMALLEST_RSA: Final = 2048
LARGEST_RSA: Final = 8192

#: A secret of fewer different bytes was typed, not drawn.
DIFFERENT_BYTES: Final = 8


def is_symmetric(name: str) -> bool:
    """Whether who can check signatures of this algorithm can also make them."""
    return ALGORITHMS[name] > 0


def fitting_public(key: Any) -> frozenset[str]:
    """Algorithms that a public key is for. Raises ValueError for one that none uses."""
    if isinstance(key, rsa.RSAPublicKey):
        if not SMALLEST_RSA <= key.key_size <= LARGEST_RSA:
            raise ValueError(f"an RSA key has {SMALLEST_RSA} to {LARGEST_RSA} bits")
        return _RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return frozenset({_CURVES[key.curve.name]})
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return _EDDSA
    raise ValueError("a public key is RSA, EC (P-256, P-384, P-521), Ed25519 or Ed448")


def fitting_secret(secret: bytes) -> frozenset[str]:
    """Algorithms that a secret is long enough for. Raises ValueError for one that is weak."""
    if secret.lstrip().startswith((b"-----BEGIN", b"ssh-")):
        raise ValueError("this secret is a key file, which others may know: public_keys is for it")
    fits = frozenset(name for name, least in ALGORITHMS.items() if 0 < least <= len(secret))
    if not fits:
        raise ValueError("a secret has at least 32 bytes (RFC 7518)")
    if len(set(secret)) < DIFFERENT_BYTES:
        raise ValueError("this secret is too easy to guess: draw it at random")
    return fits


class Verifiers:
    """Checks signatures by the algorithms of a list, and by no other."""

    def __init__(self, names: tuple[str, ...]) -> None:
        known = get_default_algorithms()
        self._by_name: dict[str, Any] = {name: known[name] for name in names}

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._by_name

    def verify(self, name: str, signed: bytes, key: Any, signature: bytes) -> bool:
        """Whether `key`, which fits the algorithm, has signed this."""
        return bool(self._by_name[name].verify(signed, key, signature))
