"""Whole configurations: which plugins are enabled, in which order, with which settings."""

from pathlib import Path
from typing import Any

import pytest

import mqtrio
from mqtrio.config import InvalidSettings, load_config
from tests.installing import Site

CODE = """
    from collections.abc import Mapping
    from pathlib import Path

    import attrs
    import mqtrio

    @attrs.define(frozen=True, kw_only=True)
    class Rule:
        topic: str = mqtrio.required_setting("where")
        size: int = mqtrio.setting(1, "how much", unit="bytes", minimum=1)

    @attrs.define(frozen=True, kw_only=True)
    class Settings:
        file: Path | None = mqtrio.setting(None, "what is read")
        files: tuple[Path, ...] = mqtrio.setting((), "what else is read")
        password: str | None = mqtrio.setting(None, "how it is let in", secret=True)
        names: tuple[str, ...] = mqtrio.setting((), "who")
        by_name: Mapping[str, str] = mqtrio.setting({}, "what whom")
        waits: tuple[float, ...] = mqtrio.setting((), "how long", unit="seconds", minimum=0)
        rule: tuple[Rule, ...] = mqtrio.setting((), "rules")
        memory: int = mqtrio.setting(5, "called like a limit of the broker")

        def __attrs_post_init__(self):
            if self.password == "bad-password" or "bad-name" in self.names:
                raise mqtrio.ConfigurationError(f"not {self.password} and not {self.names}")

    class Full(mqtrio.Plugin[Settings]):
        @mqtrio.hookimpl
        def authenticate(self, event):
            return None

    class Plain(mqtrio.Plugin[None]):
        @mqtrio.hookimpl
        def accept(self, event):
            return None

    @attrs.define
    class Clash:
        use: str = mqtrio.setting("", "taken")

    class Clashing(mqtrio.Plugin[Clash]):
        @mqtrio.hookimpl
        def accept(self, event):
            return None

    class Misspelt(mqtrio.Plugin[None]):
        @mqtrio.hookimpl
        def acept(self, event):
            return None
"""


@pytest.fixture(autouse=True)
def installed(site: Site) -> None:
    names = {"full": "Full", "plain": "Plain", "clashing": "Clashing", "misspelt": "Misspelt"}
    site.install("mqtrio-some", names, CODE)


def load(folder: Path, text: str) -> mqtrio.Configuration:
    path = folder / "broker.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def errors(folder: Path, text: str) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        load(folder, text)
    return [str(each).replace(f"{folder}/", "") for each in caught.value.problems]


def settings(folder: Path, text: str) -> Any:
    return load(folder, f"[plugin.full]\n{text}").plugins[0].settings


# -- which, and in which order -------------------------------------------------------------------


def test_each_table_enables_a_plugin_in_the_order_of_the_file(tmp_path: Path) -> None:
    read = load(
        tmp_path,
        '[plugin.plain]\n[plugin.full]\nmemory = 7\n[plugin.other]\nuse = "full"\nrequired = true',
    )
    assert [(each.name, each.use, each.required) for each in read.plugins] == [
        ("plain", "plain", False),
        ("full", "full", False),
        ("other", "full", True),
    ]
    plain, full, other = read.plugins
    assert plain.settings is None
    assert (full.settings.memory, other.settings.memory) == (7, 5)
    assert (full.distribution, full.version) == ("mqtrio-some", "1.2")
    made = read.make_plugins()
    assert [(type(each).__name__, each.name) for each in made] == [
        ("Plain", "plain"),
        ("Full", "full"),
        ("Full", "other"),
    ]
    assert made[1].settings is full.settings


def test_installed_is_not_enabled(tmp_path: Path) -> None:
    assert load(tmp_path, "").plugins == ()


def test_the_order_may_be_said(tmp_path: Path) -> None:
    read = load(tmp_path, 'plugins = ["full", "plain"]\n[plugin.plain]\n[plugin.full]')
    assert [each.name for each in read.plugins] == ["full", "plain"]


