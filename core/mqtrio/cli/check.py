"""`mqtrio check`: look through a configuration without starting anything."""

import argparse
from collections.abc import Collection, Iterable
from typing import Any

import trio

from mqtrio.config import load_config
from mqtrio.errors import MqtrioError, PluginError
from mqtrio.hooks import provide
from mqtrio.hooks.manager import HookManager
from mqtrio.settings import Listener
from mqtrio.stacks import brought_by, make_stacks


def add(commands: Any) -> None:
    """Add the arguments of this command to a parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="look through a configuration, start nothing",
        description="Read a configuration, import the plugins that it enables and check their "
        "settings and hooks, and what the settings name: files of users, of rules, certificates. "
        "Nothing is started. The exit code is 0 if all is well, and 2 with all errors on standard "
        "error.",
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="what is looked through")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check; whatever is wrong is raised."""
    configuration = load_config(arguments.config)
    trio.run(_ask, configuration.make_plugins(), configuration.settings.listener)
    listeners = len(configuration.settings.listener)
    names = ", ".join(spec.name for spec in configuration.plugins) or "none"
    print(f"{arguments.config}: no errors; listeners: {listeners or 'default'}; plugins: {names}")
    return 0


async def _ask(plugins: Collection[object], listeners: Iterable[Listener]) -> None:
    """Have each plugin, and each layer, look at what its settings name.

    Raises PluginError with all errors.
    """
    hooks = HookManager()
    errors = []
    for plugin in plugins:
        try:
            await provide.check_settings(hooks.prepare(plugin))
        except PluginError as error:
            errors.append(str(error))
    for listener in listeners:
        try:
            await make_stacks([listener], brought_by(plugins))
        except MqtrioError as error:
            errors.append(str(error))
    if errors:
        raise PluginError("\n".join(errors))
