"""From the answers of several plugins to one: who is asked, who wins, and what a failure means.

Those that may wait are generators. They yield only what must be awaited; the driver awaits it under
the hook's deadline and sends the value, or throws what was raised (trio.TooSlowError for a missed
deadline) into the generator. With synchronous hooks they run to the end without yielding.

The door stays closed: a decision that fails is a Deny, a transform that fails a Reject, and so is
an answer that the contract doesn't know. A plugin that was removed while another one was awaited is
not asked any more (it counts as None); an answer that it was already working on counts.
"""

import inspect
from collections.abc import Awaitable, Generator, Sequence
from time import perf_counter
from typing import Any, Final, TypeVar

import trio

from mqtrio.hooks.answers import (
    Allow,
    Challenge,
    Close,
    Deny,
    Drop,
    Permissions,
    Reject,
    Throttle,
)
from mqtrio.hooks.asked import Asked
from mqtrio.hooks.calls import Call, Calls, NonsenseAnswer, PermissionCall, nonsense
from mqtrio.hooks.check import check_message, check_subscription
from mqtrio.hooks.events import (
    AcceptEvent,
    AdmitEvent,
    AuthenticateEvent,
    ChangedMessage,
    DeliveryEvent,
    PublishEvent,
    SubscribeEvent,
)
from mqtrio.hooks.manager import default_allows_publish
from mqtrio.hooks.plugin import DeliveryFilter
from mqtrio.hooks.specs import HOOKS, Hook
from mqtrio.reasons import ALLOWED, ReasonCode
from mqtrio.state.topics import ANY_LEVELS

T = TypeVar("T")

#: A combiner: yields awaitables, is sent their values, returns the answer.
Steps = Generator[Awaitable[Any], Any, T]

ALLOW: Final = Allow()

_AUTHENTICATE: Final = HOOKS["authenticate"]
_ADMIT: Final = HOOKS["admit"]
_AUTHORIZE_PUBLISH: Final = HOOKS["authorize_publish"]
_AUTHORIZE_SUBSCRIBE: Final = HOOKS["authorize_subscribe"]
_TRANSFORM_PUBLISH: Final = HOOKS["transform_publish"]
_TRANSFORM_SUBSCRIBE: Final = HOOKS["transform_subscribe"]

#: The packet that carries a refusal of this hook -> the reason codes that it may carry.
_CODES: Final = {
    "authenticate": ALLOWED[2],
    "admit": ALLOWED[2],
    "authorize_publish": ALLOWED[4],
    "transform_publish": ALLOWED[4],
    "authorize_subscribe": ALLOWED[9],
    "transform_subscribe": ALLOWED[9],
}

#: (lowest QoS granted, remember) -> the answer of several authorizers together.
_TOGETHER: Final = {
    (qos, remember): Allow(max_qos=qos, remember=remember)
    for qos in (None, 0, 1, 2)
    for remember in (False, True)
}

NOBODY_ALLOWED: Final = Deny(why="nobody allowed it")
_NO_DOLLAR: Final = Deny(why="no plugin allows publishing to topics that begin with $")


class _Failed:
    """Marks that a call failed, apart from everything that a plugin may answer."""


_FAILED: Final = _Failed()


def _ask(call: Call, event: object, hook: Hook) -> Steps[Any]:
    """Call one plugin and wait for it; return its answer, None or _FAILED."""
    try:
        answer = call(event)
    except Exception as error:  # noqa: BLE001 - a plugin's, reported
        call.failed(error)
        return _FAILED
    return None if answer is None else (yield from _settle(call, answer, hook))


def _settle(call: Call, answer: object, hook: Hook, event: object = None) -> Steps[Any]:
    """Await an answer that is awaitable, and see that it is one that the hook knows.

    To a transform the `event` that it was given is one too: unchanged.
    """
    if type(answer) not in hook.answers and inspect.isawaitable(answer):
        call.begin()
        began = trio.current_time()
        try:
            answer = yield answer
        except Exception as error:  # noqa: BLE001 - a plugin's, reported
            call.waited(trio.current_time() - began)
            call.failed(error)
            return _FAILED
        finally:
            call.end()
        call.waited(trio.current_time() - began)
    if answer is None or answer is event:
        return answer
    kind = type(answer)
    if kind not in hook.answers:
        names = ", ".join(sorted(known.__name__ for known in hook.answers))
        call.failed(nonsense(answer, f"{names} or None"))
        return _FAILED
    if kind is Deny or kind is Reject or kind is Close:
        return _with_legal_code(call, answer, hook)
    return answer


