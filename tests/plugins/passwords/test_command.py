"""`mqtrio passwd`: what it makes of a file, what it asks, and what it refuses to do."""

import getpass
import io
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from mqtrio import CommandsEvent
from mqtrio.cli import main
from mqtrio_plugins.passwords import Passwords
from mqtrio_plugins.passwords.command import passwd
from mqtrio_plugins.passwords.file import read_users
from mqtrio_plugins.passwords.hashes import Hash, Scrypt
from tests.plugins.passwords.kit import cheap, write_users

#: As cheap as it may be.
CHEAP = "--cost=10"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_users(tmp_path / "users", {"ann": "a", "bob": "b"})


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def terminal(monkeypatch: pytest.MonkeyPatch, *typed: str) -> None:
    answers = iter(typed)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(answers))


def fits(users: dict[str, Hash], username: str, password: str) -> bool:
    return users[username].verify(password.encode())


def test_a_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "users"
    stdin(monkeypatch, b"a secret\n")
    assert passwd(["-c", str(file), "ann"]) == 0
    assert capsys.readouterr().out == "added ann\n"
    (kept,) = read_users(file).values()
    assert isinstance(kept, Scrypt)
    assert (kept.ln, kept.r, kept.p, len(kept.salt), len(kept.digest)) == (14, 8, 1, 16, 32)
    assert kept.verify(b"a secret")
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_users_come_change_and_go(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(b"# staff\n" + file.read_bytes())
    stdin(monkeypatch, b"c\n")
    assert passwd([CHEAP, str(file), "carl"]) == 0
    stdin(monkeypatch, "grün: ja\r\n".encode())
    assert passwd([CHEAP, str(file), "bob"]) == 0
    assert passwd(["-D", str(file), "ann"]) == 0
    assert passwd(["--list", str(file)]) == 0
    assert capsys.readouterr().out == (
        "added carl\nchanged bob\nremoved ann\nbob\tscrypt\ncarl\tscrypt\n"
    )
    users = read_users(file)
    assert fits(users, "bob", "grün: ja")
    assert fits(users, "carl", "c")
    assert file.read_text().startswith("# staff\nbob:")


def test_a_terminal_is_asked_twice(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, "new", "new")
    assert passwd([CHEAP, str(file), "ann"]) == 0
    assert fits(read_users(file), "ann", "new")


def test_what_was_typed_wrongly_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(monkeypatch, "new", "nwe")
    assert passwd([CHEAP, str(file), "ann"]) == 1
    assert "two different passwords" in capsys.readouterr().err
    assert fits(read_users(file), "ann", "a")


def test_a_password_as_an_argument(file: Path) -> None:
    assert passwd([CHEAP, "-b", str(file), "ann", "new"]) == 0
    assert fits(read_users(file), "ann", "new")


def test_many_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, b"carl:c:d\r\n\nann:new\n")
    assert passwd([CHEAP, "--batch", str(file)]) == 0
    assert capsys.readouterr().out == "added carl\nchanged ann\n"
    users = read_users(file)
    assert fits(users, "carl", "c:d")
    assert fits(users, "ann", "new")
    assert fits(users, "bob", "b")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"carl:c\nsecret\n", "line 2: expected USERNAME:PASSWORD"),
        (b"carl:c\nzoe:\n", "line 2: the password is empty"),
        (b"carl:c\nzoe:secret\0\n", "line 2: the password has a zero byte"),
        (b"carl:c\nb\xfcb:secret\n", "line 2: this is not UTF-8"),
        (b"carl:c\n#x:secret\n", "line 2: a username"),
    ],
)
def test_a_bad_line_changes_nothing(
    file: Path,
    data: bytes,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = file.read_bytes()
    stdin(monkeypatch, data)
    assert passwd([CHEAP, "--batch", str(file)]) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert "secret" not in error
    assert file.read_bytes() == before


def arguments(*cases: tuple[str, int, str]) -> Iterable[object]:
    return [pytest.param(text.split(), status, said, id=text) for text, status, said in cases]


@pytest.mark.parametrize(
    ("given", "status", "said"),
    arguments(
        ("FILE", 1, "say whose password"),
        ("FILE ann secret", 1, "can be read by others; -b"),
        ("-b FILE ann", 1, "-b wants the password"),
        ("-D FILE eve", 1, "there is no user 'eve'"),
        ("-D FILE", 1, "say whose password"),
        ("-c FILE ann", 1, "exists already"),
        ("NEW ann", 1, "doesn't exist: --create makes it"),
        ("--list FILE ann", 1, "--list goes without a username"),
        ("--batch FILE ann", 1, "--batch goes without a username"),
        ("-b FILE a:b secret", 1, "a username"),
        ("-b FILE #ann secret", 1, "a username"),
        ("-b FILE a\x1bnn secret", 1, "control characters"),
        ("-D --list FILE", 2, "not allowed with"),
        ("--cost=9 -b FILE ann secret", 2, "invalid choice"),
        ("", 2, "FILE"),
    ),
)
def test_what_is_refused(
    file: Path,
    given: list[str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = file.read_bytes()
    stdin(monkeypatch, b"secret\n")
    names = {"FILE": str(file), "NEW": str(file.with_name("new"))}
    assert passwd([names.get(each, each) for each in given]) == status
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error
    assert file.read_bytes() == before
    assert not file.with_name("new").exists()


def test_an_empty_password_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"\n")
    assert passwd([CHEAP, str(file), "ann"]) == 1


def test_the_list_says_where_the_file_is_wrong(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"ann:{cheap('a')}\nbob:plain\n")
    assert passwd(["-l", str(file)]) == 1
    assert f"mqtrio passwd: {file}:2: " in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert passwd(["--help"]) == 0
    assert "mqtrio passwd -c users.txt ann" in capsys.readouterr().out


def test_the_plugin_brings_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Passwords.commands(CommandsEvent()) == {"passwd": passwd}
    assert main(["passwd", "--list", str(file)]) == 0
    assert capsys.readouterr().out == "ann\tscrypt\nbob\tscrypt\n"
