"""SUBSCRIBE and UNSUBSCRIBE (3.8 to 3.11)."""

import logging
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mqtrio.engine.steps import Steps
from mqtrio.errors import ProtocolError
from mqtrio.hooks import combine
from mqtrio.hooks.answers import Close, Deny, Permissions, Reject
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import (
    DeliveryEvent,
    DeliveryReason,
    Origin,
    PublishEvent,
    SubscribedEvent,
    SubscribeEvent,
    UnsubscribedEvent,
)
from mqtrio.hooks.plugin import DeliveryFilter
from mqtrio.reasons import ReasonCode
from mqtrio.state.index import Subscription
from mqtrio.state.session import LOCAL_PREFIX, Session
from mqtrio.state.topics import InvalidTopicFilter, check_topic_filter
from mqtrio.store.batch import COMMITTED, Batch
from mqtrio.wire.encoder import encode_within
from mqtrio.wire.packets import (
    MQTT_3_1,
    MQTT_5,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    UnsubAck,
    Unsubscribe,
    UserProperties,
)

if TYPE_CHECKING:
    from mqtrio.engine.connection import Connection
    from mqtrio.engine.core import Core

log = logging.getLogger("mqtrio.subscribe")

#: What each topic filter costs of a turn's budget, beside its packet.
FILTER_WORK: Final = 24


def _nothing(message: PublishEvent) -> PublishEvent | None:
    """Let nothing through: the filter of a subscription that is withheld."""
    return None


class Granted:
    """The answer to one topic filter: its reason code and, if it was granted, what stands now."""

    __slots__ = ("reason_code", "subscription", "batch", "new", "close")

    def __init__(
        self,
        reason_code: int,
        subscription: Subscription | None = None,
        batch: Batch = COMMITTED,
        new: bool = False,
        close: bool = False,
    ) -> None:
        self.reason_code = reason_code
        self.subscription = subscription
        self.batch = batch
        self.new = new
        self.close = close


# -- from a client


def on_subscribe(connection: "Connection", packet: Subscribe) -> None:
    """Every filter is answered, all in one SUBACK [MQTT-3.8.4-1], [MQTT-3.8.4-5]."""
    for request in packet.requests:
        if request.no_local and request.topic_filter.startswith("$share/"):  # [MQTT-3.8.3-4]
            raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "no local on a shared subscription")
    connection.start(_subscribe(connection, packet))


def _subscribe(connection: "Connection", packet: Subscribe) -> Steps:
    core = connection.core
    session = connection.session
    assert session is not None
    codes: list[int] = []
    batch = COMMITTED
    replays: list[Subscription] = []
    for request in packet.requests:
        core.work += FILTER_WORK
        granted = yield from core.subscriptions.request(
            session,
            connection.client,
            request,
            connection.subscription_limit,
            connection.permissions,
            packet.subscription_identifier,
            packet.user_properties,
        )
        if connection.closed:
            return
        if granted.close:
            connection.close(granted.reason_code, "closed by a plugin")
            return
        codes.append(granted.reason_code)
        if granted.batch is not COMMITTED:
            batch = granted.batch
        if core.work >= core.budget:  # a packet may hold thousands of filters
            yield core.next_turn()
        subscription = granted.subscription
        if subscription is not None and wants_retained(subscription, granted.new):
            replays.append(subscription)
    _acknowledge(connection, SubAck(packet.packet_id, tuple(codes)), batch)
    for subscription in replays:
        core.subscriptions.replay(subscription)


def wants_retained(subscription: Subscription, new: bool) -> bool:
    """[MQTT-3.3.1-9] to [MQTT-3.3.1-11]; never for a shared subscription (4.8.2)."""
    if subscription.group is not None:
        return False
    return subscription.retain_handling == 0 or (subscription.retain_handling == 1 and new)


def _acknowledge(connection: "Connection", packet: SubAck, batch: Batch) -> None:
    version = connection.decoder.version
    failed = None
    if version != MQTT_5:
        codes = packet.reason_codes
        if version == MQTT_3_1:  # it knows no failure code
            packet.reason_codes = tuple(code if code < 3 else 0 for code in codes)
        else:
            packet.reason_codes = tuple(code if code < 3 else 0x80 for code in codes)
    elif batch is not COMMITTED:
        none = (ReasonCode.UNSPECIFIED_ERROR,) * len(packet.reason_codes)
        failed = encode_within(
            type(packet)(packet.packet_id, none), version, connection.maximum_packet_size
        )
    data = encode_within(packet, version, connection.maximum_packet_size)
    if data is None:
        raise ProtocolError(ReasonCode.PACKET_TOO_LARGE, "the acknowledgement does not fit")
    connection.reply(data, batch, failed)


