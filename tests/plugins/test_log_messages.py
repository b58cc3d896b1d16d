"""What is written, at which level, and that a payload is not, unless somebody asked for it."""

import logging
from typing import Any

import pytest
from trio.testing import MockClock

from mqtrio import ConfigurationError, Deny, Drop, ReconfigureEvent
from mqtrio.testing import HookRecorder, check_plugin, open_harness
from mqtrio_plugins.log_messages import LogMessages, LogMessagesSettings

LOGGER = "mqtrio.plugins.log"


def log_messages(**settings: Any) -> LogMessages:
    return LogMessages(LogMessagesSettings(**settings), name="log")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


async def test_the_contract(autojump_clock: MockClock) -> None:
    other = LogMessagesSettings(topics=("a",), payload=True)
    await check_plugin(LogMessages, LogMessagesSettings(), other_settings=other)


async def test_messages_of_some_topics(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_harness(plugins=[log_messages(topics=("a/+", "$SYS/#"))]) as harness:
        ann = await harness.connect("ann")
        await ann.publish("a/b", b"secret", qos=1, retain=True)
        await ann.publish("b", b"secret")
        await harness.broker.publish("$SYS/x", b"1")
    assert lines(caplog) == [
        "'ann' published 6 bytes to 'a/b' at QoS 1, retained",
        "'local' published 1 bytes to '$SYS/x' at QoS 0",
    ]
    assert all(record.levelno == logging.INFO for record in caplog.records)


async def test_a_payload_is_bounded_and_escaped(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    plugin = log_messages(payload=True, payload_size=5, level="debug")
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        await ann.publish("a", b"\n\x1b[0m")
        await ann.publish("a", b"123456")
        await ann.ping()
    assert [line.partition("QoS 0")[2] for line in lines(caplog)] == [
        r": b'\n\x1b[0m'",
        ": b'12345'...",
    ]
    assert {record.levelno for record in caplog.records if record.name == LOGGER} == {logging.DEBUG}


async def test_names_cannot_write_lines(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_harness(plugins=[log_messages(connections=True)]) as harness:
        ann = await harness.connect("ann\x1b[0m\nbob published", version=4)
        await ann.publish("a\nb")
        await ann.ping()
    assert len(lines(caplog)) == 3
    assert all(line.isprintable() for line in lines(caplog))


async def test_what_is_dropped(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    dropping = HookRecorder(answers={"transform_publish": Drop()})
    async with open_harness(plugins=[log_messages(topics=("a",)), dropping]) as harness:
        ann = await harness.connect("ann")
        await ann.publish("a", b"x", qos=1)
        await ann.publish("b", b"x", qos=1)
    assert lines(caplog) == ["'a' dropped for 'ann': transform"]


async def test_who_comes_and_goes(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    admitting = HookRecorder(
        answers={"admit": lambda event: Deny(why="no") if event.client_id == "eve" else None}
    )
    async with open_harness(plugins=[log_messages(connections=True), admitting]) as harness:
        ann = await harness.connect("ann")
        await ann.disconnect()
        await harness.connect("bob")
        harness.broker.disconnect("bob", why="enough")
        eve = harness.peer("eve")
        await eve.send(eve.connect_packet())
        await eve.expect_closed(0x87)
    assert lines(caplog) == [
        "'ann' connected from 192.0.2.7",
        "'ann' disconnected: by the client",
        "'bob' connected from 192.0.2.7",
        "'bob' disconnected: enough",
        "'eve' from 192.0.2.7 was refused: no",
    ]


async def test_new_settings_hold_at_once(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    plugin = log_messages(topics=("a",))
    async with open_harness(plugins=[plugin]) as harness:
        plugin.reconfigure(ReconfigureEvent(LogMessagesSettings(topics=("b",))))()
        await harness.broker.publish("a")
        await harness.broker.publish("b")
    assert lines(caplog) == ["'local' published 0 bytes to 'b' at QoS 0"]


async def test_nothing_is_made_where_nobody_reads(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    async with open_harness(plugins=[log_messages(connections=True)]) as harness:
        ann = await harness.connect("ann")
        await ann.publish("a", b"x", qos=1)
    assert lines(caplog) == []


def test_a_filter_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="topics: 'a/#/b'"):
        LogMessagesSettings(topics=("a/#/b",))
