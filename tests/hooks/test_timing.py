"""How long hooks take: the histogram, what is timed, and what the log says."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow
from mqtrio.hooks.calls import CallStatistics
from mqtrio.hooks.events import AcceptEvent, AdmitEvent, DeliveryEvent
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.timing import Timing
from tests.hooks.driver import CLIENT, at_once, drive, plugin_of, publish_event


def test_nothing_timed() -> None:
    assert Timing().quantile(0.99) == 0.0


def test_a_time_stands_for_several_calls() -> None:
    timing = Timing()
    timing.add(0.001, 64)
    timing.add(0.010)
    assert timing.calls == 65
    assert timing.seconds == 0.074
    assert 0.001 <= timing.quantile(0.5) <= 0.00126
    assert 0.010 <= timing.quantile(1.0) <= 0.0126


@given(st.lists(st.floats(1e-8, 1000), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_at_most_a_quarter_too_high(times: list[float], share: float) -> None:
    timing = Timing()
    for seconds in times:
        timing.add(seconds)
    right = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    assert right * 0.999 - 2e-9 <= timing.quantile(share) <= right * 1.26 + 2e-9


class Clock:
    """What the time is when it is asked for: each time a step later."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mqtrio.hooks.calls.perf_counter", clock)
    monkeypatch.setattr("mqtrio.hooks.combine.perf_counter", clock)
    return clock


def counted(manager: HookManager, hook: str) -> CallStatistics:
    [found] = [each for each in manager.statistics() if each.hook == hook]
    return found


def test_rare_hooks_are_timed_each_time(clock: Clock) -> None:
    manager = HookManager()
    manager.add(plugin_of("accept", lambda self, event: None))
    clock.step = 0.002
    for _ in range(3):
        combine.accept(manager, AcceptEvent(CLIENT))
    said = counted(manager, "accept")
    assert said.seconds == pytest.approx(0.006)
    assert 0.002 <= said.p50 <= said.p99 <= 0.0025


@pytest.mark.parametrize("hook", ["authorize_publish", "transform_publish", "published"])
def test_hooks_of_each_message_are_timed_now_and_then(hook: str, clock: Clock) -> None:
    manager = HookManager()
    answer = Allow() if hook == "authorize_publish" else None
    manager.add(plugin_of(hook, lambda self, event: answer))
    clock.step = 0.001
    for _ in range(1 + 64 * 10):
        if hook == "published":
            manager.notify(manager.published, publish_event("a"))
        else:
            at_once(getattr(combine, hook)(manager, publish_event("a")))
    assert clock.now == pytest.approx(2 * 11 * 0.001)  # 11 calls of 641
    said = counted(manager, hook)
    assert said.calls == 641
    assert said.seconds == pytest.approx(0.641)


def test_delivery_filters_are_timed_now_and_then(clock: Clock) -> None:
    manager = HookManager()
    manager.add(plugin_of("compile_delivery", lambda self, event: lambda message: message))
    deliver = combine.compile_delivery(manager, DeliveryEvent(CLIENT, "a"))
    assert deliver is not None
    clock.step = 0.001
    for _ in range(65):
        deliver(publish_event("a"))
    assert counted(manager, "delivery_filter").seconds == pytest.approx(0.065)


async def test_an_answer_counts_until_it_is_there(autojump_clock: object) -> None:
    async def admit(self: object, event: AdmitEvent) -> None:
        await trio.sleep(2)

    manager = HookManager()
    manager.add(plugin_of("admit", admit))
    await drive(combine.admit(manager, AdmitEvent(CLIENT)))
    assert counted(manager, "admit").seconds == pytest.approx(2)


def test_a_hook_that_blocks_is_named(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    manager = HookManager(budget=0.1)
    manager.add(plugin_of("accept", lambda self, event: None), "slow")
    for clock.step in (0.05, 0.25):
        combine.accept(manager, AcceptEvent(CLIENT))
    assert [record.getMessage() for record in caplog.records] == [
        "plugin slow: accept blocked everybody for 0.250 s"
    ]


def test_a_turn_that_took_long_names_who_was_not_timed(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    manager = HookManager(budget=0.1)
    manager.turn_took(0.3)  # without plugins it is the broker's own affair
    assert not caplog.records
    manager.add(plugin_of("published", lambda self, event: None), "quiet")
    manager.notify(manager.published, publish_event("a"))  # the first call is timed
    clock.step = 0.25
    manager.notify(manager.published, publish_event("a"))  # and this one isn't
    manager.turn_took(0.3)
    manager.notify(manager.published, publish_event("a"))  # but the one after such a turn is
    manager.turn_took(0.3)
    assert [record.getMessage() for record in caplog.records] == [
        "everybody was blocked for 0.300 s: by the broker itself, or by one of quiet.published, "
        "which were not timed",
        "plugin quiet: published blocked everybody for 0.250 s",
    ]
