"""The contract for plugins: right ones keep it; each wrong one breaks the rule that it should."""

import logging
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import mqtrio
from mqtrio import hookimpl
from mqtrio.testing import check_plugin

log = logging.getLogger("mqtrio.test")


@attrs.define(frozen=True, kw_only=True)
class Greeting:
    text: str = mqtrio.setting("hello", "what is said")
    token: str = attrs.field(default="a secret token", metadata={"secret": True}, repr=False)


class Greeter(mqtrio.Plugin[Greeting]):
    """A right one."""

    api = 1

    def __init__(self, settings: Greeting, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.text = settings.text
        self.file: Any = None

    @hookimpl
    def check_settings(self, event: mqtrio.CheckSettingsEvent) -> None:
        if not self.settings.text:
            raise ValueError("the text must not be empty")

    @hookimpl
    def start(self, event: mqtrio.StartEvent) -> None:
        self.file = Path(__file__).open(encoding="utf-8")  # noqa: SIM115 - stop closes it

    @hookimpl
    def stop(self, event: mqtrio.StopEvent) -> None:
        self.file.close()

    @hookimpl
    async def run(self, event: mqtrio.RunEvent) -> None:
        await trio.sleep_forever()

    @hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Callable[[], None] | None:
        settings: Greeting = event.settings
        if not settings.text:
            raise ValueError("the text must not be empty")
        return lambda: setattr(self, "text", settings.text)

    @hookimpl
    def published(self, event: mqtrio.PublishedEvent) -> None:
        pass

    @classmethod
    @hookimpl
    def commands(cls, event: mqtrio.CommandsEvent) -> dict[str, Any]:
        return {}


async def test_a_right_plugin() -> None:
    other, wrong = Greeting(text="good morning"), Greeting(text="")
    await check_plugin(Greeter, Greeting(), other_settings=other, wrong_settings=wrong)


class Exclusive(Greeter):
    exclusive = True
    api = 1


class Plain:
    """No subclass of Plugin."""

    api = 1

    def __init__(self, settings: object, *, name: str) -> None:
        self.name = name

    @hookimpl
    def published(self, event: mqtrio.PublishedEvent) -> None:
        pass


@pytest.mark.parametrize("kind", [Exclusive, Plain])
async def test_other_right_plugins(kind: Callable[..., object]) -> None:
    await check_plugin(kind, Greeting())


class NoApi(mqtrio.Plugin[Greeting]):
    @hookimpl
    def published(self, event: mqtrio.PublishedEvent) -> None:
        pass


class OldApi(NoApi):
    api = 0


class Base(NoApi):
    api = 1


class Unmarked(Base):
    def client_connected(self, event: mqtrio.ClientConnectedEvent) -> None:
        pass


class NoName(Base):
    def __init__(self, settings: Greeting) -> None:
        super().__init__(settings, name="x")


class RefusesAll(Base):
    def __init__(self, settings: Greeting, *, name: str) -> None:
        raise ValueError("never good")


class ReadsTooSoon(Base):
    def __init__(self, settings: Greeting, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.text = Path(__file__).read_text(encoding="utf-8")


class ConnectsTooSoon(Base):
    def __init__(self, settings: Greeting, *, name: str) -> None:
        super().__init__(settings, name=name)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))


class ThreadTooSoon(Base):
    def __init__(self, settings: Greeting, *, name: str) -> None:
        super().__init__(settings, name=name)
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()


class NoSuper(Base):
    def __init__(self, settings: Greeting, *, name: str) -> None:
        self.settings = settings
        self.name = "mine"


class ShowsToken(Base):
    def __repr__(self) -> str:
        return f"<ShowsToken {self.settings.token}>"


class LogsToken(Base):
    @hookimpl
    def start(self, event: mqtrio.StartEvent) -> None:
        log.debug("logging in with %s", self.settings.token)


class UnknownHook(Base):
    @hookimpl
    def client_conected(self, event: mqtrio.ClientConnectedEvent) -> None:
        pass


class DoesNotStart(Base):
    @hookimpl
    def start(self, event: mqtrio.StartEvent) -> None:
        raise OSError("no such file")


class StartsOnce(Base):
    """The second instance finds what the first one holds."""

    held: list[str] = []

    @hookimpl
    def start(self, event: mqtrio.StartEvent) -> None:
        if self.held:
            raise OSError("address in use")
        self.held.append(self.name)

    @hookimpl
    def stop(self, event: mqtrio.StopEvent) -> None:
        self.held.clear()


class Fails(Base):
    @hookimpl
    def subscribed(self, event: mqtrio.SubscribedEvent) -> None:
        raise ZeroDivisionError


class FailsInRun(Base):
    @hookimpl
    async def run(self, event: mqtrio.RunEvent) -> None:
        raise ZeroDivisionError


class FailsInStop(Base):
    @hookimpl
    def stop(self, event: mqtrio.StopEvent) -> None:
        raise ZeroDivisionError


class HangsInStop(Base):
    @hookimpl
    async def stop(self, event: mqtrio.StopEvent) -> None:
        await trio.sleep_forever()


