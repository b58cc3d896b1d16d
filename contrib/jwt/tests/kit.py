"""Keys of every kind, and tokens made with them."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECRET = "0123456789abcdefghijklmnopqrstuvwxyz-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Kit:
    """Keys, and what can be made of them."""

    def __init__(self) -> None:
        rsa_key = rsa.generate_private_key(65537, 2048)
        self.private: dict[str, Any] = {
            **dict.fromkeys(("HS256", "HS384", "HS512"), SECRET),
            **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), rsa_key),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "ES384": ec.generate_private_key(ec.SECP384R1()),
            "ES512": ec.generate_private_key(ec.SECP521R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        self.stranger = rsa.generate_private_key(65537, 2048)

    def pem(self, algorithm: str) -> bytes:
        """The public key, as a file has it."""
        public = self.private[algorithm].public_key()
        data: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return data

    def jwk(self, algorithm: str, **more: Any) -> dict[str, Any]:
        """The public key (or the secret), as an entry of a key set."""
        if algorithm.startswith("HS"):
            text = urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")
            return {"kty": "oct", "k": text, **more}
        makers: dict[str, Any] = {"E": ECAlgorithm, "R": RSAAlgorithm, "P": RSAAlgorithm}
        maker = OKPAlgorithm if algorithm == "EdDSA" else makers[algorithm[0]]
        found: dict[str, Any] = json.loads(maker.to_jwk(self.private[algorithm].public_key()))
        found.pop("key_ops", None)
        return found | more

    def key_set(self, *algorithms: str, **more: Any) -> bytes:
        """A key set with these keys."""
        return json.dumps({"keys": [self.jwk(each, **more) for each in algorithms]}).encode()

    def token(
        self,
        algorithm: str = "ES256",
        headers: dict[str, Any] | None = None,
        key: Any = None,
        lifetime: float = 3600,
        **claims: Any,
    ) -> bytes:
        """A token; a claim of None is left out."""
        standard: dict[str, Any] = {"sub": "ann", "exp": time.time() + lifetime}
        given = {name: value for name, value in (standard | claims).items() if value is not None}
        key = self.private[algorithm] if key is None else key
        return pyjwt.encode(given, key, algorithm=algorithm, headers=headers).encode()


def raw(header: object, claims: object, sign: Callable[[bytes], bytes]) -> bytes:
    """A token of exactly these texts (or of the JSON of these objects)."""

    def part(value: object) -> bytes:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return urlsafe_b64encode(data).rstrip(b"=")

    signed = part(header) + b"." + part(claims)
    return signed + b"." + urlsafe_b64encode(sign(signed)).rstrip(b"=")
