"""The plugin in a broker: messages, subscriptions, and rules that change while it runs."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mqtrio import Allow, ConfigurationError, Deny, ReasonCode, ReconfigureEvent, load_config
from mqtrio.testing import HookRecorder, Peer, check_plugin, open_harness
from mqtrio.wire.packets import PubAck, Publish, SubAck, Subscribe, SubscriptionRequest, Will
from mqtrio_plugins.acl import Acl, AclRule, AclSettings

DENIED = ReasonCode.NOT_AUTHORIZED


def acl(*rules: AclRule, **settings: Any) -> Acl:
    return Acl(AclSettings(rules=rules, **settings), name="acl")


def users() -> HookRecorder:
    """Lets everybody in by the name that is said."""
    return HookRecorder(answers={"authenticate": lambda event: Allow(username=event.username)})


async def publish(peer: Peer, topic: str) -> int:
    packet_id = peer.next_id()
    await peer.send(Publish(topic, b"x", 1, packet_id=packet_id))
    return (await peer.answer(PubAck, packet_id=packet_id)).reason_code & 0x80


async def subscribe(peer: Peer, topic_filter: str) -> int:
    packet_id = peer.next_id()
    await peer.send(Subscribe(packet_id, (SubscriptionRequest(topic_filter, 0),)))
    return (await peer.answer(SubAck, packet_id=packet_id)).reason_codes[0]


async def topics(peer: Peer) -> list[str]:
    return [packet.topic for packet in await peer.arrived() if isinstance(packet, Publish)]


async def until(condition: Callable[[], bool]) -> None:
    """Files are read in a thread, for which virtual time doesn't wait."""
    for _ in range(100_000):
        if condition():
            return
        await trio.sleep(1)
    pytest.fail("it did not happen")


async def test_the_contract(tmp_path: Path) -> None:
    """On a real clock, as files are read in a thread."""
    file = tmp_path / "acl"
    file.write_text("topic readwrite #\n")
    await check_plugin(
        Acl,
        AclSettings(acl_file=file),
        other_settings=AclSettings(rules=(AclRule(readwrite=("#",)),)),
        wrong_settings=AclSettings(file=tmp_path / "missing"),
    )


async def test_publish_and_subscribe(autojump_clock: MockClock) -> None:
    plugin = acl(
        AclRule(readwrite=("own/%u/#",)), AclRule(users=("ann",), read=("news/#",), write=("x",))
    )
    async with open_harness(plugins=[users(), plugin]) as harness:
        ann = await harness.connect("1", username="ann")
        bob = await harness.connect("2", username="bob")
        assert [await publish(ann, each) for each in ("own/ann/a", "x")] == [0, 0]
        assert await publish(ann, "own/bob/a") == 0x80
        assert await publish(bob, "x") == 0x80
        assert await subscribe(ann, "news/+/today") == 0
        assert await subscribe(ann, "$share/group/news/#") == 0
        assert await subscribe(ann, "#") == DENIED
        assert await subscribe(bob, "news/today") == DENIED
        assert await subscribe(bob, "$share/group/own/ann/#") == DENIED
        assert await subscribe(bob, "own/bob/#") == 0


async def test_a_denied_part_is_not_delivered(autojump_clock: MockClock) -> None:
    plugin = acl(AclRule(read=("#",), deny=("secret/#",)))
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        await harness.broker.publish("secret/old", b"x", retain=True)
        await harness.broker.publish("old", b"x", retain=True)
        assert await subscribe(ann, "#") == 0
        assert await subscribe(ann, "secret/+") == DENIED
        for topic in ("a", "secret", "secret/b", "b"):
            await harness.broker.publish(topic, b"x")
        assert await topics(ann) == ["old", "a", "b"]


