"""Every plugin of the box keeps the contracts of the kit."""

from pathlib import Path
from typing import Any

import pytest
import trio

from mqtrio.installed import InstalledPlugin, find_installed, settings_class
from mqtrio.testing import check_authenticator, check_plugin
from tests.plugins.passwords.kit import passwords, write_users

BOX = [each for each in find_installed().plugins if each.distribution == "mqtrio"]
GOOD = [("ann", b"correct horse"), ("bob", b"battery staple")]


def users(folder: Path) -> Path:
    return write_users(folder / "users", {name: word.decode() for name, word in GOOD})


@pytest.mark.trio(run=trio.run)
@pytest.mark.parametrize("installed", BOX, ids=lambda each: each.name)
async def test_every_plugin(installed: InstalledPlugin, tmp_path: Path) -> None:
    """With its defaults, and what it needs."""
    needs: dict[str, dict[str, Any]] = {"passwords": {"file": users(tmp_path)}}
    kind = installed.load()
    made_of = settings_class(kind)
    settings = None if made_of is None else made_of(**needs.get(installed.name, {}))
    await check_plugin(kind, settings)


@pytest.mark.trio(run=trio.run)
async def test_passwords_authenticate(tmp_path: Path) -> None:
    file = users(tmp_path)
    await check_authenticator(lambda: passwords(file, threads=2), good=GOOD, blocking=0.2)


async def test_a_plugin_is_found() -> None:
    assert {"acl", "anonymous", "passwords"} <= {each.name for each in BOX}
