"""Who a token makes of a client, and what it lets it do."""

from typing import Any

import pytest

from contrib.jwt.tests.kit import Kit
from mqtrio import AuthenticateEvent, ClientFacts, HttpFacts
from mqtrio.testing import open_harness
from mqtrio_jwt import JwtSettings, TopicRules
from mqtrio_jwt.places import find_token

#: Template -> claims, and the username (None: refused).
NAMES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "sub": ("{sub}", {}, "ann"),
    "number": ("{id}", {"id": 17}, "17"),
    "two": ("{realm}:{sub}", {"realm": "r"}, "r:ann"),
    "nested": ("{who.name}", {"who": {"name": "bob"}}, "bob"),
    "a dot in the name": ("{who.name}", {"who.name": "cid", "who": {"name": "bob"}}, "cid"),
    "a url": ("{https://x.example/name}", {"https://x.example/name": "dan"}, "dan"),
    "missing": ("{name}", {}, None),
    "an object": ("{who}", {"who": {"name": "bob"}}, None),
    "true": ("{id}", {"id": True}, None),
    "empty": ("{id}", {"id": ""}, None),
    "braces in a claim": ("{id}", {"id": "{sub}"}, "{sub}"),
}


@pytest.mark.parametrize("case", NAMES)
async def test_username(case: str, make: Any, kit: Kit) -> None:
    template, claims, expected = NAMES[case]
    async with open_harness(plugins=[make(username=template)]) as harness:
        token = kit.token(**claims)
        if expected is None:
            assert (await harness.refused("c", username="ann", password=token)).reason_code == 0x86
        else:
            await harness.client("c", username="somebody", password=token)
            assert harness.broker.clients()[0].username == expected


@pytest.mark.parametrize("version", [4, 5])
async def test_client_id(version: int, make: Any, kit: Kit) -> None:
    async with open_harness(plugins=[make(client_id="dev-{sub}")]) as harness:
        token = kit.token()
        await harness.client("dev-ann", version=version, username="x", password=token)
        client = harness.new_client("dev-bob", version=version)
        connack = await client.try_connect(username="x", password=token)
        assert connack.reason_code == (0x85 if version == 5 else 2)
        if version == 5:
            client = harness.new_client("")
            connack = await client.try_connect(password=token)
            assert connack.assigned_client_identifier == "dev-ann"


RULES: dict[str, Any] = {
    "publish": ("out/%u", "log/{site}/%c"),
    "subscribe": ("in/%u/#", "group/{groups}"),
    "scopes": {
        "telemetry:write": TopicRules(publish=("t/{sub}/#",)),
        "admin": TopicRules(publish=("#",), subscribe=("#", "$SYS/#")),
    },
    "scope_claims": ("scope", "realm_access.roles"),
}

#: Claims -> (topics it may publish to, may not), (filters it may subscribe to, may not).
GRANTS: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "names": (
        {},
        "out/ann",
        "out/bob out/ann/x t/ann/1 a",
        "in/ann/# in/ann/x in/ann",
        "in/# in/+/x #",
    ),
    "a missing claim": ({}, "out/ann", "log/x/c log//c", "in/ann", "group/x group/+"),
    "a claim": ({"site": "x"}, "log/x/c", "log/y/c log/x/d", "in/ann", "group/x"),
    "an unsafe claim": ({"site": "+"}, "out/ann", "log/x/c", "in/ann", "log/+/c"),
    "a claim with levels": ({"site": "a/b"}, "out/ann", "log/a/b/c", "in/ann", "x"),
    "an array": ({"groups": ["a", "b", "#"]}, "out/ann", "a", "group/a group/b", "group/# group/c"),
    "a scope": ({"scope": "openid telemetry:write"}, "t/ann/1 t/ann", "t/bob/1", "in/ann", "#"),
    "half a scope": ({"scope": "telemetry"}, "out/ann", "t/ann/1", "in/ann", "#"),
    "an unknown scope": ({"scope": "root"}, "out/ann", "t/ann/1", "in/ann", "#"),
    "a role": ({"realm_access": {"roles": ["admin"]}}, "x/y", "$SYS/x", "# $SYS/#", "$other/#"),
    "an own claim": (
        {"mqtt": {"publish": ["p/+", "own/%u"], "subscribe": ["s/#"]}},
        "p/1 own/ann out/ann",
        "p/1/2 own/bob",
        "s/# s/x/+ $share/g/s/#",
        "p/+ $share/g/#",
    ),
    "braces in an own claim": (
        {"mqtt": {"publish": ["p/{sub}"]}},
        "p/{sub}",
        "p/ann",
        "in/ann",
        "#",
    ),
}


