"""`mqtrio check`: look through a configuration without starting anything."""

import argparse
from typing import Any

from mqtrio.config import load_config


def add(commands: Any) -> None:
    """Add the arguments of this command to a parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="look through a configuration, start nothing",
        description="Read a configuration, import the plugins that it enables and check their "
        "settings and hooks. Nothing is started: no file that a plugin names is read. The exit "
        "code is 0 if all is well, and 2 with all errors on standard error.",
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="what is looked through")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check; whatever is wrong is raised."""
    configuration = load_config(arguments.config)
    configuration.make_plugins()
    listeners = len(configuration.settings.listener)
    names = ", ".join(spec.name for spec in configuration.plugins) or "none"
    print(f"{arguments.config}: no errors; listeners: {listeners or 'default'}; plugins: {names}")
    return 0
