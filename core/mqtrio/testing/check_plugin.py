"""What every plugin must do, as one contract: it comes, works, is changed, and leaves nothing."""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import attrs

from mqtrio.errors import MqtrioError, PluginError
from mqtrio.hooks import provide
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.plugin import Plugin
from mqtrio.hooks.provide_events import ReconfigureEvent
from mqtrio.hooks.specs import API_VERSION, HOOKS, PROJECT
from mqtrio.testing.harness import Harness, open_harness
from mqtrio.testing.recorder import HookRecorder
from mqtrio.testing.rules import named, rule
from mqtrio.testing.watch import Leftovers, shows, watched_log
from mqtrio.wire.packets import Publish

T = TypeVar("T")

#: Names of the instances.
_FIRST: Final = "first"
_SECOND: Final = "second"

#: Where pluggy's marker leaves its options.
_MARK: Final = f"{PROJECT}_impl"

#: What Python tells its auditors when something leaves the process's own memory (of new threads it
#: tells them from 3.12 on).
_IO_EVENTS: Final = (
    *("open", "os.", "socket.", "subprocess.", "sqlite3.connect", "urllib.", "shutil.", "glob."),
    *("tempfile.", "_thread.start_new_thread", "_thread.start_joinable_thread"),
)

_MISSING: Final[Any] = object()


async def check_plugin(
    plugin_class: Callable[..., T],
    settings: Any,
    *,
    other_settings: Any = _MISSING,
    wrong_settings: Any = _MISSING,
) -> None:
    """Check what holds for every plugin; raises AssertionError that names the broken rule.

        async def test_plugin(autojump_clock):
            await check_plugin(Greeter, GreeterSettings(text="hello"))

    The plugin is made, asked to check its settings, started, used by clients, run beside a second
    instance, removed and added again, reconfigured, stopped, and all that once more.
    `other_settings` may be put in force by its `reconfigure`; `wrong_settings` must be refused by
    it and by `check_settings`. Run it on a real clock if the plugin uses threads.
    """
    _check_class(plugin_class)
    _check_makes(plugin_class, settings)
    shared = _shared_state(plugin_class)
    contract = _Contract(plugin_class, settings, other_settings, wrong_settings)
    with watched_log() as log:
        for _ in range(2):
            before = Leftovers()
            await contract.life()
            left = before.new()
            rule(not left, f"a plugin must take everything with it when it stops: {named(left)}")
    changed = [name for name, value in _shared_state(plugin_class).items() if shared[name] != value]
    rule(
        not changed,
        f"state belongs to the instance, and two brokers may live in one process: the class keeps "
        f"some in {named(changed)}",
    )
    secrets = _secrets(settings)
    rule(
        not any(shows(text, secrets) for text in log.texts),
        "a setting that is secret stands in the log",
    )


# -- the class


def _check_class(plugin_class: Callable[..., Any]) -> None:
    rule(inspect.isclass(plugin_class), f"a plugin is made by its class: not {plugin_class!r}")
    assert inspect.isclass(plugin_class)
    own = [cls for cls in plugin_class.__mro__ if cls not in (Plugin, object)]
    api = next((vars(cls)["api"] for cls in own if "api" in vars(cls)), None)
    rule(
        api is not None,
        f"the class must say for which version of the hooks it was written: api = {API_VERSION}",
    )
    rule(api == API_VERSION, f"it was written for version {api!r} of the hooks: {API_VERSION}")
    unmarked = [
        name
        for name in HOOKS
        if any(name in vars(cls) for cls in own)
        and not _is_marked(inspect.getattr_static(plugin_class, name))
    ]
    rule(
        not unmarked,
        f"methods with the name of a hook must be marked by @mqtrio.hookimpl: {named(unmarked)}",
    )


def _is_marked(method: object) -> bool:
    """Whether a method of a class, perhaps a class method, has pluggy's mark."""
    return hasattr(method, _MARK) or hasattr(getattr(method, "__func__", None), _MARK)


def _check_makes(plugin_class: Callable[..., Any], settings: Any) -> None:
    """`__init__(settings, *, name)` does nothing but keep what it is given."""
    try:
        plugin_class(settings, name=_FIRST)  # imports what it needs, which is no fault
    except TypeError as error:
        text = f"it must be made by plugin_class(settings, name=…): {error}"
        raise AssertionError(text) from error
    except Exception as error:
        raise AssertionError(f"__init__ must take good settings, and raised {error!r}") from error
    with _audited() as seen:
        plugin = plugin_class(settings, name=_FIRST)
    rule(not seen, f"__init__ must do no I/O (do it in `start`): {named(seen)}")
    if isinstance(plugin, Plugin):
        rule(
            plugin.name == _FIRST and plugin.settings is settings,
            "__init__ must call super().__init__(settings, name=name)",
        )
    rule(not shows(repr(plugin), _secrets(settings)), "the repr shows a setting that is secret")


@contextmanager
def _audited() -> Iterator[list[str]]:
    """The I/O of this thread inside of the block. (An audit hook can't be removed, only idle.)"""
    seen: list[str] = []
    watching = [threading.get_ident()]

    def audit(event: str, arguments: object) -> None:
        if watching and event.startswith(_IO_EVENTS) and threading.get_ident() in watching:
            seen.append(event)

    sys.addaudithook(audit)
    try:
        yield seen
    finally:
        watching.clear()


