"""`mqtrio config-reference`: every setting there is, from the classes that read them."""

import argparse
import json
import sys
from typing import Any

from mqtrio.config.reference import as_data, core_sections, plugin_sections, reference
from mqtrio.installed import find_installed


def add(commands: Any) -> None:
    """Add the arguments of this command to a parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "config-reference",
        help="show every setting of the broker and of the installed plugins",
        description="Write every setting with type, default and meaning, as Markdown.",
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write it; a plugin that can't be described is told on standard error, exit code 2."""
    parts, errors = plugin_sections(find_installed())
    parts = [*core_sections(), *parts]
    if arguments.json:
        print(json.dumps([as_data(part) for part in parts], indent=2))
    else:
        print(reference(parts))
    for error in errors:
        print(f"mqtrio: {error}", file=sys.stderr)
    return 2 if errors else 0
