"""The plugin in a broker in memory; virtual time comes with the fixture `autojump_clock`."""

import mqtrio
import pytest
from mqtrio.testing import Disconnect, Publish, check_plugin, open_harness
from trio.testing import MockClock

from mqtrio_json_guard import JsonGuardPlugin, JsonGuardSettings

SETTINGS = JsonGuardSettings(topic_filters=("json/#",), mistakes=3)


def guard() -> JsonGuardPlugin:
    return JsonGuardPlugin(SETTINGS, name="guard")


async def test_what_holds_for_every_plugin(autojump_clock: MockClock) -> None:
    await check_plugin(
        JsonGuardPlugin,
        JsonGuardSettings(mistakes=0),
        other_settings=SETTINGS,
    )


def test_a_topic_filter_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="wildcard"):
        JsonGuardSettings(topic_filters=("a#",))


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("payload", [b'{"on": true}', b"21.5", b"", '"ä"'.encode()])
async def test_json_passes(autojump_clock: MockClock, version: int, payload: bytes) -> None:
    async with open_harness(plugins=[guard()]) as harness:
        ann = await harness.client("ann", version=version)
        await ann.subscribe("json/#")
        await ann.publish("json/a", payload, qos=1)
        await ann.message(payload)


@pytest.mark.parametrize("payload", [b"{", b"on", b"\xff", b"[" * 100_000])
async def test_what_is_no_json_is_refused(autojump_clock: MockClock, payload: bytes) -> None:
    async with open_harness(plugins=[guard()]) as harness:
        ann = await harness.client("ann")
        await ann.subscribe("#")
        code = await ann.try_publish("json/a", payload, qos=1)
        assert code == mqtrio.ReasonCode.PAYLOAD_FORMAT_INVALID
        assert await ann.received() == []
        await ann.publish("text/a", payload, qos=1)
        await ann.message(payload)


async def test_who_goes_on_is_disconnected(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[guard()]) as harness:
        ann = await harness.client("ann")
        bob = await harness.client("bob")
        for _ in range(2):
            await ann.try_publish("json/a", b"{", qos=1)
            await bob.try_publish("json/a", b"{", qos=1)
        await ann.send(Publish("json/a", b"{"))
        await ann.expect(Disconnect, reason_code=mqtrio.ReasonCode.PAYLOAD_FORMAT_INVALID)
        await ann.expect_closed()
        await bob.ping()


async def test_a_configuration_enables_it(autojump_clock: MockClock) -> None:
    settings = {"topic_filters": ["json/#"], "mistakes": 2}
    async with open_harness(config={"plugin": {"json-guard": settings}}) as harness:
        plugin = harness.broker.plugins["json-guard"]
        assert isinstance(plugin, JsonGuardPlugin)
        assert plugin.settings == JsonGuardSettings(topic_filters=("json/#",), mistakes=2)
