"""Plugging in and out: names, order, what is refused, and observers that fail."""

import logging
from types import ModuleType
from typing import Any

import pytest
import trio

from mqtrio.errors import PluginError
from mqtrio.hooks import combine
from mqtrio.hooks.answers import Allow, Deny
from mqtrio.hooks.events import PluginFailedEvent, PublishedEvent, PublishEvent
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.provide_events import HookspecsEvent
from mqtrio.hooks.specs import HOOKS, hookimpl, hookspec
from tests.hooks.driver import at_once, drive, plugin_of, publish_event


class Recorder(Plugin[list[str]]):
    """Notes its name in the list that is its settings."""

    @hookimpl
    def published(self, event: PublishedEvent) -> None:
        self.settings.append(self.name)


class Equal:
    """All of these are equal, as values of a dataclass are."""

    def __init__(self) -> None:
        self.seen = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 1

    @hookimpl
    def published(self, event: PublishedEvent) -> None:
        self.seen += 1


def tell(manager: HookManager) -> None:
    manager.notify(manager.published, publish_event())


# -- registration


def test_the_order_is_the_order_of_adding() -> None:
    order: list[str] = []
    manager = HookManager()
    for name in ("c", "a", "b"):
        manager.add(Recorder(order, name=name))
    tell(manager)
    assert order == list(manager.plugins) == ["c", "a", "b"]


def test_two_equal_instances_are_two_plugins() -> None:
    manager = HookManager()
    first, second = Equal(), Equal()
    assert (manager.add(first), manager.add(second)) == ("Equal", "Equal-2")
    tell(manager)
    assert (first.seen, second.seen) == (1, 1)
    assert manager.remove("Equal") is first
    tell(manager)
    assert (first.seen, second.seen) == (1, 2)


def test_a_name_belongs_to_one_plugin() -> None:
    manager = HookManager()
    manager.add(Recorder([], name="a"))
    with pytest.raises(PluginError, match="there is a plugin 'a' already"):
        manager.add(Recorder([], name="a"))
    with pytest.raises(PluginError, match="there is a plugin 'a' already"):
        manager.add(Equal(), "a")
    assert list(manager.plugins) == ["a"]


def test_the_given_name_goes_before_the_plugins_own() -> None:
    manager = HookManager()
    manager.add(Recorder([], name="own"), "given")
    assert list(manager.plugins) == ["given"]


def test_a_name_is_free_again_after_removal() -> None:
    order: list[str] = []
    manager = HookManager()
    for _ in range(2):
        manager.add(Recorder(order, name="a"))
        tell(manager)
        manager.remove("a")
    tell(manager)
    assert order == ["a", "a"]


def test_removing_a_stranger_names_those_that_are_there() -> None:
    manager = HookManager()
    manager.add(Recorder([], name="a"))
    with pytest.raises(PluginError, match="there is no plugin 'b'; plugins are: 'a'"):
        manager.remove("b")


def test_a_module_can_be_a_plugin() -> None:
    seen: list[object] = []
    module = ModuleType("greeter")

    @hookimpl
    def published(event: PublishedEvent) -> None:
        seen.append(event)

    vars(module)["published"] = published
    manager = HookManager()
    assert manager.add(module) == "greeter"
    tell(manager)
    assert len(seen) == 1


def test_class_methods_static_methods_and_other_names_can_be_hooks() -> None:
    seen: list[str] = []

    class Odd:
        @hookimpl
        @classmethod
        def published(cls, event: PublishedEvent) -> None:
            seen.append("class")

        @staticmethod
        @hookimpl
        def dropped(event: object) -> None:
            seen.append("static")

        @hookimpl(specname="delivered")
        def on_delivery(self, event: object) -> None:
            seen.append("named")

    manager = HookManager()
    manager.add(Odd())
    for hook in ("published", "dropped", "delivered"):
        manager.notify(manager.calls(hook), object())
    assert seen == ["class", "static", "named"]


