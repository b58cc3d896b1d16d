"""Messages and subscriptions that a rule changes, and what a client sees of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from mqtrio import (
    Allow,
    ClientFacts,
    ConfigurationError,
    PublishEvent,
    PublishProperties,
    ReasonCode,
    ReconfigureEvent,
    Reject,
    SubscribeEvent,
    check_topic,
    topic_matches,
)
from mqtrio.testing import HookRecorder, Peer, check_plugin, open_harness
from mqtrio.wire.packets import (
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from mqtrio_plugins.rewrite import Rewrite, RewriteRule, RewriteSettings

CLIENT = ClientFacts("c", "u")


def rewrite(*rules: RewriteRule) -> Rewrite:
    return Rewrite(RewriteSettings(rules=rules), name="rewrite")


def published(plugin: Rewrite, topic: str, **fields: Any) -> Any:
    answer = plugin.transform_publish(PublishEvent(CLIENT, topic, b"", **fields))
    return answer.topic if isinstance(answer, PublishEvent) else answer


def subscribed(plugin: Rewrite, topic_filter: str) -> Any:
    answer = plugin.transform_subscribe(SubscribeEvent(CLIENT, topic_filter))
    return answer.topic_filter if isinstance(answer, SubscribeEvent) else answer


@pytest.mark.parametrize(
    ("topic", "to", "old", "new"),
    [
        ("a", "b", "a", "b"),
        ("a/+/c", "x/{1}", "a/b/c", "x/b"),
        ("a/+/+", "{2}/{1}", "a/b/c", "c/b"),
        ("a/#", "x/{1}", "a/b/c", "x/b/c"),
        ("a/#", "x/{1}", "a", "x"),
        ("a/+/#", "x/{1}/y/{2}", "a/b/c/d", "x/b/y/c/d"),
        ("a/+/#", "x/{1}/y/{2}", "a/b", "x/b/y"),
        ("a/+", "x/{1}", "a/", "x/"),
        ("#", "all/{1}", "a/b", "all/a/b"),
        ("$old/+", "$new/{1}", "$old/a", "$new/a"),
        ("a/+", "x", "a/b", "x"),
        ("a/+", "x/{1}/{1}", "a/b", "x/b/b"),
    ],
)
def test_topics(topic: str, to: str, old: str, new: str) -> None:
    plugin = rewrite(RewriteRule(topic=topic, to=to))
    assert published(plugin, old) == new
    assert subscribed(plugin, old) == new
    assert subscribed(plugin, f"$share/group/{old}") == f"$share/group/{new}"


@pytest.mark.parametrize(
    ("topic", "to", "old", "new"),
    [
        ("a/+/c", "x/{1}", "a/+/c", "x/+"),
        ("a/#", "x/{1}", "a/#", "x/#"),
        ("a/#", "x/{1}", "a/+/b/#", "x/+/b/#"),
        ("+/#", "x/{1}/{2}", "#", "x/+/#"),
        ("a/#", "x", "a/+", "x"),
        ("a/+", "x/{1}", "a/#", None),  # wider than the rule: as it was sent
        ("a/+", "x/{1}", "#", None),
        ("a/+", "x/{1}", "b", None),
    ],
)
def test_filters(topic: str, to: str, old: str, new: str | None) -> None:
    assert subscribed(rewrite(RewriteRule(topic=topic, to=to)), old) == new


LEVEL = st.sampled_from(["a", "b", ""])
PATTERN = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3)


@given(PATTERN, st.booleans(), st.data())
def test_who_subscribed_to_the_old_name_gets_what_was_published_to_it(
    levels: list[str], rest: bool, data: st.DataObject
) -> None:
    """Whatever lies inside of a rule that keeps all captures."""
    pattern = "/".join([*levels, "#"] if rest else levels)
    count = sum(level in ("+", "#") for level in pattern.split("/"))
    plugin = rewrite(
        RewriteRule(topic=pattern, to="/".join(["x", *(f"{{{n + 1}}}" for n in range(count))]))
    )
    topic = "/".join(
        data.draw(LEVEL) if level == "+" else level
        for level in [*levels, *(data.draw(st.lists(LEVEL, max_size=2)) if rest else [])]
    )
    asked = "/".join(
        "+" if data.draw(st.booleans()) and level == "+" else have
        for level, have in zip([*levels, *["+"] * 9], topic.split("/"), strict=False)
    )
    new_topic, new_filter = published(plugin, topic), subscribed(plugin, asked)
    check_topic(new_topic)
    assert topic_matches(asked, topic)
    assert topic_matches(new_filter, new_topic)


def test_the_first_rule_that_fits_is_applied() -> None:
    plugin = rewrite(
        RewriteRule(topic="a/+", to="first/{1}"),
        RewriteRule(topic="a/b", to="second"),
        RewriteRule(topic="a/#", to="third/{1}"),
    )
    assert [published(plugin, each) for each in ("a/b", "a/b/c", "b")] == [
        "first/b",
        "third/b/c",
        None,
    ]
    assert subscribed(plugin, "a/+") == "first/+"
    assert subscribed(plugin, "a/#") == "third/#"


def test_a_capture_makes_no_topic_that_begins_with_a_dollar() -> None:
    """The client may have no right to it, and a changed topic is not authorized again."""
    plugin = rewrite(RewriteRule(topic="a/#", to="{1}"))
    for topic in ("a/$SYS/x", "a/$share/group/x", "a"):
        assert isinstance(published(plugin, topic), Reject)
        assert isinstance(subscribed(plugin, topic), Reject)
    assert published(plugin, "a/b/$c") == "b/$c"
    assert published(rewrite(RewriteRule(topic="a/#", to="$x/{1}")), "a/b") == "$x/b"


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"topic": "a/#/b"}, "topic: 'a/#/b': the wildcard # must be"),
        ({"topic": "a", "to": "b/#"}, "to: 'b/#': a topic must not contain the wildcards"),
        ({"topic": "a", "to": ""}, "to: '': a topic must not be empty"),
        ({"topic": "a/+", "to": "b/{2}"}, "to: {2}: the filter has 1 wildcards"),
        ({"topic": "a/+", "to": "b/{0}"}, "to: {0}: the filter has 1 wildcards"),
        ({"topic": "a/+", "to": "b/x{1}"}, "to: 'x{1}': a capture must be a whole level"),
        ({"topic": "a/#", "to": "{1}/b"}, "to: {1} stands for # and must be the last level"),
    ],
)
def test_bad_rules(rule: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RewriteRule(**rule)  # type: ignore[arg-type]  # by name
    assert str(caught.value).startswith(why)


# -- in a broker


async def test_the_contract(autojump_clock: MockClock) -> None:
    await check_plugin(
        Rewrite,
        RewriteSettings(rules=(RewriteRule(topic="old/#", to="new/{1}"),)),
        other_settings=RewriteSettings(rules=(RewriteRule(topic="#", maximum_qos=1),)),
    )


async def test_a_client_sees_the_new_name_and_ends_the_old_one(autojump_clock: MockClock) -> None:
    plugin = rewrite(RewriteRule(topic="old/+/t", to="new/t/{1}"))
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        bob = await harness.connect("bob", version=4)
        await ann.subscribe("old/+/t", 1)
        await bob.publish("old/1/t", b"x", qos=1)
        await ann.message(b"x", topic="new/t/1", qos=1)
        await bob.publish("new/t/2", b"y")
        await ann.message(b"y", topic="new/t/2")
        await harness.broker.publish("old/3/t", b"local")
        await ann.message(b"local", topic="new/t/3")
        unsubscribed = await ann.unsubscribe("old/+/t")
        assert unsubscribed.reason_codes == (0,)
        await bob.publish("old/1/t", b"z")
        await ann.nothing()


async def test_wills_are_rewritten(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[rewrite(RewriteRule(topic="old", to="new"))]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("new")
        bob = await harness.connect("bob", will=Will("old", b"gone", 0, False))
        await bob.drop()
        await ann.message(b"gone", topic="new")


async def test_user_properties_and_expiry(autojump_clock: MockClock) -> None:
    plugin = rewrite(
        RewriteRule(
            topic="a/#",
            remove_user_properties=("from", "x"),
            add_user_properties={"from": "%u/%c", "seen": "yes"},
            default_expiry=60,
            maximum_expiry=100,
        )
    )
    users = HookRecorder(answers={"authenticate": lambda event: Allow(username=event.username)})
    async with open_harness(plugins=[users, plugin]) as harness:
        ann = await harness.connect("ann", username="%c")
        await ann.subscribe("#")
        for sent, expiry in ((None, 60), (50, 50), (500, 100)):
            await ann.publish(
                "a/1",
                properties=PublishProperties(
                    content_type="text",
                    message_expiry_interval=sent,
                    user_properties=(("from", "forged"), ("y", "1"), ("x", "2")),
                ),
            )
            got = await ann.message()
            assert got.properties == PublishProperties(
                content_type="text",
                message_expiry_interval=expiry,
                user_properties=(("y", "1"), ("from", "%c/ann"), ("seen", "yes")),
            )
        await ann.publish("b")
        assert (await ann.message()).properties is None


async def test_caps_of_qos_and_retain(autojump_clock: MockClock) -> None:
    plugin = rewrite(RewriteRule(topic="a/#", maximum_qos=1, retain="strip"))
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        await ann.send(Subscribe(9, (SubscriptionRequest("a/#", 2),)))
        await ann.expect(SubAck, reason_codes=(1,))
        await ann.subscribe("#", 2)
        await ann.publish("a/b", b"x", qos=2, retain=True)
        await ann.message(b"x", qos=1, retain=False)  # one copy for both, and the lower QoS
        await ann.publish("b", b"y", qos=2, retain=True)
        await ann.message(b"y", qos=2)
        assert [message.topic for message in harness.broker.retained()] == ["b"]


async def test_drop_and_reject(autojump_clock: MockClock) -> None:
    dropped = HookRecorder("dropped", "plugin_failed")
    plugin = rewrite(RewriteRule(topic="a/#", drop=True), RewriteRule(topic="b/#", to="{1}"))
    async with open_harness(plugins=[plugin, dropped]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("a/#")
        await ann.publish("a/b", qos=1)
        await ann.nothing()
        assert [event.reason for event in dropped.of("dropped")] == ["transform"]
        await ann.send(Publish("b/$SYS", b"", 1, packet_id=7))
        await ann.expect(PubAck, reason_code=ReasonCode.TOPIC_NAME_INVALID)
        await ann.send(Subscribe(8, (SubscriptionRequest("b/$SYS/#", 0),)))
        await ann.expect(SubAck, reason_codes=(ReasonCode.TOPIC_FILTER_INVALID,))
        assert dropped.of("plugin_failed") == []


async def test_new_settings_hold_for_what_comes(autojump_clock: MockClock) -> None:
    plugin = rewrite(RewriteRule(topic="old", to="new"))
    async with open_harness(plugins=[plugin]) as harness:
        ann: Peer = await harness.connect("ann")
        await ann.subscribe("old")
        rules = RewriteSettings(rules=(RewriteRule(topic="old", to="newer"),))
        plugin.reconfigure(ReconfigureEvent(rules))()
        await ann.publish("old", b"x")
        await ann.nothing()  # its subscription stays what it was made
        await ann.subscribe("old")  # and this takes its place
        await ann.publish("old", b"y")
        await ann.message(b"y", topic="newer")
        await harness.broker.publish("new", b"z")
        await ann.nothing()
        assert (await ann.unsubscribe("old")).reason_codes == (0,)
