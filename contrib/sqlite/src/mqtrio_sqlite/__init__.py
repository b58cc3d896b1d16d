"""A durable store for the MQTT broker mqtrio, in one SQLite file.

Names are loaded when they are first used: the writer process, which needs few of them, starts soon.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqtrio_sqlite.plugin import SqlitePlugin as SqlitePlugin
    from mqtrio_sqlite.settings import SqliteSettings as SqliteSettings
    from mqtrio_sqlite.store import SqliteStore as SqliteStore

_MODULE_OF = {"SqlitePlugin": "plugin", "SqliteSettings": "settings", "SqliteStore": "store"}

__all__ = ["SqlitePlugin", "SqliteSettings", "SqliteStore"]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
