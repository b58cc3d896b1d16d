"""The settings of the plugin, as they stand in the table [plugin.jwt]."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs

import mqtrio
from mqtrio_jwt.algorithms import ALGORITHMS, is_symmetric
from mqtrio_jwt.rules import check_rule
from mqtrio_jwt.template import Template

#: Fields that say where keys are.
_SYMMETRIC_KEYS: Final = ("secret", "jwks_file")
_PUBLIC_KEYS: Final = ("public_keys", "jwks_file", "jwks_url", "oidc")


@attrs.define(frozen=True, kw_only=True)
class TopicRules:
    """What somebody may do: topic filters, with `%c`, `%u` and `{claim}` in them."""

    publish: tuple[str, ...] = mqtrio.setting((), "topics that may be published to")
    subscribe: tuple[str, ...] = mqtrio.setting((), "topics that may be subscribed to")

    def __attrs_post_init__(self) -> None:
        for rule in (*self.publish, *self.subscribe):
            check_rule(rule)


@attrs.define(frozen=True, kw_only=True)
class JwtSettings:
    """Which tokens are good, and what they say of who brings them."""

    algorithms: tuple[str, ...] = mqtrio.required_setting(
        "algorithms that tokens may be signed by: HS256, HS384, HS512, RS256, RS384, RS512, PS256, "
        "PS384, PS512, ES256, ES384, ES512, EdDSA"
    )
    # -- keys
    secret: str | None = mqtrio.setting(
        None, "the key of HS256 (at least 32 bytes), HS384 (48) and HS512 (64)", secret=True
    )
    secret_encoding: Literal["text", "base64url"] = mqtrio.setting(
        "text", "whether the secret's characters are the key, or stand for its bytes"
    )
    public_keys: tuple[Path, ...] = mqtrio.setting((), "files of public keys or certificates, PEM")
    jwks_file: Path | None = mqtrio.setting(None, "a file with a JSON Web Key Set")
    jwks_url: str | None = mqtrio.setting(None, "where a JSON Web Key Set is fetched from")
    oidc: str | None = mqtrio.setting(
        None, "an OpenID Connect issuer, whose keys are found by its discovery document"
    )
    allow_http: bool = mqtrio.setting(
        False, "fetch keys by http:// as well, where everybody on the way may replace them"
    )
    refresh: float = mqtrio.setting(
        3600.0, "time after which keys are fetched again", minimum=10, unit="seconds"
    )
    refetch: float = mqtrio.setting(
        30.0,
        "least time between two fetches, however many tokens name keys that are not known",
        minimum=1,
        unit="seconds",
    )
    fetch_timeout: float = mqtrio.setting(
        10.0, "time that a fetch may take", minimum=0.1, maximum=60, unit="seconds"
    )
    # -- what a token must say
    issuer: str | None = mqtrio.setting(None, "what `iss` must be; default: that of oidc, if any")
    audience: tuple[str, ...] = mqtrio.setting((), "one of these must be in `aud`; none: any")
    require: tuple[str, ...] = mqtrio.setting(("exp",), "claims that a token must have")
    types: tuple[str, ...] = mqtrio.setting(
        ("JWT", "at+jwt"), "what `typ` in the header may be, if it is there"
    )
    leeway: float = mqtrio.setting(
        10.0,
        "by how much clocks may differ: `exp`, `nbf` and `iat` are judged by it",
        minimum=0,
        maximum=600,
        unit="seconds",
    )
    max_token: int = mqtrio.setting(
        8192, "largest token", minimum=128, maximum=65_535, unit="bytes"
    )
    revoked: Path | None = mqtrio.setting(
        None, "a file of `jti` that are no longer good, one a line"
    )
    watch: float = mqtrio.setting(
        5.0,
        "time between two looks at whether the file of revoked tokens has changed",
        minimum=0.1,
        unit="seconds",
    )
    # -- where a token is
    password: bool = mqtrio.setting(True, "take tokens from the password of CONNECT")
    header: str | None = mqtrio.setting(
        None, "take tokens from this HTTP header of a WebSocket, `authorization` for instance"
    )
    cookie: str | None = mqtrio.setting(None, "take tokens from this cookie of a WebSocket")
    query: str | None = mqtrio.setting(
        None, "take tokens from this query parameter of a WebSocket's URL, which logs may show"
    )
    others: Literal["deny", "pass"] = mqtrio.setting(
        "deny", "what becomes of a password that is no token; pass: other plugins are asked"
    )
    # -- what a token means
    username: str = mqtrio.setting("{sub}", "who the client is, with claims in braces")
    client_id: str | None = mqtrio.setting(
        None, "what the client identifier must be, with claims in braces; default: anything"
    )
    permissions: bool = mqtrio.setting(
        True, "let tokens say what clients may do; false: other plugins do that alone"
    )
    permissions_claim: str = mqtrio.setting(
        "mqtt", "the claim with `publish` and `subscribe`, each an array of topic filters"
    )
    scope_claims: tuple[str, ...] = mqtrio.setting(
        ("scope",), "claims with words that `scopes` knows: arrays, or words with spaces between"
    )
    scopes: Mapping[str, TopicRules] = mqtrio.setting(
        {}, "what each word in a claim of `scope_claims` allows"
    )
    publish: tuple[str, ...] = mqtrio.setting((), "topics that every token may publish to")
    subscribe: tuple[str, ...] = mqtrio.setting((), "topics that every token may subscribe to")

    def __attrs_post_init__(self) -> None:
        self._check_algorithms()
        self._check_urls()
        for template in (self.username, self.client_id):
            if template is not None:
                Template(template)
        for rule in (*self.publish, *self.subscribe):
            check_rule(rule)
        for path in (self.permissions_claim, *self.scope_claims, *self.require):
            if not path:
                raise ValueError("the name of a claim is empty")

    def _check_algorithms(self) -> None:
        if not self.algorithms:
            raise ValueError("algorithms: name one at least")
        for name in self.algorithms:
            if name.lower() == "none":
                raise ValueError("algorithms: none means that anybody can make a token")
            if name not in ALGORITHMS:
                raise ValueError(f"algorithms: {name!r} is none of {', '.join(ALGORITHMS)}")
        for symmetric, fields in ((True, _SYMMETRIC_KEYS), (False, _PUBLIC_KEYS)):
            names = [name for name in self.algorithms if is_symmetric(name) is symmetric]
            given = [field for field in fields if getattr(self, field)]
            if names and not given:
                wanted = " or ".join(fields)
                raise ValueError(f"{names[0]} needs keys: {wanted} says where they are")
        only_symmetric = all(map(is_symmetric, self.algorithms))
        if self.secret is not None and not any(map(is_symmetric, self.algorithms)):
            raise ValueError("secret: no algorithm of the list uses it")
        for field in ("public_keys", "jwks_url", "oidc"):
            if only_symmetric and getattr(self, field):
                raise ValueError(f"{field}: no algorithm of the list uses public keys")

    def _check_urls(self) -> None:
        if self.jwks_url is not None and self.oidc is not None:
            raise ValueError("jwks_url and oidc: one of them is enough")
        for field in ("jwks_url", "oidc"):
            url = getattr(self, field)
            if url is not None:
                check_url(field, url, allow_http=self.allow_http)

    @property
    def expected_issuer(self) -> str | None:
        """What `iss` must be; None for anything."""
        return self.oidc if self.issuer is None else self.issuer


def check_url(what: str, url: str, *, allow_http: bool) -> None:
    """Raise ValueError unless keys may be fetched from there."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        raise ValueError(f"{what}: keys are fetched by https:// (by http:// too with allow_http)")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{what}: this URL has a port that can't be")
    if not parts.hostname or parts.username is not None or parts.fragment:
        raise ValueError(f"{what}: this URL has no host, or has a user name or a fragment")
    if any(ord(each) <= 0x20 or ord(each) >= 0x7F for each in url):
        raise ValueError(f"{what}: a URL consists of printable ASCII characters")
