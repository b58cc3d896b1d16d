"""`mqtrio new-plugin`: a complete distribution with one plugin, to begin from."""

import argparse
import importlib.metadata
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

from mqtrio.errors import ConfigurationError
from mqtrio.installed import find_installed

#: File of the new distribution -> its template, None for an empty file.
FILES: Final[Mapping[str, str | None]] = {
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "README.md.template",
    ".gitignore": "gitignore.template",
    "src/$package/__init__.py": "__init__.py.template",
    "src/$package/plugin.py": "plugin.py.template",
    "src/$package/py.typed": None,
    "tests/test_plugin.py": "test_plugin.py.template",
}

#: Before the name of each distribution and package.
PREFIX: Final = "mqtrio"

LONGEST: Final = 40
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

#: Names whose package or distribution is another's.
_TAKEN: Final = frozenset({"plugins"})


def add(commands: Any) -> None:
    """Add the arguments of this command to a parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "new-plugin",
        help="write a new plugin: a distribution that installs and passes its tests",
        description="Write a new distribution mqtrio-NAME with one plugin, typed and tested.",
    )
    parser.add_argument("name", metavar="NAME", help="its name in configurations: quiet-hours")
    parser.add_argument(
        "--folder", metavar="FOLDER", help="where to write it; default: ./mqtrio-NAME"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    name: str = arguments.name
    check_name(name)
    folder = Path(arguments.folder or f"{PREFIX}-{name}")
    write_plugin(name, folder)
    print(f"written to {folder}. Next:")
    print(f"    cd {folder}")
    print("    python3 -m venv .venv && .venv/bin/pip install -e '.[test]'")
    print("    .venv/bin/pytest && .venv/bin/mypy")
    return 0


def check_name(name: str) -> None:
    """Raise ConfigurationError unless a new plugin may have this name."""
    if name.startswith(f"{PREFIX}-") and _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r}: leave {PREFIX}- off, it is put in front: "
            f"mqtrio new-plugin {name.removeprefix(f'{PREFIX}-')}"
        )
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise ConfigurationError(
            f"{name!r} is no name for a plugin: take lower-case letters, digits and single "
            f"hyphens, with a letter first, {LONGEST} characters at most, such as quiet-hours"
        )
    if name in _TAKEN:
        raise ConfigurationError(f"{name!r} is taken by mqtrio itself: take another name")
    installed = find_installed().plugins
    taken = [each for each in installed if each.name in (name, name.replace("-", "_"))]
    if taken:
        raise ConfigurationError(f"{taken[0]} is installed already: take another name")


def write_plugin(name: str, folder: Path) -> list[Path]:
    """Write a distribution into a folder that is new or empty; returns its files.

    Raises ConfigurationError if something is there already, or can't be written.
    """
    values = _values(name)
    files = {
        folder / Template(path).substitute(values): "" if template is None else _text(template)
        for path, template in FILES.items()
    }
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ConfigurationError(f"{folder} exists and is no folder: nothing was written")
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigurationError(f"{folder} is not empty: nothing was written")
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(Template(text).substitute(values))
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be written: {error}") from error
    return list(files)


def _values(name: str) -> dict[str, str]:
    """What the templates put in, by the names that they have for it."""
    camel = "".join(part.capitalize() for part in name.split("-"))
    return {
        "name": name,
        "distribution": f"{PREFIX}-{name}",
        "package": f"{PREFIX}_{name.replace('-', '_')}",
        "plugin_class": f"{camel}Plugin",
        "settings_class": f"{camel}Settings",
        "version": importlib.metadata.version("mqtrio"),
    }


def _text(template: str) -> str:
    file = resources.files("mqtrio.cli") / "templates" / "plugin" / template
    return file.read_text(encoding="utf-8")
