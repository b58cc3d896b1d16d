"""`mqtrio plugins`: which plugins are installed and enabled, what they take, who is asked when."""

import argparse
import inspect
import json
import sys
from typing import Any

from mqtrio.cli.tables import table
from mqtrio.config import Configuration, PluginSpec, load_config
from mqtrio.config.reference import as_data, plugin_section
from mqtrio.errors import PluginError
from mqtrio.hooks import provide
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.specs import HOOKS
from mqtrio.installed import InstalledPlugin, find_installed


def add(commands: Any) -> None:
    """Add the arguments of this command to a parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plugins",
        help="show installed and enabled plugins",
        description="Show which plugins are installed, which a configuration enables, what "
        "settings they take, and in which order they are asked.",
    )
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = inner.add_parser("list", help="all installed plugins")
    show = inner.add_parser("show", help="one plugin: its hooks, commands and settings")
    show.add_argument("name", metavar="NAME", help="as it is installed, or called in CONFIG.toml")
    order = inner.add_parser("order", help="for each hook, who is asked in which order")
    for each, run in ((listing, run_list), (show, run_show), (order, run_order)):
        each.add_argument("config", nargs="?", metavar="CONFIG.toml", help="what enables plugins")
        each.add_argument("--json", action="store_true", help="write JSON instead of a table")
        each.set_defaults(run=run)


def _configuration(arguments: argparse.Namespace) -> Configuration:
    return load_config(arguments.config) if arguments.config else Configuration()


# -- list ------------------------------------------------------------------------------------------


def run_list(arguments: argparse.Namespace) -> int:
    """List all installed plugins, those that can't be used included."""
    configuration = _configuration(arguments)
    installed = find_installed()
    entries = []
    for each in installed.plugins:
        entry: dict[str, Any] = {
            "name": each.name,
            "distribution": each.distribution,
            "version": each.version,
            "class": each.value,
            "enabled": [spec.name for spec in configuration.plugins if spec.use == each.name],
            "meaning": "",
            "error": None,
        }
        try:
            entry["meaning"] = _meaning(each.load())
            installed.get(each.name)
        except PluginError as error:
            entry["error"] = str(error)
        entries.append(entry)
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return 0
    rows = [
        (
            each["name"],
            f"{each['distribution']} {each['version']}",
            ", ".join(each["enabled"]) or "-",
            f"can't be used: {each['error']}" if each["error"] else each["meaning"],
        )
        for each in entries
    ]
    print(table(("PLUGIN", "DISTRIBUTION", "ENABLED AS", "WHAT IT DOES"), rows))
    return 0


def _meaning(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


# -- show ------------------------------------------------------------------------------------------


def run_show(arguments: argparse.Namespace) -> int:
    """Show one plugin, with its values in each instance that a configuration enables."""
    specs = _configuration(arguments).plugins
    named = [spec for spec in specs if spec.name == arguments.name]
    installed = named[0].installed if named else find_installed().get(arguments.name)
    enabled = named or [spec for spec in specs if spec.use == installed.name]
    facts = _facts(installed, installed.load(), enabled)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    rows = [
        ("plugin", facts["name"]),
        ("distribution", f"{facts['distribution']} {facts['version']}"),
        ("class", facts["class"]),
        ("what it does", facts["meaning"]),
        ("hooks", ", ".join(facts["hooks"]) or "none"),
        ("commands", ", ".join(facts["commands"]) or "none"),
        ("exclusive", "yes" if facts["exclusive"] else "no"),
    ]
    print("\n".join(f"{name + ':':14}{value}" for name, value in rows))
    for part in facts["settings"]:
        cells = [
            (
                each["name"],
                each["type"],
                "required" if each["required"] else each["default"],
                each["meaning"],
            )
            for each in part["settings"]
        ]
        print(f"\n{part['table']}")
        print(table(("SETTING", "TYPE", "DEFAULT", "MEANING"), cells) if cells else "no settings")
    for instance in facts["enabled"]:
        print(f"\nenabled as {instance['name']}{', required' if instance['required'] else ''}")
        values = instance["settings"] or {}
        print(table(("SETTING", "VALUE"), [(k, json.dumps(v)) for k, v in values.items()]))
    return 0


def _facts(
    installed: InstalledPlugin, kind: type[Plugin[Any]], enabled: list[PluginSpec]
) -> dict[str, Any]:
    return {
        "name": installed.name,
        "distribution": installed.distribution,
        "version": installed.version,
        "class": installed.value,
        "meaning": _meaning(kind),
        "api": kind.api,
        "exclusive": kind.exclusive,
        "hooks": [hook for hook in HOOKS if provide.implements(kind, hook)],
        "commands": sorted(provide.commands(kind)),
        "settings": [as_data(part) for part in plugin_section(installed, kind)],
        "enabled": [
            {"name": spec.name, "required": spec.required, "settings": spec.shown()}
            for spec in enabled
        ],
    }


# -- order -----------------------------------------------------------------------------------------


def run_order(arguments: argparse.Namespace) -> int:
    """Show for each hook that somebody implements who is called, in order."""
    configuration = _configuration(arguments)
    hooks = HookManager()
    for plugin in configuration.make_plugins():
        hooks.add(plugin)
    chains: list[dict[str, Any]] = [
        {"hook": hook, "kind": row.kind, "plugins": [call.plugin for call in hooks.calls(hook)]}
        for hook, row in HOOKS.items()
        if hooks.calls(hook)
    ]
    listeners = [
        {"listener": each.url, "authenticate": list(each.authenticate)}
        for each in configuration.settings.listener
        if each.authenticate is not None
    ]
    if arguments.json:
        print(json.dumps({"hooks": chains, "listeners": listeners}, indent=2))
        return 0
    if not chains:
        print("no plugin is enabled", file=sys.stderr)
        return 0
    rows = [(each["hook"], each["kind"], ", ".join(each["plugins"])) for each in chains]
    rows += [
        ("authenticate", "decide", f"at {each['listener']}: {', '.join(each['authenticate'])}")
        for each in listeners
    ]
    print(table(("HOOK", "KIND", "PLUGINS, IN ORDER"), rows))
    return 0
