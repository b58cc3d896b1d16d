"""CONNECT and AUTH: who is it, may it in, which session does it get (3.1, 3.2, 3.15, 4.12)."""

from collections.abc import Mapping
from typing import Final
from uuid import uuid4

from mqtrio import log
from mqtrio.engine import weights
from mqtrio.engine.authenticate import (
    Exchange,
    challenge_client,
    check_method,
    event_for,
    grant,
    set_deadline,
    will_ruling,
)
from mqtrio.engine.connection import Connection
from mqtrio.engine.convert import is_text
from mqtrio.engine.output import LARGEST
from mqtrio.engine.steps import Steps
from mqtrio.engine.wills import PendingWill
from mqtrio.errors import ProtocolError
from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow, Challenge, ClientLimits, ConnectionProperties, Deny
from mqtrio.hooks.events import (
    AdmitEvent,
    ClientConnectedEvent,
    SessionOpenedEvent,
)
from mqtrio.reasons import ReasonCode
from mqtrio.state.aliases import IncomingAliases, OutgoingAliases
from mqtrio.state.index import Subscription
from mqtrio.state.session import ENDED_PREFIX, LOCAL_PREFIX, WIRE_3, WIRE_5, WIRE_OWN, Session
from mqtrio.state.topics import InvalidTopicName, check_topic
from mqtrio.wire.encoder import encode_within
from mqtrio.wire.packets import MQTT_3_1, MQTT_5, NEVER_EXPIRES, Auth, ConnAck, Connect, Will

#: CONNACK of MQTT 3 with success.
CONNACK_3: Final = b"\x20\x02\x00\x00"
CONNACK_3_PRESENT: Final = b"\x20\x02\x01\x00"

NO_LIMITS: Final = ClientLimits()
NO_PROPERTIES: Final = ConnectionProperties()

RECEIVE_MAXIMUM: Final = 65535

DISCONNECT: Final = 14

#: What a CONNECT costs of a turn's budget, in which a plain packet costs 16.
CONNECT_WORK: Final = 300


def on_early(connection: Connection, packet: object) -> None:
    """Anything but CONNECT as the first packet [MQTT-3.1.0-1]."""
    raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "the first packet must be CONNECT")


def on_late_connect(connection: Connection, packet: Connect) -> None:
    """A second CONNECT [MQTT-3.1.0-2]."""
    raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "a second CONNECT")


def on_connect(connection: Connection, packet: Connect) -> None:
    """The first packet: look at all of it, then ask who may decide."""
    core = connection.core
    core.work += CONNECT_WORK
    core.arrivals += 1
    connection.arrival = core.arrivals
    connection.connect = packet
    connection.version5 = packet.version == MQTT_5
    connection.maximum_packet_size = packet.maximum_packet_size or LARGEST
    connection.problem_information = packet.request_problem_information
    client = connection.client
    client.client_id = packet.client_id
    client.username = packet.username
    client.protocol_version = packet.version
    if packet.will is not None and connection.mount is not None:
        connection.mount.enter_will(packet.will)
    connection.weigh(weights.of_connect(packet))
    _check_client_id(packet)
    if packet.will is not None:
        _check_will(connection, packet.will)
    if packet.authentication_method is not None:
        connection.authentication = Exchange(packet.authentication_method)
        set_deadline(connection)
    connection.start(_authenticate(connection, packet, packet.authentication_data))


def _check_reserved(client_id: str) -> None:
    if client_id.startswith((LOCAL_PREFIX, ENDED_PREFIX)):
        raise ProtocolError(
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "this client identifier is the broker's own"
        )


def _check_client_id(packet: Connect) -> None:
    _check_reserved(packet.client_id)
    if packet.client_id or packet.version == MQTT_5:
        return
    if packet.version == MQTT_3_1 or not packet.clean_start:  # [MQTT-3.1.3-7], [MQTT-3.1.3-8]
        raise ProtocolError(
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "an empty client identifier can't be kept"
        )


