"""The entry point: from arguments to an exit code."""

import argparse
import importlib.metadata
import logging
import os
import platform
import sys
from collections.abc import Sequence

from mqtrio.cli import check, config_reference, explain, new_plugin, plugins, serve
from mqtrio.cli.failure import leaves
from mqtrio.cli.plugin_commands import PluginCommands, find_commands
from mqtrio.errors import ConfigurationError, PluginError, StoreError

log = logging.getLogger("mqtrio")

#: The subcommands: each module has `add(subparsers)`, which sets `run(arguments) -> exit code`.
COMMANDS = (serve, check, plugins, explain, config_reference, new_plugin)

#: Exit codes: of success, of a broker that broke, of wrong arguments or configuration, of Ctrl-C.
SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: those of the process) name; give the exit code.

    What a person can mend (a wrong file, an address in use) is one message on standard error and
    exit code 2, never a traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    failure = explain.BROKEN if given[:1] == ["explain"] else FAILURE
    try:
        code = _run(given)
        sys.stdout.flush()  # now, as what fails later is told by the interpreter
    except* (ConfigurationError, PluginError) as group:
        for error in leaves(group):
            print(f"mqtrio: {error}", file=sys.stderr)
        code = USAGE
    except* StoreError as group:  # of a broker that ran, and whose disk is what must be mended
        for error in leaves(group):
            print(f"mqtrio: {error}", file=sys.stderr)
        code = FAILURE
    except* BrokenPipeError:  # whoever was reading has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = failure
    except* KeyboardInterrupt:  # while the broker isn't listening to signals yet, or any more
        code = INTERRUPTED
    except* Exception as group:
        log.critical("the broker has failed", exc_info=group)
        code = failure
    return code


def _run(given: list[str]) -> int:
    parser, own = make_parser()
    first = given[0] if given else "--help"
    if first in own or (first.startswith("-") and first not in ("-h", "--help")):
        chosen = parser.parse_args(given)
        code: int = chosen.run(chosen)
        return code
    brought = find_commands(own)
    function = brought.get(first)
    if function is not None:
        return function(given[1:])
    parser.epilog = f"{_of_plugins(brought)}{parser.epilog}"
    if not given:
        parser.print_help(sys.stderr)
        return USAGE
    for text in brought.failures:  # one of them may be what was meant
        print(f"mqtrio: {text}", file=sys.stderr)
    parser.parse_args(given)
    raise AssertionError("argparse ends with --help and with unknown commands")


def make_parser() -> tuple[argparse.ArgumentParser, frozenset[str]]:
    """Make the parser of the commands that are mqtrio's own, and give their names."""
    parser = argparse.ArgumentParser(
        prog="mqtrio",
        description="An MQTT broker: MQTT 3.1, 3.1.1 and 5.0, extended by plugins.",
        epilog="Each command explains itself: mqtrio serve --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser, frozenset(commands.choices)


def _of_plugins(brought: PluginCommands) -> str:
    """List the commands of plugins for the help."""
    if not brought.owners:
        return ""
    width = max(map(len, brought.owners))
    lines = (f"  {name:{width}}  {owner}" for name, owner in sorted(brought.owners.items()))
    return "\n".join(("commands of plugins:", *lines, "", ""))


def _version() -> str:
    """Name what a report of a bug needs to name."""
    trio = importlib.metadata.version("trio")
    ours = importlib.metadata.version("mqtrio")
    return f"mqtrio {ours} (Python {platform.python_version()}, Trio {trio})"