def test_two_listeners_of_one_url(tmp_path: Path) -> None:
    one = '[[listener]]\nurl = "mqtt://127.0.0.1:1883"\n'
    assert errors(tmp_path, f"{one}{one}max_connections = 5\n") == [
        "broker.toml:4: listener[1].url: listener[0] has the same one: give one of them another "
        "port"
    ]


def test_the_order_names_each_enabled_plugin_once(tmp_path: Path) -> None:
    text = 'plugins = [\n"full",\n"full",\n"plian"]\n[plugin.plain]\n[plugin.full]\n'
    text += "[plugin.other.memory]\nx = 1\n"  # its own table has no header
    assert errors(tmp_path, text)[:4] == [
        'broker.toml:3: plugins[1]: "full" stands there twice',
        "broker.toml:4: plugins[2]: there is no table [plugin.plian]; did you mean plain?",
        "broker.toml:5: plugin.plain: enabled, but not named in the array plugins",
        "broker.toml:7: plugin.other: enabled, but not named in the array plugins",
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"plugin": 3}, "plugin: 3 is a whole number; allowed: tables [plugin.NAME]"),
        ({"plugin": {"full": 3}}, "plugin.full: 3 is a whole number; allowed: a table"),
        ({"plugin": {3: {}}}, "plugin.3: the name of a plugin has letters, digits"),
        ({"plugin": {"a/b": {}}}, 'plugin."a/b": the name of a plugin has letters, digits'),
        ({"plugins": "full"}, 'plugins: "full" is a string; allowed: an array, each item a string'),
        ({"plugins": [3]}, "plugins: 3 is a whole number; allowed: a string"),
        ({"plugin": {"full": {"use": 3}}}, "plugin.full.use: 3 is a whole number; allowed: a stri"),
        (
            {"plugin": {"full": {"required": "false"}}},
            'plugin.full.required: "false" is a string; allowed: true or false',
        ),
        ({"plugin": {"full": {"requird": 1}}}, "requird: unknown; did you mean required?"),
        ({"plugin": {"plain": {"x": 1}}}, "plugin.plain.x: unknown; allowed: use, required"),
        ({"plugin": {"full": {"queue_bytes": 1}}}, "here; did you mean limits.queue_bytes?"),
        ({"plugin": {"clashing": {}}}, "has a setting called 'use', which means something else"),
        ({"plugin": {"plian": {}}}, "no plugin 'plian' is installed; did you mean 'plain'?"),
        ({"plugin": {"mine": {"use": "plian"}}}, "plugin.mine: no plugin 'plian' is installed"),
        ({"plugn": {}}, "plugn: unknown; did you mean plugin?"),
    ],
)
def test_wrong_tables(content: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_config(content)
    (problem,) = caught.value.problems
    assert text in str(problem)
    assert str(problem).startswith("configuration: ")


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    text = """\
[limits]
memory = "much"
[plugin.full]
names = "ann"
required = 1
[plugin.absent]
[[listener]]
url = "mqtt://127.0.0.1"
authenticate = [
  "plain",
  "ful",
]
[plugin.plain]
"""
    assert errors(tmp_path, text) == [
        'broker.toml:2: limits.memory: "much" is a string; allowed: a whole number of bytes or a '
        'string such as "64KiB", "16MiB", "1GiB", at least 1 byte',
        'broker.toml:4: plugin.full.names: "ann" is a string; '
        "allowed: an array, each item a string",
        "broker.toml:5: plugin.full.required: 1 is a whole number; allowed: true or false",
        "broker.toml:6: plugin.absent: no plugin 'absent' is installed; install the distribution "
        f"that brings it, or use one of those installed: {known()}",
        'broker.toml:10: listener[0].authenticate[0]: the plugin "plain" authenticates nobody',
        'broker.toml:11: listener[0].authenticate[1]: no enabled plugin is called "ful"; '
        "did you mean full?",
    ]


def known() -> str:
    from mqtrio.installed import find_installed

    return ", ".join(map(repr, find_installed().names))


def test_a_listener_may_name_plugins_of_the_program() -> None:
    content = {"listener": [{"url": "mqtt://h", "authenticate": ["mine"]}]}
    assert load_config(content, beside=["mine"]).settings.listener[0].authenticate == ("mine",)
    with pytest.raises(InvalidSettings, match='no enabled plugin is called "mine"; enabled are: n'):
        load_config(content)


def test_a_program_gives_tables_or_settings() -> None:
    kind = load_config({"plugin": {"full": {}}}).plugins[0].settings.__class__
    given = kind(memory=9)
    made = load_config({"plugin": {"full": given, "plain": None, "two": {"use": "full"}}})
    assert made.plugins[0].settings is given
    assert made.plugins[1].settings is None
    assert made.plugins[2].settings == kind()
    with pytest.raises(InvalidSettings, match=r"plugin\.full: it is a Log; allowed: a tab"):
        load_config({"plugin": {"full": mqtrio.Log()}})


def test_hooks_that_do_not_fit_are_told_before_anything_starts() -> None:
    read = load_config({"plugin": {"misspelt": {}, "plain": {}}})
    with pytest.raises(mqtrio.PluginError) as caught:
        read.make_plugins()
    assert "plugin 'misspelt'" in str(caught.value)
    assert "did you mean 'accept'?" in str(caught.value)
    assert "It comes with mqtrio-some 1.2" in str(caught.value)


# -- paths, and strings from elsewhere -----------------------------------------------------------


def test_a_path_is_relative_to_the_file(tmp_path: Path) -> None:
    made = settings(tmp_path, 'file = "users"\nfiles = ["a/b", "/etc/c"]')
    assert made.file == tmp_path / "users"
    assert made.files == (tmp_path / "a/b", Path("/etc/c"))


def test_a_path_of_a_program_is_relative_to_the_working_directory() -> None:
    for given in ("users", Path("users")):
        made = load_config({"plugin": {"full": {"file": given}}}).plugins[0].settings
        assert made.file == Path("users")


@pytest.mark.parametrize("wrong", ["3", '""', "true", '["a"]', '"a\\u0000"', '{ env = "HOME" }'])
def test_what_is_no_path(tmp_path: Path, wrong: str) -> None:
    (error,) = errors(tmp_path, f"[plugin.full]\nfile = {wrong}")
    assert error.startswith("broker.toml:2: plugin.full.file: ")
    assert error.endswith("; allowed: a path")


def test_strings_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD_OF_TEST", "hunter2\n")
    (tmp_path / "secret").write_text("from a file\n")
    made = settings(
        tmp_path,
        'password = { env = "PASSWORD_OF_TEST" }\nnames = ["x", { file = "secret" }]\n'
        f"by_name.a = {{ file = '{tmp_path}/secret' }}",
    )
    assert made.password == "hunter2\n"
    assert made.names == ("x", "from a file")
    assert made.by_name == {"a": "from a file"}
    assert "hunter2" not in repr(made)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{ env = "NO_SUCH_VARIABLE" }', "there is no environment variable NO_SUCH_VARIABLE"),
        ('{ file = "absent" }', "can't read absent: No such file or directory"),
        ('{ file = "latin" }', "latin is not UTF-8"),
        ('{ environment = "X" }', "allowed: a string"),
        ('{ env = "A", file = "B" }', "allowed: a string"),
        ("{ env = 3 }", "allowed: a string"),
        ('{ env = "" }', "allowed: a string"),
    ],
)
def test_strings_that_are_not_there(tmp_path: Path, written: str, told: str) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (error,) = errors(tmp_path, f"[plugin.full]\n\npassword = {written}")
    assert error.startswith("broker.toml:3: plugin.full.password: ")
    assert told in error


