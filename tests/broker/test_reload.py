"""Another configuration for a running broker: what changes, what stays, what is taken back."""

import socket
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import mqtrio
from mqtrio import (
    Allow,
    Broker,
    Configuration,
    ConfigurationError,
    Deny,
    Limits,
    Listener,
    Plugin,
    PluginError,
    PluginSpec,
    Settings,
    hookimpl,
    setting,
)
from mqtrio.installed import InstalledPlugin
from mqtrio.testing import Closed, Peer, open_harness
from mqtrio.wire.packets import PubAck, Publish


@attrs.define(frozen=True)
class Notes:
    """Settings of the plugins here: `notes` are shared by all, so that order can be seen."""

    notes: list[str] = attrs.field(factory=list, eq=False)
    value: int = setting(0, "something to change")
    fail: str = setting("", "the hook that fails")


YES = Allow(remember=True)


class Plain(Plugin[Notes]):
    """Has no `reconfigure`: replaced when its settings change."""

    slow: trio.Event | None = None

    def note(self, what: str) -> None:
        self.settings.notes.append(f"{self.name}{self.settings.value} {what}")
        if self.settings.fail == what:
            raise LookupError("no")

    @hookimpl
    async def start(self, event: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.note("start")

    @hookimpl
    async def stop(self, event: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.note("stop")

    @hookimpl
    async def authorize_publish(self, event: Any) -> Allow | Deny:
        if self.slow is not None:
            await self.slow.wait()
        return YES if event.topic == f"topic/{self.settings.value}" else Deny()

    @hookimpl
    def authorize_subscribe(self, event: Any) -> Allow:
        return Allow()


class Other(Plain):
    """Another class."""


class Exclusive(Plain):
    exclusive = True

    @hookimpl
    def accept(self, event: Any) -> None:
        return None


class Able(Plain):
    """Has `reconfigure`."""

    @hookimpl
    async def reconfigure(self, event: Any) -> Callable[[], None] | None:
        await trio.lowlevel.checkpoint()
        self.note("asked")
        if event.settings.fail == "reconfigure":
            raise LookupError("not these")
        if event.settings.fail == "hang":
            await trio.sleep_forever()
        if event.settings.fail == "nonsense":
            return 5  # type: ignore[return-value]

        def apply() -> None:
            self.settings = event.settings
            self.note("applied")

        return apply

    @hookimpl
    def compile_delivery(self, event: Any) -> Callable[[Any], Any]:
        wanted = self.settings.value

        def deliver(message: Any) -> Any:
            return message if message.topic == f"topic/{wanted}" else None

        return deliver


class Keeper(Plain):
    """Has to do with stores."""

    @hookimpl
    def open_store(self, event: Any) -> None:
        return None


def spec(name: str, plugin: type[Plugin[Any]], settings: Any, required: bool = False) -> PluginSpec:
    entry = EntryPoint(name, f"here:{plugin.__name__}", "mqtrio.plugins")
    installed = InstalledPlugin(name, "mqtrio-here", "1.0", entry.value, entry)
    return PluginSpec(name, required, plugin, settings, installed)


def configuration(*specs: PluginSpec, **settings: Any) -> Configuration:
    return Configuration(Settings(**settings), specs)


class Rig:
    """A broker with a client, and the notes of all plugins."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def spec(
        self, name: str, plugin: type[Plain] = Plain, value: int = 0, fail: str = ""
    ) -> PluginSpec:
        return spec(name, plugin, Notes(self.notes, value, fail))

    def told(self) -> list[str]:
        """What was noted since the last time."""
        told, self.notes[:] = list(self.notes), []
        return told


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def say(peer: Peer, topic: str) -> None:
    """Publish with QoS 1, and don't wait for the answer."""
    await peer.send(Publish(topic, b"x", 1, False, False, peer.next_id(), None))


def opened(*specs: PluginSpec, plugins: tuple[object, ...] = (), **settings: Any) -> Any:
    return open_harness(config=configuration(*specs, **settings), plugins=plugins)


# -- what stays, what comes, what goes -------------------------------------------------------------


async def test_plugins_stay_come_and_go(rig: Rig, autojump_clock: MockClock) -> None:
    async with opened(rig.spec("a"), rig.spec("b"), rig.spec("c")) as harness:
        before = dict(harness.broker.plugins)
        assert rig.told() == ["a0 start", "b0 start", "c0 start"]
        await harness.broker.reload(
            configuration(rig.spec("d"), rig.spec("b", value=1), rig.spec("a"))
        )
        after = harness.broker.plugins
        assert list(after) == ["d", "b", "a"]
        assert after["a"] is before["a"]
        assert after["b"] is not before["b"]
        # What is new starts before what is old stops, and that in the opposite order.
        assert rig.told() == ["d0 start", "b1 start", "c0 stop", "b0 stop"]
    assert rig.told() == ["b1 stop", "d0 stop", "a0 stop"]


async def test_a_plugin_of_another_class_is_another_plugin(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with opened(rig.spec("a")) as harness:
        await harness.broker.reload(configuration(rig.spec("a", Other)))
        assert type(harness.broker.plugins["a"]) is Other
        assert rig.told() == ["a0 start", "a0 start", "a0 stop"]


async def test_plugins_of_the_program_stay_behind_those_of_the_configuration(
    rig: Rig, autojump_clock: MockClock
) -> None:
    class Mine:
        @hookimpl
        def authorize_publish(self, event: Any) -> None:
            return None

    async with opened(rig.spec("a"), plugins=(Mine(),)) as harness:
        await harness.broker.reload(configuration(rig.spec("a"), rig.spec("b")))
        assert list(harness.broker.plugins) == ["a", "b", "Mine"]
        await harness.broker.reload(configuration())
        assert list(harness.broker.plugins) == ["Mine"]
        with pytest.raises(PluginError, match="there is a plugin 'Mine' of the program already"):
            await harness.broker.reload(configuration(rig.spec("Mine")))


async def test_a_configuration_may_come_to_a_broker_that_had_none(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with open_harness() as harness:
        await harness.broker.reload(configuration(rig.spec("a")))
        assert list(harness.broker.plugins) == ["a"]


async def test_connections_and_sessions_stay(rig: Rig, autojump_clock: MockClock) -> None:
    async with opened(rig.spec("a")) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("topic/#", qos=1)
        await harness.broker.reload(configuration(rig.spec("a", value=1)))
        await ann.publish("topic/1", b"x", 1)
        await ann.message(b"x", topic="topic/1")


async def test_a_call_in_what_is_replaced_finishes(rig: Rig, autojump_clock: MockClock) -> None:
    async with opened(rig.spec("a")) as harness, trio.open_nursery() as nursery:
        old: Any = harness.broker.plugins["a"]
        old.slow = trio.Event()
        ann = await harness.connect("ann")
        await say(ann, "topic/0")
        await wait_all_tasks_blocked()
        nursery.start_soon(harness.broker.reload, configuration(rig.spec("a", value=1)))
        await wait_all_tasks_blocked()
        assert harness.broker.plugins["a"] is not old
        assert rig.told() == ["a0 start", "a1 start"]  # not stopped: it thinks
        old.slow.set()
        ack = await ann.answer(PubAck)
        assert ack.reason_code in (0, 0x10)
        await wait_all_tasks_blocked()
        assert rig.told() == ["a0 stop"]


# -- reconfigure -----------------------------------------------------------------------------------


async def test_reconfigure_gets_the_settings_also_the_same(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with opened(rig.spec("a", Able), rig.spec("b", Able)) as harness:
        before = dict(harness.broker.plugins)
        rig.told()
        await harness.broker.reload(configuration(rig.spec("a", Able, 1), rig.spec("b", Able)))
        assert dict(harness.broker.plugins) == before
        # All are asked before anything is applied.
        assert rig.told() == ["a0 asked", "b0 asked", "a1 applied", "b0 applied"]


async def test_what_was_decided_is_reconsidered(rig: Rig, autojump_clock: MockClock) -> None:
    async with opened(rig.spec("a", Able)) as harness:
        ann = await harness.connect("ann")
        await ann.subscribe("topic/#")
        await harness.broker.reload(configuration(rig.spec("a", Able, 1)))
        bob = await harness.connect("bob")
        await bob.publish("topic/1", b"new", 1)
        assert (await ann.message()).topic == "topic/1"


async def test_a_failure_to_apply_is_logged_and_the_rest_applied(
    rig: Rig, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(rig.spec("a", Able), rig.spec("b", Able)) as harness:
        rig.told()
        await harness.broker.reload(
            configuration(rig.spec("a", Able, 1, fail="applied"), rig.spec("b", Able, 1))
        )
        assert rig.told()[2:] == ["a1 applied", "b1 applied"]
    assert "plugin a: reconfigure raised an exception" in caplog.text


# -- nothing changes if anything is wrong ----------------------------------------------------------


def taken() -> tuple[socket.socket, str]:
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, f"mqtt://127.0.0.1:{sock.getsockname()[1]}"


class Misspelt(Plugin[Notes]):
    @hookimpl
    def publishd(self, event: Any) -> None:
        return None


class Unmakable(Plain):
    def __init__(self, settings: Notes, *, name: str) -> None:
        raise LookupError("never")


@pytest.mark.parametrize(
    ("wrong", "error", "told", "text"),
    [
        ("make", PluginError, [], r"can't be made as 'w': LookupError: never"),
        ("hooks", PluginError, [], r"implements 'publishd'.* It comes with mqtrio-here 1\.0"),
        (
            "start",
            PluginError,
            ["n0 start", "w0 start", "n0 stop"],
            r"plugin 'w' \(of mqtrio-here 1.0\): start failed",
        ),
        ("bind", OSError, ["n0 start", "n0 stop"], r"can't listen on mqtt://127.*in use"),
        ("names", ConfigurationError, ["n0 start", "n0 stop"], r"names the plugin 'nobody'"),
        ("refuse", PluginError, ["n0 start", "r0 asked", "n0 stop"], r"'r' .*new settings: not th"),
        ("hang", PluginError, ["n0 start", "r0 asked", "n0 stop"], r"settings: took too long"),
        ("nonsense", PluginError, ["n0 start", "r0 asked", "n0 stop"], r"answered with int"),
        ("store", ConfigurationError, [], r"keeps what the broker stores.* Restart the broker"),
        (
            "exclusive",
            PluginError,
            ["n0 start", "r0 asked", "x0 stop", "x1 start", "n0 stop", "x0 start"],
            r"plugin 'x' \(of mqtrio-here 1.0\): start failed",
        ),
    ],
)
async def test_a_failure_in_any_step_changes_nothing(
    rig: Rig,
    autojump_clock: MockClock,
    wrong: str,
    error: type[Exception],
    told: list[str],
    text: str,
) -> None:
    sock, url = taken()
    new: dict[str, PluginSpec] = {
        "make": rig.spec("w", Unmakable),
        "hooks": spec("w", Misspelt, Notes(rig.notes)),
        "start": rig.spec("w", fail="start"),
        "store": rig.spec("w", Keeper),
    }
    specs = [
        rig.spec("n"),
        rig.spec("r", Able, 1, fail={"refuse": "reconfigure"}.get(wrong, wrong)),
        rig.spec("x", Exclusive, *((1, "start") if wrong == "exclusive" else ())),
        *([new[wrong]] if wrong in new else []),
    ]
    listeners: tuple[Listener, ...] = ()
    if wrong == "bind":
        listeners = (Listener(url=url),)
    elif wrong == "names":
        listeners = (Listener(url="stream", authenticate=("nobody",)),)
    first = configuration(
        rig.spec("r", Able),
        rig.spec("x", Exclusive),
        listener=(Listener(url="mqtt://127.0.0.1:0"),),
    )
    with sock:
        async with mqtrio.open_broker(None if wrong == "bind" else [], config=first) as broker:
            before, rules = dict(broker.plugins), (broker._core.settings, broker.listeners)
            rig.told()
            with pytest.raises(error, match=text):
                await broker.reload(
                    configuration(*specs, listener=listeners, limits=Limits(sessions=7))
                )
            assert rig.told() == told
            assert dict(broker.plugins) == before
            assert list(broker.plugins) == list(before)
            assert (broker._core.settings, broker.listeners) == rules
            # And it can be done again, right.
            await broker.reload(configuration(rig.spec("n"), limits=Limits(sessions=7)))
            assert list(broker.plugins) == ["n"]
            assert broker._core.limits.sessions == 7


async def test_a_plugin_that_keeps_the_store_can_stay_but_not_go(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with opened(rig.spec("k", Keeper)) as harness:
        await harness.broker.reload(configuration(rig.spec("k", Keeper), rig.spec("a")))
        for other in (configuration(rig.spec("a")), configuration(rig.spec("k", Keeper, 1))):
            with pytest.raises(ConfigurationError, match="plugin 'k' keeps what the broker stores"):
                await harness.broker.reload(other)
        assert list(harness.broker.plugins) == ["k", "a"]


async def test_a_file_that_is_wrong_changes_nothing(
    rig: Rig, autojump_clock: MockClock, tmp_path: Any
) -> None:
    path = tmp_path / "broker.toml"
    path.write_text("[limits]\nsessions = 0\n")
    async with opened(rig.spec("a")) as harness:
        with pytest.raises(ConfigurationError, match=r"broker\.toml:2: limits\.sessions: 0 is out"):
            await harness.broker.reload(path)
        assert list(harness.broker.plugins) == ["a"]


async def test_a_reload_that_is_cancelled_is_taken_back(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with opened(rig.spec("r", Able)) as harness:
        rig.told()
        with trio.move_on_after(1):
            await harness.broker.reload(
                configuration(rig.spec("n"), rig.spec("r", Able, 1, fail="hang"))
            )
        assert rig.told() == ["n0 start", "r0 asked", "n0 stop"]
        assert list(harness.broker.plugins) == ["r"]


# -- exclusive plugins -----------------------------------------------------------------------------


async def test_an_exclusive_plugin_stops_before_its_successor_starts(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with opened(rig.spec("x", Exclusive)) as harness:
        rig.told()
        await harness.broker.reload(configuration(rig.spec("x", Exclusive, 1)))
        assert rig.told() == ["x0 stop", "x1 start"]
        assert list(harness.broker.plugins) == ["x"]
    assert rig.told() == ["x1 stop"]


async def test_who_asks_in_between_waits_for_the_successor(
    rig: Rig, autojump_clock: MockClock
) -> None:
    class Slow(Exclusive):
        ready = trio.Event()

        @hookimpl
        async def start(self, event: Any) -> None:
            if self.settings.value:
                await self.ready.wait()

    async with opened(rig.spec("x", Slow)) as harness, trio.open_nursery() as nursery:
        ann = await harness.connect("ann")
        nursery.start_soon(harness.broker.reload, configuration(rig.spec("x", Slow, 1)))
        await wait_all_tasks_blocked()
        await say(ann, "topic/1")
        await wait_all_tasks_blocked()
        with pytest.raises(Closed):  # where nothing can wait, the door is closed
            await harness.connect("bob")
        Slow.ready.set()
        assert (await ann.answer(PubAck)).reason_code in (0, 0x10)  # the new one's answer
        await harness.connect("bob")


async def test_an_exclusive_plugin_that_cannot_be_started_again_lets_nobody_pass(
    rig: Rig, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Once(Exclusive):
        starts = 0

        @hookimpl
        async def start(self, event: Any) -> None:
            Once.starts += 1
            if Once.starts > 1:
                raise LookupError("only once")

    async with opened(rig.spec("x", Once)) as harness:
        ann = await harness.connect("ann")
        with pytest.raises(PluginError, match="start failed"):
            await harness.broker.reload(configuration(rig.spec("x", Once, 1)))
        assert "it can't be started again" in caplog.text
        await say(ann, "topic/0")
        assert (await ann.answer(PubAck)).reason_code >= 0x80
        # A later reload mends it.
        Once.starts = 0
        await harness.broker.reload(configuration(rig.spec("x", Once, 1)))
        await say(ann, "topic/1")
        assert (await ann.answer(PubAck)).reason_code < 0x80


# -- settings and listeners ------------------------------------------------------------------------


async def connects(broker: Broker, index: int) -> bool:
    address = broker.listeners[index]
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        await stream.send_all(bytes.fromhex("10 0c 0004 4d515454 04 02 003c 0000"))
        return bool(await stream.receive_some() == bytes.fromhex("20 02 00 00"))


async def test_listeners_stay_come_and_go() -> None:
    with trio.fail_after(20):
        first, second = "mqtt://127.0.0.1:0", "mqtt://127.0.0.1:0/"
        async with mqtrio.open_broker(
            config=configuration(listener=(Listener(url=first),))
        ) as broker:
            (old,) = broker.listeners
            stream = await trio.open_tcp_stream(old.host, old.port)
            await broker.reload(configuration(listener=(Listener(url=first), Listener(url=second))))
            assert broker.listeners[0] == old
            assert await connects(broker, 0)
            assert await connects(broker, 1)
            await broker.reload(configuration(listener=(Listener(url=second),)))
            assert [each.url for each in broker.listeners] == [second]
            assert await connects(broker, 0)
            with pytest.raises(OSError, match=r"connect|refused"):
                await trio.open_tcp_stream(old.host, old.port)
            # Who came by the old one is still there.
            await stream.send_all(bytes.fromhex("10 0c 0004 4d515454 04 02 003c 0000"))
            assert await stream.receive_some() == bytes.fromhex("20 02 00 00")
            await stream.aclose()


async def test_rules_of_listeners_change() -> None:
    with trio.fail_after(20):
        url = "mqtt://127.0.0.1:0"
        async with mqtrio.open_broker(
            config=configuration(listener=(Listener(url=url),))
        ) as broker:
            assert await connects(broker, 0)
            closed = Listener(url=url, allow_anonymous=False)
            await broker.reload(configuration(listener=(closed,)))
            assert not await connects(broker, 0)
            full = Listener(url=url, max_connections=1)
            await broker.reload(configuration(listener=(full,)))
            assert await connects(broker, 0)
            assert broker._network.maximum == {url: 1}


async def test_listeners_that_the_program_named_stay() -> None:
    with trio.fail_after(20):
        async with mqtrio.open_broker("mqtt://127.0.0.1:0", config={}) as broker:
            (old,) = broker.listeners
            await broker.reload({"listener": [{"url": "mqtt://127.0.0.1:1"}]})
            assert broker.listeners == (old,)


async def test_limits_change(autojump_clock: MockClock) -> None:
    async with opened() as harness:
        ann = await harness.connect("ann")
        await ann.publish("a/b/c", b"x", 1)
        limits = Limits(topic_levels=2, turn_budget=500, hook_deadline=9.0, uncommitted_bytes=10)
        await harness.broker.reload(configuration(limits=limits))
        core = harness.broker._core
        assert (core.limits, core.budget) == (limits, 500)
        assert harness.broker._life.deadline == 9.0
        await say(ann, "x/y/z")
        await ann.expect_closed(0x90)


async def test_a_stopped_broker_reloads_nothing(autojump_clock: MockClock) -> None:
    async with opened() as harness:
        broker = harness.broker
    with pytest.raises(mqtrio.BrokerStopped):
        await broker.reload({})
