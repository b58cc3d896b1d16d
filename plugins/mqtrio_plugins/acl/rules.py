"""One rule: for whom it is, what it allows or denies, and where it stands."""

import re
from typing import Final, Literal

from attrs import define

from mqtrio import Allow, Deny, check_topic_filter

Access = Literal["read", "write", "readwrite", "deny"]

#: Kinds of clients; those of one user, or with one client identifier, are made by functions.
EVERYBODY: Final = "everybody"
ANONYMOUS: Final = "anonymous"
ANY_CLIENT: Final = "any client"

_PLACEHOLDER: Final = re.compile("%[cu]")
_UNSAFE: Final = frozenset("+#/")


def the_user(username: str) -> str:
    """The kind of the clients of one user."""
    return f"user {username}"


def the_client(client_id: str) -> str:
    """The kind of the client with this identifier."""
    return f"client {client_id}"


@define(frozen=True)
class Rule:
    """What clients of a kind (of user, of client) may do with the topics of one filter.

    `literal`: `%c` and `%u` are what they look like, and nothing is put in their place.
    """

    who: tuple[str, str]
    access: Access
    topic_filter: str
    source: str
    literal: bool = False

    @property
    def fixed(self) -> bool:
        """Whether the filter is the same for all clients."""
        return self.literal or not _PLACEHOLDER.search(self.topic_filter)

    def filter_for(self, client_id: str, username: str | None) -> str | None:
        """The filter with the client's names in their places; None if it matches nothing.

        A name that is missing, or that holds a wildcard or a `/`, fits into no filter: whoever
        could choose it would choose what the rule means.
        """
        names = {"%c": client_id, "%u": username}
        used = {names[mark] for mark in _PLACEHOLDER.findall(self.topic_filter)}
        if any(not name or not _UNSAFE.isdisjoint(name) for name in used):
            return None
        # In one go: a client may be called "%u".
        return _PLACEHOLDER.sub(lambda mark: names[mark[0]] or "", self.topic_filter)

    def answer(self) -> Allow | Deny:
        """What the rule says; made once, as it is given for each message."""
        why = f"{self.source}: {self.access} {self.topic_filter}"
        return Deny(why=why) if self.access == "deny" else Allow(remember=True, why=why)


def check_filter(topic_filter: str) -> None:
    """Raise ValueError unless a rule may have this filter, whoever takes the placeholders."""
    if topic_filter.startswith("$share/"):
        raise ValueError("a shared subscription is judged by its filter, without $share/NAME/")
    check_topic_filter(_PLACEHOLDER.sub("x", topic_filter))