def test_only_a_string_comes_from_elsewhere(tmp_path: Path) -> None:
    (error,) = errors(tmp_path, '[limits]\nmemory = { env = "HOME" }')
    assert "it is a table; allowed: a whole number" in error


def test_secrets_stand_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (error,) = errors(tmp_path, '[plugin.full]\npassword = "bad-password"')
    assert error == "broker.toml:1: plugin.full: not *** and not ()"
    (error,) = errors(tmp_path, "[plugin.full]\npassword = 12345")
    assert "12345" not in error
    monkeypatch.setenv("NAME_OF_TEST", "bad-name")
    (error,) = errors(tmp_path, '[plugin.full]\nnames = [{ env = "NAME_OF_TEST" }]')
    assert error == "broker.toml:1: plugin.full: not None and not ('***',)"
    monkeypatch.setenv("URL_OF_TEST", "ftp://hidden")
    (error,) = errors(tmp_path, '[[listener]]\nurl = { env = "URL_OF_TEST" }')
    assert "hidden" not in error


# -- tables in tables ----------------------------------------------------------------------------


def test_tables_in_a_plugins_table(tmp_path: Path) -> None:
    made = settings(
        tmp_path, 'waits = ["1m", 2]\n[[plugin.full.rule]]\ntopic = "a"\nsize = "1KiB"\n'
    )
    assert made.waits == (60.0, 2.0)
    assert (made.rule[0].topic, made.rule[0].size) == ("a", 1024)


