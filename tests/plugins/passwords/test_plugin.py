"""The plugin in a broker: who gets in, what a changed file does, what a broken one doesn't."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from mqtrio import (
    Allow,
    AuthenticateEvent,
    ClientFacts,
    ConfigurationError,
    Listener,
    PluginError,
    ReasonCode,
    ReconfigureEvent,
    Settings,
)
from mqtrio.testing import (
    Harness,
    HookRecorder,
    Peer,
    check_authenticator,
    check_plugin,
    open_harness,
)
from mqtrio_plugins.passwords import Passwords, PasswordsSettings
from mqtrio_plugins.passwords.file import write
from mqtrio_plugins.passwords.hashes import Scrypt, parse
from tests.plugins.passwords.kit import after, cheap, passwords, until, write_users
from tests.plugins.passwords.test_hashes import KNOWN

BAD = ReasonCode.BAD_USER_NAME_OR_PASSWORD


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_users(tmp_path / "users", {"ann": "a", "bob": "b"})


async def attempt(harness: Harness, username: str | None, password: bytes | None) -> Peer:
    peer = harness.peer(username or "somebody")
    await peer.send(peer.connect_packet(username=username, password=password))
    return peer


async def refused(
    harness: Harness, username: str | None, password: bytes | None, code: int = BAD
) -> None:
    peer = await attempt(harness, username, password)
    await peer.expect_closed(code)


async def let_in(harness: Harness, username: str, password: bytes) -> Peer:
    peer = await attempt(harness, username, password)
    await peer.let_in()
    return peer


async def test_the_contract_of_plugins(file: Path, tmp_path: Path) -> None:
    await check_plugin(
        Passwords,
        PasswordsSettings(file=file),
        other_settings=PasswordsSettings(file=write_users(tmp_path / "others", {"zoe": "z"})),
        wrong_settings=PasswordsSettings(file=tmp_path / "missing"),
    )


async def test_the_contract_of_authenticators(file: Path) -> None:
    await check_authenticator(
        lambda: passwords(file),
        good=[("ann", b"a"), ("bob", b"b")],
        bad=[("ann", b"b"), ("eve", b"a"), ("ann", None)],
    )


async def test_who_gets_in(file: Path, mock_clock: MockClock) -> None:
    async with open_harness(plugins=[passwords(file)]) as harness:
        await let_in(harness, "ann", b"a")
        await let_in(harness, "bob", b"b")
        await refused(harness, "ann", b"b")
        await refused(harness, "ann", b"")
        await refused(harness, "ann", b"a\0")
        await refused(harness, "ann", None)
        await refused(harness, "eve", b"a")
        await refused(harness, "eve", None)
        await refused(harness, "", b"a")
        await refused(harness, None, None, ReasonCode.NOT_AUTHORIZED)
        users = {client.username for client in harness.broker.clients()}
    assert users == {"ann", "bob"}


async def test_files_of_others(tmp_path: Path, mock_clock: MockClock) -> None:
    file = tmp_path / "users"
    file.write_text("".join(f"{kind}:{text}\n" for kind, (_, text) in KNOWN.items()))
    async with open_harness(plugins=[passwords(file)]) as harness:
        for kind, (password, _) in KNOWN.items():
            await let_in(harness, kind, password.encode())
            await refused(harness, kind, b"wrong")


async def test_clients_without_a_name_are_left_to_others(file: Path, mock_clock: MockClock) -> None:
    settings = Settings(listener=(Listener(url="stream", allow_anonymous=True),))
    others = HookRecorder(answers={"authenticate": None})
    async with open_harness(plugins=[passwords(file), others], settings=settings) as harness:
        anonymous = harness.peer("x")
        await anonymous.connect()
        await refused(harness, "eve", b"a")
        method = harness.peer("y")
        await method.send(method.connect_packet(username="ann", authentication_method="magic"))
        await method.expect_closed(ReasonCode.BAD_AUTHENTICATION_METHOD)
    assert [event.client_id for event in others.of("authenticate")] == ["x", "y"]


async def test_unknown_names_are_passed_on_where_that_is_wanted(
    file: Path, mock_clock: MockClock
) -> None:
    others = HookRecorder(answers={"authenticate": Allow()})
    async with open_harness(plugins=[passwords(file, unknown="pass"), others]) as harness:
        await let_in(harness, "eve", b"whatever")
        await refused(harness, "ann", b"wrong")
    assert [event.username for event in others.of("authenticate")] == ["eve"]


class Counted:
    """Counts what is checked, by the cost it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.costs: list[tuple[int, int, int]] = []
        compute = Scrypt._compute

        def counting(kept: Scrypt, password: bytes) -> bytes:
            self.costs.append((kept.ln, kept.r, kept.p))
            return compute(kept, password)

        monkeypatch.setattr(Scrypt, "_compute", counting)


