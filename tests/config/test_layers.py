"""A listener's scheme enables its layers; their options stand in the listener."""

from pathlib import Path

import pytest

import mqtrio
from mqtrio.config import InvalidSettings, load_config
from mqtrio.config.reference import plugin_sections
from mqtrio.installed import find_installed
from mqtrio.stacks import plugins_for
from tests.installing import Site
from tests.toy_layers import ShiftSettings, Toy

CODE = """
    import mqtrio
    from tests.toy_layers import provider

    class {name}(mqtrio.Plugin[None]):
        @classmethod
        @mqtrio.hookimpl
        def layers(cls, event):
            return {{"{layer}": provider("{layer}")}}

        @mqtrio.hookimpl
        def authenticate(self, event):
            return None
"""


@pytest.fixture
def installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Both layers are the toy, and no others are installed."""
    found = find_installed()
    others = tuple(each for each in found.plugins if each.name not in ("tls", "websocket"))
    for module in ("mqtrio.stacks", "mqtrio.config.layers", "mqtrio.config.plugins"):
        monkeypatch.setattr(f"{module}.find_installed", lambda: only(others))
    return site


def only(others: tuple[mqtrio.installed.InstalledPlugin, ...]) -> mqtrio.installed.Installed:
    toys = [each for each in find_installed().plugins if each.distribution.startswith("mqtrio-toy")]
    return mqtrio.installed.Installed((*others, *toys))


def install(site: Site, layer: str, brings: str = "", entry: str = "") -> None:
    code = CODE.format(name=layer.title(), layer=brings or layer)
    site.install(f"mqtrio-toy-{layer}", {entry or layer: layer.title()}, code)


def read(tmp_path: Path, text: str, beside: object = ()) -> mqtrio.Configuration:
    path = tmp_path / "broker.toml"
    path.write_text(text)
    return load_config(path, beside=beside)  # type: ignore[arg-type]


def errors(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        read(tmp_path, text)
    return [str(each).replace(f"{tmp_path}/", "") for each in caught.value.problems]


TWO = """
[[listener]]
url = "mqtts://127.0.0.1:0"
tls = { by = 3 }

[[listener]]
url = "mqtts://127.0.0.2:0"
[listener.tls]
by = 5
password = { env = "TOY_PASSWORD" }
"""


def test_a_scheme_enables_its_layers(
    tmp_path: Path, installed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(installed, "tls")
    monkeypatch.setenv("TOY_PASSWORD", "hunter2")
    made = read(tmp_path, TWO + "[plugin.acl]\nrules = []\n")
    first, second = made.settings.listener
    assert first.tls == ShiftSettings(by=3)
    assert second.tls == ShiftSettings(by=5, password="hunter2")
    assert [spec.name for spec in made.plugins] == ["tls", "acl"]
    assert [plugin.name for plugin in made.make_plugins()] == ["tls", "acl"]
    assert "hunter2" not in repr(made)


def test_a_table_says_where_it_stands_among_the_others(tmp_path: Path, installed: Site) -> None:
    install(installed, "tls")
    text = '[[listener]]\nurl = "mqtts://h"\ntls = { by = 3 }\n'
    made = read(tmp_path, text + "[plugin.acl]\nrules = []\n[plugin.tls]\n")
    assert [spec.name for spec in made.plugins] == ["acl", "tls"]


def test_two_layers(tmp_path: Path, installed: Site) -> None:
    install(installed, "tls")
    install(installed, "websocket")
    text = '[[listener]]\nurl = "wss://h"\ntls = { by = 3 }\nwebsocket = { by = 4 }\n'
    made = read(tmp_path, text)
    assert made.settings.listener[0].websocket == ShiftSettings(by=4)
    assert [spec.name for spec in made.plugins] == ["tls", "websocket"]


def test_listeners_may_name_what_a_scheme_enables(tmp_path: Path, installed: Site) -> None:
    install(installed, "tls")
    text = '[[listener]]\nurl = "mqtts://h"\ntls = { by = 3 }\nauthenticate = ["tls"]'
    assert read(tmp_path, text).settings.listener[0].authenticate == ("tls",)


def test_what_is_missing_is_named(tmp_path: Path, installed: Site) -> None:
    assert errors(tmp_path, '[[listener]]\nurl = "wss://h"\n') == [
        f"broker.toml:2: listener[0].url: wss:// needs the layer '{name}', which nothing "
        f"installed brings: pip install mqtrio-{name}"
        for name in ("tls", "websocket")
    ]


def test_options_are_read_strictly(
    tmp_path: Path, installed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(installed, "tls")
    text = """\
