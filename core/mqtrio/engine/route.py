"""Topic -> who gets it: the index's answer, arranged so that sending it needs few decisions."""

from typing import Final

from mqtrio.state.index import Match, ShareGroup, Subscription
from mqtrio.state.session import LOCAL, WIRE_OWN, Session


class Group:
    """Sessions whose copies of a message are alike, so that one frame serves them all."""

    __slots__ = (
        "profile",
        "shared_frame",
        "takes",
        "qos",
        "retain_as_published",
        "identifiers",
        "sessions",
    )

    def __init__(
        self, profile: int, qos: int, retain_as_published: bool, identifiers: tuple[int, ...]
    ) -> None:
        self.profile = profile
        self.shared_frame = profile not in (WIRE_OWN, LOCAL)
        #: The profile whose frames may be passed on to it as they came, -1 for none.
        self.takes = profile if self.shared_frame and not identifiers else -1
        self.qos = qos
        self.retain_as_published = retain_as_published
        self.identifiers = identifiers
        self.sessions: list[Session] = []


class Route:
    """All targets of one topic.

    `groups` need no look at the message or its publisher; `picky` sessions have a subscription with
    no-local or a delivery filter; `shares` are shared subscriptions, each of which picks a member.
    `weight` counts the targets. `plain`: an ordinary topic with a moderate number of targets, so
    that a message to it that nobody must be asked about can be delivered on the spot. `simple`:
    plain, and there are groups only.
    """

    __slots__ = ("plain", "simple", "groups", "picky", "shares", "weight")

    def __init__(self, topic: str, match: Match, maximum_levels: int, maximum_weight: int) -> None:
        self.groups: list[Group] = []
        self.picky: list[tuple[Session, list[Subscription]]] = []
        self.shares: list[ShareGroup] = list(match.groups)
        self.weight = len(match.subscriptions) + len(self.shares)
        self.plain = (
            not topic.startswith("$")
            and topic.count("/") < maximum_levels
            and self.weight <= maximum_weight
        )
        self._arrange(match.subscriptions)
        self.simple = self.plain and not self.picky and not self.shares

    def _arrange(self, subscriptions: list[Subscription]) -> None:
        """One merged copy for each session, at the highest QoS [MQTT-3.3.4-2], [MQTT-3.3.4-4]."""
        by_session: dict[Session, list[Subscription]] = {}
        for subscription in subscriptions:
            by_session.setdefault(subscription.session, []).append(subscription)
        groups: dict[tuple[int, int, bool, tuple[int, ...]], Group] = {}
        for session, own in by_session.items():
            if any(subscription.no_local or subscription.deliver for subscription in own):
                self.picky.append((session, own))
                continue
            qos, retain_as_published, identifiers = merged(own)
            key = (session.profile, qos, retain_as_published, identifiers)
            group = groups.get(key)
            if group is None:
                group = groups[key] = Group(*key)
                self.groups.append(group)
            group.sessions.append(session)


def merged(subscriptions: list[Subscription]) -> tuple[int, bool, tuple[int, ...]]:
    """QoS, retain-as-published and identifiers of one copy for several subscriptions."""
    if len(subscriptions) == 1:
        only = subscriptions[0]
        return only.qos, only.retain_as_published, (only.identifier,) if only.identifier else ()
    qos = max(subscription.qos for subscription in subscriptions)
    retain = any(subscription.retain_as_published for subscription in subscriptions)
    identifiers = tuple(
        subscription.identifier for subscription in subscriptions if subscription.identifier
    )
    return qos, retain, identifiers


EMPTY: Final[tuple[int, ...]] = ()
