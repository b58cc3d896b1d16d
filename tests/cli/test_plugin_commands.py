"""Commands that installed plugins bring."""

import pytest

from mqtrio.cli import main
from tests.installing import Site

CODE = """
    import mqtrio

    class Brings(mqtrio.Plugin[None]):
        @classmethod
        @mqtrio.hookimpl
        def commands(cls, event):
            return {"greet": greet, "serve": greet, "forget": lambda arguments: None}

    def greet(arguments):
        print("hello", *arguments)
        return 3
"""


def test_a_command_runs_without_a_configuration(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("mqtrio-greet", {"greeter": "Brings"}, CODE)
    site.install("mqtrio-broken", {"broken": "Brings"}, "1 / 0")
    assert main(["greet", "--loud", "you"]) == 3
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("hello --loud you\n", "")


def test_help_shows_whose_command_it_is(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("mqtrio-greet", {"greeter": "Brings"}, CODE)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert "  greet   plugin 'greeter' (of mqtrio-greet 1.2)\n" in shown.out
    assert "mqtrio itself has a command 'serve' already" in shown.err


def test_a_command_of_two_plugins_belongs_to_the_first(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("mqtrio-greet", {"greeter": "Brings"}, CODE)
    site.install("mqtrio-other", {"other": "Brings"}, CODE)
    with pytest.raises(SystemExit):
        main(["unknown"])
    shown = capsys.readouterr().err
    assert "plugin 'other' (of mqtrio-other 1.2): plugin 'greeter' (of mqtrio-greet 1.2)" in shown
    assert "has a command 'greet' already" in shown
    assert "invalid choice: 'unknown'" in shown


def test_a_plugin_that_fails_is_told_where_a_command_is_unknown(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("mqtrio-broken", {"broken": "Brings"}, "1 / 0")
    with pytest.raises(SystemExit) as ended:
        main(["greet"])
    assert ended.value.code == 2
    assert "plugin 'broken' (of mqtrio-broken 1.2) can't be imported" in capsys.readouterr().err


def test_an_exit_status_is_a_number(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("mqtrio-greet", {"greeter": "Brings"}, CODE)
    assert main(["forget"]) == 2
    assert "'forget' must return an exit status, not NoneType" in capsys.readouterr().err
