"""What a configuration may say, and the rules that come of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from attrs import define

from mqtrio import ConfigurationError, setting
from mqtrio_plugins.acl.rules import (
    ANONYMOUS,
    ANY_CLIENT,
    EVERYBODY,
    Access,
    Rule,
    check_filter,
    the_client,
    the_user,
)


@define(frozen=True, kw_only=True)
class AclRule:
    """What some clients may do; `%c` and `%u` stand for their client identifier and username."""

    users: tuple[str, ...] = setting((), "usernames that the rule is for; default: everybody")
    anonymous: bool = setting(False, "the rule is for clients without a username, too")
    client_ids: tuple[str, ...] = setting(
        (), "client identifiers that the rule is for; default: all of these users"
    )
    read: tuple[str, ...] = setting((), "topic filters to subscribe to")
    write: tuple[str, ...] = setting((), "topic filters to publish to")
    readwrite: tuple[str, ...] = setting((), "topic filters to publish and subscribe to")
    deny: tuple[str, ...] = setting((), "topic filters to do neither with, whatever else allows it")

    def __attrs_post_init__(self) -> None:
        for access, topic_filter in self._lines():
            try:
                check_filter(topic_filter)
            except ValueError as error:
                raise ConfigurationError(f"{access}: {topic_filter!r}: {error}") from None

    def _lines(self) -> Iterator[tuple[Access, str]]:
        for topic_filter in self.read:
            yield "read", topic_filter
        for topic_filter in self.write:
            yield "write", topic_filter
        for topic_filter in self.readwrite:
            yield "readwrite", topic_filter
        for topic_filter in self.deny:
            yield "deny", topic_filter

    def rules(self, source: str) -> Iterator[Rule]:
        """The rule of each topic filter, for each kind of client; `source` names it in logs."""
        users = [the_user(name) for name in self.users]
        if self.anonymous:
            users.append(ANONYMOUS)
        clients = [the_client(client_id) for client_id in self.client_ids]
        for access, topic_filter in self._lines():
            for user in users or [EVERYBODY]:
                for client in clients or [ANY_CLIENT]:
                    yield Rule((user, client), access, topic_filter, source)


@define(frozen=True, kw_only=True)
class AclFile:
    """What stands in a TOML file of rules: tables `[[rules]]`."""

    rules: tuple[AclRule, ...] = setting((), "the rules")


@define(frozen=True, kw_only=True)
class AclSettings:
    """Where the rules are, and what holds beside them."""

    rules: tuple[AclRule, ...] = setting((), "rules; an answer of theirs goes before the files'")
    file: Path | None = setting(None, "a TOML file with more rules of the same form")
    acl_file: Path | None = setting(None, "a file in the form of Mosquitto's acl_file")
    subscriptions: Literal["covered", "filtered"] = setting(
        "covered",
        "a subscription must lie inside of what is granted; or (as with Mosquitto) each one is "
        "accepted and delivers what is granted",
    )
    otherwise: Literal["deny", "pass"] = setting(
        "deny", "what no rule speaks of is denied, or is left to other plugins"
    )
    watch: float = setting(
        5.0, "time between two looks at whether a file has changed", minimum=0.1, unit="seconds"
    )
