"""Every setting of the broker and of the installed plugins, described from the classes."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

import attrs
from attrs import define

from mqtrio.config.document import sections
from mqtrio.config.plugins import PluginTable, settings_class_of
from mqtrio.errors import PluginError
from mqtrio.fields import base_type, describe, is_array, is_mapping, show_default
from mqtrio.hooks import provide
from mqtrio.hooks.plugin import Plugin
from mqtrio.installed import Installed, InstalledPlugin


@define(frozen=True)
class Section:
    """One table of a configuration: its header as it is written, its class, who brings it."""

    header: str
    kind: type
    meaning: str
    #: Name and version of a plugin's distribution; None for the broker's own.
    distribution: str | None = None


def core_sections() -> Iterator[Section]:
    """Give the tables that every configuration may have."""
    for header, kind in (*sections(), ("[plugin.NAME]", PluginTable)):
        yield from _with_inner(header, kind, _meaning(kind))


def plugin_sections(
    installed: Installed, distribution: str | None = None
) -> tuple[list[Section], list[str]]:
    """Give the tables of installed plugins (all, or those of one distribution), and errors.

    This imports them; one that can't be used is among the errors.
    """
    found: list[Section] = []
    errors = []
    for name in installed.names:
        try:
            entry = installed.get(name)
            if distribution in (None, entry.distribution):
                found += plugin_section(entry, entry.load())
        except PluginError as error:
            errors.append(str(error))
    return found, errors


def plugin_section(installed: InstalledPlugin, kind: type[Plugin[Any]]) -> Iterator[Section]:
    """Give the tables of one plugin, the inner ones too; raises PluginError."""
    settings = settings_class_of(installed, kind) or _Nothing
    title = f"{installed.distribution} {installed.version}"
    yield from _with_inner(f"[plugin.{installed.name}]", settings, _meaning(kind), title)
    for name, layer in provide.layers_of(kind).items():
        yield from _with_inner(
            f"[listener.{name}]", layer.settings, _meaning(layer.settings), title
        )


@define(frozen=True)
class _Nothing:
    """A plugin without settings."""


def reference(parts: Iterable[Section] | None = None) -> str:
    """Write settings (default: the broker's own) with type, default and meaning, as Markdown."""
    return "\n".join(
        line
        for part in (core_sections() if parts is None else parts)
        for line in ("", f"### `{part.header}`", "", part.meaning, "", *_table(part.kind))
    ).strip("\n")


def as_data(part: Section) -> dict[str, Any]:
    """Give what `reference` says about a table as plain values."""
    return {
        "table": part.header,
        "meaning": part.meaning,
        "distribution": part.distribution,
        "settings": [
            {
                "name": each.name,
                "type": describe(each.type, each.metadata),
                "required": each.default is attrs.NOTHING,
                "default": None if each.default is attrs.NOTHING else _default(each),
                "secret": bool(each.metadata.get("secret")),
                "meaning": each.metadata.get("help", ""),
            }
            for each in attrs.fields(part.kind)
        ],
    }


def _meaning(kind: type) -> str:
    """Give the first paragraph of a class's docstring."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    return " ".join(text.split())


def _with_inner(
    header: str, kind: type, meaning: str, distribution: str | None = None
) -> Iterator[Section]:
    """Give a table, and the tables in it."""
    yield Section(header, kind, meaning, distribution)
    path = header.strip("[]")
    for each in attrs.fields(attrs.resolve_types(kind)):
        base: Any = base_type(each.type)
        inside: Any = base
        form = "[{}.{}]"
        if is_array(base):
            inside, form = get_args(base)[0], "[[{}.{}]]"
        elif is_mapping(base):
            inside, form = get_args(base)[1], "[{}.{}.NAME]"
        if isinstance(inside, type) and attrs.has(inside) and inside is not kind:
            yield from _with_inner(
                form.format(path, each.name), inside, _meaning(inside), distribution
            )


def _table(kind: type) -> Iterator[str]:
    fields = attrs.fields(kind)
    if not fields:
        yield "No settings."
        return
    yield "| Setting | Type | Default | Meaning |"
    yield "| --- | --- | --- | --- |"
    for each in fields:
        cells = (
            f"`{each.name}`",
            describe(each.type, each.metadata),
            "required" if each.default is attrs.NOTHING else _default(each),
            each.metadata.get("help", ""),
        )
        yield f"| {' | '.join(cells)} |"


def _default(field: "attrs.Attribute[Any]") -> str:
    value: Any = field.default
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        if value.takes_self:
            return "computed"
        value = value.factory()
    if attrs.has(type(value)) or (isinstance(value, Mapping | tuple | list) and not value):
        return "empty"
    return show_default(value, field.metadata)
