"""Subcommands that installed plugins bring (the hook `commands`)."""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from mqtrio.errors import PluginError
from mqtrio.hooks import provide
from mqtrio.installed import InstalledPlugin, find_installed


@define(frozen=True)
class PluginCommands:
    """What `find_commands` has found."""

    functions: dict[str, Callable[[Sequence[str]], int]]
    #: Name of a command -> the plugin that brings it.
    owners: dict[str, InstalledPlugin]
    #: What is wrong with plugins that could not be asked, or bring what they may not.
    failures: tuple[str, ...]

    def get(self, name: str) -> Callable[[list[str]], int] | None:
        """Give what runs a command, or None; it raises PluginError for a wrong exit status."""
        function = self.functions.get(name)
        if function is None:
            return None

        def run(arguments: list[str]) -> int:
            status: Any = function(arguments)
            if not isinstance(status, int):
                raise PluginError(
                    f"{self.owners[name]}: its command {name!r} must return an exit status, "
                    f"not {type(status).__name__}"
                )
            return status

        return run


def find_commands(own: frozenset[str]) -> PluginCommands:
    """Ask all installed plugins; `own` are mqtrio's commands, which nobody may replace.

    This imports the plugins; one that fails harms no other.
    """
    installed = find_installed()
    functions: dict[str, Callable[[Sequence[str]], int]] = {}
    owners: dict[str, InstalledPlugin] = {}
    failures = []
    for name in installed.names:
        try:
            plugin = installed.get(name)
            brought = provide.commands(plugin.load())
        except PluginError as error:
            failures.append(str(error))
            continue
        for command, function in brought.items():
            if command in own or command in owners:
                other = owners.get(command, "mqtrio itself")
                failures.append(f"{plugin}: {other} has a command {command!r} already")
                continue
            functions[command] = function
            owners[command] = plugin
    return PluginCommands(functions, owners, tuple(failures))