def _secrets(settings: Any) -> list[bytes]:
    """The values of settings that are declared as secret, at any depth."""
    if not attrs.has(type(settings)):
        return []
    found: list[bytes] = []
    for field in attrs.fields(type(settings)):
        value = getattr(settings, field.name)
        if field.metadata.get("secret") and isinstance(value, str):
            found.append(value.encode())
        else:
            found += _secrets(value)
    return found


def _shared_state(plugin_class: Callable[..., Any]) -> dict[str, str]:
    """The mutable values that stand in the class itself, as text."""
    assert inspect.isclass(plugin_class)
    return {
        f"{cls.__name__}.{name}": repr(value)
        for cls in plugin_class.__mro__
        if cls not in (Plugin, object)
        for name, value in vars(cls).items()
        if isinstance(value, list | dict | set | bytearray) and not name.startswith("__")
    }


# -- its life


class _Contract:
    def __init__(
        self, plugin_class: Callable[..., Any], settings: Any, other: Any, wrong: Any
    ) -> None:
        self.make = plugin_class
        self.settings = settings
        self.other = other
        self.wrong = wrong
        self.recorder = HookRecorder()

    async def life(self) -> None:
        """One broker from its start to its stop, with instances that come and go."""
        self.recorder = HookRecorder("plugin_failed")
        first = self.make(self.settings, name=_FIRST)
        step = "start with the broker"
        try:
            await self._check_settings()
            async with open_harness(plugins=[self.recorder, first]) as harness:
                plugins = harness.broker.plugins
                name = next(each for each in plugins if plugins[each] is first)
                step = "work"
                await self._use(harness, step)
                if not getattr(self.make, "exclusive", False):
                    step = "work beside a second instance with equal settings"
                    second = self.make(self.settings, name=_SECOND)
                    await harness.broker.add_plugin(second, _SECOND)
                    await self._use(harness, step)
                    await harness.broker.remove_plugin(_SECOND)
                step = "be reconfigured"
                await self._reconfigure(harness, name)
                step = "be removed while the broker runs"
                await harness.broker.remove_plugin(name)
                await self._use(harness, step)
                step = "be replaced by a new instance of its name"
                again = self.make(self.settings, name=_FIRST)
                await harness.broker.add_plugin(again, _FIRST)
                await self._use(harness, step)
                step = "stop with the broker"
        except MqtrioError as error:
            raise AssertionError(f"a plugin must {step}: {error}") from error
        self._check(step)

    async def _check_settings(self) -> None:
        """As `mqtrio check` does: an instance that is never started looks at what they name."""
        for settings, good in ((self.settings, True), (self.wrong, False)):
            if settings is _MISSING:
                continue
            entry = HookManager().prepare(self.make(settings, name=_FIRST))
            if "check_settings" not in entry.calls:
                return
            try:
                await provide.check_settings(entry)
            except PluginError as error:
                if good:
                    text = f"check_settings must have nothing against good settings: {error}"
                    raise AssertionError(text) from error
            else:
                rule(good, "check_settings must raise for settings that are wrong")

    async def _use(self, harness: Harness, step: str) -> None:
        """Clients come, subscribe, publish and go; what the plugin allows is its own affair."""
        for version in (5, 4):
            client = harness.new_client("check", version=version)
            connack = await client.try_connect()
            if connack.reason_code == 0:
                await client.try_subscribe("check/#", 1)
                for qos in (0, 1, 2):
                    packet_id = client.next_id() if qos else 0
                    await client.send(Publish("check/topic", b"x", qos, packet_id=packet_id))
                await client.settle()
            await client.drop()
        self._check(step)

    def _check(self, step: str) -> None:
        failures = self.recorder.of("plugin_failed")
        told = [f"{each.plugin}.{each.hook} {each.kind} ({each.why})" for each in failures]
        rule(not told, f"a plugin must {step} without a failure: {named(told)}")

    async def _reconfigure(self, harness: Harness, name: str) -> None:
        settings = {"equal": self.settings, "other": self.other}
        for call in harness.broker._core.hooks.calls("reconfigure"):
            if call.plugin != name:
                continue
            if self.wrong is not _MISSING:
                try:
                    await provide.provide(call, ReconfigureEvent(self.wrong))
                except PluginError:
                    pass
                else:
                    raise AssertionError("reconfigure must raise for settings that are wrong")
            for what, value in settings.items():
                if value is _MISSING:
                    continue
                put_in_force = await provide.provide(call, ReconfigureEvent(value))
                rule(
                    callable(put_in_force),
                    "reconfigure must return the function that puts the settings in force, not "
                    f"{type(put_in_force).__name__}",
                )
                try:
                    answer = put_in_force()
                except Exception as error:
                    raise AssertionError(
                        f"what reconfigure returned must not fail ({what} settings): {error!r}"
                    ) from error
                rule(answer is None, "what reconfigure returned must be a plain function")
                harness.broker.reconsider()
                await self._use(harness, f"work with {what} settings")
