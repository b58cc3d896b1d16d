"""Plugins that are installed, and what is said of those that can't be used."""

from typing import Any, Generic, TypeVar

import attrs
import pytest

from mqtrio.errors import PluginError
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.installed import InstalledPlugin, find_installed, settings_class
from tests.installing import Site

CODE = """
    import mqtrio

    class Good(mqtrio.Plugin[None]):
        @mqtrio.hookimpl
        def accept(self, event):
            return None

    class Old(Good):
        api = 0

    class Unknown(mqtrio.Plugin[None]):
        @mqtrio.hookimpl
        def authenticat(self, event):
            return None

    class Wrong(mqtrio.Plugin[None]):
        @mqtrio.hookimpl
        def accept(self, address):
            return None

    class Broken(Good):
        def __init__(self, settings, *, name):
            raise LookupError("nothing there")

    class Renamed(Good):
        def __init__(self, settings, *, name):
            super().__init__(settings, name="another")

    no_class = Good(None, name="x")
    foreign = dict
"""


def get(name: str) -> InstalledPlugin:
    return find_installed().get(name)


def test_a_plugin_is_found_without_being_imported(site: Site) -> None:
    site.install("mqtrio-good", {"good": "Good"}, "raise SystemError('imported')")
    found = get("good")
    assert (found.name, found.distribution, found.version) == ("good", "mqtrio-good", "1.2")
    assert found.value == "mqtrio_good:Good"
    assert "good" in find_installed().names


def test_a_good_plugin_is_loaded_made_and_added(site: Site) -> None:
    site.install("mqtrio-good", {"good": "Good"}, CODE)
    kind = get("good").load()
    hooks = HookManager()
    for name in ("one", "two"):
        get("good").add(hooks, get("good").make(kind, None, name))
    assert list(hooks.plugins) == ["one", "two"]
    assert len(hooks.accept) == 2


@pytest.mark.parametrize(
    ("value", "code", "told"),
    [
        ("Good", "import absent_module", "there is no module 'absent_module'. Install what brings"),
        (
            "Good",
            "1 / 0",
            "can't be imported: ZeroDivisionError: division by zero. Install another",
        ),
        ("Good", "def", "can't be imported: SyntaxError: "),
        ("Absent", CODE, "has no attribute 'Absent'. Install another version of mqtrio-bad"),
        ("no_class", CODE, "is no class derived from mqtrio.Plugin. Install another version"),
        ("foreign", CODE, "is no class derived from mqtrio.Plugin. Install another version"),
        ("Old", CODE, "for version 0 of the hooks; this mqtrio calls version 1. Install a version"),
    ],
)
def test_a_plugin_that_cannot_be_loaded(site: Site, value: str, code: str, told: str) -> None:
    site.install("mqtrio-bad", {"bad": value}, code)
    with pytest.raises(PluginError) as caught:
        get("bad").load()
    assert str(caught.value).startswith("plugin 'bad' (of mqtrio-bad 1.2)")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Broken", "can't be made as 'one': LookupError: nothing there"),
        ("Renamed", "takes another name than it is given: 'another'"),
    ],
)
def test_a_plugin_that_cannot_be_made(site: Site, value: str, told: str) -> None:
    site.install("mqtrio-bad", {"bad": value}, CODE)
    with pytest.raises(PluginError) as caught:
        get("bad").make(get("bad").load(), None, "one")
    assert str(caught.value) == f"plugin 'bad' (of mqtrio-bad 1.2) {told}"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Unknown", "implements 'authenticat', which is no hook (did you mean 'authenticate'?)"),
        ("Wrong", "accept must take one argument, event"),
    ],
)
def test_a_plugin_that_does_not_fit(site: Site, value: str, told: str) -> None:
    site.install("mqtrio-bad", {"bad": value}, CODE)
    hooks = HookManager()
    with pytest.raises(PluginError) as caught:
        get("bad").add(hooks, get("bad").make(get("bad").load(), None, "one"))
    assert "plugin 'one'" in str(caught.value)
    assert told in str(caught.value)
    assert "It comes with mqtrio-bad 1.2: install another version" in str(caught.value)
    assert not hooks.plugins


def test_a_name_that_two_distributions_claim(site: Site) -> None:
    site.install("mqtrio-a", {"same": "Good"}, CODE)
    site.install("mqtrio-b", {"same": "Good"}, CODE, version="7")
    with pytest.raises(PluginError) as caught:
        get("same")
    assert str(caught.value) == (
        "mqtrio-a 1.2 and mqtrio-b 7 both bring a plugin 'same': uninstall one of these "
        "distributions"
    )


def test_a_plugin_that_is_not_installed(site: Site) -> None:
    site.install("mqtrio-good", {"elephant": "Good"}, CODE)
    with pytest.raises(PluginError, match="no plugin 'elefant' is installed; did you mean 'eleph"):
        get("elefant")
    with pytest.raises(PluginError, match="install the distribution that brings it, or use one of"):
        get("xyzzy")


def test_a_plugin_of_an_extra_is_known_by_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["trio>=0.27", "mqtrio-xyzzy>=1; extra == 'xyzzy'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: required)
    with pytest.raises(PluginError, match="no plugin 'xyzzy' is installed; install mqtrio-xyzzy"):
        get("xyzzy")


# -- settings ------------------------------------------------------------------------------------

T = TypeVar("T")


@attrs.define
class Some:
    x: int = 0


class Base(Plugin[T], Generic[T]):
    pass


class Derived(Base[Some]):
    pass


class Further(Derived):
    pass


class Quoted(Plugin["Some"]):
    pass


class Bare(Plugin):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Plugin[Some], Some),
        (Derived, Some),
        (Further, Some),
        (Quoted, Some),
        (Plugin[None], None),
        (Plugin[Any], None),
        (Base, None),
        (Bare, None),
    ],
)
def test_the_class_of_the_settings(kind: Any, settings: type | None) -> None:
    made = kind if isinstance(kind, type) else type("Made", (kind.__origin__,), {})
    if made is not kind:
        made.__orig_bases__ = (kind,)  # type: ignore[attr-defined]
    assert settings_class(made) is settings


def test_settings_of_another_kind_are_refused() -> None:
    class Wrong(Plugin[dict[str, int]]):
        pass

    with pytest.raises(PluginError, match="must be an attrs class or None"):
        settings_class(Wrong)