def _with_legal_code(call: Call, answer: Any, hook: Hook) -> object:
    """A refusal by a reason code that its packet can't carry is a failure, and a refusal still."""
    codes = ALLOWED[14] if type(answer) is Close else _CODES[hook.name]
    if answer.reason_code in codes:
        return answer
    call.failed(
        NonsenseAnswer(
            f"answered with the reason code 0x{answer.reason_code:02X}, which may not stand there"
        )
    )
    return _FAILED


def _denied(call: Call) -> Deny:
    return Deny(ReasonCode.NOT_AUTHORIZED, why=f"{call.name} failed")


def _rejected(call: Call) -> Reject:
    return Reject(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, why=f"{call.name} failed")


# --- decide --------------------------------------------------------------------------------------


def accept(hooks: Asked, event: AcceptEvent) -> Allow | Deny:
    """All are asked; one Deny (or failure) refuses the connection."""
    for call in hooks.accept:
        call.calls += 1
        try:
            if call.calls < call.due:
                answer = call.function(event)
            else:
                answer = call.timed(event, call.calls)
        except Exception as error:  # noqa: BLE001 - a plugin's, reported
            call.failed(error)
            return _denied(call)
        if type(answer) is Deny:
            return answer
        if answer is not None and type(answer) is not Allow:
            call.failed(nonsense(answer, "Allow, Deny or None"))
            return _denied(call)
    return ALLOW


def authenticate(
    hooks: Asked, event: AuthenticateEvent, calls: Calls | None = None
) -> Steps[Allow | Deny | Challenge | None]:
    """The first Allow, Deny or Challenge of those (all) who are asked wins; None: no decision."""
    for call in hooks.authenticate if calls is None else calls:
        answer = yield from _ask(call, event, _AUTHENTICATE)
        if answer is _FAILED:
            return _denied(call)
        if answer is not None:
            decided: Allow | Deny | Challenge = answer
            return decided
    return None


def admit(hooks: Asked, event: AdmitEvent) -> Steps[Allow | Deny]:
    """All are asked; one Deny (or failure) is the veto."""
    for call in hooks.admit:
        answer = yield from _ask(call, event, _ADMIT)
        if answer is _FAILED:
            return _denied(call)
        if type(answer) is Deny:
            return answer
    return ALLOW


def authorize_publish(
    hooks: Asked, event: PublishEvent, permissions: Permissions | None = None
) -> Steps[Allow | Deny]:
    """All are asked, the permissions too; one Deny (or failure) denies, one Allow is needed.

    A QoS above an Allow's `max_qos` is denied. Where nobody is to be asked,
    `default_allows_publish` decides. An Allow with `remember` may be remembered by the caller.
    """
    decided = authorize_publish_now(hooks, event, permissions)
    if isinstance(decided, (Allow, Deny)):
        return decided
    return (yield from decided)


def authorize_publish_now(
    hooks: Asked, event: PublishEvent, permissions: Permissions | None = None
) -> Allow | Deny | Steps[Allow | Deny]:
    """Like authorize_publish, without the cost of a generator where nobody has to be waited for.

    Returns the decision; or, when a hook has answered with an awaitable, the steps to it.
    """
    calls = publish_authorizers(hooks, permissions)
    if not calls:
        return ALLOW if default_allows_publish(event.topic, event.origin) else _NO_DOLLAR
    return authorize(calls, event)


def publish_authorizers(hooks: Asked, permissions: Permissions | None) -> tuple[Call, ...]:
    """Who is to be asked about what a client publishes, in order."""
    if permissions is None:
        return hooks.authorize_publish
    tally = hooks.permissions["authorize_publish"]
    return (*hooks.authorize_publish, PermissionCall(tally, permissions.authorize_publish))


