"""`mqtrio check`: look through a configuration without starting anything."""

import argparse
from typing import Any

import trio

from mqtrio.config import Configuration, load_config
from mqtrio.engine.doors import Doors
from mqtrio.errors import ConfigurationError, MqtrioError, PluginError
from mqtrio.hooks import provide
from mqtrio.hooks.manager import HookManager
from mqtrio.net.addresses import parse_listener
from mqtrio.reload import reachable
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
    trio.run(_ask, configuration)
    listeners = len(configuration.settings.listener)
    names = ", ".join(spec.name for spec in configuration.plugins) or "none"
    print(f"{arguments.config}: no errors; listeners: {listeners or 'default'}; plugins: {names}")
    return 0


async def _ask(configuration: Configuration) -> None:
    """Ask plugins and layers about what their settings name, and see who gets in.

    Raises all errors.
    """
    hooks = HookManager()
    errors: list[MqtrioError] = []
    plugins = configuration.make_plugins()
    for plugin in plugins:
        hooks.add(plugin)
    for entry in hooks.entries:
        try:
            await provide.check_settings(entry)
        except PluginError as error:
            errors.append(error)
    listeners = configuration.settings.listener
    for listener in listeners:
        try:
            await make_stacks([listener], brought_by(plugins))
        except MqtrioError as error:
            errors.append(error)
    try:
        outside = {each.url for each in listeners if parse_listener(each.url).local is False}
        Doors(hooks).set(reachable(listeners, outside))
    except ConfigurationError as error:
        errors.append(error)
    if errors:
        raise ExceptionGroup("the configuration is wrong", errors)
