"""docs/plugins: the examples are configurations, and every setting has a word."""

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from mqtrio import load_config
from mqtrio_plugins.acl import AclRule, AclSettings
from mqtrio_plugins.anonymous import AnonymousSettings
from mqtrio_plugins.limits import Bounds, LimitsSettings
from mqtrio_plugins.log_messages import LogMessagesSettings
from mqtrio_plugins.passwords import PasswordsSettings
from mqtrio_plugins.rewrite import RewriteRule, RewriteSettings
from mqtrio_plugins.sys_topics import SysTopicsSettings

PAGES = Path(__file__).parents[2] / "docs" / "plugins"

#: Page -> the settings classes that it describes.
CLASSES: dict[str, list[type[Any]]] = {
    "acl": [AclSettings, AclRule],
    "limits": [LimitsSettings, Bounds],
    "rewrite": [RewriteSettings, RewriteRule],
    "anonymous": [AnonymousSettings],
    "log_messages": [LogMessagesSettings],
    "passwords": [PasswordsSettings],
    "sys_topics": [SysTopicsSettings],
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_examples_are_configurations(name: str, tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (PAGES / f"{name}.md").read_text(), re.DOTALL)
    assert examples
    for example in examples:
        config = tmp_path / "broker.toml"
        config.write_text(example)
        assert [spec.name for spec in load_config(config).plugins]


@pytest.mark.parametrize("name", CLASSES)
def test_every_setting_has_a_word(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    for kind in CLASSES[name]:
        for field in attrs.fields(kind):
            assert f"`{field.name}`" in page, field.name


def test_every_plugin_in_the_box_has_a_page() -> None:
    folder = Path(__file__).parents[2] / "plugins" / "mqtrio_plugins"
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    names -= {"__init__", "__pycache__"}
    index = (PAGES.parent / "README.md").read_text()
    for name in names:
        assert f"(plugins/{name}.md)" in index, name
        assert (PAGES / f"{name}.md").exists(), name