async def test_filtered_subscriptions_are_all_accepted_as_with_mosquitto(
    autojump_clock: MockClock,
) -> None:
    plugin = acl(AclRule(read=("a/#",), deny=("a/secret",)), subscriptions="filtered")
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        assert [await subscribe(ann, each) for each in ("#", "b", "a/secret")] == [0, 0, 0]
        for topic in ("a/1", "b", "a/secret", "a/2"):
            await harness.broker.publish(topic, b"x")
        assert await topics(ann) == ["a/1", "a/2"]


async def test_what_no_rule_speaks_of_may_be_left_to_others(autojump_clock: MockClock) -> None:
    def others(event: Any) -> Allow | None:
        return Allow() if event.topic == "theirs" else None

    asked = HookRecorder(answers={"authorize_publish": others})
    rules = AclRule(write=("ours",), deny=("never",))
    async with open_harness(plugins=[acl(rules, otherwise="pass"), asked]) as harness:
        ann = await harness.connect("ann")
        said = [await publish(ann, each) for each in ("ours", "theirs", "never", "nobody's")]
        assert said == [0, 0, 0x80, 0x80]


async def test_wills_are_judged_and_others_than_clients_are_trusted(
    autojump_clock: MockClock,
) -> None:
    plugin = acl(AclRule(write=("will/good",), read=("#",)))
    async with open_harness(plugins=[plugin]) as harness:
        watcher = await harness.connect("watcher")
        await watcher.subscribe("#")
        async with harness.broker.subscribe("anything/#") as messages:
            await harness.broker.publish("anything/x", b"local")
            assert (await messages.receive()).topic == "anything/x"
        for topic in ("will/good", "will/bad"):
            peer = await harness.connect("ann", will=Will(topic, b"", 0, False))
            await peer.drop()
        assert await topics(watcher) == ["anything/x", "will/good"]


async def test_an_answer_is_given_once_for_each_topic(autojump_clock: MockClock) -> None:
    plugin = acl(AclRule(write=("a/#",)))
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        for topic in ("a/1", "a/2", "a/1", "a/2", "a/1"):
            assert await publish(ann, topic) == 0
        calls = {call.hook: call.calls for call in harness.broker._core.hooks.statistics()}
        assert calls["authorize_publish"] == 2


# -- rules that change