def on_unsubscribe(connection: "Connection", packet: Unsubscribe) -> None:
    """Every filter is answered, all in one UNSUBACK [MQTT-3.10.4-4] to [MQTT-3.10.4-6]."""
    connection.start(_unsubscribe(connection, packet))


def _unsubscribe(connection: "Connection", packet: Unsubscribe) -> Steps:
    core = connection.core
    session = connection.session
    assert session is not None
    codes: list[int] = []
    batch = COMMITTED
    for topic_filter in packet.topic_filters:
        core.work += FILTER_WORK
        try:
            check_topic_filter(topic_filter)
        except InvalidTopicFilter as error:
            codes.append(error.reason_code)
            continue
        code, removed = core.subscriptions.remove(session, topic_filter, connection.client)
        codes.append(code)
        if removed is not COMMITTED:
            batch = removed
        if core.work >= core.budget:
            yield core.next_turn()
        if connection.closed:  # an observer did that
            return
    _acknowledge(connection, UnsubAck(packet.packet_id, tuple(codes)), batch)


# -- for anybody


class Subscriptions:
    """Making, filtering and ending subscriptions, for clients and for programs of this process."""

    __slots__ = ("core",)

    def __init__(self, core: "Core") -> None:
        self.core = core

    def request(
        self,
        session: Session,
        client: ClientFacts,
        wanted: SubscriptionRequest,
        limit: int,
        permissions: Permissions | None = None,
        identifier: int = 0,
        user_properties: UserProperties = (),
        origin: Origin = "client",
    ) -> Steps:
        """Authorize, transform and make one subscription; returns what was Granted."""
        hooks = self.core.hooks
        sent = wanted.topic_filter
        try:
            check_topic_filter(wanted.topic_filter, self.core.limits.topic_levels)
        except InvalidTopicFilter as error:
            return Granted(error.reason_code)
        qos = wanted.qos
        if hooks.authorize_subscribe or hooks.transform_subscribe or permissions is not None:
            event = SubscribeEvent(
                client,
                wanted.topic_filter,
                wanted.qos,
                wanted.no_local,
                wanted.retain_as_published,
                wanted.retain_handling,
                identifier,
                user_properties,
                origin,
            )
            asked = yield from self._ask(event, permissions)
            if isinstance(asked, Granted):
                return asked
            wanted, maximum_qos = asked
            qos = wanted.qos if maximum_qos is None else min(wanted.qos, maximum_qos)
        subscriptions = session.subscriptions
        full = len(subscriptions) >= limit or self.core.memory > self.core.limits.memory
        if full and wanted.topic_filter not in subscriptions:
            return Granted(ReasonCode.QUOTA_EXCEEDED)
        known = session.subscription_sent_as(sent)
        if known is not None and known.topic_filter != wanted.topic_filter:
            # A plugin makes something else of the filter today [MQTT-3.8.4-3].
            self._end(session, known.topic_filter, client)
        return self._make(session, client, wanted, qos, identifier, sent)

    def _ask(self, event: SubscribeEvent, permissions: Permissions | None) -> Steps:
        """What the plugins make of a request and its highest QoS; or what refuses it, Granted."""
        core = self.core
        answer = yield from combine.authorize_subscribe(core.hooks, event, permissions)
        if isinstance(answer, Deny):
            log.debug(
                "denied %r to subscribe to %r: %s", event.client_id, event.topic_filter, answer.why
            )
            return Granted(answer.reason_code)
        levels = core.limits.topic_levels
        changed = yield from combine.transform_subscribe(core.hooks, event, levels)
        if isinstance(changed, Reject):
            return Granted(changed.reason_code)
        if isinstance(changed, Close):
            return Granted(changed.reason_code, close=True)
        wanted = SubscriptionRequest(
            changed.topic_filter,
            changed.qos,
            changed.no_local,
            changed.retain_as_published,
            changed.retain_handling,
        )
        return wanted, answer.max_qos

    def _make(
        self,
        session: Session,
        client: ClientFacts,
        wanted: SubscriptionRequest,
        qos: int,
        identifier: int,
        sent: str,
    ) -> Granted:
        core = self.core
        subscription = Subscription(
            session,
            wanted.topic_filter,
            qos,
            wanted.no_local,
            wanted.retain_as_published,
            wanted.retain_handling,
            identifier,
            sent=sent,
        )
        subscription.deliver = self._filter(client, subscription, "subscribe")
        replaced = core.router.add(subscription)
        batch = COMMITTED
        if session.stored:
            batch = core.recorder.subscribed(session, subscription)
        if core.hooks.subscribed:
            core.hooks.notify(
                core.hooks.subscribed,
                SubscribedEvent(
                    client,
                    wanted.topic_filter,
                    qos,
                    wanted.no_local,
                    wanted.retain_as_published,
                    wanted.retain_handling,
                    identifier,
                    replaced is not None,
                ),
            )
        return Granted(qos, subscription, batch, replaced is None)

    def remove(self, session: Session, sent: str, client: ClientFacts) -> tuple[int, Batch]:
        """End the subscription for which the client has sent this topic filter.

        Returns its reason code for UNSUBACK and its batch.
        """
        known = session.subscription_sent_as(sent)
        if known is None:
            return ReasonCode.NO_SUBSCRIPTION_EXISTED, COMMITTED
        return ReasonCode.SUCCESS, self._end(session, known.topic_filter, client)

    def _end(self, session: Session, topic_filter: str, client: ClientFacts) -> Batch:
        core = self.core
        core.router.remove(session, topic_filter)
        batch = COMMITTED
        if session.stored:
            batch = core.recorder.unsubscribed(session, topic_filter)
        if core.hooks.unsubscribed:
            core.hooks.notify(core.hooks.unsubscribed, UnsubscribedEvent(client, topic_filter))
        return batch

    def replay(self, subscription: Subscription) -> None:
        """Begin to send the retained messages that match a subscription [MQTT-3.3.1-9]."""
        core = self.core
        if not len(core.retained):
            return
        session = subscription.session
        if session.replays is None:
            session.replays = deque()
        session.replays.append((subscription, core.retained.scan(subscription.pattern)))
        if len(session.replays) == 1:
            core.deliveries.replay(session)

    def _filter(
        self, client: ClientFacts, subscription: Subscription, reason: DeliveryReason
    ) -> DeliveryFilter | None:
        if subscription.withheld:
            return _nothing
        hooks = self.core.hooks
        holder = self.core.sessions.holders.get(client.client_id)
        mount = None if holder is None else holder.mount
        if mount is not None and not subscription.pattern.startswith(mount.prefix):
            return mount.filter  # made elsewhere: let a shared one be taken by who can see it
        if not hooks.compile_delivery:
            return None
        event = DeliveryEvent(
            client,
            subscription.topic_filter,
            subscription.qos,
            subscription.identifier,
            reason,
            "local" if client.client_id.startswith(LOCAL_PREFIX) else "client",
        )
        return combine.compile_delivery(hooks, event)

    def judged(self, session: Session, connection: "Connection") -> Steps:
        """Ask who authorizes about what a session is subscribed to, for a client's new permissions.

        Returns of each subscription whether the client could make it today; None where it has no
        permissions of its own.
        """
        core = self.core
        permissions = connection.permissions
        if permissions is None:
            return None
        verdicts: dict[Subscription, bool] = {}
        for subscription in list(session.subscriptions.values()):
            core.work += FILTER_WORK
            event = SubscribeEvent(
                connection.client,
                subscription.sent,
                subscription.qos,
                subscription.no_local,
                subscription.retain_as_published,
                subscription.retain_handling,
                subscription.identifier,
            )
            answer = yield from combine.authorize_subscribe(core.hooks, event, permissions)
            if connection.closed:
                return None
            verdicts[subscription] = not isinstance(answer, Deny)
            if isinstance(answer, Deny):
                log.debug(
                    "withheld from %r what %r brings: %s",
                    event.client_id,
                    event.topic_filter,
                    answer.why,
                )
            if core.work >= core.budget:
                yield core.next_turn()
        return verdicts

    def withhold(
        self, session: Session, verdicts: Mapping[Subscription, bool] | None, *, others: bool
    ) -> None:
        """Deliver nothing for subscriptions that were judged to be denied (None: deliver for all).

        `others`: deliver for those that nobody was asked about, because they came meanwhile.
        They stay: a later authentication may allow them again. To be followed by `compile_again`.
        """
        for subscription in session.subscriptions.values():
            subscription.withheld = verdicts is not None and not verdicts.get(subscription, others)

    def compile_again(self, session: Session, reason: DeliveryReason) -> None:
        """Ask the plugins anew for the delivery filters of all of a session's subscriptions."""
        core = self.core
        client = core.observers.client_of(session)
        for subscription in session.subscriptions.values():
            deliver = self._filter(client, subscription, reason)
            if deliver is not None or subscription.deliver is not None:
                subscription.deliver = deliver
                core.router.forget(subscription.pattern)
