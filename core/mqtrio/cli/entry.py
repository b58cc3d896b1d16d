"""The entry point: from arguments to an exit code."""

import argparse
import importlib.metadata
import logging
import platform
import sys
from collections.abc import Sequence

from mqtrio.cli import serve
from mqtrio.cli.failure import leaves
from mqtrio.errors import ConfigurationError

log = logging.getLogger("mqtrio")

#: The subcommands: each module has `add(subparsers)`, which sets `run(arguments) -> exit code`.
COMMANDS = (serve,)

#: Exit codes: of success, of a broker that broke, of wrong arguments or configuration, of Ctrl-C.
SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: those of the process) name; give the exit code.

    What a person can mend (a wrong file, an address in use) is one message on standard error and
    exit code 2, never a traceback.
    """
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if "run" not in chosen:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        code: int = chosen.run(chosen)
    except* ConfigurationError as group:
        for error in leaves(group):
            print(f"{parser.prog}: {error}", file=sys.stderr)
        code = USAGE
    except* KeyboardInterrupt:  # while the broker isn't listening to signals yet, or any more
        code = INTERRUPTED
    except* Exception as group:
        log.critical("the broker has failed", exc_info=group)
        code = FAILURE
    return code


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="mqtrio",
        description="An MQTT broker: MQTT 3.1, 3.1.1 and 5.0, extended by plugins.",
        epilog="Each command explains itself: mqtrio serve --help",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _version() -> str:
    """Name what a report of a bug needs to name."""
    trio = importlib.metadata.version("trio")
    ours = importlib.metadata.version("mqtrio")
    return f"mqtrio {ours} (Python {platform.python_version()}, Trio {trio})"
