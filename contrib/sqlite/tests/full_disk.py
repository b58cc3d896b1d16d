"""A disk of one mebibyte that fills up under a store; see test_faults.py.

    unshare --mount --map-root-user python contrib/sqlite/tests/full_disk.py FOLDER

Mounts it at FOLDER, which needs a mount namespace of one's own (or root's rights).
"""

import subprocess
import sys
from pathlib import Path

import trio

from mqtrio import PluginError, RetainedPut, StoreError, open_broker
from mqtrio_sqlite import SqlitePlugin, SqliteSettings
from mqtrio_sqlite.database import Options
from mqtrio_sqlite.process import ProcessWriter
from mqtrio_sqlite.store import SqliteStore

NO_ROOM = "there is no room left"

#: What this program ends with where it may not mount anything.
MAY_NOT = 77


async def fill(path: Path) -> None:
    """Commit until there is no room: what fits is kept, what doesn't is refused as a whole."""
    store = SqliteStore(ProcessWriter(Options(path=path)))
    await store.open()
    await store.load()
    kept = 0
    while await fits(store, RetainedPut(f"t/{kept:03}", b"x" * 6000, 0)):
        kept += 1
    assert kept
    assert not await fits(store, RetainedPut("large", bytes(300_000), 0))
    assert len(await store.retained(None, None, 1000)) == kept
    await store.close()


async def fits(store: SqliteStore, put: RetainedPut) -> bool:
    try:
        await store.commit([put])
    except StoreError as error:
        if NO_ROOM not in str(error):
            raise
        return False
    return True


async def start(path: Path) -> None:
    """Nothing is left for a broker that starts: it says so, and is not there."""
    with path.with_name("rest").open("wb", buffering=0) as rest:
        try:
            while rest.write(bytes(1024)):
                pass
        except OSError:
            pass
    settings = SqliteSettings(path=path)
    try:
        async with open_broker([], plugins=[SqlitePlugin(settings, name="sqlite")]):
            raise AssertionError("it has started")
    except PluginError as error:
        said = str(error)
    assert str(path) in said, said
    assert NO_ROOM in said, said


def main() -> None:
    disk = Path(sys.argv[1])
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mounting, check=False).returncode:
        sys.exit(MAY_NOT)
    trio.run(fill, disk / "broker.db")
    trio.run(start, disk / "new.db")


if __name__ == "__main__":
    main()