def test_errors_in_tables_in_a_plugins_table(tmp_path: Path) -> None:
    text = (
        '[plugin.full]\nwaits = [1, "soon",\n -1]\nby_name = { a = 3 }\n'
        "[[plugin.full.rule]]\nsize = 0\ntopik = 1\n"
    )
    assert errors(tmp_path, text) == [
        'broker.toml:2: plugin.full.waits[1]: "soon" is a string; allowed: a number of seconds or '
        'a string such as "30s", "5m", "2h", "1d", at least 0',
        "broker.toml:3: plugin.full.waits[2]: -1 is out of range; allowed: a number of seconds or "
        'a string such as "30s", "5m", "2h", "1d", at least 0',
        "broker.toml:4: plugin.full.by_name.a: 3 is a whole number; allowed: a string",
        "broker.toml:5: plugin.full.rule[0].topic: missing; where",
        "broker.toml:6: plugin.full.rule[0].size: 0 is out of range; allowed: a whole number of "
        'bytes or a string such as "64KiB", "16MiB", "1GiB", at least 1 byte',
        "broker.toml:7: plugin.full.rule[0].topik: unknown; did you mean topic?",
    ]


# -- a broker of it ------------------------------------------------------------------------------


async def test_a_broker_of_a_file_has_its_plugins_before_those_of_the_program(
    tmp_path: Path,
) -> None:
    class Mine:
        @mqtrio.hookimpl
        def authenticate(self, event: mqtrio.AuthenticateEvent) -> None:
            return None

    path = tmp_path / "broker.toml"
    path.write_text(
        '[[listener]]\nurl = "mqtt://127.0.0.1:0"\nauthenticate = ["Mine"]\n'
        "[plugin.full]\n[plugin.plain]\n"
    )
    async with mqtrio.open_broker(config=path, plugins=[Mine()]) as broker:
        assert list(broker.plugins) == ["full", "plain", "Mine"]
        assert [each.url for each in broker.listeners] == ["mqtt://127.0.0.1:0"]
    async with mqtrio.open_broker([], config={"plugin": {"a": {"use": "plain"}}}) as broker:
        assert list(broker.plugins) == ["a"]
    async with mqtrio.open_broker([], config=load_config({"plugin": {"plain": None}})) as broker:
        assert list(broker.plugins) == ["plain"]


async def test_a_configuration_is_all_or_nothing() -> None:
    with pytest.raises(mqtrio.ConfigurationError, match="give one of config, settings"):
        async with mqtrio.open_broker(config={}, limits={}):
            raise AssertionError("never opened")
