"""The plugin: who is in the file and says the right password is let in."""

import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import trio
from attrs import define

from mqtrio import (
    Allow,
    AuthenticateEvent,
    Broker,
    Challenge,
    CheckSettingsEvent,
    CommandsEvent,
    ConfigurationError,
    ConnectionSlot,
    Deny,
    Plugin,
    ReasonCode,
    ReconfigureEvent,
    RunEvent,
    StartEvent,
    hookimpl,
    required_setting,
    setting,
)
from mqtrio_plugins.passwords.command import passwd
from mqtrio_plugins.passwords.file import read_users, stamp
from mqtrio_plugins.passwords.hashes import LN, Hash, P, R, Scrypt
from mqtrio_plugins.passwords.scram import METHOD, Conversation, ScramError, ScramSha256
from mqtrio_plugins.passwords.verifier import Busy, Verifier

_WELCOME: Final = Allow(why="the password is right")
_WRONG: Final = Deny(ReasonCode.BAD_USER_NAME_OR_PASSWORD, why="wrong password")
_UNKNOWN: Final = Deny(ReasonCode.BAD_USER_NAME_OR_PASSWORD, why="unknown user")
_BUSY: Final = Deny(ReasonCode.SERVER_BUSY, why="too many passwords to check")


@define(frozen=True, kw_only=True)
class PasswordsSettings:
    """Which file, and what checking may take."""

    file: Path = required_setting("the file of users, as `mqtrio passwd` writes it")
    unknown: Literal["deny", "pass"] = setting(
        "deny", "what becomes of a username that isn't in the file; pass: other plugins are asked"
    )
    disconnect: bool = setting(
        True, "end the connections of users who are removed or get another password"
    )
    watch: float = setting(
        5.0, "time between two looks at whether the file has changed", minimum=0.1, unit="seconds"
    )
    threads: int | None = setting(
        None, "passwords checked at one time; default: half as many as processors", minimum=1
    )
    queue: int = setting(100, "passwords that may wait to be checked", minimum=0)
    patience: float = setting(
        3.0,
        "time a password may wait; keep it below limits.hook_deadline",
        minimum=0.001,
        unit="seconds",
    )
    remember: float = setting(
        300.0, "time for which a right password is known; 0: not at all", minimum=0, unit="seconds"
    )
    remember_users: int = setting(10_000, "right passwords that are known at one time", minimum=1)