class NotAgain(Base):
    """Can't be started in one process twice."""

    begun: set[str] = set()

    @hookimpl
    def start(self, event: mqtrio.StartEvent) -> None:
        if self.name in self.begun:
            raise OSError("was here before")
        self.begun.add(self.name)


class Counts(Base):
    seen: list[str] = []

    @hookimpl
    def published(self, event: mqtrio.PublishedEvent) -> None:
        self.seen.append(event.topic)


class ReturnsNothing(Base):
    @hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Any:
        self.text = event.settings.text


class FailsInForce(Base):
    @hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Any:
        def put_in_force() -> None:
            if event.settings is not self.settings:
                raise OSError("no such file")

        return put_in_force


class RefusesEqual(Base):
    @hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Any:
        raise ValueError("nothing has changed")


class TakesAnything(Base):
    @hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Any:
        return lambda: None


class WorseAfterwards(Base):
    """What was put in force fails."""

    broken = False

    @hookimpl
    def reconfigure(self, event: mqtrio.ReconfigureEvent) -> Any:
        return lambda: setattr(self, "broken", event.settings is not self.settings)

    @hookimpl
    def subscribed(self, event: mqtrio.SubscribedEvent) -> None:
        if self.broken:
            raise ZeroDivisionError


class LeaksTask(Base):
    @hookimpl
    async def start(self, event: mqtrio.StartEvent) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 1e6)


class LeaksThread(Base):
    @hookimpl
    def start(self, event: mqtrio.StartEvent) -> None:
        threading.Thread(target=GO_ON.wait, daemon=True, name="leaked").start()


GO_ON = threading.Event()


class LeaksFile(Base):
    @hookimpl
    def start(self, event: mqtrio.StartEvent) -> None:
        LEAKED.append(Path(__file__).open("rb"))  # noqa: SIM115 - that is what's wrong


class ChecksNothing(Greeter):
    @hookimpl
    def check_settings(self, event: mqtrio.CheckSettingsEvent) -> None:
        pass


class DislikesGood(Greeter):
    @hookimpl
    def check_settings(self, event: mqtrio.CheckSettingsEvent) -> None:
        raise OSError("no such file")


LEAKED: list[Any] = []


@pytest.fixture(autouse=True)
def _tidy() -> Any:
    GO_ON.clear()
    for kept in (StartsOnce.held, NotAgain.begun, Counts.seen):
        kept.clear()
    yield
    GO_ON.set()
    for thread in threading.enumerate():
        if thread.name == "leaked":
            thread.join()
    while LEAKED:
        LEAKED.pop().close()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NoApi, "must say for which version of the hooks it was written: api = 1"),
        (OldApi, "written for version 0"),
        (Unmarked, "must be marked by @mqtrio.hookimpl: client_connected"),
        (NoName, "must be made by"),
        (RefusesAll, "must take good settings, and raised ValueError"),
        (ReadsTooSoon, "must do no I/O .*: open"),
        (ConnectsTooSoon, "must do no I/O .*socket"),
        # Python 3.11 tells nobody of new threads.
        *([(ThreadTooSoon, "must do no I/O .*thread")] if sys.version_info >= (3, 12) else []),
        (NoSuper, "must call super"),
        (ShowsToken, "the repr shows a setting that is secret"),
        (LogsToken, "a setting that is secret stands in the log"),
        (DislikesGood, "nothing against good settings: .*no such file"),
        (UnknownHook, "start with the broker.*client_conected.*did you mean"),
        (DoesNotStart, "start with the broker.*no such file"),
        (StartsOnce, "beside a second instance.*address in use"),
        (Fails, "work without a failure: first.subscribed raised"),
        (FailsInRun, "first.run raised"),
        (FailsInStop, "(first|second).stop"),
        (HangsInStop, "(first|second).stop"),
        (NotAgain, "new instance of its name.*was here before"),
        (Counts, "state belongs to the instance.*Counts.seen"),
        (ReturnsNothing, "must return the function"),
        (FailsInForce, r"must not fail \(other settings\)"),
        (RefusesEqual, "be reconfigured"),
        (TakesAnything, "reconfigure must raise for settings that are wrong"),
        (ChecksNothing, "check_settings must raise for settings that are wrong"),
        (WorseAfterwards, "work with other settings without a failure"),
        (LeaksTask, "take everything with it when it stops: task"),
        (LeaksThread, "when it stops: thread 'leaked'"),
        (LeaksFile, "when it stops: file descriptor"),
    ],
)
async def test_a_wrong_plugin_is_found(kind: Callable[..., object], text: str) -> None:
    wrong: dict[str, Any] = {}
    if kind in (TakesAnything, ChecksNothing):
        wrong["wrong_settings"] = Greeting(text="")
    with pytest.raises(AssertionError, match=text):
        await check_plugin(kind, Greeting(), other_settings=Greeting(text="x"), **wrong)


async def test_a_plugin_is_made_by_its_class() -> None:
    with pytest.raises(AssertionError, match="made by its class"):
        await check_plugin(lambda settings, *, name: Plain(settings, name=name), Greeting())