async def test_unknown_users_cost_what_known_ones_do(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "users"
    kept = Scrypt.of(b"a", ln=5)
    file.write_text(f"ann:{kept}\n")
    counted = Counted(monkeypatch)
    async with open_harness(plugins=[passwords(file)]) as harness:
        await refused(harness, "ann", b"wrong")
        await refused(harness, "eve", b"wrong")
        await refused(harness, "eve", b"a")
    assert counted.costs == [(5, 8, 1)] * 3


async def test_an_empty_file_costs_the_same(
    tmp_path: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_users(tmp_path / "users", {})
    counted = Counted(monkeypatch)
    async with open_harness(plugins=[passwords(file)]) as harness:
        await refused(harness, "eve", b"a")
    assert counted.costs == [(14, 8, 1)]


async def test_a_reconnect_costs_no_second_check(
    file: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    plugin = passwords(file, remember=60.0)
    async with open_harness(plugins=[plugin]) as harness:
        for _ in range(5):
            await let_in(harness, "ann", b"a")
        assert len(counted.costs) == 1
        event = AuthenticateEvent(ClientFacts("ann", "ann"), b"a")
        assert isinstance(plugin.authenticate(event), Allow)  # at once: no task, no thread
        await after(60, mock_clock)
        await let_in(harness, "ann", b"a")
        assert len(counted.costs) == 2


async def test_too_many_are_told_that_the_server_is_busy(
    file: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = passwords(file, threads=1, queue=0)
    async with open_harness(plugins=[plugin]) as harness:
        plugin._verifier._limiter.acquire_on_behalf_of_nowait("a check that takes long")
        await refused(harness, "ann", b"a", ReasonCode.SERVER_BUSY)
        old = harness.peer("old", version=4)
        await old.send(old.connect_packet(username="ann", password=b"a"))
        await old.expect_closed(3)  # server unavailable
        plugin._verifier._limiter.release_on_behalf_of("a check that takes long")
        await let_in(harness, "ann", b"a")


@pytest.mark.parametrize("content", ["bob:plain", None])
async def test_a_broken_file_keeps_the_broker_from_starting(
    tmp_path: Path, content: str | None, mock_clock: MockClock
) -> None:
    file = tmp_path / "users"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PluginError, match="users:1: this is no" if content else "users") as caught:
        async with open_harness(plugins=[passwords(file)]):
            pass
    assert "plain" not in str(caught.value)


# -- the file changes


def replace(file: Path, users: dict[str, str]) -> None:
    write(file, "".join(f"{name}:{cheap(password)}\n" for name, password in users.items()).encode())


async def test_a_changed_file_is_read_again(
    file: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plugin = passwords(file, watch=5.0)
    async with open_harness(plugins=[plugin]) as harness:
        await let_in(harness, "ann", b"a")
        before = plugin._users
        replace(file, {"ann": "A", "carl": "c"})
        await after(5, mock_clock)
        await until(lambda: plugin._users is not before)
        await refused(harness, "ann", b"a")  # not remembered any more
        await refused(harness, "bob", b"b")
        await let_in(harness, "ann", b"A")
        await let_in(harness, "carl", b"c")
    assert f"{file} was read again: 2 users" in caplog.messages


def remove(file: Path) -> None:
    file.unlink()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "as they were" in message]


async def test_a_broken_file_changes_nothing(
    file: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = passwords(file, watch=5.0)
    async with open_harness(plugins=[plugin]) as harness:
        write(file, b"# new\nann:secret\n")
        await after(5, mock_clock)
        await until(lambda: len(complaints(caplog)) == 1)
        await let_in(harness, "ann", b"a")
        remove(file)
        await after(5, mock_clock)
        await until(lambda: len(complaints(caplog)) == 2)
        for _ in range(3):  # said once
            await after(5, mock_clock)
            await let_in(harness, "bob", b"b")
        replace(file, {"carl": "c"})
        await after(5, mock_clock)
        await until(lambda: "carl" in plugin._users)
    first, second = complaints(caplog)
    assert f"{file}:2: this is no password hash" in first
    assert "No such file" in second
    assert "secret" not in first


async def test_removed_users_and_old_passwords_are_seen_off(
    file: Path, mock_clock: MockClock
) -> None:
    plugin = passwords(file, watch=1.0)
    kept = f"ann:{cheap('a')}"
    write(file, f"{kept}\nbob:{cheap('b')}\n".encode())
    async with open_harness(plugins=[plugin]) as harness:
        ann = await let_in(harness, "ann", b"a")
        bob = await let_in(harness, "bob", b"b")
        write(file, f"{kept}\nbob:{cheap('b')}\n".encode())
        await after(1, mock_clock)
        await bob.expect_closed(ReasonCode.NOT_AUTHORIZED)
        await ann.ping()
        write(file, b"")
        await after(1, mock_clock)
        await ann.expect_closed(ReasonCode.NOT_AUTHORIZED)


async def test_or_they_stay_where_that_is_wanted(file: Path, mock_clock: MockClock) -> None:
    plugin = passwords(file, watch=1.0, disconnect=False)
    async with open_harness(plugins=[plugin]) as harness:
        ann = await let_in(harness, "ann", b"a")
        write(file, b"")
        await after(1, mock_clock)
        await until(lambda: not plugin._users)
        await ann.ping()
        await refused(harness, "ann", b"a")


async def test_a_user_that_goes_during_its_check_stays_out(
    file: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = passwords(file)
    async with open_harness(plugins=[plugin]) as harness:
        check = plugin._verifier.check

        async def while_the_file_changes(*arguments: Any) -> bool:
            plugin._use({})
            return await check(*arguments)

        monkeypatch.setattr(plugin._verifier, "check", while_the_file_changes)
        await refused(harness, "ann", b"a")


# -- reload


async def test_a_reload_takes_another_file(
    file: Path, tmp_path: Path, mock_clock: MockClock
) -> None:
    other = write_users(tmp_path / "others", {"zoe": "z"})
    plugin = passwords(file)
    async with open_harness(plugins=[plugin]) as harness:
        ann = await let_in(harness, "ann", b"a")
        put_in_force = await plugin.reconfigure(ReconfigureEvent(PasswordsSettings(file=other)))
        await let_in(harness, "ann", b"a")  # nothing has changed yet
        await ann.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
        put_in_force()
        await refused(harness, "ann", b"a")
        await let_in(harness, "zoe", b"z")


async def test_a_reload_with_a_broken_file_is_refused(
    file: Path, tmp_path: Path, mock_clock: MockClock
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("zoe")
    plugin = passwords(file)
    async with open_harness(plugins=[plugin]) as harness:
        with pytest.raises(ConfigurationError, match="broken:1: expected USERNAME:HASH"):
            await plugin.reconfigure(ReconfigureEvent(PasswordsSettings(file=broken)))
        await let_in(harness, "ann", b"a")


def test_the_hash_on_the_page_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "plugins" / "passwords.md").read_text()
    (text,) = re.findall(r"^    bob:(.+)$", page, re.MULTILINE)
    assert parse(text).verify(b"a good password")