def _check_will(connection: Connection, will: Will) -> None:
    core = connection.core
    try:
        check_topic(will.topic, core.limits.topic_levels)
    except InvalidTopicName as error:
        raise ProtocolError(error.reason_code, f"will: {error}") from None
    if will.qos > core.settings.session.maximum_qos:  # [MQTT-3.2.2-12]
        raise ProtocolError(ReasonCode.QOS_NOT_SUPPORTED, "the QoS of the will is not supported")
    if will.retain and not core.settings.session.retain_available:  # [MQTT-3.2.2-13]
        raise ProtocolError(ReasonCode.RETAIN_NOT_SUPPORTED, "retained messages are not supported")
    properties = will.properties
    if properties is not None and properties.payload_format_indicator and not is_text(will.payload):
        raise ProtocolError(ReasonCode.PAYLOAD_FORMAT_INVALID, "the will's payload is not UTF-8")


# -- authentication


def _authenticate(connection: Connection, packet: Connect, data: bytes | None) -> Steps:
    """One round: ask the plugins; let in, refuse, or send the next challenge [MQTT-4.12.0-2]."""
    core = connection.core
    answer: Allow | Deny | Challenge | None = None
    calls = core.doors.authenticators(connection.peer.listener)
    if calls:
        event = event_for(connection, packet, data)
        answer = yield from combine.authenticate(core.hooks, event, calls)
    if connection.closed:
        return
    if isinstance(answer, Challenge):
        challenge_client(connection, answer)
        return
    if isinstance(answer, Deny):
        _refuse(connection, answer)
        return
    if answer is None:
        answer = _anonymous(connection, packet)
    yield from _let_in(connection, packet, answer)


def _refuse(connection: Connection, answer: Deny) -> None:
    connection.core.refuse(
        connection,
        answer.reason_code,
        answer.reason_string or answer.why or "refused",
        packet=ConnAck(
            reason_code=answer.reason_code,
            reason_string=answer.reason_string,
            server_reference=answer.server_reference,
        ),
    )


def _anonymous(connection: Connection, packet: Connect) -> Allow:
    """Nobody has decided: the listener says whether that is enough."""
    core = connection.core
    if packet.authentication_method is not None:  # [MQTT-4.12.0-1]
        raise ProtocolError(ReasonCode.BAD_AUTHENTICATION_METHOD, "unknown authentication method")
    if not core.doors.anonymous_allowed(connection.peer):
        if packet.username is not None or packet.password is not None:
            raise ProtocolError(ReasonCode.BAD_USER_NAME_OR_PASSWORD, "bad user name or password")
        raise ProtocolError(ReasonCode.NOT_AUTHORIZED, "anonymous clients are not allowed here")
    if core.hooks.authenticate:
        connection.client.username = None  # nobody has vouched for the name
    return combine.ALLOW


def on_auth_while_connecting(connection: Connection, packet: Auth) -> None:
    """The client's answer to a challenge, before CONNACK [MQTT-4.12.0-3]."""
    exchange = connection.authentication
    connect = connection.connect
    assert exchange is not None
    assert connect is not None
    if packet.reason_code != ReasonCode.CONTINUE_AUTHENTICATION:
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "AUTH must continue the authentication")
    check_method(exchange, packet)
    connection.start(_authenticate(connection, connect, packet.authentication_data))


def on_unexpected_while_connecting(connection: Connection, packet: object) -> None:
    """Only AUTH and DISCONNECT may come before CONNACK [MQTT-3.1.2-30]."""
    raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "only AUTH may follow here")


def on_disconnect_while_connecting(connection: Connection, packet: object) -> None:
    """The client gives up."""
    connection.close(ReasonCode.SUCCESS, "the client gave up", say=False)


# -- the session


