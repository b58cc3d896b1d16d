"""The plugin: who brings a good token is let in, until it ends, for what it allows."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

import trio
from attrs import define, field

from mqtrio import (
    Allow,
    AuthenticateEvent,
    Broker,
    CheckSettingsEvent,
    ClientConnectedEvent,
    ClientDisconnectedEvent,
    ClientFacts,
    ConfigurationError,
    ConnectionSlot,
    Deny,
    Plugin,
    ReasonCode,
    ReconfigureEvent,
    RunEvent,
    StartEvent,
    hookimpl,
)
from mqtrio_jwt.errors import RefusedToken
from mqtrio_jwt.keys import Key, Keys, local_keys
from mqtrio_jwt.places import Found, find_token
from mqtrio_jwt.remote import Fetch, RemoteKeys, fetch
from mqtrio_jwt.revoked import read_revoked, stamp
from mqtrio_jwt.rules import RuleBook
from mqtrio_jwt.settings import JwtSettings
from mqtrio_jwt.template import Claims, Template
from mqtrio_jwt.token import Judge

_NO_TOKEN: Final = Deny(ReasonCode.BAD_USER_NAME_OR_PASSWORD, why="the password is no token")
_REVOKED: Final = "the token was revoked"


@define
class _Rules:
    """All that follows from some settings, and is replaced with them as a whole."""

    settings: JwtSettings
    judge: Judge
    book: RuleBook
    username: Template
    client_id: Template | None
    remote: RemoteKeys | None
    stamp: object
    revoked: frozenset[str] = field(repr=False)


class Jwt(Plugin[JwtSettings]):
    """Lets clients in by JSON Web Tokens; see the README of mqtrio-jwt.

    `fetch` gets documents with keys, for tests.
    """

    api = 1

    def __init__(self, settings: JwtSettings, *, name: str, fetch: Fetch = fetch) -> None:
        super().__init__(settings, name=name)
        self.log = logging.getLogger(f"mqtrio.plugins.{name}")
        self._fetch = fetch
        self._broker: Broker | None = None
        self._rules: _Rules | None = None
        self._changed = trio.Event()
        self._offset = 0.0
        #: What the program has revoked.
        self._revoked_here: set[str] = set()
        self._token_id = ConnectionSlot[str | None](lambda: None)
        #: Connected clients whose tokens have a `jti`.
        self._held: dict[ClientFacts, str] = {}

    # -- deciding

    @hookimpl
    def authenticate(self, event: AuthenticateEvent) -> Allow | Deny | None:
        """Judge the token of a client, if it has brought one."""
        rules = self._rules
        assert rules is not None
        found = find_token(event, rules.settings)
        if found is None:
            return None
        if not found.is_token:
            return _NO_TOKEN if rules.settings.others == "deny" else None
        try:
            return self._judged(event, rules, found)
        except RefusedToken as refused:
            return Deny(refused.code or found.code, why=str(refused))

    def _judged(self, event: AuthenticateEvent, rules: _Rules, found: Found) -> Allow:
        # The broker's time, which no clock that is set back puts back. Where the clock was wrong
        # when the broker began, and is right now, what it shows is the later one.
        broker_time = trio.current_time() + self._offset
        now = max(time.time(), broker_time)
        claims = rules.judge.claims(found.data, now)
        token_id = claims.get("jti")
        if token_id is not None and self._is_revoked(token_id):
            raise RefusedToken(_REVOKED)
        username = rules.username.fill(claims, "username")
        client_id = self._client_id(event, rules, claims)
        self._token_id.set(event, token_id)
        if event.reauthenticating:
            self._hold(event.client, token_id)
        end = claims.get("exp")
        return Allow(
            username=username,
            client_id=client_id,
            expires_at=None if end is None else end + rules.settings.leeway - now + broker_time,
            permissions=(
                rules.book.permissions(claims, client_id or event.client_id, username)
                if rules.settings.permissions
                else None
            ),
            why="a token",
        )

    def _client_id(self, event: AuthenticateEvent, rules: _Rules, claims: Claims) -> str | None:
        """The client identifier that a token asks for; None for any."""
        if rules.client_id is None:
            return None
        wanted = rules.client_id.fill(claims, "client identifier")
        if event.client_id not in ("", wanted):
            raise RefusedToken(
                "the client identifier is not the token's", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
            )
        return wanted

    # -- revoking

    def revoke(self, *token_ids: str) -> None:
        """Let tokens with these `jti` in no more, and cut off who is connected by them, at once.

        This holds for as long as the plugin lasts; what stands in the file `revoked` lasts longer.
        """
        self._revoked_here.update(token_ids)
        self._cut(token_ids)

    def _is_revoked(self, token_id: str) -> bool:
        rules = self._rules
        return token_id in self._revoked_here or (rules is not None and token_id in rules.revoked)

    def _hold(self, client: ClientFacts, token_id: str | None) -> None:
        if token_id is None:
            self._held.pop(client, None)
        else:
            self._held[client] = token_id

    def _cut(self, token_ids: Iterable[str]) -> None:
        revoked = frozenset(token_ids)
        if not revoked or self._broker is None:
            return
        for client, token_id in list(self._held.items()):
            if token_id in revoked:
                self._broker.revoke(client.client_id, username=client.username, why=_REVOKED)

    @hookimpl
    def client_connected(self, event: ClientConnectedEvent) -> None:
        """Know who holds which token; it may have been revoked while its client came in."""
        token_id = self._token_id.get(event)
        if token_id is None:
            return
        self._hold(event.client, token_id)
        if self._is_revoked(token_id):
            self._cut([token_id])

    @hookimpl
    def client_disconnected(self, event: ClientDisconnectedEvent) -> None:
        """It holds nothing any more."""
        self._held.pop(event.client, None)

    # -- its life

    @hookimpl
    def check_settings(self, event: CheckSettingsEvent) -> None:
        """Read the keys and the revoked tokens, and forget them."""
        local_keys(self.settings)
        read_revoked(self.settings.revoked)

    @hookimpl
    async def start(self, event: StartEvent) -> None:
        """Read the keys: weak or broken ones keep the broker from starting."""
        self._offset = time.time() - trio.current_time()
        self._rules = await self._read(self.settings)

    @hookimpl
    async def reconfigure(self, event: ReconfigureEvent) -> Callable[[], None]:
        """Read what new settings name; what is broken leaves all as it is."""
        settings: JwtSettings = event.settings
        rules = await self._read(settings)
        before = self._rules
        if rules.remote is not None and before is not None and settings == before.settings:
            rules = await self._read(settings, before.remote)  # the keys that are there stay

        def put_in_force() -> None:
            self.settings = settings
            old = self._rules
            self._rules = rules
            self._changed.set()
            self._changed = trio.Event()
            if old is not None:
                self._cut(rules.revoked - old.revoked)

        return put_in_force

    async def _read(self, settings: JwtSettings, remote: RemoteKeys | None = None) -> _Rules:
        seen = stamp(settings.revoked)
        keys = await trio.to_thread.run_sync(local_keys, settings)
        revoked = await trio.to_thread.run_sync(read_revoked, settings.revoked)
        if remote is None and (settings.jwks_url or settings.oidc):
            remote = RemoteKeys(settings, self.log, self._fetch)
        return _Rules(
            settings=settings,
            judge=Judge(settings, _finder(keys, remote)),
            book=RuleBook(
                settings, settings.scopes, settings.scope_claims, settings.permissions_claim
            ),
            username=Template(settings.username),
            client_id=None if settings.client_id is None else Template(settings.client_id),
            remote=remote,
            stamp=seen,
            revoked=revoked,
        )

    @hookimpl
    async def run(self, event: RunEvent) -> None:
        """Fetch keys, and read the file of revoked tokens again whenever it has changed."""
        self._broker = event.broker
        while True:
            rules, changed = self._rules, self._changed
            assert rules is not None
            async with trio.open_nursery() as nursery:
                if rules.remote is not None:
                    nursery.start_soon(rules.remote.run)
                if rules.settings.revoked is not None:
                    nursery.start_soon(self._watch, rules)
                await changed.wait()
                nursery.cancel_scope.cancel()

    async def _watch(self, rules: _Rules) -> None:
        path = rules.settings.revoked
        while True:
            await trio.sleep(rules.settings.watch)
            seen = stamp(path)
            if seen == rules.stamp:
                continue
            rules.stamp = seen
            try:
                revoked = await trio.to_thread.run_sync(read_revoked, path)
            except ConfigurationError as error:
                self.log.error("the revoked tokens stay as they were: %s", error)
                continue
            fresh = revoked - rules.revoked
            rules.revoked = revoked
            self._cut(fresh)
            self.log.info("%s was read again: %d revoked tokens", path, len(revoked))


def _finder(keys: Keys, remote: RemoteKeys | None) -> Callable[[str, str | None], list[Key] | None]:
    """Look for keys among the local ones, then among those of a server."""

    def find(algorithm: str, kid: str | None) -> list[Key] | None:
        found = keys.find(algorithm, kid)
        if found or remote is None:
            return found
        return remote.find(algorithm, kid)

    return find
