"""Mosquitto's acl_file, read as Mosquitto 2.0 reads it.

# a comment
topic read public/#            anonymous clients, as no user has been named
user ann
topic readwrite ann/#          ann; without a word of access it is readwrite
topic deny ann/secret
pattern write devices/%c/up    every client, wherever the line stands
"""

from pathlib import Path
from typing import Final, cast, get_args

from attrs import Factory, define

from mqtrio import ConfigurationError
from mqtrio_plugins.acl.rules import (
    ANONYMOUS,
    ANY_CLIENT,
    EVERYBODY,
    Access,
    Rule,
    check_filter,
    the_user,
)

_ACCESSES: Final = get_args(Access)


@define(frozen=True)
class AclFileRules:
    """The rules of a file. Those of users go before the patterns."""

    topics: list[Rule] = Factory(list)
    patterns: list[Rule] = Factory(list)


def read_acl_file(path: Path) -> AclFileRules:
    """Read a file. Raises ConfigurationError with file and line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    rules = AclFileRules()
    user = ANONYMOUS
    for number, line in enumerate(lines, 1):
        source = f"{path}:{number}"
        try:
            word, _, rest = line.decode().strip().partition(" ")
            rest = rest.strip()
            if not word or word.startswith("#"):
                continue
            if word == "user":
                if not rest:
                    raise ValueError("a username is missing")
                user = the_user(rest)
            elif word == "topic":
                rules.topics.append(Rule((user, ANY_CLIENT), *_access(rest), source, literal=True))
            elif word == "pattern":
                rules.patterns.append(Rule((EVERYBODY, ANY_CLIENT), *_access(rest), source))
            else:
                raise ValueError(f"{word!r} is unknown; allowed: user, topic, pattern, # comment")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{source}: this is not UTF-8") from None
        except ValueError as error:
            raise ConfigurationError(f"{source}: {error}") from None
    return rules


def _access(text: str) -> tuple[Access, str]:
    """Take `[ACCESS] FILTER` apart; a filter may hold spaces if an access stands before it."""
    access, space, topic_filter = text.partition(" ")
    if not space:
        access, topic_filter = "readwrite", text
    elif access not in _ACCESSES:
        raise ValueError(f"{access!r} is no access; allowed: {', '.join(_ACCESSES)}")
    topic_filter = topic_filter.lstrip()
    check_filter(topic_filter)
    return cast(Access, access), topic_filter
