"""What every authenticator must do, as one contract."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import trio

from mqtrio.hooks.answers import Allow, Challenge, Deny
from mqtrio.hooks.client import ClientFacts
from mqtrio.hooks.events import AuthenticateEvent
from mqtrio.info import SessionInfo
from mqtrio.testing.client import Client
from mqtrio.testing.harness import Harness, open_harness
from mqtrio.testing.recorder import HookRecorder
from mqtrio.testing.rules import rule
from mqtrio.testing.watch import LogWatch, LoopWatch, shows, watched_log
from mqtrio.wire.packets import MQTT_3_1_1, MQTT_5

#: User name and password; None: the client doesn't say it.
Credentials: TypeAlias = tuple[str | None, bytes | None]

#: What is tried, and in words.
_Case: TypeAlias = tuple[str, Credentials]

#: How often a case that blocked the loop is tried again: a busy machine blocks, too.
_TRIES: Final = 3

#: The longest text and binary that the standard allows (1.5.4, 1.5.6).
_LONGEST: Final = 65_535


async def check_authenticator(
    make_plugin: Callable[[], object],
    *,
    good: Sequence[Credentials],
    bad: Sequence[Credentials] = (),
    names_matter: bool = True,
    blocking: float = 0.1,
) -> None:
    """Check that a plugin authenticates as it should; raises AssertionError that names the rule.

        async def test_passwords():
            await check_authenticator(lambda: Passwords(settings, name="p"), good=[("ann", b"x")])

    `good` must be let in; `bad`, and many variations of `good` which are tried by themselves, must
    be refused. `names_matter`: False for one that knows clients by the password alone (a token).
    `blocking`: the longest that the plugin may keep the loop to itself, in seconds of real time.
    Run it on a real clock if the plugin uses threads.
    """
    rule(good, "check_authenticator needs credentials that are good")
    cases = [("credentials that are bad", each) for each in bad]
    cases += _bad_cases(good, names_matter)
    secrets = {password for _, (_, password) in cases if password}
    secrets |= {password for _, password in good if password}
    watch = LoopWatch()
    recorder = HookRecorder("plugin_failed")
    with watched_log() as log:
        trio.lowlevel.add_instrument(watch)
        try:
            async with open_harness(plugins=[make_plugin(), recorder]) as harness:
                contract = _Contract(harness, recorder, good, cases, secrets)
                rule(
                    harness.broker._core.hooks.authenticate,
                    "the plugin has no hook authenticate, marked by @mqtrio.hookimpl",
                )
                await contract.answers_show_nothing()
                for version in (MQTT_5, MQTT_3_1_1):
                    await contract.lets_in_and_refuses(version, watch, blocking)
                await contract.at_once()
                await contract.interrupted()
                await contract.victim()
        finally:
            trio.lowlevel.remove_instrument(watch)
    _check_log(log, secrets)


def _bad_cases(good: Sequence[Credentials], names_matter: bool) -> Iterator[_Case]:
    known = set(good)
    yield "no user name and no password", (None, None)
    for name, password in good:
        secret = password or b""
        cases = [
            ("a good name without a password", (name, None)),
            ("a good name with an empty password", (name, b"")),
            ("a good password with a byte more", (name, secret + b"x")),
            # More than the zero byte: to HMAC, and so to PBKDF2 and scrypt, that alone is nothing.
            ("a good password, a zero byte and more", (name, secret + b"\x00x")),
            ("a good password without its last byte", (name, secret[:-1])),
            ("a good password in the other case", (name, secret.swapcase())),
            ("a password that is no UTF-8", (name, b"\x00\xff\xfe\x80")),
            ("a very long password", (name, b"longest-" * (_LONGEST // 8))),
        ]
        if names_matter:
            cases += [
                ("a good password without a name", (None, password)),
                ("a good password with an empty name", ("", password)),
                ("an unknown name", ((name or "") + "-unknown", password)),
                ("a name of 65,535 bytes", ("n" * _LONGEST, password)),
                ("a name that looks like a path", (f"../{name}", password)),
                ("a name that looks like a pattern", ("%s*#+$:\U0001f600", password)),
            ]
        yield from (case for case in cases if case[1] not in known)


def _fits(credentials: Credentials, version: int) -> bool:
    """MQTT 3.1.1 has no password without a user name [MQTT-3.1.2-22]."""
    return version == MQTT_5 or credentials[0] is not None or credentials[1] is None


class _Contract:
    def __init__(
        self,
        harness: Harness,
        recorder: HookRecorder,
        good: Sequence[Credentials],
        bad: Sequence[_Case],
        secrets: set[bytes],
    ) -> None:
        self.harness = harness
        self.recorder = recorder
        self.good = good
        self.bad = bad
        self.secrets = secrets

    async def attempt(
        self, what: str, credentials: Credentials, client_id: str, version: int = MQTT_5
    ) -> bool:
        """CONNECT; whether it was let in. A failure of the plugin breaks a rule."""
        client = self.harness.new_client(client_id, version=version)
        fields: dict[str, Any] = {"username": credentials[0], "password": credentials[1]}
        connack = await client.try_connect(**fields)
        if connack.reason_code == 0:
            await client.disconnect()
        failures = self.recorder.of("plugin_failed")
        rule(not failures, f"{what}: the plugin must answer, and failed: {failures}")
        return connack.reason_code == 0

    async def answers_show_nothing(self) -> None:
        """No answer has the password in its repr, its `why` or what the client may read."""
        cases = [("good credentials", each) for each in self.good]
        for what, (name, password) in [*cases, *self.bad]:
            client = ClientFacts("check", name, "192.0.2.7", MQTT_5, "test")
            for call in self.harness.broker._core.hooks.authenticate:
                try:
                    answer = call.function(AuthenticateEvent(client, password))
                    if inspect.isawaitable(answer):
                        answer = await answer
                except Exception as error:
                    text = f"{what}: the plugin must answer, and raised {type(error).__name__}"
                    raise AssertionError(text) from error
                rule(
                    answer is None or isinstance(answer, Allow | Deny | Challenge),
                    f"{what}: the answer must be Allow, Deny, Challenge or None: {type(answer)}",
                )
                shown = [repr(answer), getattr(answer, "why", ""), _readable(answer)]
                rule(
                    not any(shows(text, self.secrets) for text in shown),
                    f"{what}: the answer shows the password: in its repr, why or reason string",
                )

    async def lets_in_and_refuses(self, version: int, watch: LoopWatch, blocking: float) -> None:
        """Good credentials let in, all others don't; and the loop goes on meanwhile."""
        cases = [("good credentials", each, True) for each in self.good]
        cases += [(what, each, False) for what, each in self.bad]
        for what, credentials, wanted in cases:
            if not _fits(credentials, version):
                continue
            longest = blocking + 1
            for _ in range(_TRIES):
                watch.longest = 0.0
                let_in = await self.attempt(what, credentials, "check", version)
                rule(let_in or not wanted, f"{what} must be let in (MQTT {version})")
                rule(wanted or not let_in, f"{what} must be refused (MQTT {version})")
                longest = min(longest, watch.longest)
                if longest <= blocking:
                    break
            rule(
                longest <= blocking,
                f"{what}: the loop stood still for {longest:.2f} s, at most {blocking:g} s are "
                "allowed: let a thread do it (trio.to_thread.run_sync)",
            )

    async def at_once(self) -> None:
        """Many clients at once get each their own answer."""
        wrong: list[str] = []

        async def attempt(number: int, what: str, credentials: Credentials, wanted: bool) -> None:
            if await self.attempt(what, credentials, f"at-once-{number}") is not wanted:
                wrong.append(what)

        cases = [("good credentials", each, True) for each in self.good]
        cases += [(what, each, False) for what, each in self.bad]
        async with trio.open_nursery() as nursery:
            for number, case in enumerate(cases * 2):
                nursery.start_soon(attempt, number, *case)
        rule(not wrong, f"clients that come at once must each get their own answer: {wrong[:3]}")

    async def interrupted(self) -> None:
        """A client that goes away while the plugin thinks changes nothing for the next one."""
        for name, password in self.good:
            client = self.harness.new_client("interrupted")
            await client.send(client.connect_packet(username=name, password=password))
            await client.drop()
            let_in = await self.attempt("good credentials", (name, password), "interrupted")
            rule(let_in, "good credentials must be let in after a client has gone away in between")

    async def victim(self) -> None:
        """A refused CONNECT changes nothing for a session of the same client identifier."""
        name, password = self.good[0]
        victim = await self.harness.client(
            "victim", username=name, password=password, session_expiry_interval=3600
        )
        await victim.try_subscribe("victim/inbox", 1)
        before = self._session(victim)
        await self._attack(victim)
        try:
            await victim.ping()
        except AssertionError as error:
            raise AssertionError(f"{_VICTIM}: its connection was closed") from error
        rule(self._session(victim) == before, f"{_VICTIM}: its session has changed")
        await victim.drop()
        before = self._session(victim)
        await self._attack(victim)
        rule(self._session(victim) == before, f"{_VICTIM}: its session has changed while offline")
        again = await victim.reconnect()
        await again.disconnect()

    async def _attack(self, victim: Client) -> None:
        for what, credentials in self.bad:
            rule(
                not await self.attempt(what, credentials, victim.client_id),
                f"{what} must be refused",
            )

    def _session(self, victim: Client) -> SessionInfo | None:
        sessions = self.harness.broker.sessions()
        return next((each for each in sessions if each.client_id == victim.client_id), None)


_VICTIM: Final = "a refused CONNECT must change nothing for a client of the same identifier"


def _readable(answer: object) -> str:
    """What the client may read of an answer."""
    properties = getattr(answer, "properties", None)
    return f"{getattr(answer, 'reason_string', None)} {properties!r}"


def _check_log(log: LogWatch, secrets: set[bytes]) -> None:
    rule(
        not any(shows(text, secrets) for text in log.texts),
        "a password stands in the log",
    )
