"""`mqtrio explain`: the plugins of a configuration, started and asked, and nothing else."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from mqtrio.cli import main
from tests.installing import Site

CODE = """
    import mqtrio

    class Notes:
        def __init__(self, folder):
            self.path = f"{folder}/notes"

        def add(self, word):
            with open(self.path, "a") as file:
                file.write(word + " ")

    @mqtrio.settings
    class Words:
        folder: str = mqtrio.required_setting("where it writes what is called")
        password: str = mqtrio.setting("right", "of ann")

    class Guard(mqtrio.Plugin[Words]):
        api = 1

        def __init__(self, settings, *, name):
            super().__init__(settings, name=name)
            self.notes = Notes(settings.folder)

        @mqtrio.hookimpl
        async def start(self, event):
            self.notes.add("start")

        @mqtrio.hookimpl
        def stop(self, event):
            self.notes.add("stop")

        @mqtrio.hookimpl
        async def run(self, event):
            self.notes.add("run")

        @mqtrio.hookimpl
        def open_store(self, event):
            self.notes.add("open_store")

        @mqtrio.hookimpl
        def published(self, event):
            self.notes.add("published")

        @mqtrio.hookimpl
        def authenticate(self, event):
            if event.username != "ann":
                return None
            if event.password == self.settings.password.encode():
                return mqtrio.Allow(why="the password is right", max_qos=1)
            return mqtrio.Deny(mqtrio.ReasonCode.BAD_USER_NAME_OR_PASSWORD, why="wrong password")

        @mqtrio.hookimpl
        def authorize_publish(self, event):
            self.notes.add("authorize_publish")
            if event.username == "ann":
                return mqtrio.Allow(why=f"{self.name} lets ann publish", max_qos=1)
            return mqtrio.Deny(why=f"{self.name} lets only ann publish")

        @mqtrio.hookimpl
        async def transform_publish(self, event):
            return event.changed(topic=f"site/{event.topic}")

        @mqtrio.hookimpl
        def authorize_subscribe(self, event):
            if event.topic_filter == "broken":
                raise LookupError(self.settings.password)
            return mqtrio.Allow(why=event.address or "no address")

    class Broken(mqtrio.Plugin[None]):
        api = 1

        @mqtrio.hookimpl
        def start(self, event):
            raise OSError("no such file")
""".replace("@mqtrio.settings\n", "@attrs.define(frozen=True, kw_only=True)\n").replace(
    "import mqtrio\n", "import attrs\n    import mqtrio\n", 1
)


class Explaining:
    """The command, with a configuration of its own."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder = folder
        self.config = folder / "broker.toml"
        self.capsys = capsys
        self.monkeypatch = monkeypatch
        self.err = ""
        self.write(
            f"""
            [[listener]]
            url = "mqtt://127.0.0.1:1883"
            [[listener]]
            url = "mqtt://0.0.0.0:1884"
            [plugin.guard]
            folder = {json.dumps(str(folder))}
            """
        )

    def write(self, text: str) -> None:
        self.config.write_text(text)

    def __call__(self, *arguments: str, code: int, password: bytes | None = None) -> str:
        """Run it, which must end so; returns what it has written."""
        if password is not None:
            self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(password)))
        assert main(["explain", str(self.config), "--client", "c1", *arguments]) == code
        shown = self.capsys.readouterr()
        self.err = shown.err
        return shown.out

    def json(self, *arguments: str, code: int, password: bytes | None = None) -> Any:
        return json.loads(self(*arguments, "--json", code=code, password=password))

    @property
    def notes(self) -> list[str]:
        return (self.folder / "notes").read_text().split()