def test_only_marked_methods_count(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(Plugin[None]):
        def published(self, event: PublishedEvent) -> None:
            raise AssertionError("not marked")

        @hookimpl
        def delivered(self, event: Any) -> None:
            pass

    manager = HookManager()
    manager.add(Forgetful(None, name="f"))
    assert manager.published == ()
    assert len(manager.delivered) == 1
    [message] = caplog.messages
    assert "published is never called" in message
    assert "plugin 'f'" in message


# -- what is refused


def refused(plugin: object, match: str, name: str | None = "bad") -> None:
    manager = HookManager()
    manager.add(Equal(), "good")
    before = {hook: manager.calls(hook) for hook in HOOKS}
    with pytest.raises(PluginError, match=match):
        manager.add(plugin, name)
    assert list(manager.plugins) == ["good"]
    assert {hook: manager.calls(hook) for hook in HOOKS} == before
    # Nothing of it is left: the name is free, and the next one is looked at afresh.
    manager.add(Equal(), "bad")


def method(self: object, event: Any) -> None:
    raise AssertionError("never called")


def test_an_unknown_hook_is_refused_with_a_hint() -> None:
    refused(
        plugin_of("autorize_publish", method),
        r"plugin 'bad' \(Made\) implements 'autorize_publish', which is no hook "
        r"\(did you mean 'authorize_publish'\?\)\. Hooks are: check_settings, start, stop, ",
    )


def test_an_optional_unknown_hook_is_left_out() -> None:
    class Optional:
        @hookimpl(optionalhook=True)
        def of_another_plugin(self, event: object) -> None:
            raise AssertionError("never called")

    manager = HookManager()
    assert manager.add(Optional()) == "Optional"
    assert manager.statistics() == []


@pytest.mark.parametrize(
    "function",
    [
        lambda self: None,
        lambda self, wrong: None,
        lambda self, event, more: None,
        lambda self, *, event: None,
        lambda self, more, event: None,
    ],
)
def test_a_wrong_signature_is_refused(function: Any) -> None:
    refused(
        plugin_of("published", function),
        r"plugin 'bad' \(Made\): published must take one argument, event: "
        r"def published\(self, event\)",
    )


@pytest.mark.parametrize("hook", [hook.name for hook in HOOKS.values() if not hook.awaits])
def test_a_coroutine_function_where_nothing_waits_is_refused(hook: str) -> None:
    async def function(self: object, event: Any) -> None:
        raise AssertionError("never called")

    refused(plugin_of(hook, function), rf"plugin 'bad' \(Made\): {hook} must be a plain function")


def test_generators_are_refused() -> None:
    def generator(self: object, event: Any) -> Any:
        yield

    async def asynchronous(self: object, event: Any) -> Any:
        yield

    for function in (generator, asynchronous):
        refused(plugin_of("admit", function), "admit must return its answer: it is a generator")


@pytest.mark.parametrize("option", ["wrapper", "hookwrapper", "tryfirst", "trylast"])
def test_pluggys_options_of_order_are_refused(option: str) -> None:
    options: dict[str, Any] = {option: True}
    plugin = type("Made", (), {"admit": hookimpl(**options)(lambda self, event: None)})()
    refused(plugin, rf"plugin 'bad' \(Made\) marks 'admit' with {option}=True, which is refused")


def test_one_hook_twice_is_refused() -> None:
    class Twice:
        @hookimpl
        def admit(self, event: object) -> None:
            raise AssertionError("never called")

        @hookimpl(specname="admit")
        def another(self, event: object) -> None:
            raise AssertionError("never called")

    refused(Twice(), "implements 'admit' more than once")


def test_what_is_no_plugin_is_refused() -> None:
    refused(object(), r"plugin 'bad' \(object\) has no method marked with @mqtrio\.hookimpl")
    refused(Equal, "a plugin is an object, an instance of a class")
    refused(None, "a plugin is an object", None)


def test_a_plugin_for_other_hooks_is_refused() -> None:
    class Old(Equal):
        api = 0

    refused(Old(), "was written for version 0 of the hooks; this mqtrio calls version 1")


def test_a_property_that_raises_is_left_alone() -> None:
    class Lazy(Equal):
        @property
        def connection(self) -> object:
            raise AssertionError("a property is no hook")

    assert HookManager().add(Lazy()) == "Lazy"


# -- while the broker runs


def test_changes_are_told() -> None:
    changes: list[frozenset[str]] = []
    manager = HookManager(on_change=changes.append)
    changes.clear()
    manager.add(Equal(), "a")
    manager.add(plugin_of("compile_delivery", method), "b")
    manager.remove("a")
    assert changes == [{"published"}, {"compile_delivery"}, {"published"}]


@pytest.mark.parametrize("hook", ["authorize_publish", "transform_publish", "published"])
def test_a_publish_is_plain_while_nobody_has_to_do_with_it(hook: str) -> None:
    manager = HookManager()
    plain = [manager.publish_is_plain]
    manager.add(plugin_of("client_connected", method), "a")
    plain.append(manager.publish_is_plain)
    manager.add(plugin_of(hook, method), "b")
    plain.append(manager.publish_is_plain)
    manager.remove("b")
    plain.append(manager.publish_is_plain)
    assert plain == [True, True, False, True]


async def test_a_call_in_a_removed_plugin_finishes_and_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def authorize(self: object, event: PublishEvent) -> Allow:
        await trio.sleep(1)
        return Allow(why="finished")

    manager = HookManager()
    manager.add(plugin_of("authorize_publish", authorize), "slow")
    async with trio.open_nursery() as nursery:

        async def publish() -> None:
            answer = await drive(combine.authorize_publish(manager, publish_event()))
            assert answer == Allow(why="finished")
            nursery.cancel_scope.cancel()

        nursery.start_soon(publish)
        await trio.testing.wait_all_tasks_blocked()
        manager.remove("slow")
        assert manager.authorize_publish == ()
        await trio.sleep_forever()


async def test_a_removed_plugin_gets_no_new_call_of_a_run_that_had_begun(
    autojump_clock: trio.testing.MockClock,
) -> None:
    manager = HookManager()

    async def authorize(self: object, event: PublishEvent) -> Allow:
        manager.remove("second")
        return Allow()

    manager.add(plugin_of("authorize_publish", authorize), "first")
    manager.add(plugin_of("authorize_publish", method), "second")
    assert type(await drive(combine.authorize_publish(manager, publish_event()))) is Allow


async def test_a_plugin_removed_while_it_is_the_only_one_closes_the_door(
    autojump_clock: trio.testing.MockClock,
) -> None:
    manager = HookManager()

    async def authorize(self: object, event: PublishEvent) -> None:
        manager.remove("second")

    manager.add(plugin_of("authorize_publish", authorize), "first")
    manager.add(plugin_of("authorize_publish", lambda self, event: Allow()), "second")
    assert type(await drive(combine.authorize_publish(manager, publish_event()))) is Deny


def test_observers_may_come_and_go_while_they_are_told() -> None:
    order: list[str] = []
    manager = HookManager()

    class Leaving:
        @hookimpl
        def published(self, event: PublishedEvent) -> None:
            order.append("leaving")
            manager.remove("leaving")
            manager.remove("next")
            manager.add(Recorder(order, name="new"))

    manager.add(Leaving(), "leaving")
    manager.add(Recorder(order, name="next"))
    tell(manager)
    assert order == ["leaving"]
    tell(manager)
    assert order == ["leaving", "new"]


# -- counting


def test_calls_are_counted_across_changes() -> None:
    manager = HookManager()
    manager.add(Equal(), "a")
    tell(manager)
    manager.add(Equal(), "b")
    tell(manager)
    manager.add(plugin_of("authorize_publish", lambda self, event: Allow()), "c")
    for _ in range(3):
        at_once(combine.authorize_publish(manager, publish_event()))
    assert {(row.plugin, row.hook): row.calls for row in manager.statistics()} == {
        ("a", "published"): 2,
        ("b", "published"): 1,
        ("c", "authorize_publish"): 3,
    }


# -- observers that fail


class Moody:
    """An observer that fails whenever `mood` is bad."""

    def __init__(self, mood: str = "bad") -> None:
        self.mood = mood
        self.calls = 0

    @hookimpl
    def published(self, event: PublishedEvent) -> None:
        self.calls += 1
        if self.mood == "bad":
            raise LookupError


def test_a_failing_observer_harms_nobody() -> None:
    order: list[str] = []
    manager = HookManager()
    manager.add(Recorder(order, name="before"))
    manager.add(Moody(), "moody")
    manager.add(Recorder(order, name="after"))
    tell(manager)
    assert order == ["before", "after"]


def test_an_observer_is_switched_off_after_ten_failures_in_a_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures: list[PluginFailedEvent] = []
    manager = HookManager(on_failure=failures.append)
    moody = Moody()
    manager.add(moody, "moody")
    for _ in range(15):
        tell(manager)
    assert moody.calls == 10
    assert manager.published == ()
    assert manager.publish_is_plain
    assert [event.switched_off for event in failures] == [False] * 9 + [True]
    [row] = manager.statistics()
    assert (row.calls, row.failures, row.switched_off) == (10, 10, True)
    assert caplog.messages[-1] == (
        "plugin moody: published failed 10 times in a row and is called no more"
    )
    manager.remove("moody")
    manager.add(moody, "moody")
    tell(manager)
    assert moody.calls == 11


def test_one_success_gives_an_observer_ten_more_chances() -> None:
    manager = HookManager()
    moody = Moody()
    manager.add(moody, "moody")
    for _ in range(3):
        for _ in range(9):
            tell(manager)
        moody.mood = "good"
        tell(manager)
        moody.mood = "bad"
    assert moody.calls == 30
    # The count goes on where another plugin comes or goes in between.
    for number in range(20):
        manager.add(Equal(), str(number))
        tell(manager)
    assert moody.calls == 40


def test_a_flood_of_failures_is_one_record(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("mqtrio.hooks.calls.time.monotonic", lambda: now)
    manager = HookManager()
    manager.add(plugin_of("authorize_publish", lambda self, event: "nonsense"), "a")
    for _ in range(1000):
        at_once(combine.authorize_publish(manager, publish_event()))
    assert len(caplog.records) == 1
    now += 1
    at_once(combine.authorize_publish(manager, publish_event()))
    assert "and 999 times more since the last record" in caplog.messages[1]


def test_nonsense_is_logged_by_its_type_only(caplog: pytest.LogCaptureFixture) -> None:
    manager = HookManager()
    manager.add(plugin_of("authenticate", lambda self, event: "hunter2"), "a")
    at_once(combine.authenticate(manager, object()))  # type: ignore[arg-type]  # not looked at
    assert "answered with str, not with Allow, Challenge, Deny or None" in caplog.text
    assert "hunter2" not in caplog.text


class Witness:
    """Notes every failure that it is told of."""

    def __init__(self) -> None:
        self.seen: list[PluginFailedEvent] = []

    @hookimpl
    def plugin_failed(self, event: PluginFailedEvent) -> None:
        self.seen.append(event)


def test_failures_are_told_to_observers() -> None:
    manager = HookManager()
    witness = Witness()
    manager.add(witness)
    manager.add(Moody(), "moody")
    tell(manager)
    [event] = witness.seen
    assert (event.plugin, event.hook, event.kind) == ("moody", "published", "raised")
    assert isinstance(event.error, LookupError)


def test_a_failure_while_failures_are_told_is_not_told_again() -> None:
    manager = HookManager()
    witness = Witness()

    class Sour:
        calls = 0

        @hookimpl
        def plugin_failed(self, event: PluginFailedEvent) -> None:
            Sour.calls += 1
            tell(manager)  # makes the next failure
            raise LookupError

    manager.add(Sour(), "sour")
    manager.add(witness)
    manager.add(Moody(), "moody")
    tell(manager)
    assert Sour.calls == 1
    assert [event.plugin for event in witness.seen] == ["moody"]
    failures = {row.plugin: row.failures for row in manager.statistics()}
    assert failures == {"sour": 1, "Witness": 0, "moody": 2}


# -- hooks that a plugin brings


class MeterHooks:
    """Hooks of a plugin that reads meters."""

    @hookspec
    def meter_read(self, event: object) -> None:
        """A meter was read."""


class MeterReader:
    """Brings a hook of its own."""

    @hookimpl
    def hookspecs(self, event: HookspecsEvent) -> Any:
        return MeterHooks


def test_a_plugin_can_bring_hooks() -> None:
    seen: list[object] = []
    manager = HookManager()
    listener = plugin_of("meter_read", lambda self, event: seen.append(event))
    with pytest.raises(PluginError, match="'meter_read', which is no hook"):
        manager.add(listener)
    manager.add(MeterReader())
    assert manager.calls("meter_read") == ()
    manager.add(listener)
    manager.notify(manager.calls("meter_read"), "event")
    assert seen == ["event"]
    manager.add(MeterReader())  # a second instance brings the same hooks
    with pytest.raises(PluginError, match="there is no hook 'meter_red'"):
        manager.calls("meter_red")


def test_brought_hooks_do_not_replace_others() -> None:
    class Names:
        @hookspec
        def published(self, event: object) -> None:
            raise AssertionError("a specification")

    for namespace, match in ((Names, "which exists already"), (object, "must return a class")):
        plugin = plugin_of("hookspecs", lambda self, event, made=namespace: made)
        with pytest.raises(PluginError, match=match):
            HookManager().add(plugin)


def test_hookspecs_that_raise_are_refused() -> None:
    def broken(self: object, event: object) -> None:
        raise LookupError

    with pytest.raises(PluginError, match=r"plugin 'a' \(Made\): hookspecs raised LookupError"):
        HookManager().add(plugin_of("hookspecs", broken), "a")


# -- the default rules


def test_what_holds_without_authorizers_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    manager = HookManager()
    manager.add(plugin_of("authorize_subscribe", method), "a")
    manager.log_default_rules()
    manager.log_default_rules()
    [message] = caplog.messages
    assert "no plugin implements authorize_publish" in message


def test_nothing_is_logged_where_authorizers_are_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    manager = HookManager()
    for hook in ("authorize_publish", "authorize_subscribe"):
        manager.add(plugin_of(hook, method), hook)
    manager.log_default_rules()
    assert caplog.messages == []
