"""What holds for a client by the listener that it came by: who is asked about it."""

from typing import Any

import pytest
from trio.testing import MockClock

from mqtrio import Allow, ConfigurationError, Deny, ReasonCode
from mqtrio.opening import open_broker
from mqtrio.testing import HookRecorder, open_harness
from mqtrio.wire.packets import Auth

A, B, NONE = "mqtt://127.0.0.1:1", "mqtt://127.0.0.1:2", "mqtt://127.0.0.1:3"

LISTENERS = [
    {"url": A, "authenticate": ["HookRecorder-2", "HookRecorder"]},
    {"url": B, "authenticate": ["HookRecorder"]},
    {"url": NONE, "authenticate": []},
]


async def test_only_those_are_asked_that_the_listener_names_in_its_order(
    autojump_clock: MockClock,
) -> None:
    order: list[str] = []

    def say(name: str) -> Any:
        return lambda event: order.append(f"{name} {event.client_id}")

    plugins = [HookRecorder(answers={"authenticate": say(name)}) for name in "123"]
    async with open_harness(plugins=plugins, listener=LISTENERS) as harness:
        for url in (A, B, NONE, "stream"):
            peer = harness.peer(url, listener=url)
            await peer.send(peer.connect_packet())
            await peer.settle()
    assert order == [f"2 {A}", f"1 {A}", f"1 {B}", "1 stream", "2 stream", "3 stream"]


async def test_who_is_not_asked_lets_nobody_in(autojump_clock: MockClock) -> None:
    plugins = [HookRecorder(answers={"authenticate": Allow(username="ann")})]
    listeners = [{"url": A, "authenticate": ["HookRecorder"]}, {"url": NONE, "authenticate": []}]
    async with open_harness(plugins=plugins, listener=listeners) as harness:
        await harness.connect("a", listener=A)
        # Nobody is asked: on this machine that is enough, but nobody has vouched for a name.
        await harness.connect("b", listener=NONE, username="ann")
        assert {c.client_id: c.username for c in harness.broker.clients()} == {
            "a": "ann",
            "b": None,
        }


async def test_allow_anonymous_decides_where_nobody_is_asked(autojump_clock: MockClock) -> None:
    plugins = [HookRecorder(answers={"authenticate": Allow()})]
    listeners = [{"url": NONE, "authenticate": [], "allow_anonymous": False}]
    async with open_harness(plugins=plugins, listener=listeners) as harness:
        peer = harness.peer("b", listener=NONE)
        await peer.send(peer.connect_packet())
        await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)


async def test_a_plugin_that_is_replaced_is_found_by_its_name(autojump_clock: MockClock) -> None:
    listeners = [{"url": A, "authenticate": ["HookRecorder"]}]
    plugins = [HookRecorder(answers={"authenticate": Allow()})]
    async with open_harness(plugins=plugins, listener=listeners) as harness:
        await harness.connect("one", listener=A)
        await harness.broker.remove_plugin("HookRecorder")
        peer = harness.peer("two", listener=A)  # nobody is left, and the door stays closed
        await peer.send(peer.connect_packet())
        await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)
        other = HookRecorder(answers={"authenticate": Deny(ReasonCode.BANNED)})
        await harness.broker.add_plugin(other, "HookRecorder")
        peer = harness.peer("three", listener=A)
        await peer.send(peer.connect_packet())
        await peer.expect_closed(ReasonCode.BANNED)


async def test_a_re_authentication_asks_the_same(autojump_clock: MockClock) -> None:
    asked = [HookRecorder(answers={"authenticate": Allow()}) for _ in range(2)]
    listeners = [{"url": A, "authenticate": ["HookRecorder-2"]}]
    async with open_harness(plugins=asked, listener=listeners) as harness:
        peer = await harness.connect("one", listener=A, authentication_method="m")
        await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, "m", b""))
        await peer.settle()
    assert [len(each.of("authenticate")) for each in asked] == [0, 2]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["nobody"], "'nobody', which isn't there; plugins that authenticate are: 'HookRecorder'"),
        (["HookRecorder-2"], "'HookRecorder-2', which implements no authenticate"),
    ],
)
async def test_a_name_that_is_none_keeps_the_broker_from_starting(
    names: list[str], why: str
) -> None:
    plugins = [HookRecorder(answers={"authenticate": None}), HookRecorder("published")]
    with pytest.raises(ConfigurationError, match=why):
        async with open_harness(
            plugins=plugins, listener=[{"url": "mqtt://127.0.0.1:0", "authenticate": names}]
        ):
            raise AssertionError


@pytest.mark.parametrize(
    ("options", "opens"),
    [
        ({}, True),
        ({"authenticate": ["HookRecorder"]}, True),
        ({"authenticate": []}, False),
        ({"authenticate": [], "allow_anonymous": True}, True),
        ({"authenticate": [], "allow_anonymous": False}, True),
    ],
)
async def test_a_door_to_other_machines_wants_somebody_who_authenticates_there(
    options: dict[str, Any], opens: bool
) -> None:
    plugins = [HookRecorder(answers={"authenticate": None})]
    listener = {"url": "mqtt://0.0.0.0:0", **options}
    if opens:
        async with open_broker(plugins=plugins, listener=[listener]) as broker:
            assert broker.listeners
    else:
        with pytest.raises(ConfigurationError, match="nobody authenticates the clients"):
            async with open_broker(plugins=plugins, listener=[listener]):
                raise AssertionError