@pytest.fixture
def explain(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Explaining:
    site.install("mqtrio-guard", {"guard": "Guard", "broken": "Broken"}, CODE)
    return Explaining(tmp_path, capsys, monkeypatch)


def test_allowed(explain: Explaining) -> None:
    out = explain("--username", "ann", "--publish", "a/b", code=0)
    lines = out.splitlines()
    assert lines[0] == "allowed: client 'c1' of 'ann', publish 'a/b' as 'site/a/b', QoS 0"
    assert lines[1] == "  authorize_publish, decided by guard: guard lets ann publish"
    assert lines[3].split() == ["HOOK", "PLUGIN", "ANSWER", "TOOK", "WHY"]
    assert lines[4].split()[:4] == ["authorize_publish", "guard", "Allow", "(max_qos"]
    assert lines[4].endswith("ms  guard lets ann publish")
    assert "changed (topic 'site/a/b')" in lines[6]


def test_it_starts_and_stops_the_plugins_and_does_nothing_else(explain: Explaining) -> None:
    explain("--username", "ann", "--publish", "a/b", code=0)
    assert explain.notes == ["start", "authorize_publish", "stop"]


def test_denied(explain: Explaining) -> None:
    out = explain("--publish", "a/b", code=1)
    assert out.startswith("denied: client 'c1' without a username, publish 'a/b', QoS 0\n")
    assert "Deny (0x87 NOT_AUTHORIZED)" in out
    assert explain.notes[-1] == "stop"


def test_json_has_the_same(explain: Explaining) -> None:
    explained = explain.json("--username", "eve", "--publish", "a/b", code=1)
    assert explained["allowed"] is False
    assert (explained["client_id"], explained["username"]) == ("c1", "eve")
    assert (explained["action"], explained["asked"], explained["qos"]) == ("publish", "a/b", 0)
    assert explained["decisive"] == "authorize_publish"
    [decision] = explained["decisions"]
    assert decision["decided_by"] == ["guard"]
    assert decision["why"] == "guard lets only ann publish"
    [answer] = decision["answers"]
    assert (answer["plugin"], answer["answer"]) == ("guard", "Deny")
    assert answer["seconds"] > 0


def test_a_subscription_from_an_address(explain: Explaining) -> None:
    explained = explain.json("--subscribe", "a/#", "--address", "192.0.2.7:1234", code=0)
    assert explained["decisions"][0]["why"] == "192.0.2.7:1234"


def test_the_order_of_the_plugins_is_the_configurations(explain: Explaining) -> None:
    folder = json.dumps(str(explain.folder))
    explain.write(
        f'plugins = ["last", "first"]\n[plugin.first]\nuse = "guard"\nfolder = {folder}\n'
        f'[plugin.last]\nuse = "guard"\nfolder = {folder}\n'
    )
    explained = explain.json("--publish", "a", code=1)
    assert [
        (answer["plugin"], answer["answer"]) for answer in explained["decisions"][0]["answers"]
    ] == [("last", "Deny"), ("first", "not asked")]


def test_passwords_are_read_from_standard_input_and_never_shown(explain: Explaining) -> None:
    who = ("--username", "ann", "--password-stdin", "--publish", "a/b")
    explained = explain.json(*who, code=0, password=b"right\n")
    assert [each["hook"] for each in explained["decisions"]] == [
        *("authenticate", "authorize_publish", "transform_publish"),
    ]
    assert explained["decisions"][0]["why"] == "the password is right"
    out = explain(*who, code=1, password=b"wr0ng")
    assert "authenticate, decided by guard: wrong password" in out
    assert "wr0ng" not in out + explain.err
    above = explain.json(*who, "--qos", "2", code=1, password=b"right")
    assert above["decisive"] == "broker"


def test_a_plugin_that_fails_is_named_and_tells_no_secret(
    explain: Explaining, caplog: pytest.LogCaptureFixture
) -> None:
    out = explain("--subscribe", "broken", code=1)
    assert "authorize_subscribe, decided by guard: raised LookupError" in out
    assert "right" not in out
    assert "plugin guard: authorize_subscribe raised an exception" in caplog.text


@pytest.mark.parametrize(
    ("listener", "plugins", "code"),
    [
        ("mqtt://127.0.0.1:1883", True, 1),
        ("mqtt://127.0.0.1:1883", False, 0),
        ("mqtt://0.0.0.0:1884", False, 1),
        ("mqtt://127.0.0.1:1885", False, 1),
        ("mqtt://0.0.0.0:1886", True, 0),
    ],
)
def test_clients_that_nobody_knows(
    listener: str, plugins: bool, code: int, explain: Explaining
) -> None:
    """What the listener says, and without a word of it: local ones, where nobody authenticates."""
    guard = f"[plugin.guard]\nfolder = {json.dumps(str(explain.folder))}\n" if plugins else ""
    explain.write(
        f"""
        [[listener]]
        url = "mqtt://127.0.0.1:1883"
        [[listener]]
        url = "mqtt://0.0.0.0:1884"
        [[listener]]
        url = "mqtt://127.0.0.1:1885"
        allow_anonymous = false
        [[listener]]
        url = "mqtt://0.0.0.0:1886"
        allow_anonymous = true
        {guard}
        """
    )
    explained = explain.json(
        *("--authenticate", "--subscribe", "a", "--listener", listener), code=code
    )
    decision = explained["decisions"][0]
    assert (decision["hook"], decision["allowed"]) == ("authenticate", code == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--publish", "a/+"], "'a/+': "),
        (["--subscribe", "a/#/b"], "'a/#/b': "),
        (["--subscribe", "a", "--retain"], "retain and payload belong to a publish"),
        (["--publish", "a", "--listener", "mqtt://h:1"], "there is no listener mqtt://h:1; there"),
    ],
)
def test_what_can_not_be_asked(arguments: list[str], message: str, explain: Explaining) -> None:
    assert explain(*arguments, code=2) == ""
    assert message in explain.err


@pytest.mark.parametrize(
    "arguments", [[], ["--publish", "a", "--subscribe", "b"], ["--publish", "a", "--qos", "3"]]
)
def test_wrong_arguments(arguments: list[str], explain: Explaining) -> None:
    with pytest.raises(SystemExit) as ended:
        explain(*arguments, code=2)
    assert ended.value.code == 2


def test_a_wrong_configuration(explain: Explaining) -> None:
    explain.write("[plugin.gard]\n")
    assert explain("--publish", "a", code=2) == ""
    assert "did you mean 'guard'?" in explain.err
    explain.write("[plugin.broken]\n")
    assert explain("--publish", "a", code=2) == ""
    assert "plugin 'broken' (of mqtrio-guard 1.2): start failed" in explain.err


def test_without_plugins(explain: Explaining) -> None:
    explain.write("")
    out = explain("--publish", "$SYS/x", code=1)
    assert "authorize_publish, decided by broker: no plugin allows publishing to topics" in out
    assert "no plugin implements it" in explain("--publish", "x", code=0)


def test_a_unix_socket_is_this_machines(explain: Explaining) -> None:
    explain.write('[[listener]]\nurl = "unix:///run/mqtrio.sock"\n')
    assert "lets in anonymous ones" in explain("--publish", "x", "--authenticate", code=0)