def _let_in(connection: Connection, packet: Connect, answer: Allow) -> Steps:
    """Identity is settled: last veto, then take-over, session, CONNACK."""
    core = connection.core
    client = connection.client
    assigned = ""
    if answer.username is not None:
        client.username = answer.username
    if answer.client_id is not None:
        _check_reserved(answer.client_id)
        client.client_id = answer.client_id
        assigned = answer.client_id if answer.client_id != packet.client_id else ""
    if not client.client_id:
        client.client_id = assigned = f"auto-{uuid4().hex}"  # [MQTT-3.1.3-6], [MQTT-3.2.2-16]
    if core.hooks.admit:
        verdict = yield from combine.admit(
            core.hooks,
            AdmitEvent(
                client,
                packet.clean_start,
                packet.keep_alive,
                packet.session_expiry_interval or 0,
                packet.will,
                packet.user_properties,
            ),
        )
        if connection.closed:
            return
        if isinstance(verdict, Deny):
            _refuse(connection, verdict)
            return
    connection.client_id = client.client_id
    connection.username = client.username
    core.hooks.log_default_rules()
    grant(connection, answer)
    if 0 <= connection.credentials_expire_at <= core.now:
        raise ProtocolError(ReasonCode.NOT_AUTHORIZED, "the credentials have expired")
    if packet.will is not None and packet.will.qos > connection.maximum_qos:
        raise ProtocolError(ReasonCode.QOS_NOT_SUPPORTED, "the QoS of the will is not allowed")
    will: PendingWill | None = None
    if packet.will is not None:  # not before: who is refused has no will
        will = PendingWill(
            packet.will, connection.client_id, connection.username, connection.permissions
        )
        will.ruling = yield from will_ruling(connection, will)
        if connection.closed:
            return
    earlier = core.sessions.by_id.get(connection.client_id)
    verdicts: Mapping[Subscription, bool] | None = None
    if earlier is not None and not packet.clean_start:
        # Before it is claimed: a hook that is asked may take its time.
        verdicts = yield from core.subscriptions.judged(earlier, connection)
        if connection.closed:
            return
    _open(connection, packet, answer, assigned, will, verdicts)


def _open(
    connection: Connection,
    packet: Connect,
    answer: Allow,
    assigned: str,
    will: PendingWill | None,
    verdicts: Mapping[Subscription, bool] | None,
) -> None:
    """Claim the session and answer with CONNACK."""
    core = connection.core
    limits = answer.limits or NO_LIMITS
    wanted = _wanted_expiry(packet)
    expiry_interval = core.sessions.capped_expiry(wanted, limits)
    keep_alive = _keep_alive(connection, packet, limits)
    connection.keep_alive = float(keep_alive)
    connection.decoder.maximum_packet_size = (
        limits.maximum_packet_size or core.limits.maximum_packet_size
    )
    data: bytes | None = CONNACK_3
    acknowledgement: ConnAck | None = None
    if connection.version5:
        acknowledgement = _description(connection, packet, answer)
        if expiry_interval != wanted:
            acknowledgement.session_expiry_interval = expiry_interval
        acknowledgement.assigned_client_identifier = assigned or None
        acknowledgement.server_keep_alive = keep_alive if keep_alive != packet.keep_alive else None
        data = encode_within(acknowledgement, MQTT_5, connection.maximum_packet_size)
        if data is None:  # known before anything changes
            raise ProtocolError(ReasonCode.PACKET_TOO_LARGE, "CONNACK does not fit")
    claim = core.sessions.claim(connection, packet.clean_start)
    session = connection.session = claim.session
    session.expiry_interval = expiry_interval
    session.username = connection.username
    core.sessions.set_bounds(session, limits)
    session.window = min(
        limits.maximum_inflight or core.limits.maximum_inflight,
        packet.receive_maximum or RECEIVE_MAXIMUM,
    )
    _set_profile(connection, session, packet)
    connection.handlers = connection.connected_handlers()
    if connection.authentication is not None:
        connection.authentication.running = False
    if claim.present:
        # What another connection has subscribed to meanwhile was allowed by its permissions.
        core.subscriptions.withhold(session, verdicts, others=False)
    if claim.present and packet.version != MQTT_3_1:
        data = _present(connection, acknowledgement)
    connection.will = will
    batch = core.recorder.session_opened(connection, session, claim.ended)
    assert data is not None
    connection.reply(
        data, batch, settled=lambda stored: _announced(connection, stored, claim.present)
    )


def _present(connection: Connection, acknowledgement: ConnAck | None) -> bytes | None:
    """CONNACK once more, with Session Present [MQTT-3.2.2-3]; as long as before."""
    if acknowledgement is None:
        return CONNACK_3_PRESENT
    acknowledgement.session_present = True
    return encode_within(acknowledgement, MQTT_5, connection.maximum_packet_size)


def _wanted_expiry(packet: Connect) -> int:
    if packet.version == MQTT_5:
        return packet.session_expiry_interval or 0
    return 0 if packet.clean_start else NEVER_EXPIRES


