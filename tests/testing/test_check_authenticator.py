"""The contract for authenticators: right ones keep it, each wrong one breaks its rule."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

import mqtrio
from mqtrio import Allow, AuthenticateEvent, Deny, ReasonCode, hookimpl
from mqtrio.testing import check_authenticator
from mqtrio.testing.watch import watched_log

GOOD = [("ann", b"correct horse"), ("bob", b"battery staple")]
DENIED = Deny(ReasonCode.BAD_USER_NAME_OR_PASSWORD, why="wrong password")

log = logging.getLogger("mqtrio.test")


class Passwords(mqtrio.Plugin[dict[str, bytes]]):
    api = 1

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Any:
        return self.decide(event)

    def decide(self, event: AuthenticateEvent) -> Allow | Deny | None:
        if event.username is None or event.username not in self.settings:
            return None
        return Allow() if event.password == self.settings[event.username] else DENIED


class Threaded(Passwords):
    @hookimpl
    async def authenticate(self, event: AuthenticateEvent) -> Any:
        return await trio.to_thread.run_sync(self.decide, event)


class Slow(Passwords):
    @hookimpl
    async def authenticate(self, event: AuthenticateEvent) -> Any:
        await trio.sleep(1)
        return self.decide(event)


def made_by(kind: type[Passwords]) -> Callable[[], object]:
    return lambda: kind(dict(GOOD), name="passwords")


@pytest.mark.parametrize("kind", [Passwords, Slow])
async def test_right_authenticators(kind: type[Passwords]) -> None:
    await check_authenticator(made_by(kind), good=GOOD, bad=[("eve", b"anything")])


@pytest.mark.trio(run=trio.run)
async def test_one_that_uses_threads() -> None:
    await check_authenticator(made_by(Threaded), good=GOOD[:1])


class Token(Passwords):
    def decide(self, event: AuthenticateEvent) -> Allow | Deny | None:
        return Allow(username="ann") if event.password == b"the token" else None


async def test_names_may_mean_nothing() -> None:
    await check_authenticator(made_by(Token), good=[("x", b"the token")], names_matter=False)
    with pytest.raises(AssertionError, match="without a name must be refused"):
        await check_authenticator(made_by(Token), good=[("x", b"the token")])


class Closed(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        return DENIED


class Open(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        return Allow()


class NameIsEnough(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        return Allow() if event.username in self.settings else None


class PasswordIsOptional(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        if event.password is None and event.username in self.settings:
            return Allow()
        return super().decide(event)


class Prefix(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        wanted = self.settings.get(event.username or "")
        return Allow() if wanted and event.password and wanted.startswith(event.password) else None


class CStrings(Passwords):
    """Ends at a zero byte."""

    def decide(self, event: AuthenticateEvent) -> Any:
        wanted = self.settings.get(event.username or "")
        given = (event.password or b"").split(b"\x00")[0]
        return Allow() if wanted == given else None


class AnyCase(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        wanted = self.settings.get(event.username or "")
        given = event.password or b""
        return Allow() if wanted and given.lower() == wanted.lower() else None


class LetsOthersIn(Passwords):
    """Unknown users need no password."""

    def decide(self, event: AuthenticateEvent) -> Any:
        known = event.username is None or event.username in self.settings
        return super().decide(event) if known else Allow()


class Raises(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        (event.password or b"").decode()
        return super().decide(event)


class RaisesForTheUnknown(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        return Allow() if self.settings[event.username or ""] == event.password else None


class Nonsense(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        return event.password == self.settings.get(event.username or "")


class Blocks(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        time.sleep(0.03)
        return super().decide(event)


class SaysWhy(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        answer = super().decide(event)
        return Deny(why=f"{event.password!r} is wrong") if answer is DENIED else answer


class TellsTheClient(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        answer = super().decide(event)
        if answer is not DENIED:
            return answer
        return Deny(reason_string=f"it is {self.settings[event.username or ''].hex()}")


class Logs(Passwords):
    def decide(self, event: AuthenticateEvent) -> Any:
        log.debug("asked about %s with %s", event.username, event.password)
        return super().decide(event)


class Remembers(Passwords):
    """Keeps what belongs to one client in the plugin while it waits."""

    @hookimpl
    async def authenticate(self, event: AuthenticateEvent) -> Any:
        self.event = event
        await trio.sleep(1)
        return self.decide(self.event)


class HoldsItsLock(Passwords):
    def __init__(self, settings: dict[str, bytes], *, name: str) -> None:
        super().__init__(settings, name=name)
        self.lock = trio.Lock()
        self.busy = False

    @hookimpl
    async def authenticate(self, event: AuthenticateEvent) -> Any:
        if event.client_id == "interrupted" and self.busy:
            return DENIED
        self.busy = True
        await trio.sleep(1)
        self.busy = False
        return self.decide(event)


class KicksOut(Passwords):
    """Throws out whoever has the client identifier, before it knows who asks."""

    action = "disconnect"
    broker: mqtrio.Broker | None = None

    @hookimpl
    async def run(self, event: mqtrio.RunEvent) -> None:
        self.broker = event.broker

    def decide(self, event: AuthenticateEvent) -> Any:
        if self.broker is not None:
            getattr(self.broker, self.action)(event.client_id)
        return super().decide(event)


class EndsSessions(KicksOut):
    """The same, while the client is away."""

    def decide(self, event: AuthenticateEvent) -> Any:
        if self.broker is None or any(c.client_id == "victim" for c in self.broker.clients()):
            return Passwords.decide(self, event)
        self.action = "end_session"
        return super().decide(event)


class NoHook:
    @hookimpl
    def client_connected(self, event: mqtrio.ClientConnectedEvent) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Closed, "good credentials must be let in"),
        (Open, "must be refused"),
        (NameIsEnough, "a good name without a password must be refused"),
        (PasswordIsOptional, "a good name without a password must be refused"),
        (Prefix, "without its last byte must be refused"),
        (CStrings, "a good password, a zero byte and more must be refused"),
        (AnyCase, "in the other case must be refused"),
        (LetsOthersIn, "an empty name must be refused|an unknown name must be refused"),
        (Raises, "no UTF-8: the plugin must answer, and raised UnicodeDecodeError"),
        (RaisesForTheUnknown, "must answer, and raised KeyError"),
        (Nonsense, "the answer must be Allow, Deny, Challenge or None"),
        (Blocks, r"the loop stood still for 0.0\d s, at most 0.02 s"),
        (SaysWhy, "the answer shows the password"),
        (TellsTheClient, "the answer shows the password"),
        (Logs, "a password stands in the log"),
        (Remembers, "must each get their own answer"),
        (HoldsItsLock, "after a client has gone away in between"),
        (KicksOut, "its connection was closed"),
        (EndsSessions, "has changed while offline"),
    ],
)
async def test_a_wrong_authenticator_is_found(kind: type[Passwords], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        await check_authenticator(made_by(kind), good=GOOD, blocking=0.02)


async def test_what_is_no_authenticator_is_found() -> None:
    with pytest.raises(AssertionError, match="no hook authenticate"):
        await check_authenticator(NoHook, good=GOOD)
    with pytest.raises(AssertionError, match="needs credentials"):
        await check_authenticator(NoHook, good=[])


def test_the_log_is_as_it_was() -> None:
    root = logging.getLogger()
    before = [*root.handlers], root.level
    with watched_log() as watch:
        log.debug("seen")
    assert watch.texts == ["seen"]
    assert before == ([*root.handlers], root.level)
