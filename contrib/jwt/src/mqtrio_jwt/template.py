"""Texts with claims in them: `{sub}`, `{realm.name}`, `{https://example.com/tenant}`."""

import re
from collections.abc import Mapping
from typing import Any

from mqtrio_jwt.errors import RefusedToken
from mqtrio_jwt.text import is_name

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")

Claims = Mapping[str, Any]


def claim_at(claims: Claims, path: str) -> Any:
    """The claim of this name or, if there is none, the one that dots lead to; None for none."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def as_text(value: object) -> str | None:
    """A claim as a part of a name: a text or a whole number."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)
    return None


class Template:
    """A text with claims in braces. Raises ValueError if it can't be one."""

    def __init__(self, text: str) -> None:
        rest = _PLACEHOLDER.sub("", text)
        if not text or "{" in rest or "}" in rest:
            raise ValueError(f"{text!r} is no template: text with claims like {{sub}} in it")
        self.text = text

    def fill(self, claims: Claims, what: str) -> str:
        """The text for these claims. Raises RefusedToken if one is missing or can't stand there."""

        def value(mark: re.Match[str]) -> str:
            text = as_text(claim_at(claims, mark[1]))
            if text is None or not is_name(text):
                raise RefusedToken(f"the claim {mark[1]} is missing, or is no {what}")
            return text

        return _PLACEHOLDER.sub(value, self.text)
