"""From a message to the sessions that want it (3.3.4, 4.5)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from mqtrio.engine.convert import changed_message, event_of
from mqtrio.engine.pressure import Behind
from mqtrio.engine.route import EMPTY, Group, Route, merged
from mqtrio.engine.steps import Steps
from mqtrio.engine.weights import of_subscription
from mqtrio.reasons import ReasonCode
from mqtrio.state.index import ShareGroup, Subscription, SubscriptionIndex
from mqtrio.state.message import Message
from mqtrio.state.session import WIRE_5, Delivery, Session
from mqtrio.state.topics import has_wildcards
from mqtrio.store.batch import COMMITTED, REFUSED, Batch, BatchState

if TYPE_CHECKING:
    from mqtrio.engine.core import Core

#: Topics whose route is remembered, and the targets of all these together.
ROUTES: Final = 50_000
ROUTED: Final = 4_000_000

#: What finding the targets of a topic anew costs of a turn's budget.
SEARCH_WORK: Final = 16

#: The route of a longer topic is not remembered.
LONGEST_REMEMBERED: Final = 256

#: Deliveries made in one go; a larger fan-out lets others have their turn in between.
SLICE: Final = 2000


class Router:
    """Finds the targets of messages and hands the messages to them."""

    __slots__ = ("core", "index", "routes", "_routed")

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.index = SubscriptionIndex()
        self.routes: dict[str, Route] = {}
        self._routed = 0

    # -- subscriptions

    def add(self, subscription: Subscription) -> Subscription | None:
        """Subscribe; returns what was replaced [MQTT-3.8.4-3]."""
        replaced = self.index.add(subscription)
        self.core.memory += of_subscription(subscription)
        if replaced is not None:
            self.core.memory -= of_subscription(replaced)
        subscription.session.subscribe(subscription)
        self.forget(subscription.pattern)
        return replaced

    def remove(self, session: Session, topic_filter: str) -> Subscription | None:
        """Unsubscribe from exactly this filter [MQTT-3.10.4-1]; returns it, or None."""
        subscription = session.unsubscribe(topic_filter)
        if subscription is None:
            return None
        self.index.remove(session, topic_filter)
        self.core.memory -= of_subscription(subscription)
        self.forget(subscription.pattern)
        return subscription

    def forget(self, pattern: str) -> None:
        """The targets of topics that match `pattern` have changed."""
        if has_wildcards(pattern):
            self._forget_all()
            return
        route = self.routes.pop(pattern, None)
        if route is not None:
            self._routed -= route.weight

    def _forget_all(self) -> None:
        self.routes.clear()
        self._routed = 0

    def forget_session(self, session: Session) -> None:
        """A session's messages must be written otherwise from now on."""
        for subscription in session.subscriptions.values():
            self.forget(subscription.pattern)

    def route(self, topic: str) -> Route:
        """The targets of a topic."""
        route = self.routes.get(topic)
        if route is None:
            match = self.index.match(topic)
            self.core.work += SEARCH_WORK + len(match.subscriptions)
            route = Route(topic, match, self.core.limits.topic_levels, SLICE)
            if len(topic) <= LONGEST_REMEMBERED:
                if len(self.routes) >= ROUTES or self._routed + route.weight > ROUTED:
                    self._forget_all()
                self.routes[topic] = route
                self._routed += route.weight
        return route

    # -- handing over

    def refusal(self, route: Route, message: Message) -> int:
        """The reason code with which a QoS 1 or 2 message must be refused, or 0.

        Asked before anything is delivered, so that a refused message reaches nobody.
        """
        core = self.core
        limits = core.limits
        # What is passed on at once takes no room; what must wait does.
        over = core.memory > limits.memory
        reject = limits.overflow == "reject"
        for group in route.groups:
            if not group.qos:
                continue
            for session in group.sessions:
                if (reject and self._is_full(session)) or (over and not _takes_no_room(session)):
                    return ReasonCode.QUOTA_EXCEEDED
                if session.reloading:
                    return ReasonCode.UNSPECIFIED_ERROR
        for session, subscriptions in route.picky:
            if not _may_wait(message, session, subscriptions):
                continue
            if session.reloading:
                return ReasonCode.UNSPECIFIED_ERROR
            if (reject and self._is_full(session)) or (over and not _takes_no_room(session)):
                return ReasonCode.QUOTA_EXCEEDED
        if reject or over:
            for share in route.shares:
                if not self._takes(share, over):
                    return ReasonCode.QUOTA_EXCEEDED
        return 0

    def _is_full(self, session: Session) -> bool:
        return session.full and not self.core.pages.room(session)

    def _takes(self, share: ShareGroup, over: bool) -> bool:
        """Whether anybody of a group has room for a QoS 1 or 2 message.

        If the memory is used up (`over`), room that is no memory.
        """
        members = share.members.values()
        for member in members:
            if member.session.full:
                self.core.pages.room(member.session)
        return any(
            has_room(member)
            or ((not over or member.session.stored) and (_is_near(member) or _can_wait(member)))
            for member in members
            # Where nobody could keep one it is lost like QoS 0, and nobody's room is in question.
        ) or not any(member.qos for member in members)

    def deliver(self, route: Route, message: Message) -> Batch:
        """Hand a message to all its targets; returns what its acknowledgement must wait for."""
        batch = COMMITTED
        self.core.work += route.weight
        for group in route.groups:
            batch = self.deliver_to_group(group, message) or batch
        if route.picky or route.shares:
            batch = self.deliver_specially(route, message) or batch
        return batch

    def deliver_slowly(self, route: Route, message: Message, behind: dict[Behind, None]) -> Steps:
        """Like `deliver`, for very many targets: others have their turns in between.

        `behind` gets the outlets that were congested by it.
        """
        core = self.core
        batch = COMMITTED
        done = 0
        for stored, count in self._piecemeal(route, message):
            batch = stored or batch
            if _has_failed(batch):
                break
            done += count
            if done >= SLICE:
                done = 0
                behind.update(core.pressure.congested)
                yield core.next_turn()
                if _has_failed(batch):
                    break  # and nobody else gets it, or the next batch would promise all of it
        behind.update(core.pressure.congested)
        return batch

    def _piecemeal(self, route: Route, message: Message) -> Iterator[tuple[Batch | None, int]]:
        """Deliver to a part of the targets with each step; yields its batch and its size.

        The route gets old in between: sessions have ended, are lost by a failed commit, or came
        back in another version.
        """
        for group in route.groups:
            for start in range(0, len(group.sessions), SLICE):
                targets = [
                    session
                    for session in group.sessions[start : start + SLICE]
                    if not session.ended
                ]
                if message.qos and group.qos and any(one.reloading for one in targets):
                    yield REFUSED, 0  # what it got now would be gone when it is there again
                alike = Group(
                    group.profile, group.qos, group.retain_as_published, group.identifiers
                )
                alike.sessions = [one for one in targets if one.profile == group.profile]
                yield self.deliver_to_group(alike, message), len(alike.sessions)
                for session in targets:
                    if session.profile != group.profile:
                        single = Group(
                            session.profile, group.qos, group.retain_as_published, group.identifiers
                        )
                        single.sessions = [session]
                        yield self.deliver_to_group(single, message), 1
        for session, subscriptions in route.picky:
            if session.reloading and _may_wait(message, session, subscriptions):
                yield REFUSED, 0
            if not session.ended:
                yield self._pick(session, subscriptions, message), 1
        for share in route.shares:
            yield self.share(share, message), 1

    def deliver_to_group(self, group: Group, message: Message) -> Batch | None:
        """Hand a message to sessions whose copies are alike; returns its batch if there is one."""
        qos = min(message.qos, group.qos)  # [MQTT-3.8.4-8]
        retain = message.retain and group.retain_as_published  # [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        core = self.core
        core.statistics.messages_sent += len(group.sessions)
        if qos:
            batch = None
            for session in group.sessions:
                batch = self.hand(session, message, qos, retain, group.identifiers) or batch
            return batch
        if group.shared_frame and not core.hooks.delivered:
            version5 = group.profile == WIRE_5
            frame, _ = message.parts(version5, 0, retain, group.identifiers, core.now)
            dirty = core.dirty
            for session in group.sessions:
                outlet = session.outlet
                if outlet is None:
                    continue
                if outlet.blocked:
                    self.pass_on(session, message, retain, group.identifiers)
                    continue
                out = outlet.out
                if not out:
                    dirty.append(outlet)  # type: ignore[arg-type]  # only wires share frames
                out.append(frame)
            return None
        for session in group.sessions:
            self.pass_on(session, message, retain, group.identifiers)
        return None

    def deliver_specially(self, route: Route, message: Message) -> Batch | None:
        """Targets that need a look at the message and its publisher."""
        batch = None
        for session, subscriptions in route.picky:
            batch = self._pick(session, subscriptions, message) or batch
        for group in route.shares:
            batch = self.share(group, message) or batch
        return batch

    def _pick(
        self, session: Session, subscriptions: list[Subscription], message: Message
    ) -> Batch | None:
        """One copy by those subscriptions that let the message through [MQTT-3.8.3-3]."""
        passing: list[Subscription] = []
        copy: Message | None = None
        filtered = False
        for subscription in subscriptions:
            if subscription.no_local and message.client_id == session.client_id:
                continue
            passed = self.filtered(subscription, message)
            if passed is None:
                filtered = True
            else:
                passing.append(subscription)
                copy = copy or passed
        if copy is None:
            if filtered:
                self.core.deliveries.drop(session, message, "delivery_filter")
            return None
        qos, retain_as_published, identifiers = merged(passing)
        retain = message.retain and retain_as_published
        self.core.statistics.messages_sent += 1
        return self.give(session, copy, min(copy.qos, qos), retain, identifiers)

    def filtered(self, subscription: Subscription, message: Message) -> Message | None:
        """What a subscription's delivery filter makes of a message; None: it may not have it."""
        deliver = subscription.deliver
        if deliver is None:
            return message
        core = self.core
        event = event_of(core, message)
        passed = deliver(event)
        if passed is None or passed is event:
            return message if passed is event else None
        return changed_message(message, passed, core.now)

    def share(self, group: ShareGroup, message: Message) -> Batch | None:
        """Give a message to one member of a shared subscription (4.8.2)."""
        refused: set[Subscription] = set()
        while True:
            subscription = self._member(group, message.qos, refused)
            if subscription is None:
                for other in refused:
                    self.core.deliveries.drop(other.session, message, "delivery_filter")
                return None
            passed = self.filtered(subscription, message)
            if passed is not None:
                break
            refused.add(subscription)
        identifiers = (subscription.identifier,) if subscription.identifier else EMPTY
        retain = passed.retain and subscription.retain_as_published
        qos = min(passed.qos, subscription.qos)  # [MQTT-4.8.2-3]
        self.core.statistics.messages_sent += 1
        return self.give(subscription.session, passed, qos, retain, identifiers, group)

    def _member(
        self, group: ShareGroup, qos: int, refused: set[Subscription]
    ) -> Subscription | None:
        """Who of a group takes the next message: one with room, one connected, one who can wait.

        At last one who is full, where the settings drop what overflows.

        `refused`: those whose delivery filters don't let it through.
        """
        for able in _ABLE if qos else _ABLE_AT_QOS_0:
            member = group.next_member(
                lambda subscription, able=able: (  # type: ignore[misc]
                    subscription not in refused and able(subscription)
                )
            )
            if member is not None:
                return member
        return None

    def give(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,
        identifiers: tuple[int, ...],
        group: ShareGroup | None = None,
    ) -> Batch | None:
        """Hand one copy to one session, at any QoS."""
        if qos:
            return self.hand(session, message, qos, retain, identifiers, group)
        self.pass_on(session, message, retain, identifiers)
        return None

    def pass_on(
        self, session: Session, message: Message, retain: bool, identifiers: tuple[int, ...]
    ) -> None:
        """Hand one copy at QoS 0 to a session that is connected."""
        outlet = session.outlet
        if outlet is None:
            return
        if outlet.blocked and self.core.memory > self.core.limits.memory:
            self.core.deliveries.drop(session, message, "memory")
            return
        refused = outlet.pass_on(message, retain, identifiers)
        if refused is not None:
            self.core.deliveries.drop(session, message, refused)
        elif self.core.hooks.delivered:
            self.core.observers.delivered(session, message, 0, retain)

    def hand(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,
        identifiers: tuple[int, ...],
        group: ShareGroup | None = None,
    ) -> Batch | None:
        """Put one copy at QoS 1 or 2 into a session: under way if it can be, else in its queue.

        Returns the batch that it is stored with, None if it isn't stored.
        """
        if session.ended:
            return None
        core = self.core
        delivery = Delivery(message, qos, retain, identifiers, group)
        core.deliveries.hold(message)
        batch = None
        outlet = session.outlet
        goes = (
            outlet is not None
            and not session.queue
            and not outlet.blocked
            and len(session.inflight) < session.window
        )
        if session.stored:
            if session.unread is not None or not (goes or core.pages.fits(session)):
                return core.pages.put(session, delivery)
            if goes and qos == 2:
                session.open_flight(delivery)  # so that its identifier is stored with it
            batch = core.recorder.queued(session, delivery)
            if goes and delivery.waits:
                return batch
        if goes:
            assert outlet is not None
            refused = outlet.transmit(delivery)
            if refused is not None:
                core.deliveries.settle(session, delivery)
                core.deliveries.drop(session, message, refused)
            elif core.hooks.delivered:
                core.observers.delivered(session, message, qos, retain)
            return batch
        self._enqueue(session, delivery)
        return batch

    def _enqueue(self, session: Session, delivery: Delivery) -> None:
        core = self.core
        if session.full:
            if core.limits.overflow == "drop_oldest":
                core.deliveries.drop_oldest(session)
            elif not core.pages.room(session):
                core.deliveries.settle(session, delivery)
                core.deliveries.drop(session, delivery.message, "queue_full")
                return
            if session.ended:  # by an observer of what was dropped
                core.deliveries.let_go(delivery.message)
                return
        session.enqueue(delivery)
        outlet: Any = session.outlet
        if outlet is not None and session.waiting > core.limits.stall_messages and not outlet.slow:
            core.pressure.congested[outlet] = None

    def squeeze(self, session: Session, frames: list[bytes]) -> None:
        """Give QoS 0 frames to a connected session that is behind, as many as it may still get."""
        outlet = session.outlet
        assert outlet is not None
        core = self.core
        for frame in frames:
            if core.memory <= core.limits.memory and outlet.room(len(frame)):
                outlet.out.append(frame)
            else:
                core.statistics.dropped["outbox_full"] += 1
                session.dropped += 1


