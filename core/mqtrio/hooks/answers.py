"""What a plugin answers with: plain values that say what to do and, in `why`, for what reason.

`why` goes to the log and to whoever asks for an explanation, never to the client; what the client
may read is `reason_string`. An answer that can't be right (a Deny with the code of a success)
raises ValueError where it is made, inside of the plugin, and so counts as that plugin's failure.

Making an answer costs about a microsecond: a hook that runs for each message makes its answers
once.
"""

import math
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, final

from attrs import Attribute, define, field
from attrs.validators import ge, in_, optional

from mqtrio.reasons import ReasonCode
from mqtrio.wire.packets import UserProperties

if TYPE_CHECKING:
    from mqtrio.hooks.events import PublishEvent, SubscribeEvent

T = TypeVar("T")

#: What most hooks may return: the answer, or something that gives the answer when awaited.
MaybeAwaitable: TypeAlias = T | Awaitable[T]


class Permissions(Protocol):
    """One more authorizer, for one client: what its credentials allow (the scopes of a token).

    Asked after the plugins, with the same rules: it may answer None, one Deny is final, and where
    permissions are given a publish or subscribe needs an Allow from them or from a plugin.
    """

    def authorize_publish(self, event: "PublishEvent", /) -> "MaybeAwaitable[Allow | Deny | None]":
        """Say whether the client may publish this message."""

    def authorize_subscribe(
        self, event: "SubscribeEvent", /
    ) -> "MaybeAwaitable[Allow | Deny | None]":
        """Say whether the client may subscribe to this topic filter."""


@final
@define(frozen=True, kw_only=True)
class ClientLimits:
    """What one client may ask of the broker, in place of the broker's settings; None keeps those.

    Durations in seconds, sizes in bytes.
    """

    receive_maximum: int | None = field(default=None, validator=optional(ge(1)))
    maximum_packet_size: int | None = field(default=None, validator=optional(ge(1)))
    topic_alias_maximum: int | None = field(default=None, validator=optional(ge(0)))
    maximum_inflight: int | None = field(default=None, validator=optional(ge(1)))
    maximum_expiry_interval: int | None = field(default=None, validator=optional(ge(0)))
    maximum_keep_alive: int | None = field(default=None, validator=optional(ge(1)))
    subscriptions: int | None = field(default=None, validator=optional(ge(0)))
    queue_messages: int | None = field(default=None, validator=optional(ge(1)))
    queue_bytes: int | None = field(default=None, validator=optional(ge(1)))


@final
@define(frozen=True, kw_only=True)
class ConnectionProperties:
    """What the CONNACK tells an MQTT 5 client beside what the broker says in it (3.2.2.3)."""

    reason_string: str | None = None
    user_properties: UserProperties = ()
    response_information: str | None = None


@final
@define(frozen=True, kw_only=True)
class Allow:
    """Yes.

    To `authenticate` every field has a meaning:

    - `username`: who the client is from now on; None keeps what it said.
    - `client_id`: the client identifier it gets; None keeps what it said. An MQTT 5 client is told
      so as Assigned Client Identifier.
    - `properties`: additions to the CONNACK.
    - `expires_at`: when the credentials end, in seconds since the epoch (`time.time()`); the client
      is disconnected then unless it has authenticated again.
    - `permissions`: one more authorizer for this client.
    - `limits`: what it may ask of the broker.
    - `max_qos`: the highest QoS it may publish with and is told of in CONNACK.
    - `authentication_data`: the last data of an enhanced authentication (4.12); never shown.

    To `authorize_publish` and `authorize_subscribe`:

    - `max_qos`: the highest QoS granted: a publish above it is denied, a subscription lowered.
    - `remember`: (publish) the answer holds for all later messages of this connection to the same
      topic, whatever their QoS, retain flag, payload and properties, until the client authenticates
      again or a plugin comes or goes. Remembered only if each authorizer said so.

    To `accept` and `admit` an Allow has no fields of meaning but `why`.
    """

    username: str | None = None
    client_id: str | None = None
    properties: ConnectionProperties | None = None
    expires_at: float | None = None
    permissions: Permissions | None = field(default=None, repr=False)
    limits: ClientLimits | None = None
    max_qos: int | None = field(default=None, validator=optional(in_((0, 1, 2))))
    authentication_data: bytes | None = field(default=None, repr=False)
    remember: bool = False
    why: str = ""


def _failure_code(reason_code: int) -> ReasonCode:
    code = ReasonCode(reason_code)
    if code < ReasonCode.UNSPECIFIED_ERROR:
        raise ValueError(f"0x{code:02X} is no reason code of a refusal: those are 0x80 and above")
    return code


@final
@define(frozen=True)
class Deny:
    """No, with the reason code for CONNACK, PUBACK, PUBREC, SUBACK or DISCONNECT.

    `reason_string` and `server_reference` (with USE_ANOTHER_SERVER, SERVER_MOVED) are sent to
    MQTT 5 clients. MQTT 3 gets the nearest return code that it has.
    """

    reason_code: ReasonCode = field(default=ReasonCode.NOT_AUTHORIZED, converter=_failure_code)
    reason_string: str | None = field(default=None, kw_only=True)
    server_reference: str | None = field(default=None, kw_only=True)
    why: str = field(default="", kw_only=True)


@final
@define(frozen=True)
class Challenge:
    """Not decided yet: an AUTH packet with `data` goes to the client, its answer comes back as the
    next AuthenticateEvent (enhanced authentication, 4.12). `data` is never shown.
    """

    data: bytes | None = field(default=None, repr=False)
    why: str = field(default="", kw_only=True)


@final
@define(frozen=True)
class Drop:
    """The message is acknowledged as a success and goes nowhere."""

    why: str = field(default="", kw_only=True)


@final
@define(frozen=True)
class Reject:
    """The message or subscription is refused with a reason code; the connection stays.

    MQTT 3 has no reason code in the acknowledgement of a message: there the client gets a plain one
    [MQTT-3.3.5-2 of 3.1.1].
    """

    reason_code: ReasonCode = field(
        default=ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, converter=_failure_code
    )
    reason_string: str | None = field(default=None, kw_only=True)
    why: str = field(default="", kw_only=True)


@final
@define(frozen=True)
class Close:
    """The message or subscription is refused, and the connection that it came by is closed.

    MQTT 5 clients get the reason code in a DISCONNECT.
    """

    reason_code: ReasonCode = field(
        default=ReasonCode.ADMINISTRATIVE_ACTION, converter=_failure_code
    )
    why: str = field(default="", kw_only=True)


def _positive(_: object, attribute: "Attribute[float]", value: float) -> None:
    if not (0 < value < math.inf):
        raise ValueError(f"{attribute.name} must be a positive number of seconds")


@final
@define(frozen=True)
class Throttle:
    """The message is accepted; nothing more is read from its client for so many seconds."""

    seconds: float = field(validator=_positive)
    why: str = field(default="", kw_only=True)
