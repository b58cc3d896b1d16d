"""What a token lets its client do: topic filters with names and claims put in their places."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import prod
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

_PLACEHOLDER: Final = re.compile(r"(%[cu]|\{[^{}]+\})")
_NAMES: Final = re.compile("(%[cu])")

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


class _Filter:
    """A topic filter with places for names and claims."""

    __slots__ = ("text", "_pieces", "_marks")

    def __init__(self, text: str, pattern: re.Pattern[str] = _PLACEHOLDER) -> None:
        self.text = text
        #: What is said, and at every second place what to put there.
        self._pieces = pattern.split(text)
        self._marks = tuple(dict.fromkeys(self._pieces[1::2]))

    def filled(self, names: Mapping[str, str], claims: Claims) -> list[str]:
        """What it comes to; nothing if a value is missing or could change its meaning.

        A claim that is an array gives a filter for each of its texts.
        """
        marks = self._marks
        if not marks:
            return [self.text]
        choices = [_values(mark, names, claims) for mark in marks]
        if prod(map(len, choices)) > MOST:
            raise RefusedToken("the token allows more topic filters than are looked at")
        filters = []
        for chosen in product(*choices):
            values = dict(zip(marks, chosen, strict=True))
            pieces = self._pieces.copy()
            pieces[1::2] = [values[mark] for mark in pieces[1::2]]
            text = "".join(pieces)
            if not text.startswith("$") or self.text.startswith("$"):  # nobody is called "$SYS"
                filters.append(text)
        return filters


class _Filters:
    """The filters of some rules."""

    __slots__ = ("publish", "subscribe")

    def __init__(self, rules: Rules) -> None:
        self.publish = [_Filter(each) for each in rules.publish]
        self.subscribe = [_Filter(each) for each in rules.subscribe]


class RuleBook:
    """Rules of the settings: for every token, and for words in its claims."""

    def __init__(
        self,
        common: Rules,
        scopes: Mapping[str, Rules],
        scope_claims: tuple[str, ...],
        permissions_claim: str,
    ) -> None:
        self._common = _Filters(common)
        self._scopes = {word: _Filters(rules) for word, rules in scopes.items()}
        self._scope_claims = scope_claims
        self._permissions_claim = permissions_claim

    def permissions(self, claims: Claims, client_id: str, username: str) -> TokenPermissions:
        """What a client with this token may do. Raises RefusedToken for claims that can't be."""
        names = {"%c": client_id, "%u": username}
        rules = [self._common, *self._granted(claims)]
        publish = [each for some in rules for each in some.publish]
        subscribe = [each for some in rules for each in some.subscribe]
        own = claim_at(claims, self._permissions_claim)
        if own is not None:
            publish += _own(own, "publish", self._permissions_claim)
            subscribe += _own(own, "subscribe", self._permissions_claim)
        return TokenPermissions(
            _all_filled(publish, names, claims), _all_filled(subscribe, names, claims)
        )

    def _granted(self, claims: Claims) -> Iterator[_Filters]:
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


def _all_filled(
    filters: Iterable[_Filter], names: Mapping[str, str], claims: Claims
) -> Iterator[str]:
    number = 0
    for each in filters:
        for text in each.filled(names, claims):
            number += 1
            if number > MOST:
                raise RefusedToken("the token allows more topic filters than are looked at")
            yield text


def _own(claim: Any, what: str, path: str) -> list[_Filter]:
    """The filters of the token's own claim: an array of texts, in which braces are braces."""
    filters = claim.get(what, []) if isinstance(claim, Mapping) else None
    if not isinstance(filters, list) or not all(isinstance(each, str) for each in filters):
        raise RefusedToken(f"the claim {path} is none with arrays of topic filters")
    for each in filters:
        try:
            if each.startswith("$share/"):
                raise ValueError
            check_topic_filter(_NAMES.sub("x", each))
        except ValueError:
            raise RefusedToken(f"the claim {path} has a topic filter that can't be") from None
    return [_Filter(each, _NAMES) for each in filters]


def _values(mark: str, names: Mapping[str, str], claims: Claims) -> list[str]:
    found: object = names[mark] if mark in names else claim_at(claims, mark[1:-1])
    each = found if isinstance(found, list) else [found]
    texts = map(as_text, each)
    return [text for text in texts if text and _UNSAFE.isdisjoint(text) and text.isprintable()]
