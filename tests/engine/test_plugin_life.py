"""Starting and ending plugins while the broker runs."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mqtrio import Allow, BrokerStopped, Plugin, PluginError, hookimpl
from mqtrio.hooks.manager import HookManager
from mqtrio.testing import HookRecorder, open_harness
from mqtrio.wire.packets import PubAck, Publish


class Living(Plugin[None]):
    """Notes what happens to it; waits where it is told to."""

    def __init__(self, notes: list[str], name: str = "it") -> None:
        self.notes = notes
        super().__init__(None, name=name)
        self.slow_start = trio.Event()
        self.slow_start.set()
        self.answer = trio.Event()
        self.leave = trio.Event()
        self.leave.set()

    def note(self, what: str) -> None:
        self.notes.append(f"{self.name} {what}")

    @hookimpl
    async def start(self, event: Any) -> None:
        await self.slow_start.wait()
        self.note("started")

    @hookimpl
    async def authorize_publish(self, event: Any) -> Allow:
        self.note("asked")
        await self.answer.wait()
        self.note("answered")
        return Allow()

    @hookimpl
    async def run(self, event: Any) -> None:
        self.note("runs")
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(100, shield=True):
                await self.leave.wait()
            self.note("ran")

    @hookimpl
    async def stop(self, event: Any) -> None:
        self.note("stopped")


async def test_a_plugin_is_started_before_anybody_sees_it(autojump_clock: MockClock) -> None:
    notes: list[str] = []
    plugin = Living(notes)
    plugin.slow_start = trio.Event()
    plugin.answer.set()
    async with open_harness() as harness, trio.open_nursery() as nursery:
        nursery.start_soon(harness.broker.add_plugin, plugin, "it")
        await wait_all_tasks_blocked()
        assert "it" not in harness.broker.plugins
        peer = await harness.connect("peer")
        await peer.publish("a", b"x", 1)
        with pytest.raises(PluginError, match="'it' already"):  # its name is taken all the same
            await harness.broker.add_plugin(HookRecorder("published"), "it")
        assert notes == []
        plugin.slow_start.set()
        await wait_all_tasks_blocked()
        assert "it" in harness.broker.plugins
        await peer.publish("a", b"x", 1)
        assert notes == ["it started", "it runs", "it asked", "it answered"]
        assert await harness.broker.remove_plugin("it") is plugin
        assert notes[4:] == ["it ran", "it stopped"]


async def test_one_that_does_not_start_is_not_there(autojump_clock: MockClock) -> None:
    class Broken(Living):
        @hookimpl
        async def start(self, event: Any) -> None:
            raise LookupError("no such file")

    notes: list[str] = []
    async with open_harness() as harness:
        with pytest.raises(PluginError, match="plugin 'it': start failed: LookupError"):
            await harness.broker.add_plugin(Broken(notes))
        assert not harness.broker.plugins
        await harness.broker.add_plugin(Living(notes))  # the name is free again
        assert notes == ["it started"]


async def test_the_end_waits_for_calls_and_the_task_then_stops(autojump_clock: MockClock) -> None:
    notes: list[str] = []
    plugin = Living(notes)
    plugin.leave = trio.Event()
    async with open_harness(plugins=[plugin]) as harness, trio.open_nursery() as nursery:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x", 1, packet_id=1))
        await peer.nothing()
        nursery.start_soon(harness.broker.remove_plugin, "it")
        await wait_all_tasks_blocked()
        assert "it" not in harness.broker.plugins
        other = await harness.connect("other")
        await other.publish("a", b"x", 1)  # it is asked nothing any more
        assert notes == ["it started", "it runs", "it asked"]
        plugin.answer.set()
        await peer.expect(PubAck, packet_id=1)
        await wait_all_tasks_blocked()
        assert notes[3:] == ["it answered"]
        plugin.leave.set()
        await wait_all_tasks_blocked()
        assert notes[4:] == ["it ran", "it stopped"]


@pytest.mark.parametrize("what", ["call", "task"])
async def test_the_end_waits_no_longer_than_the_deadline(
    what: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[str] = []
    plugin = Living(notes)
    if what == "task":
        plugin.leave = trio.Event()
    async with open_harness(plugins=[plugin], limits={"hook_deadline": 2}) as harness:
        peer = await harness.connect("peer")
        if what == "call":

            @hookimpl
            async def deaf(event: Any) -> None:
                with trio.move_on_after(100, shield=True):
                    await plugin.answer.wait()

            plugin_calls = harness.broker._life.hooks.entries[0].calls
            plugin_calls["authorize_publish"].function = deaf
            await peer.send(Publish("a", b"x", 1, packet_id=1))
            await peer.nothing()
        began = trio.current_time()
        await harness.broker.remove_plugin("it")
        assert trio.current_time() - began == pytest.approx(2)
        assert notes[-1] == "it stopped"
        assert "has not ended within 2 s" in caplog.text
        plugin.answer.set()
        plugin.leave.set()


async def test_a_cancelled_removal_ends_the_plugin_all_the_same(autojump_clock: MockClock) -> None:
    notes: list[str] = []
    plugin = Living(notes)
    plugin.leave = trio.Event()
    async with open_harness(plugins=[plugin]) as harness, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        scope = trio.CancelScope()

        async def remove() -> None:
            with scope:
                await harness.broker.remove_plugin("it")

        nursery.start_soon(remove)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        plugin.leave.set()
        await wait_all_tasks_blocked()
        assert notes == ["it started", "it runs", "it ran", "it stopped"]
    assert notes[4:] == []


async def test_who_is_asked_when_its_client_has_gone_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    notes: list[str] = []
    async with open_harness(plugins=[Living(notes)]) as harness:
        peer = await harness.connect("peer")
        await peer.send(Publish("a", b"x", 1, packet_id=1))
        await peer.nothing()
        harness.broker.disconnect("peer")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await harness.broker.remove_plugin("it")
        assert trio.current_time() == began


async def test_several_are_exchanged_in_one_step(autojump_clock: MockClock) -> None:
    """Same names, a new order, from one message to the next: what a reload does."""
    notes: list[str] = []
    async with open_harness(plugins=[Living(notes, "a"), Living(notes, "b")]) as harness:
        life = harness.broker._life
        await wait_all_tasks_blocked()
        notes.clear()
        entries = []
        for name in ("b", "a"):
            plugin = Living(notes, name)
            plugin.answer.set()
            entry = life.hooks.prepare(plugin, replaces=True)
            await life.start(entry)
            entries.append(entry)
        kept = harness.broker.plugins
        await life.exchange(entries)
        await wait_all_tasks_blocked()
        assert list(harness.broker.plugins) == ["b", "a"]
        assert harness.broker.plugins["a"] is not kept["a"]
        assert sorted(notes[:2]) == ["a started", "b started"]
        assert notes.index("b stopped") < notes.index("a stopped")
        assert notes.count("a runs") == notes.count("b runs") == 1
        notes.clear()
        peer = await harness.connect("peer")
        await peer.publish("a", b"x", 1)
        assert notes == ["b asked", "b answered", "a asked", "a answered"]
        notes.clear()
    assert notes[-2:] == ["a stopped", "b stopped"]


async def test_what_is_not_taken_after_all_is_stopped(autojump_clock: MockClock) -> None:
    notes: list[str] = []
    async with open_harness(plugins=[Living(notes, "a")]) as harness:
        life = harness.broker._life
        await wait_all_tasks_blocked()
        notes.clear()
        entry = life.hooks.prepare(Living(notes, "a"), replaces=True)
        await life.start(entry)
        await life.abandon(entry)
        assert notes == ["a started", "a stopped"]
        assert harness.broker.plugins["a"] is not entry.plugin


async def test_there_is_no_adding_to_a_broker_that_has_stopped(autojump_clock: MockClock) -> None:
    notes: list[str] = []
    plugin = Living(notes)
    plugin.slow_start = trio.Event()
    outcome: list[object] = []
    async with trio.open_nursery() as nursery:
        async with open_harness() as harness:

            async def add() -> None:
                with pytest.raises(BrokerStopped):
                    await harness.broker.add_plugin(plugin)
                outcome.append("refused")

            nursery.start_soon(add)
            await wait_all_tasks_blocked()
        plugin.slow_start.set()
    assert notes == ["it started", "it stopped"]
    assert outcome == ["refused"]
    with pytest.raises(BrokerStopped):
        await harness.broker.add_plugin(plugin)


def test_required_is_said_by_the_plugin_or_for_it() -> None:
    class Bridge(Plugin[None]):
        api = 1
        required = True

        @hookimpl
        async def run(self, event: Any) -> None:
            pass

    hooks = HookManager()
    prepared = [
        hooks.prepare(Bridge(None, name="a")),
        hooks.prepare(Bridge(None, name="b"), required=False),
        hooks.prepare(HookRecorder("published"), "c", required=True),
        hooks.prepare(HookRecorder("published"), "d"),
    ]
    assert [entry.required for entry in prepared] == [True, False, True, False]
    assert not hooks.plugins
