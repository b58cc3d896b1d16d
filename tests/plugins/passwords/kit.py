"""Files of users whose hashes cost next to nothing, and waiting for what happens in a thread."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mqtrio_plugins.passwords import Passwords, PasswordsSettings
from mqtrio_plugins.passwords.hashes import Scrypt

#: Decides about failures, never about success.
PATIENCE = 30.0


def cheap(password: str) -> Scrypt:
    return Scrypt.of(password.encode(), ln=1)


def write_users(path: Path, users: Mapping[str, str]) -> Path:
    lines = [f"{username}:{cheap(password)}\n" for username, password in users.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def passwords(file: Path, **settings: object) -> Passwords:
    return Passwords(PasswordsSettings(file=file, **settings), name="passwords")  # type: ignore[arg-type]  # tests know


async def until(true: Callable[[], object]) -> None:
    """Wait in real time for what a thread does; virtual time stands still."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        await trio.lowlevel.checkpoint()


async def after(seconds: float, clock: MockClock) -> None:
    """Let virtual time pass once everybody waits for it."""
    await wait_all_tasks_blocked()
    clock.jump(seconds)
