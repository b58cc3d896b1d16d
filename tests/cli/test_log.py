"""What the server writes for a record."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mqtrio import log
from mqtrio.log import JsonFormatter, TextFormatter, set_up
from mqtrio.settings import Log

NOON = 1763812800.0625  # 2025-11-22T12:00:00.062Z


def record(message: str, *args: object, level: int = logging.INFO, **extra: Any) -> Any:
    made = logging.getLogger("mqtrio.x").makeRecord(
        "mqtrio.x", level, __file__, 1, message, args, None, extra=extra
    )
    made.created, made.msecs = NOON, 62.5
    return made


def text(*args: Any, **extra: Any) -> str:
    return TextFormatter().format(record(*args, **extra))


def obj(*args: Any, **extra: Any) -> dict[str, Any]:
    line = JsonFormatter().format(record(*args, **extra))
    assert "\n" not in line
    read: dict[str, Any] = json.loads(line)
    return read


def with_traceback() -> Any:
    made = record("broken")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_line_of_text() -> None:
    line = text(
        "%s is up", "it", level=logging.WARNING, client_id="a b", qos=1, address="::1", x=None
    )
    assert line == (
        '2025-11-22T12:00:00.062Z warning mqtrio.x it is up client_id="a b" qos=1 address=::1'
    )


def test_a_json_object() -> None:
    assert obj("up", client_id="a b", qos=1, resumed=True, ratio=0.5, x=None) == {
        "time": "2025-11-22T12:00:00.062Z",
        "level": "info",
        "logger": "mqtrio.x",
        "message": "up",
        "client_id": "a b",
        "qos": 1,
        "resumed": True,
        "ratio": 0.5,
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", '""'),
        ("plain-1.2:3/x", "plain-1.2:3/x"),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("\u202eevil", '"\\u202eevil"'),
        ("Küche", '"Küche"'),
        (True, "true"),
        (1.5, "1.5"),
        (b"secret", '"<6 bytes>"'),
        (["a", b"secret"], "\"['a', '<6 bytes>']\""),
        ({"a": {"b": b"secret"}}, "\"{'a': {'b': '<6 bytes>'}}\""),
    ],
)
def test_values_in_text(value: object, written: str) -> None:
    assert text("m", field=value).endswith(f" m field={written}")


def test_a_message_is_always_one_line() -> None:
    assert text("hello %s", "x\n2025 error fake").endswith(r"hello x\n2025 error fake")


@pytest.mark.parametrize("name", sorted(log.SECRET))
def test_secrets_are_not_written(name: str) -> None:
    for form in (TextFormatter(), JsonFormatter()):
        extra: dict[str, Any] = {name: "hunter2", "other": {"deep": [b"hunter2"]}}
        written = form.format(record("m", **extra))
        assert "hunter2" not in written
        assert name in written


def test_a_field_cannot_pose_as_the_time() -> None:
    assert obj("m", time="never", level="none")["time"] == "2025-11-22T12:00:00.062Z"


def test_tracebacks_follow_indented() -> None:
    first, *rest = TextFormatter().format(with_traceback()).splitlines()
    assert first.endswith("mqtrio.x broken")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-2:] == ["    ValueError: first", "    second"]


def test_tracebacks_in_json_are_a_field() -> None:
    read = json.loads(JsonFormatter().format(with_traceback()))
    assert read["exception"].endswith("ValueError: first\nsecond")


def test_the_time_of_each_record_is_its_own() -> None:
    form = TextFormatter()
    later = record("m")
    later.created, later.msecs = NOON + 61, 7.0
    assert form.format(record("m"))[:24] == "2025-11-22T12:00:00.062Z"
    assert form.format(later)[:24] == "2025-11-22T12:01:01.007Z"


# -- set_up changes the whole process: undone after each test ------------------------------------


@pytest.fixture
def process() -> Iterator[None]:
    names = ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks", "_srcfile")
    root = logging.getLogger()
    before = {name: getattr(logging, name, None) for name in names}
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # pytest's: set_up would close them
    yield
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)
    for name, value in before.items():
        setattr(logging, name, value)


@pytest.mark.usefixtures("process")
def test_set_up_writes_from_the_level_on() -> None:
    stream = io.StringIO()
    set_up(Log(level="warning"), stream)
    logging.getLogger("mqtrio.a").info("quiet")
    logging.getLogger("other").warning("loud")
    assert stream.getvalue().endswith(" warning other loud\n")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.usefixtures("process")
def test_set_up_again_replaces_what_was() -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up(Log(), first)
    set_up(Log(format="json", level="debug"), second)
    logging.getLogger("mqtrio").debug("x")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["level"] == "debug"


# -- what the engine says ------------------------------------------------------------------------


CASES: list[tuple[Callable[[], None], int, str, str]] = [
    (
        lambda: log.connected(
            "c1", "ann", "::1", "mqtt://l", protocol_version=5, keep_alive=60, resumed=False
        ),
        logging.INFO,
        "connected client_id=c1 username=ann address=::1 listener=mqtt://l protocol_version=5 "
        "keep_alive=60 resumed=false",
        "connected: 'c1' from ::1",
    ),
    (
        lambda: log.disconnected("c1", None, "::1", 0x8D, "keep alive timeout"),
        logging.INFO,
        'disconnected client_id=c1 address=::1 reason_code=0x8D why="keep alive timeout"',
        "disconnected: 'c1' from ::1, 0x8D 'keep alive timeout'",
    ),
    (
        lambda: log.refused("a\nb", None, "::1", 0x87, "no"),
        logging.WARNING,
        'refused client_id="a\\nb" address=::1 reason_code=0x87 why=no',
        "refused: 'a\\nb' from ::1, 0x87 'no'",
    ),
]


@pytest.mark.parametrize(("say", "level", "written", "plain"), CASES)
def test_what_is_said_of_clients(
    say: Callable[[], None],
    level: int,
    written: str,
    plain: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ours write each fact once; whoever writes the message only has client and reason in it."""
    caplog.set_level(logging.INFO, "mqtrio.connections")
    say()
    (made,) = caplog.records
    assert (made.name, made.levelno) == ("mqtrio.connections", level)
    assert TextFormatter().format(made).partition("mqtrio.connections ")[2] == written
    assert logging.Formatter().format(made) == plain
    read = json.loads(JsonFormatter().format(made))
    assert read["message"] == written.split()[0]
    assert read["address"] == "::1"
    assert log.SHORT not in read


@pytest.mark.parametrize("say", [case[0] for case in CASES])
def test_nothing_is_said_where_nobody_listens(
    say: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "mqtrio.connections")
    say()
    assert not caplog.records
