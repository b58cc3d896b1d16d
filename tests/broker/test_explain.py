"""A running broker says who would decide, and nothing happens."""

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import mqtrio
from mqtrio import (
    Allow,
    AuthenticateEvent,
    BrokerStopped,
    Deny,
    Listener,
    PublishEvent,
    Settings,
    hookimpl,
    open_broker,
)
from mqtrio.testing import HookRecorder, open_harness


class Guard:
    """Knows ann by her password, and lets her publish to a/b."""

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Allow | Deny | None:
        if event.username != "ann":
            return None
        return Allow(why="ann") if event.password == b"right" else Deny(why="wrong password")

    @hookimpl
    async def authorize_publish(self, event: PublishEvent) -> Allow | Deny:
        if event.topic == "a/b" and event.username == "ann":
            return Allow(why="hers", remember=True)
        return Deny(why=f"not {event.username}'s")


async def test_nothing_happens_and_nothing_is_counted() -> None:
    recorder = HookRecorder("published", "subscribed", "dropped", "plugin_failed")
    async with open_harness(plugins=[Guard(), recorder], session={"maximum_qos": 1}) as harness:
        broker = harness.broker
        before = broker.statistics()
        explained = await broker.explain(
            client_id="c", username="ann", publish="a/b", payload="x", retain=True
        )
        assert isinstance(explained, mqtrio.Explanation)
        assert explained.allowed
        assert isinstance(explained.decisive, mqtrio.HookDecision)
        assert explained.decisive.why == "hers"
        denied = await broker.explain(client_id="c", username="eve", publish="a/b")
        assert not denied.allowed
        [answer] = denied.decisive.answers
        assert isinstance(answer, mqtrio.PluginAnswer)
        assert (answer.plugin, answer.why) == ("Guard", "not eve's")
        assert (await broker.explain(client_id="c", subscribe="#")).allowed
        above = await broker.explain(client_id="c", username="ann", publish="a/b", qos=2)
        assert above.decisive.hook == "broker"
        assert broker.retained() == []
        assert broker.clients() == []
        after = broker.statistics()
        assert (after.messages_received, after.refused) == (
            before.messages_received,
            before.refused,
        )
        assert all(row.calls == 0 for row in broker._core.hooks.statistics())
    assert recorder.calls == []


@pytest.mark.parametrize(
    ("username", "password", "allowed"),
    [("ann", "right", True), ("ann", b"wrong", False), ("ann", None, False), (None, None, False)],
)
async def test_from_the_door_on(username: str | None, password: Any, allowed: bool) -> None:
    async with open_harness(plugins=[Guard()]) as harness:
        explained = await harness.broker.explain(
            client_id="c", username=username, password=password, publish="a/b", authenticate=True
        )
        assert explained.allowed is allowed
        if not allowed:
            assert explained.decisive.hook == "authenticate"


async def test_where_nobody_authenticates_a_local_listener_lets_everybody_in() -> None:
    async with open_harness() as harness:
        explained = await harness.broker.explain(client_id="c", publish="a", authenticate=True)
        assert explained.allowed


async def test_an_explanation_asks_the_plugins_of_this_moment() -> None:
    async with open_harness() as harness:
        broker = harness.broker
        await broker.add_plugin(Guard(), "guard")
        assert not (await broker.explain(client_id="c", publish="x")).allowed
        await broker.remove_plugin("guard")
        assert (await broker.explain(client_id="c", publish="x")).allowed


async def test_a_plugin_is_stopped_behind_its_last_explanation(autojump_clock: MockClock) -> None:
    notes: list[str] = []

    async def slow(event: Any) -> Allow:
        await trio.sleep(1)
        notes.append("answered")
        return Allow()

    recorder = HookRecorder(
        answers={"authorize_publish": slow, "stop": lambda event: notes.append("stopped")}
    )
    async with open_harness(plugins=[recorder]) as harness, trio.open_nursery() as nursery:
        nursery.start_soon(partial(harness.broker.explain, client_id="c", publish="a"))
        await trio.testing.wait_all_tasks_blocked()
        await harness.broker.remove_plugin("HookRecorder")
        assert notes == ["answered", "stopped"]


async def test_the_rules_of_a_listener_hold() -> None:
    """Its authenticators only, and topics below its mount point."""
    url = "mqtt://127.0.0.1:0"
    door = Listener(url=url, authenticate=("guard",), mount_point="site/")
    passing = HookRecorder(answers={"authenticate": Allow(why="anybody")})
    async with open_broker([], plugins=[passing], settings=Settings()) as broker:
        await broker.add_plugin(Guard(), "guard")
        broker._core.doors.set([(door, False)])
        ask = partial(broker.explain, client_id="c", username="ann", listener=url)
        explained = await ask(publish="b", authenticate=True, password="right")
        assert [answer.plugin for answer in explained.decisions[0].answers] == ["guard"]
        assert (explained.asked, explained.topic) == ("b", "site/b")
        assert explained.decisive.why == "not ann's"  # a/b is hers, site/b is not
        explained = await ask(subscribe="$share/g/#")
        assert explained.topic == "$share/g/site/#"
        explained = await ask(publish="$SYS/x")
        assert (explained.decisive.hook, explained.allowed) == ("broker", False)


async def test_questions_that_make_no_sense() -> None:
    async with open_harness() as harness:
        with pytest.raises(ValueError, match="give either"):
            await harness.broker.explain(client_id="c")
        with pytest.raises(ValueError, match="wildcard"):
            await harness.broker.explain(client_id="c", publish="a/#")
    with pytest.raises(BrokerStopped):
        await harness.broker.explain(client_id="c", publish="a")


async def test_only_those_are_asked_whom_the_listener_names() -> None:
    plugins = [
        HookRecorder(answers={"authenticate": answer}) for answer in (Deny(), Allow(username="b"))
    ]
    listeners = [
        {"url": "mqtt://127.0.0.1:1", "authenticate": ["HookRecorder-2"]},
        {"url": "mqtt://127.0.0.1:2", "authenticate": []},
    ]
    async with open_harness(plugins=plugins, listener=listeners) as harness:
        said = {}
        for url in ("mqtt://127.0.0.1:1", "mqtt://127.0.0.1:2", "stream"):
            explained = await harness.broker.explain(
                client_id="c", username="a", publish="t", authenticate=True, listener=url
            )
            said[url] = (explained.allowed, explained.username)
    assert said == {
        "mqtt://127.0.0.1:1": (True, "b"),
        "mqtt://127.0.0.1:2": (True, None),
        "stream": (False, "a"),
    }
