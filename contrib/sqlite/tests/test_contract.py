"""The store keeps the contract of stores, with either writer."""

from pathlib import Path

import pytest

from mqtrio.testing import check_store
from mqtrio_sqlite.database import Options
from mqtrio_sqlite.process import ProcessWriter
from mqtrio_sqlite.store import SqliteStore
from mqtrio_sqlite.thread import ThreadWriter


@pytest.mark.parametrize("writer", [ProcessWriter, ThreadWriter])
async def test_it_keeps_the_contract(
    writer: type[ProcessWriter | ThreadWriter], tmp_path: Path
) -> None:
    async def opened(name: str) -> SqliteStore:
        store = SqliteStore(writer(Options(path=tmp_path / f"{name}.db")))
        await store.open()
        return store

    await check_store(opened, exclusive=True)