def _keep_alive(connection: Connection, packet: Connect, limits: ClientLimits) -> int:
    """The keep alive that holds, in seconds (3.2.2.3.14)."""
    keep_alive = packet.keep_alive
    if not connection.version5:
        return keep_alive  # MQTT 3 can't be told another one
    for maximum in (connection.core.settings.session.maximum_keep_alive, limits.maximum_keep_alive):
        if maximum is not None and not 0 < keep_alive <= maximum:
            keep_alive = maximum
    return keep_alive


def _set_profile(connection: Connection, session: Session, packet: Connect) -> None:
    core = connection.core
    profile = WIRE_3 if connection.mount is None else WIRE_OWN
    if packet.version == MQTT_5:
        aliases = min(packet.topic_alias_maximum, core.limits.outgoing_topic_aliases)
        if aliases:
            connection.outgoing_aliases = OutgoingAliases(aliases)
        alone = aliases or packet.maximum_packet_size or connection.mount is not None
        profile = WIRE_OWN if alone else WIRE_5
    session.version = packet.version
    if session.profile != profile:
        session.profile = profile
        core.router.forget_session(session)


def _description(connection: Connection, packet: Connect, answer: Allow) -> ConnAck:
    """What an MQTT 5 client is told of this server (3.2.2.3)."""
    acknowledgement = ConnAck()
    core = connection.core
    limits = answer.limits or NO_LIMITS
    extra = answer.properties or NO_PROPERTIES
    aliases = core.limits.topic_alias_maximum
    if limits.topic_alias_maximum is not None:
        aliases = limits.topic_alias_maximum
    connection.incoming_aliases = IncomingAliases(aliases)
    connection.receive_maximum = limits.receive_maximum or core.limits.receive_maximum
    acknowledgement.receive_maximum = connection.receive_maximum
    acknowledgement.maximum_packet_size = connection.decoder.maximum_packet_size
    acknowledgement.topic_alias_maximum = aliases or None
    if connection.maximum_qos < 2:
        acknowledgement.maximum_qos = connection.maximum_qos
    if not core.settings.session.retain_available:
        acknowledgement.retain_available = False
    acknowledgement.reason_string = extra.reason_string
    acknowledgement.user_properties = extra.user_properties
    if packet.request_response_information:  # [MQTT-3.1.2-28]
        acknowledgement.response_information = extra.response_information
    if packet.authentication_method is not None:  # [MQTT-4.12.0-5]
        acknowledgement.authentication_method = packet.authentication_method
        acknowledgement.authentication_data = answer.authentication_data
    return acknowledgement


def _announced(connection: Connection, stored: bool, present: bool) -> None:
    """CONNACK is out, and the messages may follow it [MQTT-3.2.0-1]; or the store could not."""
    core = connection.core
    if not stored:
        core.refuse(connection, ReasonCode.SERVER_UNAVAILABLE, "the store failed")
        return
    session = connection.session
    packet = connection.connect
    assert session is not None
    assert packet is not None
    connection.announced = True
    core.statistics.connections_opened += 1
    log.connected(
        connection.client_id,
        connection.username,
        str(connection.peer),
        connection.peer.listener,
        protocol_version=packet.version,
        keep_alive=connection.keep_alive,
        resumed=present,
    )
    hooks = core.hooks
    if hooks.client_connected:
        hooks.notify(
            hooks.client_connected,
            ClientConnectedEvent(
                connection.client,
                packet.clean_start,
                present,
                packet.keep_alive,
                packet.user_properties,
            ),
        )
    if hooks.session_opened:
        hooks.notify(
            hooks.session_opened,
            SessionOpenedEvent(connection.client, present, session.expiry_interval),
        )
    if connection.closed:
        return  # a plugin did not want it after all
    connection.forget_credentials()
    if connection.keep_alive:
        connection.watch(core.now + 1.5 * connection.keep_alive)
    if connection.credentials_expire_at >= 0:  # again: it may have been due before CONNACK was out
        connection.watch(connection.credentials_expire_at)
    if present:
        core.subscriptions.compile_again(session, "resume")
    session.outlet = connection
    core.deliveries.resume(session)
