"""The base class of plugins: every hook of mqtrio with its signature and its meaning.

The same methods are the specifications that pluggy checks a plugin against.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from mqtrio.hooks.answers import (
    Allow,
    Challenge,
    Close,
    Deny,
    Drop,
    MaybeAwaitable,
    Reject,
    Throttle,
)
from mqtrio.hooks.events import (
    AcceptEvent,
    AcknowledgedEvent,
    AdmitEvent,
    AuthenticateEvent,
    ClientConnectedEvent,
    ClientDisconnectedEvent,
    ConnectionRefusedEvent,
    DeliveredEvent,
    DeliveryEvent,
    DroppedEvent,
    PluginFailedEvent,
    PublishedEvent,
    PublishEvent,
    RetainedChangedEvent,
    SessionEndedEvent,
    SessionOpenedEvent,
    SubscribedEvent,
    SubscribeEvent,
    UnsubscribedEvent,
)
from mqtrio.hooks.layers import LayerProvider
from mqtrio.hooks.provide_events import (
    CheckSettingsEvent,
    CommandsEvent,
    HookspecsEvent,
    LayersEvent,
    OpenStoreEvent,
    ReconfigureEvent,
    RunEvent,
    StartEvent,
    StopEvent,
)
from mqtrio.hooks.specs import API_VERSION, hookspec

Settings = TypeVar("Settings")

#: What compile_delivery returns: called with each message for one subscription, it returns the same
#: event (deliver as it is), `event.changed(...)` (deliver this) or None (don't deliver).
DeliveryFilter = Callable[[PublishEvent], PublishEvent | None]


class Plugin(Generic[Settings]):
    """Base of plugins: `class Greeter(Plugin[GreeterSettings])` with methods marked `@hookimpl`.

    Only marked methods are called. A plugin does no I/O before its hooks run. `name` is the name of
    this instance. The base class isn't needed (any object with marked methods may be a plugin), but
    with it a wrong override is an error of the type checker.
    """

    #: The version of the hooks that the plugin was written for; say it in your class: `api = 1`.
    api: ClassVar[int] = API_VERSION

    #: Whether two of one name may never run side by side, not even while one replaces the other at
    #: a reload: the old one is stopped before the new one starts.
    exclusive: ClassVar[bool] = False

    #: Whether the broker stops, with an error, when the background task (`run`) has failed for
    #: good. The configuration says it anew for each instance.
    required: bool = False

    #: The distribution and version that a configuration has found it in; "" for a program's own.
    origin: str = ""

    def __init__(self, settings: Settings, *, name: str) -> None:
        self.settings = settings
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self.name!r}>"

    # --- provide ---------------------------------------------------------------------------------

    @hookspec
    def check_settings(self, event: CheckSettingsEvent) -> MaybeAwaitable[None]:
        """Read what the settings name, raise for what is wrong with it, and leave nothing behind.

        `mqtrio check` asks an instance that is never started.
        """
        return None

    @hookspec
    def start(self, event: StartEvent) -> MaybeAwaitable[None]:
        """Get ready: read what the settings name, before any other hook of the plugin is called."""
        return None

    @hookspec
    def stop(self, event: StopEvent) -> MaybeAwaitable[None]:
        """Let go of what `start` took; no other hook of the plugin is called any more."""
        return None

    @hookspec
    def open_store(self, event: OpenStoreEvent) -> MaybeAwaitable[Any]:
        """Return the Store (mqtrio.store.protocol) that the broker keeps its state in, or None."""
        return None

    @classmethod
    @hookspec
    def layers(cls, event: LayersEvent) -> Mapping[str, LayerProvider]:
        """Return the byte layers that the plugin brings, by name: those of listeners' schemes.

        A class method, because a configuration is read before there are instances.
        """
        return {}

    @hookspec
    def run(self, event: RunEvent) -> Awaitable[None]:
        """Work in the background for as long as the broker runs (`async def`)."""
        raise NotImplementedError

    @hookspec
    def reconfigure(self, event: ReconfigureEvent) -> MaybeAwaitable[Callable[[], None] | None]:
        """Check new settings and read what they name; return the function that puts them in force.

        That function must not fail. Raise to refuse the settings: the old ones stay in force.
        """
        return None

    @classmethod
    @hookspec
    def commands(cls, event: CommandsEvent) -> Mapping[str, Callable[[Sequence[str]], int]]:
        """Return subcommands of the command line: name -> function of arguments to exit status.

        A class method: a command works without a configuration, so there is no instance.
        """
        return {}

    @hookspec
    def hookspecs(self, event: HookspecsEvent) -> Any:
        """Return a class or module with functions marked `@hookspec`: hooks that the plugin brings.

        It calls them itself (`broker.hook`); plugins that implement them are added after it.
        """
        return None

    # --- decide ----------------------------------------------------------------------------------

    @hookspec
    def accept(self, event: AcceptEvent) -> Allow | Deny | None:
        """Say whether to talk to whoever has just connected, before a byte is read."""
        return None

    @hookspec
    def authenticate(
        self, event: AuthenticateEvent
    ) -> MaybeAwaitable[Allow | Deny | Challenge | None]:
        """Say who a client is: Allow, Deny, a Challenge, or None to leave it to the next plugin."""
        return None

    @hookspec
    def admit(self, event: AdmitEvent) -> MaybeAwaitable[Allow | Deny | None]:
        """Veto a client whose identity is known, before its session is taken over or opened."""
        return None

    @hookspec
    def authorize_publish(self, event: PublishEvent) -> MaybeAwaitable[Allow | Deny | None]:
        """Say whether this message may be published, whatever its origin."""
        return None

    @hookspec
    def authorize_subscribe(self, event: SubscribeEvent) -> MaybeAwaitable[Allow | Deny | None]:
        """Say whether a client may subscribe to a topic filter, and up to which QoS (`max_qos`)."""
        return None

    # --- transform -------------------------------------------------------------------------------

    @hookspec
    def transform_publish(
        self, event: PublishEvent
    ) -> MaybeAwaitable[PublishEvent | Drop | Reject | Close | Throttle | None]:
        """Change a message before it is stored and routed, or refuse it.

        Answer `event.changed(...)`; None (or the event itself) leaves the message as it is.
        """
        return None

    @hookspec
    def transform_subscribe(
        self, event: SubscribeEvent
    ) -> MaybeAwaitable[SubscribeEvent | Reject | Close | None]:
        """Change what a client subscribes to: answer `event.changed(...)`, or refuse it."""
        return None

    @hookspec
    def compile_delivery(self, event: DeliveryEvent) -> DeliveryFilter | None:
        """Return a filter for what one subscription delivers, or None for no filter."""
        return None

    # --- observe ---------------------------------------------------------------------------------

    @hookspec
    def client_connected(self, event: ClientConnectedEvent) -> None:
        """A client was let in."""

    @hookspec
    def client_disconnected(self, event: ClientDisconnectedEvent) -> None:
        """The connection of a client that had been let in is over."""

    @hookspec
    def connection_refused(self, event: ConnectionRefusedEvent) -> None:
        """A connection ended without having been let in."""

    @hookspec
    def session_opened(self, event: SessionOpenedEvent) -> None:
        """A session has begun or goes on with a new connection."""

    @hookspec
    def session_ended(self, event: SessionEndedEvent) -> None:
        """A session is gone with all that waited in it."""

    @hookspec
    def subscribed(self, event: SubscribedEvent) -> None:
        """A subscription was made or replaced."""

    @hookspec
    def unsubscribed(self, event: UnsubscribedEvent) -> None:
        """A client has ended a subscription."""

    @hookspec
    def published(self, event: PublishedEvent) -> None:
        """A message was accepted and routed, as `event` shows it, after all transforms."""

    @hookspec
    def delivered(self, event: DeliveredEvent) -> None:
        """A message was put on the way to one client."""

    @hookspec
    def acknowledged(self, event: AcknowledgedEvent) -> None:
        """A client has acknowledged a message that it got with QoS 1 or 2."""

    @hookspec
    def dropped(self, event: DroppedEvent) -> None:
        """A message was dropped for one client, or for all."""

    @hookspec
    def retained_changed(self, event: RetainedChangedEvent) -> None:
        """The retained message of a topic has changed."""

    @hookspec
    def plugin_failed(self, event: PluginFailedEvent) -> None:
        """A hook of some plugin failed. What fails in here is counted and logged, not told on."""