def authorize_subscribe(
    hooks: Asked, event: SubscribeEvent, permissions: Permissions | None = None
) -> Steps[Allow | Deny]:
    """All are asked, the permissions too; one Deny (or failure) denies, one Allow is needed.

    `max_qos` of the answer is the highest QoS to grant (None: any). Where nobody is to be asked,
    everything is allowed.
    """
    calls: tuple[Call, ...] = hooks.authorize_subscribe
    if permissions is not None:
        tally = hooks.permissions["authorize_subscribe"]
        calls = (*calls, PermissionCall(tally, permissions.authorize_subscribe))
    elif not calls:
        return ALLOW
    decided = authorize(calls, event, _AUTHORIZE_SUBSCRIBE)
    if isinstance(decided, (Allow, Deny)):
        return decided
    return (yield from decided)


def authorize(
    calls: Sequence[Call],
    event: PublishEvent | SubscribeEvent,
    hook: Hook = _AUTHORIZE_PUBLISH,
    first: Allow | None = None,
    remember: bool = True,
    max_qos: int | None = None,
) -> Allow | Deny | Steps[Allow | Deny]:
    """Ask these authorizers, of which there is one at least.

    `first`, `remember` and `max_qos` are what has come together of others' answers. Returns the
    decision or, when one has answered with an awaitable, the steps to it.
    """
    asked = 0
    for call in calls:
        asked += 1
        call.calls += 1
        try:
            if call.calls < call.due:
                answer = call.function(event)
            else:
                answer = call.timed(event, call.calls)
        except Exception as error:  # noqa: BLE001 - a plugin's, reported
            return failed(call, error)
        if answer is None:
            remember = False  # it has not said that it would say so again
            continue
        if type(answer) is not Allow:
            rest = calls[asked:]
            return _authorize_later(call, answer, rest, event, hook, first, remember, max_qos)
        if first is None:
            first = answer
        if not answer.remember:
            remember = False
        qos = answer.max_qos
        if qos is not None:
            if qos < 2:
                remember = False  # the next message may have another QoS
            if max_qos is None or qos < max_qos:
                max_qos = qos
    if first is None:
        return NOBODY_ALLOWED
    if max_qos is not None and hook is _AUTHORIZE_PUBLISH and event.qos > max_qos:
        return Deny(why=f"QoS {event.qos} is above the allowed {max_qos}")
    if first.remember is remember and first.max_qos == max_qos:
        return first
    return _TOGETHER[max_qos, remember]


def ruling(call: Call, answer: object, event: PublishEvent) -> Allow | Deny | Steps[Allow | Deny]:
    """What it comes to when a single authorizer has given this answer."""
    if answer is None:
        return NOBODY_ALLOWED
    if type(answer) is Allow:
        return authorize((call.answering(answer),), event)
    return _authorize_later(call, answer, (), event, _AUTHORIZE_PUBLISH, None, True, None)


def failed(call: Call, error: Exception) -> Deny:
    """What it comes to when an authorizer has raised."""
    call.failed(error)
    return _denied(call)


def _authorize_later(
    call: Call,
    answer: object,
    rest: Sequence[Call],
    event: PublishEvent | SubscribeEvent,
    hook: Hook,
    first: Allow | None,
    remember: bool,
    max_qos: int | None,
) -> Steps[Allow | Deny]:
    """Go on from an answer that is no Allow: a Deny, nonsense, or something to be awaited."""
    answer = yield from _settle(call, answer, hook)
    if answer is _FAILED:
        return _denied(call)
    if isinstance(answer, Deny):
        return answer
    rest = (call.answering(answer), *rest)
    decided = authorize(rest, event, hook, first, remember, max_qos)
    if isinstance(decided, (Allow, Deny)):
        return decided
    return (yield from decided)


# --- transform -----------------------------------------------------------------------------------


