"""The file of users: what is read, what an error says, and what a change leaves alone."""

import stat
import sys
from pathlib import Path

import pytest

from mqtrio import ConfigurationError
from mqtrio_plugins.passwords.file import changed_lines, read_users, stamp, write
from tests.plugins.passwords.kit import cheap, write_users


def test_users_comments_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_bytes(f"# staff\r\n\r\nann:{cheap('a')}\r\n  \n#eve:x\ngrün:{cheap('b')}".encode())
    users = read_users(file)
    assert list(users) == ["ann", "grün"]
    assert users["ann"].verify(b"a")
    assert users["grün"].verify(b"b")


def test_an_empty_file_has_no_users(tmp_path: Path) -> None:
    assert read_users(write_users(tmp_path / "users", {})) == {}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"secret", "expected USERNAME:HASH"),
        (b":$6$secret", "expected USERNAME:HASH"),
        (b"bob:secret", "no password hash"),
        (b"bob:", "no password hash"),
        (b"ann:$7$1$secret$secret", "'ann' stands in line 2 already"),
        (b"b\xfcb:secret", "not UTF-8"),
    ],
)
def test_an_error_names_file_and_line_and_no_secret(
    tmp_path: Path, line: bytes, complaint: str
) -> None:
    file = tmp_path / "users"
    file.write_bytes(f"# users\nann:{cheap('a')}\n\n".encode() + line + b"\nzoe:x\n")
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read_users(file)
    assert str(caught.value).startswith(f"{file}:4: ")
    assert "secret" not in str(caught.value)


def test_a_change_leaves_other_lines_alone() -> None:
    old = b"# first\r\nann:1\n\nnonsense\nb\xfcb:2\n#bob:3\nbob:4\nbob:5\nzoe:6"
    assert changed_lines(old, {"bob": "$new", "carl": "$c", "zoe": None}) == (
        b"# first\r\nann:1\n\nnonsense\nb\xfcb:2\n#bob:3\nbob:$new\ncarl:$c\n"
    )
    assert changed_lines(old, {"eve": None}) == old + b"\n"
    assert changed_lines(b"", {"ann": "$a"}) == b"ann:$a\n"


@pytest.mark.skipif(sys.platform == "win32", reason="only on Linux and macOS: modes of files")
def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.touch(0o644)
    link = tmp_path / "link"
    link.symlink_to(file)
    write(link, b"ann:1\n")
    assert file.read_bytes() == b"ann:1\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, file]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "users"
    file.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_stamp_tells_of_changes(tmp_path: Path) -> None:
    file = tmp_path / "users"
    assert stamp(file) is None
    file.write_bytes(b"1")
    first = stamp(file)
    assert stamp(file) == first
    write(file, b"2")
    assert stamp(file) not in (None, first)
