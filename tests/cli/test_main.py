"""Arguments, exit codes, and what they make of a configuration."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from mqtrio.cli import explain, main, serve
from mqtrio.cli.entry import COMMANDS, FAILURE, INTERRUPTED, USAGE, make_parser
from mqtrio.errors import ConfigurationError
from mqtrio.settings import Limits, Listener, Log, Settings
from tests.cli.serving import PATIENCE, run


def settings_of(*arguments: str | Path) -> Settings:
    parsed = make_parser()[0].parse_args(["serve", *map(str, arguments)])
    return serve.configuration_of(parsed).settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "broker.toml"
    path.write_text(
        '[[listener]]\nurl = "mqtt://127.0.0.1:1"\n[[listener]]\nurl = "mqtt://[::1]:2"\n'
        '[limits]\nsessions = 5\n[log]\nlevel = "error"\nformat = "json"\n'
    )
    return path


def test_without_arguments_everything_is_default() -> None:
    assert settings_of() == settings_of("--allow-anonymous") == Settings()


def test_the_configuration_is_taken(config: Path) -> None:
    assert settings_of(config) == Settings(
        listener=(Listener(url="mqtt://127.0.0.1:1"), Listener(url="mqtt://[::1]:2")),
        limits=Limits(sessions=5),
        log=Log(level="error", format="json"),
    )


def test_the_command_line_goes_first(config: Path) -> None:
    made = settings_of(config, "--listen", "mqtt://h:3", "--listen", "mqtt://h:4")
    assert made.listener == (Listener(url="mqtt://h:3"), Listener(url="mqtt://h:4"))
    assert made.limits == Limits(sessions=5)
    made = settings_of(config, "--log-level", "debug")
    assert made.log == Log(level="debug", format="json")


def test_anonymous_clients_are_allowed_on_every_listener(config: Path) -> None:
    assert all(each.allow_anonymous for each in settings_of(config, "--allow-anonymous").listener)
    made = settings_of("--allow-anonymous", "--listen", "mqtt://0.0.0.0")
    assert made.listener == (Listener(url="mqtt://0.0.0.0", allow_anonymous=True),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--listen", "127.0.0.1"], "argument --listen: listener '127.0.0.1': no scheme"),
        (["serve", "--log-level", "loud"], "argument --log-level: invalid choice: 'loud'"),
        (["serve", "a.toml", "b.toml"], "unrecognized arguments: b.toml"),
        (["sevre"], "invalid choice: 'sevre'"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == USAGE
    assert message in capsys.readouterr().err


def test_no_command_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == USAGE
    shown = capsys.readouterr().err
    for command in COMMANDS:
        assert command.__name__.rpartition(".")[2].replace("_", "-") in shown


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ConfigurationError("first"), USAGE),
        (ExceptionGroup("", [ExceptionGroup("", [ConfigurationError("first")])]), USAGE),
        (KeyboardInterrupt(), INTERRUPTED),
        (RuntimeError("our mistake"), FAILURE),
    ],
)
def test_exit_codes(
    raised: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(arguments: object) -> int:
        raise raised

    monkeypatch.setattr(serve, "run", fail)
    assert main(["serve"]) == code
    assert capsys.readouterr().err == ("mqtrio: first\n" if code == USAGE else "")
    assert ("our mistake" in caplog.text) == (code == FAILURE)


def test_a_bug_is_no_answer_of_explain(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    def fail(arguments: object) -> int:
        raise RuntimeError("our mistake")

    monkeypatch.setattr(explain, "run", fail)
    assert main(["explain", str(config), "--client", "x", "--publish", "a"]) == explain.BROKEN == 3


FILES = """
[plugin.passwords]
file = "users.txt"
[plugin.more]
use = "passwords"
file = "more.txt"
[plugin.acl]
acl_file = "old.acl"
[plugin.anonymous]
"""


def test_check_finds_what_plugins_find_in_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(FILES)
    (tmp_path / "more.txt").write_text("ann:$7$1$not base64$x\n")
    (tmp_path / "old.acl").write_text("topic read a\ntopic wriet b\n")
    assert main(["check", str(config)]) == USAGE
    told = capsys.readouterr().err
    of = f"(of mqtrio {importlib.metadata.version('mqtrio')}): check_settings failed: {tmp_path}/"
    assert told.startswith(f"mqtrio: plugin 'passwords' {of}users.txt: No such file")
    assert f"\nmqtrio: plugin 'more' {of}more.txt:1: the salt or the digest" in told
    assert f"\nmqtrio: plugin 'acl' {of}old.acl:2: 'wriet' is no access" in told
    for name in ("users.txt", "more.txt", "old.acl"):
        (tmp_path / name).write_text("")
    assert main(["check", str(config)]) == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mqtt://0.0.0.0:18830", USAGE),
        ("mqtt://:18830", USAGE),
        ("mqtt://192.0.2.1", USAGE),
        ("mqtt://[2001:db8::1]", USAGE),
        ("mqtt://127.0.0.1", 0),
        ("mqtt://localhost", 0),
        ("mqtt://[::1]", 0),
        ("systemd://mqtt", 0),  # only the start knows which addresses these are
        ("mqtt://some.example", 0),
    ],
)
def test_check_finds_a_door_that_is_open(
    url: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(f'[[listener]]\nurl = "{url}"\n')
    assert main(["check", str(config)]) == code
    told = f"mqtrio: listener {url}: other machines can reach it and nobody authenticates"
    assert capsys.readouterr().err.startswith(told) == (code == USAGE)
    config.write_text(config.read_text() + "[plugin.anonymous]\n")
    assert main(["check", str(config)]) == 0


def test_check_finds_a_door_that_a_proxy_opens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(
        '[[listener]]\nurl = "unix:///run/x"\nproxy_protocol = true\ntrusted_proxies = ["unix"]\n'
    )
    assert main(["check", str(config)]) == USAGE
    assert "other machines can reach it" in capsys.readouterr().err
    config.write_text('[[listener]]\nurl = "unix:///run/x"\n')
    assert main(["check", str(config)]) == 0


def test_a_start_that_fails_names_the_distribution(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text('[plugin.acl]\nfile = "none.toml"\n')
    ended = run("serve", "--listen", "mqtt://127.0.0.1:0", config)
    assert ended.returncode == USAGE
    version = importlib.metadata.version("mqtrio")
    assert f"plugin 'acl' (of mqtrio {version}): start failed: {tmp_path}" in ended.stderr


def test_python_m_mqtrio_is_the_command() -> None:
    ended = run("--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("mqtrio ")
    assert "Trio" in ended.stdout


def test_help_has_examples_that_are_right() -> None:
    shown = run("serve", "--help").stdout
    examples = [
        line.split()[2:] for line in shown.splitlines() if line.startswith("  mqtrio serve")
    ]
    assert len(examples) > 3
    for arguments in examples:
        make_parser()[0].parse_args(["serve", *arguments])


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mqtrio", "config-reference"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == FAILURE