def transform_publish(
    hooks: Asked, event: PublishEvent, maximum_levels: int = ANY_LEVELS
) -> Steps[PublishEvent | Drop | Reject | Close]:
    """Chained: each plugin sees what the one before it has made. Drop, Reject and Close end it.

    Returns the message as it goes on: `event` itself where nobody changed it, else a ChangedMessage
    that has been checked like a packet (its topic with `maximum_levels`). `event.throttle` (the one
    given, whatever is returned) then holds the longest pause that was asked for, 0.0 for none.
    """
    message = event
    for call in hooks.transform_publish:
        call.calls += 1
        try:
            if call.calls < call.due:
                answer = call.function(message)
            else:
                answer = call.timed(message, call.calls)
        except Exception as error:  # noqa: BLE001 - a plugin's, reported
            call.failed(error)
            return _rejected(call)
        if answer is None or answer is message:
            continue
        kind = type(answer)
        if kind is not ChangedMessage:
            answer = yield from _settle(call, answer, _TRANSFORM_PUBLISH, message)
            if answer is None or answer is message:
                continue
            kind = type(answer)
        if kind is ChangedMessage:
            try:
                check_message(answer, message, maximum_levels)
            except ValueError as error:
                call.failed(NonsenseAnswer(f"answered with a message that can't be: {error}"))
                return _rejected(call)
            message = answer
        elif kind is Throttle:
            event.throttle = max(event.throttle, answer.seconds)
        elif answer is _FAILED:
            return _rejected(call)
        else:
            refused: Drop | Reject | Close = answer
            return refused
    return message


def transform_subscribe(
    hooks: Asked, event: SubscribeEvent, maximum_levels: int = ANY_LEVELS
) -> Steps[SubscribeEvent | Reject | Close]:
    """Chained like transform_publish; returns the request as it goes on, or the refusal."""
    request = event
    for call in hooks.transform_subscribe:
        answer = yield from _ask(call, request, _TRANSFORM_SUBSCRIBE)
        if answer is None or answer is request:
            continue
        if answer is _FAILED:
            return _rejected(call)
        if type(answer) is not SubscribeEvent:
            refused: Reject | Close = answer
            return refused
        try:
            check_subscription(answer, request, maximum_levels)
        except ValueError as error:
            call.failed(NonsenseAnswer(f"answered with a request that can't be: {error}"))
            return _rejected(call)
        request = answer
    return request


# --- delivery ------------------------------------------------------------------------------------


def compile_delivery(hooks: Asked, event: DeliveryEvent) -> DeliveryFilter | None:
    """One filter for all that a subscription delivers, or None where no plugin wants one.

    The filter is called with the PublishEvent of the message and returns it (deliver as it is), a
    ChangedMessage (deliver this; topic, payload, qos, retain and properties count) or None (don't).
    Filters are chained in the order of the plugins. One that fails drops that delivery; a plugin
    that fails to make one lets nothing through.
    """
    filters: list[DeliveryFilter] = []
    for call in hooks.compile_delivery:
        try:
            made = call(event)
        except Exception as error:  # noqa: BLE001 - a plugin's, reported
            call.failed(error)
            return deliver_nothing
        if made is None:
            continue
        if not callable(made) or inspect.iscoroutinefunction(made):
            call.failed(nonsense(made, "a function or None"))
            return deliver_nothing
        filters.append(_checked(hooks.delivery_filters.get(call.plugin, call), made))
    if len(filters) < 2:
        return filters[0] if filters else None

    def all_of_them(message: PublishEvent) -> PublishEvent | None:
        for step in filters:
            after = step(message)
            if after is None:
                return None
            message = after
        return message

    return all_of_them


def _checked(call: Call, function: DeliveryFilter) -> DeliveryFilter:
    """A plugin's filter, counted, that drops what it fails on."""

    def checked(message: PublishEvent) -> PublishEvent | None:
        call.calls += 1
        begin = perf_counter() if call.calls >= call.due else 0.0
        try:
            answer = function(message)
            if begin:
                call.took(perf_counter() - begin, call.calls)
            if answer is message or answer is None:
                return answer
            if type(answer) is not ChangedMessage:
                raise nonsense(answer, "the event, event.changed(...) or None")
            check_message(answer, message, ANY_LEVELS)
        except Exception as error:  # noqa: BLE001 - a plugin's, reported
            call.failed(error)
            return None
        return answer

    return checked


def deliver_nothing(message: PublishEvent) -> PublishEvent | None:
    """The filter of a subscription whose filter could not be made."""
    return None
