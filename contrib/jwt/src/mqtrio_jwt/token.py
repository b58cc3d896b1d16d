"""One token (RFC 7515, 7519): from its text to claims that can be relied upon, or a refusal.

Everything cheap comes first: size, form, header. Claims are read when the signature is right.
"""

import math
from collections.abc import Callable
from typing import Any, Final

from mqtrio import ReasonCode
from mqtrio_jwt.algorithms import Verifiers
from mqtrio_jwt.errors import RefusedToken
from mqtrio_jwt.keys import LONGEST_KID, Key
from mqtrio_jwt.settings import JwtSettings
from mqtrio_jwt.template import Claims, claim_at
from mqtrio_jwt.text import decode_base64url, read_json

#: Finds the keys for an algorithm and a key's name; None: there are no keys at all yet.
FindKeys = Callable[[str, str | None], list[Key] | None]

#: Moments beyond this (the year 9999) are mistakes.
LAST: Final = 253_402_300_800.0

_TIMES: Final = ("exp", "nbf", "iat")


def looks_like_token(data: bytes) -> bool:
    """Whether somebody means a token by this: three parts, the first of which is an object."""
    return data.startswith(b"eyJ") and data.count(b".") == 2


class Judge:
    """Says of tokens what they claim, by the rules of some settings."""

    def __init__(self, settings: JwtSettings, find_keys: FindKeys) -> None:
        self._settings = settings
        self._find_keys = find_keys
        self._verifiers = Verifiers(settings.algorithms)
        self._types = {_media_type(each) for each in settings.types}

    def claims(self, data: bytes, now: float) -> Claims:
        """The claims of a token that is good at `now` (seconds since 1970). Raises RefusedToken."""
        if len(data) > self._settings.max_token:
            raise RefusedToken("the token is too large")
        try:
            text = data.decode("ascii")
            header_text, claims_text, signature_text = text.split(".")
            header = read_json(decode_base64url(header_text))
            signature = decode_base64url(signature_text)
        except ValueError:
            raise RefusedToken("this is no token") from None
        algorithm, kid = self._read_header(header)
        signed = f"{header_text}.{claims_text}".encode()
        self._check_signature(algorithm, kid, signed, signature)
        try:
            claims = read_json(decode_base64url(claims_text))
        except ValueError as error:
            raise RefusedToken(f"claims: {error}") from None
        if not isinstance(claims, dict):
            raise RefusedToken("the claims are no object")
        self._check_claims(claims, now)
        return claims

    def _read_header(self, header: Any) -> tuple[str, str | None]:
        if not isinstance(header, dict):
            raise RefusedToken("the header is no object")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._verifiers:
            raise RefusedToken("the algorithm is not allowed")
        if "crit" in header or "b64" in header:
            raise RefusedToken("the header asks for extensions")
        kind = header.get("typ")
        if kind is not None and _media_type(kind) not in self._types:
            raise RefusedToken("this type of token is not allowed")
        kid = header.get("kid")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= LONGEST_KID):
            raise RefusedToken("the key's name can't be")
        return algorithm, kid

    def _check_signature(
        self, algorithm: str, kid: str | None, signed: bytes, signature: bytes
    ) -> None:
        keys = self._find_keys(algorithm, kid)
        if keys is None:
            raise RefusedToken("there are no keys yet", ReasonCode.SERVER_UNAVAILABLE)
        if not keys:
            raise RefusedToken("no key of this name and algorithm is known")
        for key in keys:
            if self._verifiers.verify(algorithm, signed, key.material, signature):
                return
        raise RefusedToken("the signature is wrong")

    def _check_claims(self, claims: Claims, now: float) -> None:
        settings = self._settings
        for name in settings.require:
            if claim_at(claims, name) is None:
                raise RefusedToken(f"the claim {name} is missing")
        moments = {name: _moment(claims, name) for name in _TIMES}
        leeway = settings.leeway
        if moments["exp"] is not None and moments["exp"] + leeway <= now:
            raise RefusedToken("the token has expired")
        for name in ("nbf", "iat"):
            moment = moments[name]
            if moment is not None and moment - leeway > now:
                raise RefusedToken("the token is not good yet")
        issuer = settings.expected_issuer
        if issuer is not None and claims.get("iss") != issuer:
            raise RefusedToken("the issuer is another one")
        if settings.audience and not _meant(claims.get("aud"), settings.audience):
            raise RefusedToken("the token is for somebody else")
        token_id = claims.get("jti")
        if token_id is not None and not isinstance(token_id, str):
            raise RefusedToken("the claim jti is no text")


def _media_type(kind: object) -> str | None:
    """A type of tokens to compare: case and `application/` mean nothing (RFC 7515, 4.1.9)."""
    return kind.lower().removeprefix("application/") if isinstance(kind, str) else None


def _moment(claims: Claims, name: str) -> float | None:
    found = claims.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise RefusedToken(f"the claim {name} is no number")
    if not (math.isfinite(found) if isinstance(found, float) else True) or not 0 <= found < LAST:
        raise RefusedToken(f"the claim {name} is no moment")
    return float(found)


def _meant(found: object, audience: tuple[str, ...]) -> bool:
    names = found if isinstance(found, list) else [found]
    return any(isinstance(name, str) and name in audience for name in names)