[[listener]]
url = "mqtts://h"
tls = { bye = 3 }
[[listener]]
url = "mqtts://i"
[listener.tls]
by = "3"
password = { env = "NOT_THERE" }
[[listener]]
url = "mqtts://j"
[[listener]]
url = "mqtt://k"
tls = { by = 3 }
[[listener]]
url = "mqtts://l"
tsl = { by = 3 }
[[listener]]
url = "mqtts://m"
tls = "yes"
"""
    assert errors(tmp_path, text) == [
        "broker.toml:3: listener[0].tls.by: missing; what is added to each byte",
        "broker.toml:3: listener[0].tls.bye: unknown; did you mean by?",
        'broker.toml:7: listener[1].tls.by: "3" is a string; allowed: a whole number, '
        "from 0 to 255",
        "broker.toml:8: listener[1].tls.password: there is no environment variable NOT_THERE",
        "broker.toml:9: listener[2].tls.by: missing; what is added to each byte",
        "broker.toml:13: listener[3].tls: mqtt://k has no such layer; mqtts:// and wss:// have it",
        "broker.toml:14: listener[4].tls.by: missing; what is added to each byte",
        "broker.toml:16: listener[4].tsl: unknown; did you mean tls?",
        "broker.toml:19: listener[5].tls: what stands there (and isn't shown) can't be; "
        "allowed: a table",
    ]


def test_who_is_called_like_a_layer_must_bring_it(tmp_path: Path, installed: Site) -> None:
    install(installed, "odd", brings="odd", entry="tls")
    (error,) = errors(tmp_path, '[[listener]]\nurl = "mqtts://h"\n')
    assert "needs the layer 'tls', and plugin 'tls' (of mqtrio-toy-odd 1.2) brings no" in error


def test_an_enabled_plugin_of_any_name_may_bring_a_layer(tmp_path: Path, installed: Site) -> None:
    install(installed, "mine", brings="tls")
    text = '[[listener]]\nurl = "mqtts://h"\ntls = { by = 3 }\n'
    made = read(tmp_path, text + "[plugin.mine]\n")
    assert [spec.name for spec in made.plugins] == ["mine"]
    assert made.settings.listener[0].tls == ShiftSettings(by=3)


def test_a_program_may_bring_a_layer(tmp_path: Path, installed: Site) -> None:
    text = '[[listener]]\nurl = "mqtts://h"\ntls = { by = 3 }\n'
    made = read(tmp_path, text, {"mine": Toy("tls")})
    assert not made.plugins
    assert made.settings.listener[0].tls == ShiftSettings(by=3)


def test_a_program_names_listeners_with_options(installed: Site) -> None:
    install(installed, "tls")
    listener = mqtrio.Listener(url="mqtts://h", tls=ShiftSettings(by=3))
    made = load_config({"listener": [listener]})
    assert made.settings.listener == (listener,)
    assert "tls" not in repr(listener)
    assert [plugin.name for plugin in plugins_for([listener], [])] == ["tls"]
    assert plugins_for([listener], [Toy("tls")]) == []
    with pytest.raises(mqtrio.ConfigurationError, match=r"Listener\.tls: .* allowed: a table"):
        mqtrio.Listener(url="mqtts://h", tls=3)


def test_the_reference_has_the_options(installed: Site) -> None:
    install(installed, "tls")
    parts, _ = plugin_sections(only(()), "mqtrio-toy-tls")
    assert [part.header for part in parts] == ["[plugin.tls]", "[listener.tls]"]
    assert parts[1].kind is ShiftSettings