@pytest.mark.parametrize("case", GRANTS)
async def test_permissions(case: str, make: Any, kit: Kit) -> None:
    claims, publish, not_publish, subscribe, not_subscribe = GRANTS[case]
    async with open_harness(plugins=[make(**RULES)]) as harness:
        client = await harness.client("c", password=kit.token(**claims))
        for topic in publish.split():
            assert await client.try_publish(topic, b"x", qos=1) in (0, 0x10), topic
        for topic in not_publish.split():
            assert await client.try_publish(topic, b"x", qos=1) == 0x87, topic
        for topic_filter in subscribe.split():
            assert await client.try_subscribe(topic_filter, 1) == 1, topic_filter
        for topic_filter in not_subscribe.split():
            assert await client.try_subscribe(topic_filter, 1) == 0x87, topic_filter


@pytest.mark.parametrize(
    "claim",
    [
        *("all", ["a"], {"publish": "a"}, {"publish": [1]}, {"publish": [""]}),
        *({"subscribe": ["a/#/b"]}, {"subscribe": ["$share/g/a"]}),
        *({"publish": ["\ud800"]}, {"publish": ["a\0"]}),
    ],
)
async def test_a_claim_with_permissions_that_can_not_be(claim: Any, make: Any, kit: Kit) -> None:
    async with open_harness(plugins=[make()]) as harness:
        assert (await harness.refused("c", password=kit.token(mqtt=claim))).reason_code == 0x86


@pytest.mark.parametrize("name", ["$SYS", "+", "#", "a/b", "$share"])
async def test_names_that_would_change_what_a_rule_means(name: str, make: Any, kit: Kit) -> None:
    async with open_harness(plugins=[make(publish=("%u/x",), subscribe=("%u/#",))]) as harness:
        client = await harness.client("c", password=kit.token(sub=name))
        for topic in ("$SYS/x", "a/x", "a/b/x"):
            assert await client.try_publish(topic, b"x", qos=1) == 0x87
        for topic_filter in ("$SYS/#", "+/#", "#", "a/b/#"):
            assert await client.try_subscribe(topic_filter) == 0x87


async def test_very_many_filters(make: Any, kit: Kit) -> None:
    many = [str(number) for number in range(30)]
    async with open_harness(plugins=[make(publish=("{a}/{b}",))]) as harness:
        refused = await harness.refused("c", password=kit.token(a=many, b=many))
        assert refused.reason_code == 0x86


async def test_tokens_that_only_say_who_it_is(make: Any, kit: Kit) -> None:
    async with open_harness(plugins=[make(permissions=False)]) as harness:
        client = await harness.client("c", password=kit.token(mqtt="whatever"))
        assert await client.try_publish("any", b"x", qos=1) == 0x10


# -- where a token is

PLACES: dict[str, tuple[dict[str, Any], HttpFacts, bytes | None]] = {
    "nowhere": ({"header": "authorization"}, HttpFacts(path="/"), None),
    "not asked for": (
        {},
        HttpFacts(
            path="/",
            query="token=t",
            headers=(("authorization", "Bearer t"), ("cookie", "token=t")),
        ),
        None,
    ),
    "bearer": (
        {"header": "Authorization"},
        HttpFacts(path="/", headers=(("authorization", "bEARER  t"),)),
        b"t",
    ),
    "a header of its own": (
        {"header": "x-token"},
        HttpFacts(path="/", headers=(("x-token", "t"),)),
        b"t",
    ),
    "cookie": (
        {"cookie": "token"},
        HttpFacts(path="/", headers=(("cookie", "a=1; xtoken=2; token=t=; b=3"),)),
        b"t=",
    ),
    "query": ({"query": "token"}, HttpFacts(path="/", query="a=1&token=t%2E&token=u"), b"t."),
    "the header goes first": (
        {"header": "x-token", "query": "token"},
        HttpFacts(path="/", query="token=q", headers=(("x-token", "h"),)),
        b"h",
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_places(case: str) -> None:
    given, http, expected = PLACES[case]
    settings = JwtSettings(algorithms=("HS256",), secret="x" * 32, **given)
    event = AuthenticateEvent(ClientFacts("c", http=http))
    found = find_token(event, settings)
    assert (None if found is None else found.data) == expected
    if found is not None:
        assert found.code == 0x87
        assert "data" not in repr(found)


def test_a_password_goes_before_what_http_has() -> None:
    settings = JwtSettings(algorithms=("HS256",), secret="x" * 32, header="x-token")
    http = HttpFacts(path="/", headers=(("x-token", "h"),))
    event = AuthenticateEvent(ClientFacts("c", http=http), b"p")
    found = find_token(event, settings)
    assert found is not None
    assert found.data == b"p"
