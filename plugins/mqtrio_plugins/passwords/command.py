"""`mqtrio passwd`: the file of users, from the command line."""

import argparse
import getpass
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mqtrio import ConfigurationError
from mqtrio_plugins.passwords.file import changed_lines, read_users, write
from mqtrio_plugins.passwords.hashes import LARGEST_LN, LN, MOST_ITERATIONS, Scrypt, kind_of
from mqtrio_plugins.passwords.scram import ITERATIONS, LEAST_ITERATIONS, ScramSha256, saslprep

_EXAMPLES = """\
examples:
  mqtrio passwd -c users.txt ann         make the file, with its first user
  mqtrio passwd users.txt bob            add bob, or give him another password
  mqtrio passwd -D users.txt bob         take him away
  mqtrio passwd --scram users.txt eve    add eve, who may use SCRAM-SHA-256
  mqtrio passwd --batch users.txt < new  USERNAME:PASSWORD lines from standard input
"""


class _Failure(Exception):
    """What is told to whoever has called the command."""


def passwd(arguments: Sequence[str]) -> int:
    """Run `mqtrio passwd` with these arguments; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    try:
        _run(options)
    except (_Failure, ConfigurationError, OSError) as error:
        print(f"mqtrio passwd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mqtrio passwd",
        description="Manage the file of users of the plugin passwords.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-D", "--delete", action="store_true", help="take the user away")
    what.add_argument("-l", "--list", action="store_true", help="show the users")
    what.add_argument(
        "--batch", action="store_true", help="read USERNAME:PASSWORD lines from standard input"
    )
    what.add_argument(
        "-b",
        "--argument",
        action="store_true",
        help="take the password from the command line, where others on this machine may read it",
    )
    parser.add_argument("-c", "--create", action="store_true", help="make the file")
    parser.add_argument(
        "--cost",
        type=int,
        default=LN,
        choices=range(10, LARGEST_LN + 1),
        metavar="N",
        help="2**N rounds of scrypt and KiB of memory for each check, 10 to 20 (%(default)s)",
    )
    parser.add_argument(
        "--scram",
        action="store_true",
        help="keep what SCRAM-SHA-256 needs, which lets plain passwords in, too",
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=ITERATIONS,
        metavar="N",
        help="rounds of SCRAM-SHA-256, which each client makes, too (%(default)s)",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("username", nargs="?", metavar="USERNAME")
    parser.add_argument("password", nargs="?", metavar="PASSWORD", help="only with -b")
    return parser


def _run(options: argparse.Namespace) -> None:
    path: Path = options.file
    if options.list:
        _expect(options, "--list", username=False)
        for username, kept in read_users(path).items():
            print(f"{username}\t{kind_of(kept)}")
        return
    if options.create and path.exists():
        raise _Failure(f"{path} exists already: leave out --create to change it")
    if not options.create and not path.exists():
        raise _Failure(f"{path} doesn't exist: --create makes it")
    changes: dict[str, str | None] = {}
    if options.batch:
        _expect(options, "--batch", username=False)
        for username, password in _batch():
            changes[username] = _hashed(options, username, password)
    else:
        _expect(options, "-b", username=True, password=options.argument)
        username = _username(options.username)
        if options.delete:
            changes[username] = None
        else:
            password = _password(options.password.encode() if options.argument else _asked())
            changes[username] = _hashed(options, username, password)
    old = b"" if options.create else path.read_bytes()
    users = set() if options.create else _names(old)
    if options.delete and not users & set(changes):
        raise _Failure(f"there is no user {options.username!r} in {path}")
    write(path, changed_lines(old, changes))
    for username, text in changes.items():
        done = "removed" if text is None else "changed" if username in users else "added"
        print(f"{done} {username}")


def _hashed(options: argparse.Namespace, username: str, password: bytes) -> str:
    """What is kept of a password, as it stands in the file."""
    if not options.scram:
        return str(Scrypt.of(password, ln=options.cost))
    if not LEAST_ITERATIONS <= options.iterations <= MOST_ITERATIONS:
        raise _Failure(f"--iterations is {LEAST_ITERATIONS:,} to {MOST_ITERATIONS:,}")
    try:
        if saslprep(username) != username:
            raise _Failure("to SCRAM this username is another one: write it in its plain form")
        return str(ScramSha256.of(password, iterations=options.iterations))
    except ValueError:
        raise _Failure("SCRAM has texts for names and passwords: printable, in UTF-8") from None


def _expect(
    options: argparse.Namespace, what: str, *, username: bool, password: bool = False
) -> None:
    if (options.username is not None) != username:
        raise _Failure("say whose password" if username else f"{what} goes without a username")
    if (options.password is not None) != password:
        raise _Failure(
            "-b wants the password behind the username"
            if password
            else "a password on the command line can be read by others; -b if you want that"
        )


def _names(content: bytes) -> set[str]:
    """The users of a file, whatever their hashes look like."""
    lines = content.decode(errors="surrogateescape").splitlines()
    return {line.strip().partition(":")[0] for line in lines if not line.startswith("#")}


def _username(text: str) -> str:
    if not text or ":" in text or text.startswith("#") or text != text.strip():
        raise _Failure("a username isn't empty, has no : and no spaces around, begins not with #")
    if not text.isprintable():
        raise _Failure("a username has no control characters")
    return text


def _password(data: bytes) -> bytes:
    if not data:
        raise _Failure("the password is empty")
    if b"\0" in data:
        raise _Failure("the password has a zero byte in it")
    if len(data) > 65_535:
        raise _Failure("MQTT has no room for a password of more than 65,535 bytes")
    return data


def _asked() -> bytes:
    """A password from the terminal, typed twice; without a terminal a line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise _Failure("these were two different passwords")
    return password.encode()


def _batch() -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(sys.stdin.buffer.read().splitlines(), 1):
        if not line.strip():
            continue
        username, colon, password = line.partition(b":")
        try:
            if not colon:
                raise _Failure("expected USERNAME:PASSWORD")
            yield _username(username.decode()), _password(password)
        except UnicodeDecodeError:
            raise _Failure(f"line {number}: this is not UTF-8") from None
        except _Failure as failure:
            raise _Failure(f"line {number}: {failure}") from None