async def test_a_changed_file_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, "mqtrio.plugins.acl")
    file = tmp_path / "acl"
    file.write_text("topic readwrite a/#\n")
    async with open_harness(plugins=[acl(acl_file=file)]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("a/#")
        assert await publish(ann, "a/1") == 0
        assert await topics(ann) == ["a/1"]

        file.write_text("topic readwrite a/+\ntopic deny a/1\ntopic wrong b c\n")
        await until(lambda: bool(caplog.records))
        (record,) = caplog.records
        assert record.getMessage() == (
            f"the rules stay as they were: {file}:3: 'wrong' is no access; "
            "allowed: read, write, readwrite, deny"
        )
        await trio.sleep(100)
        assert len(caplog.records) == 1  # said once
        assert await publish(ann, "a/1") == 0

        caplog.clear()
        file.write_text("topic readwrite a/+\ntopic deny a/1\n")
        await until(lambda: bool(caplog.records))
        assert caplog.messages == ["the rules have changed"]
        assert await publish(ann, "a/1") == 0x80  # though it was remembered
        assert await publish(ann, "a/2") == 0
        for topic in ("a/1", "a/2", "a/b/c"):
            await harness.broker.publish(topic, b"x")
        assert await topics(ann) == ["a/1", "a/2", "a/2"]

        caplog.clear()
        file.unlink()
        await until(lambda: bool(caplog.records))
        assert "No such file" in caplog.text
        assert await publish(ann, "a/2") == 0


async def test_a_replaced_file_of_the_same_size_and_time_is_noticed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    file, other = tmp_path / "acl", tmp_path / "new"
    file.write_text("topic readwrite a\n")
    other.write_text("topic readwrite b\n")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    plugin = acl(acl_file=file)
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        assert await publish(ann, "b") == 0x80
        before = plugin._policy
        other.replace(file)
        await until(lambda: plugin._policy is not before)
        assert await publish(ann, "b") == 0


async def test_new_settings(tmp_path: Path, autojump_clock: MockClock) -> None:
    plugin = acl(AclRule(readwrite=("a", "b")))
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("a")
        await ann.subscribe("b")
        missing = AclSettings(acl_file=tmp_path / "missing")
        with pytest.raises(ConfigurationError, match="No such file"):
            await plugin.reconfigure(ReconfigureEvent(missing))
        assert await publish(ann, "a") == 0
        use = await plugin.reconfigure(
            ReconfigureEvent(AclSettings(rules=(AclRule(readwrite=("b",)),)))
        )
        assert await publish(ann, "b") == 0  # nothing has changed yet
        assert await topics(ann) == ["a", "b"]
        use()
        harness.broker.reconsider()
        assert [await publish(ann, each) for each in ("a", "b")] == [0x80, 0]
        await harness.broker.publish("a", b"x")
        assert await topics(ann) == ["b"]


async def test_a_resumed_session_gets_what_is_allowed_now(autojump_clock: MockClock) -> None:
    plugin = acl(AclRule(readwrite=("a", "b")))
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann", session_expiry_interval=0xFFFFFFFF)
        await ann.subscribe("a", 1)
        await ann.subscribe("b", 1)
        await ann.drop()
        rules = AclSettings(rules=(AclRule(read=("b",)),))
        (await plugin.reconfigure(ReconfigureEvent(rules)))()
        harness.broker.reconsider()
        for topic in ("a", "b"):
            await harness.broker.publish(topic, b"x", qos=1)
        ann = harness.peer("ann")
        await ann.connect(clean_start=False, session_present=True)
        assert await topics(ann) == ["b"]


@pytest.mark.parametrize("kind", ["file", "acl_file"])
async def test_a_broken_file_keeps_the_broker_from_starting(
    tmp_path: Path, kind: str, autojump_clock: MockClock
) -> None:
    file = tmp_path / "rules"
    file.write_text("\n[[[\n")
    with pytest.raises(Exception, match=rf"{file}:2: "):
        async with open_harness(plugins=[acl(**{kind: file})]):
            pass


async def test_it_comes_from_a_configuration(tmp_path: Path, autojump_clock: MockClock) -> None:
    (tmp_path / "acl.conf").write_text("pattern write dev/%c\n")
    (tmp_path / "rules.toml").write_text('[[rules]]\nwrite = ["more"]\n')
    config = tmp_path / "broker.toml"
    config.write_text(
        '[plugin.acl]\nfile = "rules.toml"\nacl_file = "acl.conf"\n'
        '[[plugin.acl.rules]]\nusers = ["ann"]\nreadwrite = ["a/#"]\n'
    )
    (spec,) = load_config(config).plugins
    plugin = spec.plugin(spec.settings, name=spec.name)
    async with open_harness(plugins=[users(), plugin]) as harness:
        ann = await harness.connect("1", username="ann")
        for topic, code in (("a/1", 0), ("dev/1", 0), ("more", 0), ("dev/2", 0x80)):
            assert await publish(ann, topic) == code


async def test_the_reason_of_a_denial_is_in_the_log(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG, "mqtrio.publish")
    plugin = acl(AclRule(deny=("a",)))
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        for topic in ("a", "b"):
            assert await publish(ann, topic) == 0x80
    assert "acl: rule 1: deny a" in caplog.text
    assert "no rule allows it" in caplog.text


async def test_a_deny_of_somebody_else_stands(autojump_clock: MockClock) -> None:
    other = HookRecorder(answers={"authorize_publish": Deny()})
    async with open_harness(plugins=[acl(AclRule(write=("#",))), other]) as harness:
        assert await publish(await harness.connect("ann"), "a") == 0x80
