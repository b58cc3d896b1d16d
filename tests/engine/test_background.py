"""Background tasks of plugins: restarted, given up, and ended with all that they have started."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from mqtrio import PluginFailed, hookimpl, open_broker
from mqtrio.engine.background import LONGEST_PAUSE, WELL
from mqtrio.testing import HookRecorder, Peer, open_harness


class Worker:
    """Notes the moments at which its `run` began, and does what it is told to."""

    def __init__(self, work: Callable[[Any], Awaitable[None]], *, required: bool = False) -> None:
        self.work = work
        self.required = required
        self.began: list[float] = []
        self.ended = 0

    @hookimpl
    async def run(self, event: Any) -> None:
        self.began.append(trio.current_time())
        try:
            await self.work(event)
        finally:
            self.ended += 1

    @hookimpl
    def published(self, event: Any) -> None:
        pass

    @property
    def pauses(self) -> list[float]:
        """The seconds between the beginnings."""
        return [after - before for before, after in zip(self.began, self.began[1:], strict=False)]


async def crash(event: Any) -> None:
    await trio.lowlevel.checkpoint()
    raise LookupError("no bridge there")


async def test_a_crash_is_logged_and_the_task_starts_again_later_and_later(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(crash)
    recorder = HookRecorder("plugin_failed")
    async with open_harness(plugins=[recorder, worker]):
        await trio.sleep(200)
    assert worker.pauses[:8] == pytest.approx([1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE])
    failure = recorder.of("plugin_failed")[0]
    assert (failure.plugin, failure.hook, failure.kind) == ("Worker", "run", "raised")
    first = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "plugin Worker: run raised" in first.getMessage()


async def test_a_task_that_was_well_for_a_while_begins_with_short_pauses_again(
    autojump_clock: MockClock,
) -> None:
    times = iter([0, 0, 0, WELL, 0, 0])

    async def work(event: Any) -> None:
        await trio.sleep(next(times, 1e6))
        raise LookupError

    worker = Worker(work)
    async with open_harness(plugins=[worker], limits={"plugin_restarts": 3}) as harness:
        await trio.sleep(2 * WELL)
        assert worker.pauses == pytest.approx([1, 2, 4, WELL + 1, 2, 4])
        assert "Worker" in harness.broker.plugins


@pytest.mark.parametrize("restarts", [0, 2])
async def test_a_task_is_given_up_after_plugin_restarts(
    restarts: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(crash)
    recorder = HookRecorder("plugin_failed")
    async with open_harness(
        plugins=[recorder, worker], limits={"plugin_restarts": restarts}
    ) as harness:
        await trio.sleep(1000)
        assert len(worker.began) == restarts + 1
        # The other hooks stay: they may guard a door.
        assert list(harness.broker.plugins) == ["HookRecorder", "Worker"]
        peer = await harness.connect("peer")
        await peer.publish("a", b"x", 1)
        calls = {(each.plugin, each.hook): each for each in harness.broker._life.hooks.statistics()}
        run = calls["Worker", "run"]
        assert (run.failures, run.switched_off) == (restarts + 1, True)
        assert calls["Worker", "published"].calls == 1
    assert recorder.of("plugin_failed")[-1].switched_off
    assert "the broker goes on without it" in caplog.text


async def test_a_required_one_that_is_given_up_ends_the_broker(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(crash, required=True)
    ours, theirs = memory_stream_pair()
    peer = Peer(ours, client_id="peer")
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            async with open_broker([], plugins=[worker], limits={"plugin_restarts": 2}) as broker:
                nursery.start_soon(broker.serve_stream, theirs)
                await peer.connect()
                nursery.start_soon(peer.expect_closed, 0x8B)  # told like by any other end
                await trio.sleep_forever()

        with pytest.raises(
            PluginFailed, match=r"'Worker'.* 3 times in a row, .*required"
        ) as caught:
            await serve()
    assert "LookupError" in repr(caught.value.__cause__)
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)
    assert trio.current_time() < 60


async def test_what_the_block_raises_meanwhile_comes_out(autojump_clock: MockClock) -> None:
    async def serve() -> None:
        worker = Worker(crash, required=True)
        async with open_harness(plugins=[worker], limits={"plugin_restarts": 0}):
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await serve()


async def test_a_task_that_returns_has_ended_for_good(autojump_clock: MockClock) -> None:
    async def work(event: Any) -> None:
        await trio.sleep(1)

    worker = Worker(work, required=True)
    async with open_harness(plugins=[worker]) as harness:
        await trio.sleep(100)
        await harness.broker.add_plugin(HookRecorder("published"))  # looks at all tasks anew
        await trio.sleep(100)
    assert len(worker.began) == 1


async def test_what_it_has_started_ends_with_it(autojump_clock: MockClock) -> None:
    living: list[str] = []

    async def live(name: str) -> None:
        living.append(name)
        try:
            await trio.sleep_forever()
        finally:
            living.remove(name)

    async def work(event: Any) -> None:
        event.nursery.start_soon(live, "child")
        await trio.sleep(10)
        raise LookupError

    worker = Worker(work)
    async with open_harness() as harness:
        await harness.broker.add_plugin(worker, "worker")
        await trio.sleep(1)
        assert living == ["child"]
        await trio.sleep(9.5)
        assert living == []  # it has crashed, and starts again after a second
        await trio.sleep(5)
        assert living == ["child"]
        await harness.broker.remove_plugin("worker")
        assert living == []
        assert worker.ended == len(worker.began) == 2


async def test_a_crash_of_what_it_has_started_is_one_of_its_own(autojump_clock: MockClock) -> None:
    async def work(event: Any) -> None:
        event.nursery.start_soon(crash, event)
        await trio.sleep_forever()

    worker = Worker(work)
    async with open_harness(plugins=[worker], limits={"plugin_restarts": 1}) as harness:
        await trio.sleep(100)
        [run] = [each for each in harness.broker._life.hooks.statistics() if each.hook == "run"]
    assert len(worker.began) == 2
    assert (run.failures, run.switched_off) == (2, True)
