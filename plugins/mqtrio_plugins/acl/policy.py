"""Rules made ready to be asked: a policy for all clients, and what it grants to one.

A policy has steps. In each a deny goes before an allow; the first step that says anything about a
topic has decided.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from attrs import define, field

from mqtrio import Allow, Deny, FilterMap
from mqtrio_plugins.acl.rules import (
    ANONYMOUS,
    ANY_CLIENT,
    EVERYBODY,
    Rule,
    the_client,
    the_user,
)

Answer: TypeAlias = Allow | Deny

#: Topics whose answers are kept for one client, and how long they may be.
KNOWN: Final = 200
LONGEST_KNOWN: Final = 200


class Tables:
    """The rules of a step for one kind of clients, by filter."""

    __slots__ = ("deny", "read", "write")

    def __init__(self, rules: Iterable[tuple[str, Rule]]) -> None:
        pairs = [(topic_filter, rule.access, rule.answer()) for topic_filter, rule in rules]
        self.deny = FilterMap((each, answer) for each, kind, answer in pairs if kind == "deny")
        self.read = FilterMap((each, answer) for each, kind, answer in pairs if "read" in kind)
        self.write = FilterMap((each, answer) for each, kind, answer in pairs if "write" in kind)


class Chain:
    """Tables to look into, one after the other: the first that knows a topic has the answer.

    Answers are kept for the next message, for a number of topics that a client can't raise.
    """

    __slots__ = ("_links", "_known")

    def __init__(self, links: list[tuple[bool, FilterMap[Answer]]]) -> None:
        #: Whether its answers deny, and the table.
        self._links = [(denies, filters) for denies, filters in links if len(filters)]
        self._known: dict[str, Answer | None] = {}

    def find(self, topic: str) -> Answer | None:
        """What the rules say of a topic; None for nothing."""
        try:
            return self._known[topic]
        except KeyError:
            return self._look_up(topic)

    def _look_up(self, topic: str) -> Answer | None:
        answer = None
        for _, filters in self._links:
            answer = filters.find(topic)
            if answer is not None:
                break
        if len(topic) <= LONGEST_KNOWN:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[topic] = answer
        return answer

    def covering(self, pattern: str) -> tuple[Answer | None, bool]:
        """What a rule says of all topics that a pattern matches, and whether none is denied."""
        whole = True
        for denies, filters in self._links:
            answer = filters.covering(pattern)
            if answer is not None:
                return answer, whole
            if denies and filters.overlaps(pattern):
                whole = False
        return None, False


class Grants:
    """What one client may do, by the rules of `policy`. `username` is whom it was made for."""

    __slots__ = ("policy", "username", "read", "write")

    def __init__(
        self, policy: "Policy", username: str | None, steps: Sequence[Sequence[Tables]]
    ) -> None:
        self.policy = policy
        self.username = username
        read = []
        write = []
        for step in steps:
            denies = [(True, tables.deny) for tables in step]
            read += [*denies, *((False, tables.read) for tables in step)]
            write += [*denies, *((False, tables.write) for tables in step)]
        self.read = Chain(read)
        self.write = Chain(write)


@define(frozen=True)
class Step:
    """Rules of one origin. `strict`: names with wildcards get nothing of it, as with Mosquitto."""

    rules: Iterable[Rule]
    strict: bool = False


class _ReadyStep:
    """The rules of a step by kind of clients: tables shared by all of them, and what is to fill."""

    def __init__(self, step: Step) -> None:
        self.strict = step.strict
        fixed: defaultdict[tuple[str, str], list[tuple[str, Rule]]] = defaultdict(list)
        self.open: defaultdict[tuple[str, str], list[Rule]] = defaultdict(list)
        for rule in step.rules:
            if rule.fixed:
                fixed[rule.who].append((rule.topic_filter, rule))
            else:
                self.open[rule.who].append(rule)
        self.fixed = {who: Tables(rules) for who, rules in fixed.items()}

    def tables(
        self, kinds: list[tuple[str, str]], client_id: str, username: str | None
    ) -> list[Tables]:
        """The tables for a client that is of these kinds."""
        found = [self.fixed[who] for who in kinds if who in self.fixed]
        filled = [
            (topic_filter, rule)
            for who in kinds
            for rule in self.open.get(who, ())
            if (topic_filter := rule.filter_for(client_id, username)) is not None
        ]
        return [*found, Tables(filled)] if filled else found


@define(eq=False)
class Policy:
    """All rules, in the order of their steps."""

    steps: Sequence[Step]
    _ready: list[_ReadyStep] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ready = [_ReadyStep(step) for step in self.steps]

    def grants(self, client_id: str, username: str | None) -> Grants:
        """What one client may do."""
        users = [EVERYBODY, ANONYMOUS if username is None else the_user(username)]
        kinds = [(user, client) for user in users for client in (ANY_CLIENT, the_client(client_id))]
        wild = not {"+", "#"}.isdisjoint(client_id + (username or ""))
        return Grants(
            self,
            username,
            [
                step.tables(kinds, client_id, username)
                for step in self._ready
                if not (step.strict and wild)
            ],
        )
