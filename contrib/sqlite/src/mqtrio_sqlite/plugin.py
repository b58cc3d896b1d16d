"""The plugin: opens the store that the settings name."""

import sys
from collections.abc import Callable, Mapping, Sequence

import mqtrio
from mqtrio_sqlite.command import store
from mqtrio_sqlite.database import Options
from mqtrio_sqlite.process import ProcessWriter
from mqtrio_sqlite.settings import SqliteSettings
from mqtrio_sqlite.store import SqliteStore, Writer
from mqtrio_sqlite.thread import ThreadWriter


class SqlitePlugin(mqtrio.Plugin[SqliteSettings]):
    """Gives the broker a store in one SQLite file."""

    api = 1
    exclusive = True

    @mqtrio.hookimpl
    async def open_store(self, event: mqtrio.OpenStoreEvent) -> SqliteStore:
        """Open the database; one that can't be opened keeps the broker from starting."""
        opened = SqliteStore(_writer(self.settings))
        await opened.open()
        return opened

    @mqtrio.hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Callable[[], None]:
        """Refuse settings that are others: the store is the broker's for as long as it runs."""
        if event.settings != self.settings:
            raise mqtrio.ConfigurationError(
                f"the settings of {self.name} take effect when the broker starts: restart it"
            )
        return _nothing

    @classmethod
    @mqtrio.hookimpl
    def commands(cls, event: mqtrio.CommandsEvent) -> Mapping[str, Callable[[Sequence[str]], int]]:
        """Bring `mqtrio store`."""
        return {"store": store}


def _nothing() -> None:
    """What is to do for settings that have not changed."""


def _writer(settings: SqliteSettings) -> Writer:
    options = Options(
        path=settings.path.absolute(),
        synchronous=settings.synchronous,
        busy_timeout=settings.busy_timeout,
        max_size=settings.max_size,
        checkpoint=settings.checkpoint,
    )
    # A frozen program has no interpreter to start, and on Windows sockets can't be handed on so.
    if settings.writer == "thread" or not sys.executable or sys.platform == "win32":
        return ThreadWriter(options)
    return ProcessWriter(options)