def _may_wait(message: Message, session: Session, subscriptions: list[Subscription]) -> bool:
    """Whether subscriptions that are looked at one by one may want a message above QoS 0."""
    own = message.client_id == session.client_id
    return any(wanted.qos and not (own and wanted.no_local) for wanted in subscriptions)


def _has_failed(batch: Batch) -> bool:
    return batch.state is BatchState.FAILED


def has_room(subscription: Subscription) -> bool:
    """Whether a member of a shared subscription would be sent a message at once."""
    return _goes_on(subscription.session)


def _goes_on(session: Session) -> bool:
    outlet = session.outlet
    return (
        outlet is not None
        and not outlet.blocked
        and not session.queue
        and session.unread is None
        and len(session.inflight) < session.window
    )


def _takes_no_room(session: Session) -> bool:
    """Whether a message for it goes out at once, or waits in the store and not in memory."""
    return session.stored or _goes_on(session)


def _can_wait(subscription: Subscription) -> bool:
    session = subscription.session
    return subscription.qos > 0 and not (session.full or session.reloading or session.ended)


def _is_connected(subscription: Subscription) -> bool:
    return subscription.session.outlet is not None


def _is_near(subscription: Subscription) -> bool:
    return _is_connected(subscription) and not (subscription.qos and subscription.session.full)


def _is_full(subscription: Subscription) -> bool:
    return subscription.qos > 0 and not subscription.session.reloading


#: Who of a shared subscription may have a message, the best first.
_ABLE: Final = (has_room, _is_near, _can_wait, _is_full)
_ABLE_AT_QOS_0: Final = (has_room, _is_connected)
