"""What the pages show can be read, and means what they say."""

import json
import re
from pathlib import Path

import attrs
import pytest

from mqtrio import ClientFacts, PublishEvent, SubscribeEvent, read_settings
from mqtrio_jwt import JwtSettings
from mqtrio_jwt.rules import RuleBook
from mqtrio_jwt.template import Template

README = Path(__file__).parents[1] / "README.md"
GUIDE = Path(__file__).parents[3] / "docs" / "jwt.md"


def test_the_table_is_complete() -> None:
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \|", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {field.name for field in attrs.fields(JwtSettings)} <= told


#: Section -> username of its token, topics that it may publish to, filters to subscribe to.
MEANING: dict[str, tuple[str, str, str]] = {
    "Keycloak": ("ann", "telemetry/ann/x commands/1", "telemetry/#"),
    "Auth0": ("meter-7", "telemetry/north/meter-7", ""),
    "Cognito": ("ann", "", "telemetry/#"),
}


def settings_in(section: str, folder: Path) -> JwtSettings:
    found = re.search(
        rf"^## {section}$.*?```toml\n(.*?)```", GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    path = folder / "jwt.toml"
    path.write_text(found[1].replace("[plugin.jwt]", "").replace("[plugin.jwt.", "["))
    return read_settings(path, JwtSettings)


@pytest.mark.parametrize("section", MEANING)
def test_providers(section: str, tmp_path: Path) -> None:
    settings = settings_in(section, tmp_path)
    text = GUIDE.read_text().split(f"## {section}\n")[1].split("```json\n")[1].split("```")[0]
    claims = json.loads(text)
    assert claims["iss"] == settings.expected_issuer
    username, publish, subscribe = MEANING[section]
    assert Template(settings.username).fill(claims, "username") == username
    book = RuleBook(settings, settings.scopes, settings.scope_claims, settings.permissions_claim)
    may = book.permissions(claims, "c", username)
    for topic in publish.split():
        assert may.authorize_publish(PublishEvent(ClientFacts("c"), topic, b""))
    for topic_filter in subscribe.split():
        assert may.authorize_subscribe(SubscribeEvent(ClientFacts("c"), topic_filter))
    assert not may.authorize_publish(PublishEvent(ClientFacts("c"), "other", b""))


def test_tokens_of_ones_own(tmp_path: Path) -> None:
    assert settings_in("Tokens of your own", tmp_path).algorithms == ("ES256",)
