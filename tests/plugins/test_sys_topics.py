"""$SYS: which topics there are, how often they are published, and who sees them."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import mqtrio
from mqtrio import Allow, BrokerStatistics, Deny, PublishEvent, ReconfigureEvent
from mqtrio.testing import FaultyStore, Harness, HookRecorder, check_plugin, open_harness
from mqtrio.wire.packets import Publish
from mqtrio_plugins.sys_topics import SysTopics, SysTopicsSettings, _Averages

PAGE = (Path(__file__).parents[2] / "docs" / "plugins" / "sys_topics.md").read_text()


def sys_topics(**settings: Any) -> SysTopics:
    return SysTopics(SysTopicsSettings(**settings), name="sys_topics")


def said(harness: Harness) -> dict[str, str]:
    """What is retained, without what stands before it all."""
    return {
        message.topic.removeprefix("$SYS/broker/"): message.payload.decode()
        for message in harness.broker.retained("$SYS/#")
    }


async def test_the_contract(autojump_clock: MockClock) -> None:
    other = SysTopicsSettings(interval=20.0, plugins=False)
    await check_plugin(SysTopics, SysTopicsSettings(), other_settings=other)


async def test_what_a_new_broker_says(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[sys_topics(plugins=False)]) as harness:
        await trio.sleep(1)
        now = said(harness)
    assert now["version"] == f"mqtrio version {mqtrio.__version__}"
    assert now["uptime"] == "0 seconds"
    assert now["clients/connected"] == now["messages/received"] == "0"
    assert now["load/bytes/sent/15min"] == "0.00"
    assert not [topic for topic in now if topic.startswith("plugins/")]


async def test_what_it_counts(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[sys_topics(interval=10.0)]) as harness:
        await trio.sleep(1)
        ann = await harness.connect("ann", session_expiry_interval=5)
        await ann.subscribe("a/+")
        bob = await harness.connect("bob")
        await bob.publish("a/b", b"x" * 100, qos=1, retain=True)
        await ann.message()
        await ann.disconnect()
        await bob.disconnect()
        carl = await harness.connect("carl", session_expiry_interval=100)
        await carl.disconnect()
        dora = await harness.connect("dora", session_expiry_interval=100)
        wrong = harness.peer("$local/x")
        await wrong.send(wrong.connect_packet())
        await wrong.expect_closed(0x85)
        await trio.sleep(10)
        now = said(harness)
        own = len(now)  # they are retained themselves
        await dora.disconnect()
    assert {
        "clients/connected": "1",
        "clients/active": "1",
        "clients/disconnected": "1",
        "clients/inactive": "1",
        "clients/total": "2",
        "clients/maximum": "2",
        "clients/expired": "1",
        "publish/messages/dropped": "0",
        "subscriptions/count": "0",
        "refused/client_identifier_not_valid": "1",
        "crashes": "0",
        "uptime": "10 seconds",
    }.items() <= now.items()
    assert int(now["publish/messages/sent"]) == 1
    assert int(now["publish/messages/received"]) >= 1
    assert int(now["bytes/received"]) > 100
    assert 1 <= int(now["retained messages/count"]) <= own + 1


async def test_only_what_has_changed_is_published(autojump_clock: MockClock) -> None:
    recorder = HookRecorder("published")
    async with open_harness(plugins=[sys_topics(plugins=False), recorder]) as harness:
        await trio.sleep(1)
        first = [event.topic for event in recorder.of("published")]
        assert len(first) == len(set(first)) == len(said(harness))
        for _ in range(3):
            recorder.clear()
            await trio.sleep(10)
        later = [event.topic.removeprefix("$SYS/broker/") for event in recorder.of("published")]
    assert "uptime" in later
    assert not {"version", "clients/total", "crashes", "bytes/received"} & set(later)
    assert {event.origin for event in recorder.of("published")} == {"system"}
    assert all(event.retain and not event.qos for event in recorder.of("published"))


async def test_clients_see_it_only_if_they_ask(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[sys_topics()]) as harness:
        await trio.sleep(1)
        everything = await harness.connect("everything")
        await everything.subscribe("#")
        asking = await harness.connect("asking")
        await asking.subscribe("$SYS/broker/version")
        await asking.message(topic="$SYS/broker/version", retain=True)
        await trio.sleep(30)
        assert not [p for p in await everything.arrived() if isinstance(p, Publish)]


async def test_the_most_clients_between_two_rounds(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[sys_topics()]) as harness:
        await trio.sleep(1)
        peers = [await harness.connect(f"c{number}") for number in range(5)]
        for peer in peers:
            await peer.disconnect()
        await trio.sleep(10)
        assert said(harness)["clients/maximum"] == "5"
        assert said(harness)["clients/connected"] == "0"


async def test_new_settings_hold_from_the_next_round_on(autojump_clock: MockClock) -> None:
    plugin = sys_topics(interval=10.0)
    async with open_harness(plugins=[plugin]) as harness:
        await trio.sleep(1)
        plugin.reconfigure(ReconfigureEvent(SysTopicsSettings(interval=100.0)))()
        await trio.sleep(100)
        assert said(harness)["uptime"] == "10 seconds"
        await trio.sleep(10)
        assert said(harness)["uptime"] == "110 seconds"


async def test_what_an_earlier_run_has_left_is_taken_away(autojump_clock: MockClock) -> None:
    store = FaultyStore()
    async with open_harness(plugins=[sys_topics()], store=store) as harness:
        await trio.sleep(1)
        await harness.broker.publish("$SYS/broker/refused/banned", b"7", retain=True)
        await harness.broker.publish("$SYS/other", b"7", retain=True)
    async with open_harness(plugins=[sys_topics()], store=store) as harness:
        assert "refused/banned" in said(harness)
        await trio.sleep(1)
        assert "refused/banned" not in said(harness)
        assert "$SYS/other" in said(harness)
        assert "version" in said(harness)


async def test_a_refusal_is_logged_once_and_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = [True]

    def authorize(event: PublishEvent) -> Allow | Deny:
        refused = refusing[0] and event.topic == "$SYS/broker/uptime"
        return Deny(why="no") if refused else Allow()

    plugins = [sys_topics(), HookRecorder(answers={"authorize_publish": authorize})]
    async with open_harness(plugins=plugins) as harness:
        await trio.sleep(35)
        assert "uptime" not in said(harness)
        assert "version" in said(harness)
        refusing[0] = False
        await trio.sleep(10)
        assert said(harness)["uptime"] == "40 seconds"
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [record.getMessage().partition(":")[0] for record in warnings] == [
        "$SYS/broker/uptime can't be published"
    ]


async def test_calls_of_plugins(autojump_clock: MockClock) -> None:
    def fail(event: object) -> None:
        raise ZeroDivisionError

    failing = HookRecorder(answers={"client_connected": fail})
    async with open_harness(plugins=[sys_topics()]) as harness:
        await harness.broker.add_plugin(failing, "a/b+#")
        await harness.connect("ann")
        await trio.sleep(11)
        now = said(harness)
        assert now["plugins/a_b__/client_connected/calls"] == "1"
        assert now["plugins/a_b__/client_connected/failures"] == "1"
        assert now["plugins/a_b__/client_connected/timeouts"] == "0"
        assert "plugins/sys_topics/reconfigure/calls" not in now  # which nobody has called
        assert re.fullmatch(r"\d+\.\d{9}", now["plugins/sys_topics/client_connected/p99"])


async def test_what_waits_is_under_way_or_retained(autojump_clock: MockClock) -> None:
    """Each message counts once, also where only the store has it, and after a restart."""
    store = FaultyStore()
    small: dict[str, Any] = {"page_messages": 2, "window_messages": 4}
    names = ("messages/stored", "store/messages/count", "store/messages/bytes")

    async def counted(harness: Harness) -> list[int]:
        """Those of clients: without what the plugin has retained itself."""
        await trio.sleep(21)
        own = harness.broker.retained("$SYS/#")
        now = harness.broker.statistics()
        count, same, size = (int(said(harness)[name]) for name in names)
        assert count == same == now.messages_held
        # A number of another length may have replaced one after it was counted.
        assert abs(now.payload_bytes_held - size) <= 20
        sizes = sum(len(message.payload) for message in own)
        return [now.messages_held - len(own), now.payload_bytes_held - sizes]

    async with open_harness(
        plugins=[sys_topics(plugins=False)], store=store, limits=small
    ) as harness:
        await trio.sleep(1)
        assert await counted(harness) == [0, 0]
        for name in ("ann", "bob"):
            peer = await harness.connect(name, session_expiry_interval=1000)
            await peer.subscribe("a", qos=1)
            await peer.drop()
        for _ in range(10):
            await harness.broker.publish("a", b"x" * 10, qos=1)
        assert await counted(harness) == [10, 100]
        await harness.broker.publish("a", b"x" * 7, qos=1, retain=True)
        await harness.broker.publish("b", b"x" * 5, retain=True)
        assert await counted(harness) == [12, 112]
        ann = harness.peer("ann")
        await ann.connect(clean_start=False, session_expiry_interval=1000)
        for _ in range(11):
            await ann.message()
        assert await counted(harness) == [12, 112]
        await ann.disconnect()
    async with open_harness(
        plugins=[sys_topics(plugins=False)], store=store, limits=small
    ) as harness:
        # What is retained is stored apart from what waits.
        assert await counted(harness) == [13, 119]
        bob = harness.peer("bob")
        await bob.connect(clean_start=False)
        for _ in range(11):
            await bob.message()
        assert await counted(harness) == [2, 12]
        await harness.broker.publish("a", retain=True)
        await harness.broker.publish("b", retain=True)
        assert await counted(harness) == [0, 0]


async def test_shared_subscriptions(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[sys_topics()]) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("a")
        for name in ("$share/g/a", "$share/g/a", "$share/h/a"):
            await ann.subscribe(name)
        bob = await harness.connect("bob")
        await bob.subscribe("$share/g/a")
        await trio.sleep(11)
        assert said(harness)["subscriptions/count"] == "1"
        assert said(harness)["shared_subscriptions/count"] == "3"
        await ann.unsubscribe("$share/g/a")
        await bob.disconnect()
        await trio.sleep(10)
        assert said(harness)["subscriptions/count"] == "1"
        assert said(harness)["shared_subscriptions/count"] == "1"
        assert harness.broker.statistics().subscriptions == 2


async def test_connections_and_packets(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[sys_topics()]) as harness:
        await trio.sleep(1)
        ann = await harness.connect("ann")
        await ann.ping()
        harness.peer("silent")
        await trio.sleep(21)
        now = said(harness)
        assert now["messages/sent"] == "2"
        assert float(now["load/messages/sent/1min"]) > 0
        assert float(now["load/sockets/1min"]) > float(now["load/connections/1min"]) > 0


def at(uptime: float, received: int) -> BrokerStatistics:
    values: dict[str, Any] = dict.fromkeys(BrokerStatistics.__slots__, 0)
    values = {name: 0 for name in values if name not in ("__weakref__", "dropped", "refused")}
    values.pop("plugins", None)
    return BrokerStatistics(**{**values, "uptime": uptime, "bytes_received": received})


def test_averages() -> None:
    """By hand: 60 bytes in each of two minutes, then nothing for a minute."""
    averages = _Averages()
    names = [f"load/bytes/received/{span}" for span in ("1min", "5min", "15min")]

    def values(uptime: float, received: int) -> list[str]:
        found = dict(averages.after(at(uptime, received)))
        return [found[name] for name in names]

    assert values(60, 60) == ["37.93", "10.88", "3.87"]
    assert values(120, 120) == ["51.88", "19.78", "7.49"]
    assert values(180, 120) == ["19.09", "16.20", "7.01"]
    assert values(180, 120) == ["19.09", "16.20", "7.01"]  # no time has passed


async def test_every_topic_has_a_word_on_the_page(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[sys_topics(plugins=False)]) as harness:
        await trio.sleep(1)
        topics = list(said(harness))
    for topic in topics:
        name = re.sub("/(1|5|15)min$", "/…", topic)
        assert f"`{name}`" in PAGE, name
