"""What a token lets its client do: topic filters with names and claims put in their places."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Final, Protocol

from mqtrio import (
    Allow,
    Deny,
    FilterMap,
    PublishEvent,
    SubscribeEvent,
    check_topic_filter,
    split_shared,
)
from mqtrio_jwt.errors import RefusedToken
from mqtrio_jwt.template import Claims, as_text, claim_at

_PLACEHOLDER: Final = re.compile(r"%[cu]|\{[^{}]+\}")
_NAMES: Final = re.compile("%[cu]")

#: What would let somebody choose what a rule means.
_UNSAFE: Final = frozenset("+#/\0")

#: Filters that one token may come to.
MOST: Final = 500

ALLOWED: Final = Allow(remember=True, why="the token allows it")


class Rules(Protocol):
    """Topic filters with placeholders in them."""

    @property
    def publish(self) -> Iterable[str]: ...

    @property
    def subscribe(self) -> Iterable[str]: ...


def check_rule(rule: str) -> None:
    """Raise ValueError unless a rule may have this filter, whatever takes the placeholders."""
    if rule.startswith("$share/"):
        raise ValueError("a shared subscription is judged by its filter, without $share/NAME/")
    check_topic_filter(_PLACEHOLDER.sub("x", rule))


class TokenPermissions:
    """One more authorizer for one client: allows what its token does, and has else no opinion."""

    __slots__ = ("_publish", "_subscribe")

    def __init__(self, publish: Iterable[str], subscribe: Iterable[str]) -> None:
        self._publish = FilterMap((each, ALLOWED) for each in publish)
        self._subscribe = FilterMap((each, ALLOWED) for each in subscribe)

    def authorize_publish(self, event: PublishEvent) -> Allow | Deny | None:
        """Allow topics that a filter of the token matches."""
        return self._publish.find(event.topic)

    def authorize_subscribe(self, event: SubscribeEvent) -> Allow | Deny | None:
        """Allow filters that lie inside of one of the token."""
        return self._subscribe.covering(split_shared(event.topic_filter)[1])


class RuleBook:
    """Rules of the settings: for every token, and for words in its claims."""

    def __init__(
        self,
        common: Rules,
        scopes: Mapping[str, Rules],
        scope_claims: tuple[str, ...],
        permissions_claim: str,
    ) -> None:
        self._common = common
        self._scopes = scopes
        self._scope_claims = scope_claims
        self._permissions_claim = permissions_claim

    def permissions(self, claims: Claims, client_id: str, username: str) -> TokenPermissions:
        """What a client with this token may do. Raises RefusedToken for claims that can't be."""
        names = {"%c": client_id, "%u": username}
        filters: dict[str, list[str]] = {"publish": [], "subscribe": []}
        rules = [self._common, *self._granted(claims)]
        own = claim_at(claims, self._permissions_claim)
        for what, found in filters.items():
            for each in rules:
                for rule in getattr(each, what):
                    found += _filled(rule, names, claims)
            if own is not None:
                for rule in _own(own, what, self._permissions_claim):
                    found += _filled(rule, names, None)
            if len(found) > MOST:
                raise RefusedToken("the token allows more topic filters than are looked at")
        return TokenPermissions(filters["publish"], filters["subscribe"])

    def _granted(self, claims: Claims) -> Iterator[Rules]:
        if not self._scopes:
            return
        words: set[str] = set()
        for path in self._scope_claims:
            found = claim_at(claims, path)
            if isinstance(found, str):
                words.update(found.split(" "))
            elif isinstance(found, list):
                words.update(each for each in found if isinstance(each, str))
        for word, rules in self._scopes.items():
            if word in words:
                yield rules


def _own(claim: Any, what: str, path: str) -> list[str]:
    """The filters of the token's own claim: an array of texts."""
    filters = claim.get(what, []) if isinstance(claim, Mapping) else None
    if not isinstance(filters, list) or not all(isinstance(each, str) for each in filters):
        raise RefusedToken(f"the claim {path} is none with arrays of topic filters")
    for each in filters:
        try:
            if "$share/" in each:
                raise ValueError
            check_topic_filter(_NAMES.sub("x", each))
        except ValueError:
            raise RefusedToken(f"the claim {path} has a topic filter that can't be") from None
    return filters


def _filled(rule: str, names: Mapping[str, str], claims: Claims | None) -> Iterator[str]:
    """The filters that a rule comes to; none if a value is missing or could change its meaning.

    `claims`: None where braces are what they look like. A claim that is an array gives a filter for
    each of its texts.
    """
    pattern = _NAMES if claims is None else _PLACEHOLDER
    marks = list(dict.fromkeys(pattern.findall(rule)))
    choices = [_values(mark, names, claims) for mark in marks]
    for number, chosen in enumerate(product(*choices)):
        if number >= MOST:
            raise RefusedToken("the token allows more topic filters than are looked at")
        values = dict(zip(marks, chosen, strict=True))
        text = pattern.sub(lambda mark, values=values: values[mark[0]], rule)  # type: ignore[misc]
        if not text.startswith("$") or rule.startswith("$"):  # nobody is called "$SYS"
            yield text


def _values(mark: str, names: Mapping[str, str], claims: Claims | None) -> list[str]:
    if mark in names:
        found: list[object] = [names[mark]]
    else:
        claim = claim_at(claims or {}, mark[1:-1])
        found = claim if isinstance(claim, list) else [claim]
    texts = (as_text(each) for each in found)
    return [text for text in texts if text and _UNSAFE.isdisjoint(text) and text.isprintable()]
