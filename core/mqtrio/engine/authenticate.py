"""Enhanced authentication and re-authentication (4.12), and what an Allow gives."""

from typing import Final

from mqtrio.engine.connection import Connection
from mqtrio.engine.convert import event_of
from mqtrio.engine.steps import Steps, detach
from mqtrio.engine.wills import PendingWill
from mqtrio.errors import ProtocolError
from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow, Challenge, Deny
from mqtrio.hooks.events import AuthenticateEvent
from mqtrio.hooks.ruling import ruling_of
from mqtrio.reasons import ALLOWED, ReasonCode
from mqtrio.store.batch import COMMITTED
from mqtrio.wire.packets import Auth, Connect

DISCONNECT: Final = 14


class Exchange:
    """An enhanced authentication that is going on, or the method for the next one (4.12).

    `asked`: the plugins think about the client's last AUTH of a re-authentication.
    """

    __slots__ = ("method", "round", "running", "asked")

    def __init__(self, method: str) -> None:
        self.method = method
        self.round = 0
        self.running = True
        self.asked = False


def event_for(connection: Connection, packet: Connect, data: bytes | None) -> AuthenticateEvent:
    """What the plugins are asked in this round."""
    exchange = connection.authentication
    return AuthenticateEvent(
        connection.client,
        packet.password,
        packet.authentication_method,
        data,
        exchange.round if exchange is not None else 0,
        connection.announced,
        packet.clean_start,
        packet.keep_alive,
        packet.session_expiry_interval or 0,
        packet.will,
        packet.user_properties,
    )


def challenge_client(connection: Connection, challenge: Challenge) -> None:
    """Send what a plugin wants to have answered [MQTT-4.12.0-2]."""
    exchange = connection.authentication
    if exchange is None:  # [MQTT-4.12.0-6]
        connection.core.refuse(
            connection, ReasonCode.NOT_AUTHORIZED, "this client can't answer a challenge"
        )
        return
    exchange.round += 1
    if not connection.announced:
        connection.handlers = connection.core.handlers.AUTHENTICATING
    connection.send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, exchange.method, challenge.data))


def on_auth(connection: Connection, packet: Auth) -> None:
    """Re-authentication (4.12.1): it goes on beside the other traffic."""
    exchange = connection.authentication
    if exchange is None:  # [MQTT-4.12.0-7]
        raise ProtocolError(
            ReasonCode.PROTOCOL_ERROR, "AUTH without an authentication method in CONNECT"
        )
    check_method(exchange, packet)  # [MQTT-4.12.1-1]
    again = packet.reason_code == ReasonCode.RE_AUTHENTICATE
    if not again and (
        not exchange.running or packet.reason_code != ReasonCode.CONTINUE_AUTHENTICATION
    ):
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "this AUTH does not fit here")
    if exchange.asked:  # or a flood of AUTH were as many tasks
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "AUTH before the last one was answered")
    if again:
        exchange.round = 0
        exchange.running = True
        set_deadline(connection)
    exchange.asked = True
    detach(connection.core, _reauthenticate(connection, packet), connection)


def set_deadline(connection: Connection) -> None:
    """An exchange of AUTH packets begins: it must end in time."""
    core = connection.core
    connection.deadline = core.now + core.limits.authentication_timeout
    connection.watch(connection.deadline)


def check_method(exchange: Exchange, packet: Auth) -> None:
    """The method is the same throughout [MQTT-4.12.0-5], [MQTT-4.12.1-1]."""
    if packet.authentication_method != exchange.method:
        raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "the authentication method has changed")


def _reauthenticate(connection: Connection, packet: Auth) -> Steps:
    core = connection.core
    connect = connection.connect
    exchange = connection.authentication
    assert connect is not None
    assert exchange is not None
    event = event_for(connection, connect, packet.authentication_data)
    calls = core.doors.authenticators(connection.peer.listener)
    answer = yield from combine.authenticate(core.hooks, event, calls)
    if connection.closed:
        return
    if isinstance(answer, Challenge):
        exchange.asked = False
        challenge_client(connection, answer)
        return
    if not isinstance(answer, Allow):  # [MQTT-4.12.1-2]
        denied = answer if isinstance(answer, Deny) else Deny()
        # It was an answer to CONNECT; not all of those can stand in a DISCONNECT (3.14.2.1).
        fits = denied.reason_code in ALLOWED[DISCONNECT]
        code = denied.reason_code if fits else ReasonCode.NOT_AUTHORIZED
        why = denied.reason_string or "re-authentication failed"
        connection.disconnect(code, why, denied.server_reference)
        return
    if answer.username is not None and answer.username != connection.username:
        connection.close(ReasonCode.NOT_AUTHORIZED, "re-authentication as somebody else")
        return
    exchange.running = False
    grant(connection, answer)
    yield from _apply_permissions(connection)
    exchange.asked = False  # not before: older permissions must not follow newer ones
    connection.send(Auth(ReasonCode.SUCCESS, exchange.method, answer.authentication_data))


def _apply_permissions(connection: Connection) -> Steps:
    """What the client may do has changed: for its will, and for its live subscriptions."""
    core = connection.core
    session = connection.session
    will = connection.will
    assert session is not None
    if will is not None:
        will.permissions = connection.permissions
        will.ruling = yield from will_ruling(connection, will)
    verdicts = yield from core.subscriptions.judged(session, connection)
    if connection.closed:
        return
    # What the client has subscribed to meanwhile was allowed by its new permissions.
    core.subscriptions.withhold(session, verdicts, others=True)
    core.subscriptions.compile_again(session, "reauthenticate")
    if session.stored:  # with the new end of its credentials, and what is to become of its will
        core.recorder.session_opened(connection, session, COMMITTED)


def will_ruling(connection: Connection, will: PendingWill) -> Steps:
    """What the client's permissions say of its will, for a broker that has them no more."""
    core = connection.core
    if connection.permissions is None or not core.recorder.active:
        return ""
    event = event_of(core, will.message(core.now))
    return (yield from ruling_of(core.hooks, event, connection.permissions))


def grant(connection: Connection, answer: Allow) -> None:
    """What an Allow gives beside the entrance itself."""
    core = connection.core
    connection.permissions = answer.permissions
    connection.ask_again()
    connection.limits = answer.limits
    maximum: int = core.settings.session.maximum_qos
    connection.maximum_qos = maximum if answer.max_qos is None else min(maximum, answer.max_qos)
    connection.credentials_expire_at = -1.0
    if answer.expires_at is not None:
        # Below 0 means never, and 0 is as far in the past as any other moment.
        connection.credentials_expire_at = max(0.0, core.clock.to_monotonic(answer.expires_at))
        connection.watch(connection.credentials_expire_at)
