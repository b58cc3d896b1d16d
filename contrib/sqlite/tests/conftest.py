"""What the tests share."""

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mqtrio import OpenStoreEvent
from mqtrio_sqlite import SqlitePlugin, SqliteSettings, SqliteStore

OpenStore = Callable[..., AbstractAsyncContextManager[SqliteStore]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database of a test is."""
    return tmp_path / "broker.db"


@pytest.fixture(params=["process", "thread"])
def writer(request: pytest.FixtureRequest) -> str:
    """Each kind of writer."""
    return str(request.param)


@pytest.fixture
def open_store(path: Path, writer: str) -> OpenStore:
    """Open the store of a test as the plugin does, for the length of a block."""

    @asynccontextmanager
    async def opened(**values: Any) -> AsyncIterator[SqliteStore]:
        given: dict[str, Any] = {"path": path, "writer": writer, "busy_timeout": 0.05}
        settings = SqliteSettings(**given | values)
        store = await SqlitePlugin(settings, name="sqlite").open_store(OpenStoreEvent())
        try:
            yield store
        finally:
            await store.close()

    return opened


@pytest.fixture(scope="session")
def script() -> ModuleType:
    """The script crash.py beside this file, which is no module of a package."""
    path = Path(__file__).with_name("crash.py")
    spec = importlib.util.spec_from_file_location("sqlite_crash", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
