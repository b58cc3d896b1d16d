"""Who is let in without a word, as whom, and who is left to others."""

from typing import Any

import pytest
from trio.testing import MockClock

from mqtrio import Deny, Listener, ReasonCode, Settings, open_broker
from mqtrio.testing import HookRecorder, check_plugin, open_harness
from mqtrio.wire.packets import ConnAck
from mqtrio_plugins.anonymous import Anonymous, AnonymousSettings


def anonymous(**settings: Any) -> Anonymous:
    return Anonymous(AnonymousSettings(**settings), name="anonymous")


async def test_the_contract(autojump_clock: MockClock) -> None:
    await check_plugin(Anonymous, AnonymousSettings(username="guest"))


@pytest.mark.parametrize("version", [4, 5])
async def test_who_says_nothing_is_let_in(version: int, autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[anonymous()]) as harness:
        await harness.connect("ann", version=version)
        (client,) = harness.broker.clients()
        assert (client.client_id, client.username) == ("ann", None)


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "ann"},
        {"username": ""},
        {"username": "ann", "password": b"x"},
        {"password": b"a token"},
    ],
)
async def test_who_says_something_is_left_to_others(
    fields: dict[str, Any], autojump_clock: MockClock
) -> None:
    asked = HookRecorder(answers={"authenticate": Deny(ReasonCode.BANNED)})
    async with open_harness(plugins=[anonymous(username="guest"), asked]) as harness:
        peer = harness.peer("ann")
        await peer.send(peer.connect_packet(**fields))
        await peer.expect_closed(ReasonCode.BANNED)
    assert asked.hooks == ["authenticate"]


async def test_an_authentication_method_is_left_to_others(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[anonymous()]) as harness:
        peer = harness.peer("ann")
        await peer.send(peer.connect_packet(authentication_method="magic"))
        await peer.expect_closed(ReasonCode.BAD_AUTHENTICATION_METHOD)


async def test_others_are_not_asked_about_the_anonymous(autojump_clock: MockClock) -> None:
    asked = HookRecorder(answers={"authenticate": Deny()})
    async with open_harness(plugins=[anonymous(), asked]) as harness:
        await harness.connect("ann")
    assert asked.calls == []


async def test_the_username_and_the_prefix(autojump_clock: MockClock) -> None:
    plugin = anonymous(username="guest", client_id_prefix="guest-")
    async with open_harness(plugins=[plugin]) as harness:
        ann = await harness.connect("ann")
        assert ann.connack is not None
        assert ann.connack.assigned_client_identifier == "guest-ann"
        nameless = await harness.connect("")
        assert nameless.client_id.startswith("guest-")
        assert len(nameless.client_id) == len("guest-") + 32
        assert {client.username for client in harness.broker.clients()} == {"guest"}


async def test_without_a_prefix_the_broker_assigns_identifiers(autojump_clock: MockClock) -> None:
    async with open_harness(plugins=[anonymous()]) as harness:
        peer = harness.peer("")
        await peer.send(peer.connect_packet())
        answer = await peer.expect(ConnAck, reason_code=0)
        assert (answer.assigned_client_identifier or "").startswith("auto-")


async def test_it_opens_a_listener_that_would_not_be_open(autojump_clock: MockClock) -> None:
    """Enabling it is a decision: without it this broker would not even start."""
    url = "mqtt://0.0.0.0:0"
    async with open_broker(
        plugins=[anonymous()], settings=Settings(listener=(Listener(url=url),))
    ) as broker:
        assert broker.listeners[0].url == url
