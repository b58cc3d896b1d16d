"""Where in a connection a token may be."""

from typing import Final
from urllib.parse import parse_qs

from attrs import define, field

from mqtrio import AuthenticateEvent, HttpFacts, ReasonCode
from mqtrio_jwt.settings import JwtSettings
from mqtrio_jwt.token import looks_like_token

#: The authentication method of MQTT 5.
METHOD: Final = "jwt"

_BEARER: Final = "bearer "


@define(frozen=True)
class Found:
    """What is said to be a token, and the reason code for one that is no good."""

    data: bytes = field(repr=False)
    code: ReasonCode
    #: Whether it has the form of one.
    is_token: bool = True


def find_token(event: AuthenticateEvent, settings: JwtSettings) -> Found | None:
    """The token of a client, or None if it has brought none.

    The first place counts: authentication data, password, header, cookie, query parameter.
    """
    if event.method is not None:
        if event.method != METHOD:
            return None
        return Found(event.data or b"", ReasonCode.NOT_AUTHORIZED)
    if settings.password and event.password is not None:
        code = ReasonCode.BAD_USER_NAME_OR_PASSWORD
        return Found(event.password, code, looks_like_token(event.password))
    text = _of_request(event.http, settings) if event.http is not None else None
    if text is None:
        return None
    return Found(text.encode(errors="replace"), ReasonCode.NOT_AUTHORIZED)


def _of_request(http: HttpFacts, settings: JwtSettings) -> str | None:
    """The token of the request by which a WebSocket was opened."""
    if settings.header is not None:
        value = http.header(settings.header)
        if value is not None:
            bearer = value[: len(_BEARER)].lower() == _BEARER
            return value[len(_BEARER) :].strip() if bearer else value
    if settings.cookie is not None:
        for header in (value for name, value in http.headers if name == "cookie"):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == settings.cookie:
                    return value
    if settings.query is not None:
        values = parse_qs(http.query).get(settings.query)
        if values:
            return values[0]
    return None
