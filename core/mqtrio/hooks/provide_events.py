"""What the hooks of the kind "provide" are told: the moments in the life of a plugin."""

from typing import Any

from attrs import define, field

from mqtrio.hooks.events import Event


@define(frozen=True)
class CheckSettingsEvent(Event):
    """A configuration is looked through; no broker starts."""


@define(frozen=True)
class StartEvent(Event):
    """The plugin is about to be used."""


@define(frozen=True)
class StopEvent(Event):
    """The plugin has had its last call, and its background task has ended."""


@define(frozen=True)
class OpenStoreEvent(Event):
    """The broker starts and wants its store."""


@define(frozen=True)
class LayersEvent(Event):
    """The broker wants to know the byte layers that listeners may be built from."""


@define(frozen=True)
class RunEvent(Event):
    """The broker has started; `broker` is its face for programs of this process.

    `nursery` is the plugin's own: what is started in it, also by other hooks, ends with the plugin,
    and what it raises counts as a crash of `run`.
    """

    broker: Any = field(repr=False)
    nursery: Any = field(default=None, repr=False)


@define(frozen=True)
class ReconfigureEvent(Event):
    """The configuration was read again; `settings` are the plugin's new ones."""

    settings: Any = field(repr=False)


@define(frozen=True)
class CommandsEvent(Event):
    """The command line is being put together."""


@define(frozen=True)
class HookspecsEvent(Event):
    """The plugin is being added and may bring hooks of its own."""