class Passwords(Plugin[PasswordsSettings]):
    """Users with a username and a password; clients without a username are left to others."""

    api = 1

    def __init__(self, settings: PasswordsSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.log = logging.getLogger(f"mqtrio.plugins.{name}")
        self._broker: Broker | None = None
        self._users: Mapping[str, Hash] = {}
        self._hashes: Sequence[Hash] = ()
        self._verifiers: Sequence[ScramSha256] = ()
        self._conversation = ConnectionSlot[Conversation | None](lambda: None)
        self._stamp: object = None
        self._verifier = _verifier(settings)

    # -- deciding

    @hookimpl
    def authenticate(
        self, event: AuthenticateEvent
    ) -> Allow | Deny | Challenge | Coroutine[Any, Any, Allow | Deny] | None:
        """Answer at once what is known; else return what has to be awaited."""
        if event.method == METHOD:
            return self._scram(event)
        username, password = event.username, event.password
        if username is None or event.method is not None:
            return None
        kept = self._users.get(username)
        if kept is None and self.settings.unknown == "pass":
            return None
        # To scrypt and PBKDF2 a password and the same with zero bytes behind it are one.
        if password is None or b"\0" in password:
            return _WRONG
        if kept is not None and self._verifier.remembers(username, password, kept):
            return _WELCOME
        return self._check(username, password)

    def _scram(self, event: AuthenticateEvent) -> Allow | Deny | Challenge | None:
        """One round of SCRAM-SHA-256. An unknown user is told of at the end only."""
        data = event.data or b""
        if not event.round:
            if not self._verifiers:
                return None  # nobody could be let in by this method
            self._conversation.set(event, Conversation())
            if not data:
                return Challenge(None, why="SCRAM: the client has the first word")
        conversation = self._conversation.get(event)
        if conversation is None:
            return None
        try:
            if conversation.kept is None:
                return self._scram_begins(event, conversation, data)
            self._conversation.set(event, None)
            answer = conversation.finish(data)
        except ScramError as error:
            return Deny(ReasonCode.NOT_AUTHORIZED, why=f"SCRAM: {error}")
        username = conversation.username
        if self._users.get(username) != conversation.kept:
            return Deny(ReasonCode.NOT_AUTHORIZED, why="SCRAM: unknown user")
        return Allow(username=username, authentication_data=answer, why="SCRAM: the proof is right")

    def _scram_begins(
        self, event: AuthenticateEvent, conversation: Conversation, data: bytes
    ) -> Challenge | None:
        username = conversation.begin(data)
        if event.username not in (None, username):
            raise ScramError("CONNECT has another username")
        kept = self._users.get(username)
        if kept is None and self.settings.unknown == "pass":
            self._conversation.set(event, None)
            return None
        if not isinstance(kept, ScramSha256):
            if not self._verifiers:  # the file was changed meanwhile
                raise ScramError("unknown user")
            number = self._verifier.pick(username, len(self._verifiers))
            kept = self._verifiers[number].decoy(self._verifier.seed(username))
        return Challenge(conversation.challenge(kept), why="SCRAM: salt and iterations")

    async def _check(self, username: str, password: bytes) -> Allow | Deny:
        """Check in a thread. An unknown user takes as long as a known one."""
        while True:
            users, verifier = self._users, self._verifier
            kept = users.get(username)
            try:
                right = await verifier.check(username, password, kept or self._decoy(username))
            except Busy:
                return _BUSY
            if self._users.get(username) == kept:  # else the file was changed meanwhile
                break
        if kept is None:
            return _UNKNOWN
        return _WELCOME if right else _WRONG

    def _decoy(self, username: str) -> Hash:
        """What nobody's password fits, as costly as the hash of somebody else in the file."""
        if not self._hashes:
            return self._verifier.decoy(username, Scrypt(LN, R, P, bytes(16), bytes(32)))
        chosen = self._hashes[self._verifier.pick(username, len(self._hashes))]
        return self._verifier.decoy(username, chosen)

    # -- the file

    @hookimpl
    def check_settings(self, event: CheckSettingsEvent) -> None:
        """Read the file, and forget what stands in it."""
        read_users(self.settings.file)

    @hookimpl
    async def start(self, event: StartEvent) -> None:
        """Read the file: a broken one keeps the broker from starting."""
        self._stamp = stamp(self.settings.file)
        self._use(await trio.to_thread.run_sync(read_users, self.settings.file))

    @hookimpl
    async def reconfigure(self, event: ReconfigureEvent) -> Callable[[], None]:
        """Read the file that the new settings name; a broken one leaves all as it is."""
        settings: PasswordsSettings = event.settings
        seen = stamp(settings.file)
        users = await trio.to_thread.run_sync(read_users, settings.file)

        def put_in_force() -> None:
            self.settings = settings
            self._stamp = seen
            self._verifier = _verifier(settings)
            self._use(users)

        return put_in_force

    @hookimpl
    async def run(self, event: RunEvent) -> None:
        """Read the file again whenever it has changed."""
        self._broker = event.broker
        while True:
            await trio.sleep(self.settings.watch)
            settings = self.settings
            seen = stamp(settings.file)
            if seen == self._stamp:
                continue
            self._stamp = seen
            try:
                users = await trio.to_thread.run_sync(read_users, settings.file)
            except ConfigurationError as error:
                self.log.error("the users stay as they were: %s", error)
                continue
            if settings is self.settings and seen == self._stamp:  # no reload overtook this one
                self._use(users)
                self.log.info("%s was read again: %d users", settings.file, len(users))

    def _use(self, users: Mapping[str, Hash]) -> None:
        """Let these users in from now on, and see off those who are no more."""
        gone = {name for name, kept in self._users.items() if users.get(name) != kept}
        self._users = users
        self._hashes = tuple(users.values())
        self._verifiers = tuple(each for each in self._hashes if isinstance(each, ScramSha256))
        if not (gone and self._broker and self.settings.disconnect):
            return
        for client in self._broker.clients():
            if client.username in gone:
                self._broker.disconnect(
                    client.client_id,
                    ReasonCode.NOT_AUTHORIZED,
                    why="the user was removed or has another password",
                )

    # -- the command line

    @classmethod
    @hookimpl
    def commands(cls, event: CommandsEvent) -> Mapping[str, Callable[[Sequence[str]], int]]:
        """Bring `mqtrio passwd`."""
        return {"passwd": passwd}


def _verifier(settings: PasswordsSettings) -> Verifier:
    return Verifier(
        threads=settings.threads or max(1, (os.cpu_count() or 1) // 2),
        queue=settings.queue,
        patience=settings.patience,
        lifetime=settings.remember,
        size=settings.remember_users,
    )
