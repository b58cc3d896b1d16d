"""The table of hooks, and the marker by which a plugin's method becomes one.

What each hook is told and may answer stands in plugin.py, typed; this table says the rest of it:
its kind, whether it may be asynchronous, and which answers are legal.
"""

from collections.abc import Mapping
from typing import Final, Literal

import pluggy
from attrs import define

from mqtrio.hooks.answers import Allow, Challenge, Close, Deny, Drop, Reject, Throttle
from mqtrio.hooks.events import ChangedMessage, SubscribeEvent

PROJECT: Final = "mqtrio"

#: Version of the hooks that this mqtrio calls. A plugin says in `api` which one it was written for.
API_VERSION: Final = 1

#: Marks a method of a plugin as the implementation of the hook of the same name. Options that
#: change pluggy's order (wrapper, hookwrapper, tryfirst, trylast) are refused: the order of
#: plugins is the order in which they were added.
hookimpl: Final = pluggy.HookimplMarker(PROJECT)

#: Marks a method of a class or a function of a module as the specification of a hook, for plugins
#: that bring hooks of their own (see `hookspecs`).
hookspec: Final = pluggy.HookspecMarker(PROJECT)

#: What the broker does with the hook: asks for a thing; asks for a decision; lets it change what
#: passes; tells it what has happened.
#: `contributed`: the hook was brought by a plugin, which calls it by rules of its own.
Kind = Literal["provide", "decide", "transform", "observe", "contributed"]


@define(frozen=True)
class Hook:
    """One row of the table. `awaits`: an implementation may be `async def` or return an awaitable.

    `answers`: the types of legal answers beside None; empty where any value is looked at elsewhere
    (provide) or none is expected (observe).
    """

    name: str
    kind: Kind
    awaits: bool
    answers: frozenset[type] = frozenset()


_CONSENT: Final = frozenset({Allow, Deny})

HOOKS: Final[Mapping[str, Hook]] = {
    hook.name: hook
    for hook in (
        Hook("check_settings", "provide", awaits=True),
        Hook("start", "provide", awaits=True),
        Hook("stop", "provide", awaits=True),
        Hook("open_store", "provide", awaits=True),
        Hook("layers", "provide", awaits=False),
        Hook("run", "provide", awaits=True),
        Hook("reconfigure", "provide", awaits=True),
        Hook("commands", "provide", awaits=False),
        Hook("hookspecs", "provide", awaits=False),
        Hook("accept", "decide", awaits=False, answers=_CONSENT),
        Hook("authenticate", "decide", awaits=True, answers=_CONSENT | {Challenge}),
        Hook("admit", "decide", awaits=True, answers=_CONSENT),
        Hook("authorize_publish", "decide", awaits=True, answers=_CONSENT),
        Hook("authorize_subscribe", "decide", awaits=True, answers=_CONSENT),
        Hook(
            "transform_publish",
            "transform",
            awaits=True,
            answers=frozenset({ChangedMessage, Drop, Reject, Close, Throttle}),
        ),
        Hook(
            "transform_subscribe",
            "transform",
            awaits=True,
            answers=frozenset({SubscribeEvent, Reject, Close}),
        ),
        Hook("compile_delivery", "transform", awaits=False),
        Hook("client_connected", "observe", awaits=False),
        Hook("client_disconnected", "observe", awaits=False),
        Hook("connection_refused", "observe", awaits=False),
        Hook("session_opened", "observe", awaits=False),
        Hook("session_ended", "observe", awaits=False),
        Hook("subscribed", "observe", awaits=False),
        Hook("unsubscribed", "observe", awaits=False),
        Hook("published", "observe", awaits=False),
        Hook("delivered", "observe", awaits=False),
        Hook("acknowledged", "observe", awaits=False),
        Hook("dropped", "observe", awaits=False),
        Hook("retained_changed", "observe", awaits=False),
        Hook("plugin_failed", "observe", awaits=False),
    )
}
