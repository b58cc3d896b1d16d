"""Tokens end, are renewed and are revoked while their clients are connected."""

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from contrib.jwt.tests.kit import Kit
from mqtrio.testing import Harness, open_harness
from mqtrio.wire.packets import Auth, Will


@pytest.mark.parametrize("version", [4, 5])
async def test_a_client_is_cut_off_when_its_token_ends(version: int, make: Any, kit: Kit) -> None:
    async with open_harness(plugins=[make(leeway=10)]) as harness:
        peer = await harness.connect(
            "ann", version=version, username="ann", password=kit.token(lifetime=100)
        )
        await trio.sleep(109)
        await peer.ping()
        await peer.expect_closed(0x87 if version == 5 else None)
        assert trio.current_time() == pytest.approx(110, abs=0.9)
        # The same token again: virtual time has passed for the plugin, too.
        refused = harness.new_client("ann", version=version)
        connack = await refused.try_connect(username="ann", password=kit.token(lifetime=90))
        assert connack.reason_code != 0


async def test_authenticating_again_in_time(make: Any, kit: Kit) -> None:
    plugin = make(leeway=0, publish=("t/{site}",), subscribe=("t/{site}",))
    async with open_harness(plugins=[plugin]) as harness:

        def token(lifetime: float, site: str, **more: Any) -> bytes:
            return kit.token(lifetime=lifetime, site=site, **more)

        peer = harness.peer("ann")
        await peer.connect(
            authentication_method="jwt",
            authentication_data=token(100, "a"),
            session_expiry_interval=3600,
        )
        await peer.subscribe("t/a")
        await trio.sleep(60)
        await peer.send(Auth(0x19, "jwt", token(200, "b")))
        await peer.expect(Auth, reason_code=0)
        await harness.broker.publish("t/a", b"withheld")
        await peer.nothing()
        await trio.sleep(60)
        await peer.ping()  # at 120
        await peer.send(Auth(0x19, "jwt", token(300, "a")))
        await peer.expect(Auth, reason_code=0)
        await harness.broker.publish("t/a", b"again")
        await peer.message(b"again")
        await peer.expect_closed(0x87)
        assert trio.current_time() == pytest.approx(300, abs=0.9)
        assert harness.broker.sessions()[0].subscriptions == ("t/a",)


#: What a client says to authenticate again -> reason code of DISCONNECT.
AGAIN: dict[str, tuple[dict[str, Any], int]] = {
    "expired": ({"lifetime": -60}, 0x87),
    "somebody else": ({"sub": "bob"}, 0x87),
    "another client identifier": ({"cid": "other"}, 0x87),
}


@pytest.mark.parametrize("case", AGAIN)
async def test_authenticating_again_with_what_is_no_good(case: str, make: Any, kit: Kit) -> None:
    changed, code = AGAIN[case]
    async with open_harness(plugins=[make(client_id="{cid}")]) as harness:
        peer = harness.peer("c")
        await peer.connect(authentication_method="jwt", authentication_data=kit.token(cid="c"))
        await peer.send(Auth(0x19, "jwt", kit.token(**({"cid": "c"} | changed))))
        await peer.expect_closed(code)


async def test_authenticating_without_a_token(make: Any) -> None:
    async with open_harness(plugins=[make()]) as harness:
        refused = await harness.refused("c", authentication_method="jwt")
        assert refused.reason_code == 0x87


# -- revoked tokens


async def three(harness: Harness, kit: Kit) -> dict[str, Any]:
    return {
        name: await harness.connect(
            name,
            password=kit.token(jti=name) if name != "none" else kit.token(),
            session_expiry_interval=3600,
            will=Will("wills", name.encode()),
        )
        for name in ("one", "two", "none")
    }


async def test_a_program_revokes_a_token(make: Any, kit: Kit) -> None:
    plugin = make(publish=("#",), subscribe=("#",))
    async with open_harness(plugins=[plugin]) as harness:
        peers = await three(harness, kit)
        plugin.revoke("one", "never seen")
        await peers["one"].expect_closed(0x87)
        for name in ("two", "none"):
            await peers[name].ping()
        refused = await harness.refused("one", password=kit.token(jti="one"))
        assert refused.reason_code == 0x86
        assert "one" in {each.client_id for each in harness.broker.sessions()}
        await harness.connect("one", password=kit.token(jti="a new one"))


async def test_the_token_of_the_last_authentication_counts(make: Any, kit: Kit) -> None:
    plugin = make()
    async with open_harness(plugins=[plugin]) as harness:
        peer = harness.peer("c")
        await peer.connect(authentication_method="jwt", authentication_data=kit.token(jti="1"))
        await peer.send(Auth(0x19, "jwt", kit.token(jti="2")))
        await peer.expect(Auth, reason_code=0)
        plugin.revoke("1")
        await peer.ping()
        plugin.revoke("2")
        await peer.expect_closed(0x87)


@pytest.mark.trio(run=trio.run)
async def test_a_file_of_revoked_tokens(make: Any, kit: Kit, tmp_path: Path) -> None:
    """In real time: the file is read in a thread."""
    path = tmp_path / "revoked"
    path.write_text("# none yet\nold\n")
    async with open_harness(plugins=[make(revoked=path, watch=0.1)]) as harness:
        peers = await three(harness, kit)
        refused = await harness.refused("c", password=kit.token(jti="old"))
        assert refused.reason_code == 0x86
        new = tmp_path / "new"
        new.write_text("one\n")
        new.replace(path)
        with trio.fail_after(30):
            await peers["one"].expect_closed(0x87)
        await peers["two"].ping()
        await harness.connect("c", password=kit.token(jti="old"))
        path.unlink()  # nothing is good again because a file is gone
        assert (await harness.refused("d", password=kit.token(jti="one"))).reason_code == 0x86


async def test_a_token_without_an_end(make: Any, kit: Kit) -> None:
    async with open_harness(plugins=[make(require=())]) as harness:
        peer = await harness.connect("c", password=kit.token(exp=None))
        await trio.sleep(10**4)
        await peer.ping()


async def test_a_token_that_is_almost_good_yet(make: Any, kit: Kit) -> None:
    async with open_harness(plugins=[make(leeway=10)]) as harness:
        await harness.connect("a", password=kit.token(nbf=time.time() + 5))
        await harness.connect("b", password=kit.token(iat=time.time() + 5))
        await harness.connect("c", password=kit.token(lifetime=-5))
