"""The contracts of the test kit hold."""

from pathlib import Path
from typing import Any

import pytest
import trio

from contrib.jwt.tests.kit import SECRET, Kit
from mqtrio.testing import check_authenticator, check_plugin
from mqtrio_jwt import Jwt, JwtSettings


@pytest.mark.trio(run=trio.run)
async def test_it_authenticates(make: Any, kit: Kit) -> None:
    good = [("ann", kit.token("ES256")), ("x", kit.token("ES256", sub="bob"))]
    bad = [("ann", kit.token("RS256")), ("ann", kit.token("ES256", lifetime=-60))]
    await check_authenticator(make, good=good, bad=bad, names_matter=False)


@pytest.mark.trio(run=trio.run)
async def test_it_is_a_plugin(folder: Path) -> None:
    settings = JwtSettings(algorithms=("HS256",), secret=SECRET)
    other = JwtSettings(algorithms=("ES256",), public_keys=(folder / "ES256.pem",))
    wrong = JwtSettings(algorithms=("ES256",), public_keys=(folder / "missing",))
    await check_plugin(Jwt, settings, other_settings=other, wrong_settings=wrong)
