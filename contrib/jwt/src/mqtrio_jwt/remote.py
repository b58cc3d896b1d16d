"""Keys of a server: fetched in the background, never while a client waits."""

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from mqtrio_jwt.fetch import FetchError
from mqtrio_jwt.fetch import fetch as fetch_in_thread
from mqtrio_jwt.keys import Key, Keys, read_set
from mqtrio_jwt.settings import JwtSettings, check_url
from mqtrio_jwt.text import read_json

#: Where an issuer describes itself (OpenID Connect Discovery 1.0, 4).
_DISCOVERY: Final = "/.well-known/openid-configuration"

#: After a failed fetch the next one follows after so many seconds, each time after twice as many.
FIRST_PAUSE: Final = 2.0
LAST_PAUSE: Final = 300.0

#: A key's name that was not in the set is not looked for again for so long.
UNKNOWN_FOR: Final = 120.0

#: Names of unknown keys that are remembered.
MOST_UNKNOWN: Final = 1000

#: Gets the document of a URL within a time; raises FetchError.
Fetch = Callable[[str, float], Awaitable[bytes]]


async def fetch(url: str, timeout: float) -> bytes:
    """Get a document in a thread, which is left alone when it takes too long."""
    with trio.move_on_after(timeout + 1):
        return await trio.to_thread.run_sync(fetch_in_thread, url, timeout, abandon_on_cancel=True)
    raise FetchError(f"{url}: the answer takes too long")


class RemoteKeys:
    """The key set of a server. The last good one stays until there is another."""

    def __init__(self, settings: JwtSettings, log: logging.Logger, fetch: Fetch = fetch) -> None:
        self._settings = settings
        self._log = log
        self._fetch = fetch
        self._wanted = frozenset(settings.algorithms)
        self._keys: Keys | None = None
        self._unknown: dict[str, float] = {}
        self._wake = trio.Event()
        #: Fetches so far, and those of them that failed.
        self.fetches = 0
        self.failures = 0

    def find(self, algorithm: str, kid: str | None) -> list[Key] | None:
        """The keys for a token; None before the first set. A new name has the set fetched again."""
        if self._keys is None:
            return None
        found = self._keys.find(algorithm, kid)
        if not found and kid is not None:
            self._miss(kid)
        return found

    def _miss(self, kid: str) -> None:
        now = trio.current_time()
        if self._unknown.get(kid, 0.0) > now:
            return
        self._unknown.pop(kid, None)
        while len(self._unknown) >= MOST_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[kid] = now + UNKNOWN_FOR
        self._wake.set()

    async def run(self) -> None:
        """Fetch the set at once, when it is old, and when a key is missed; one fetch at a time."""
        settings = self._settings
        pause = FIRST_PAUSE
        while True:
            began = trio.current_time()
            self._wake = trio.Event()
            self.fetches += 1
            try:
                self._keys = await self._load()
            except (FetchError, ValueError) as error:
                self.failures += 1
                self._unknown.clear()  # who knows what is in the set that was not got
                kept = "; the keys stay as they were" if self._keys is not None else ""
                self._log.error("no keys: %s%s", error, kept)
                await trio.sleep(pause * random.uniform(0.75, 1.0))
                pause = min(2 * pause, LAST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self._log.info("%d keys were fetched", len(self._keys))
            with trio.move_on_after(settings.refresh):
                await self._wake.wait()
                await trio.sleep_until(began + settings.refetch)

    async def _load(self) -> Keys:
        settings = self._settings
        url = settings.jwks_url
        if settings.oidc is not None:
            url = await self._discover(settings.oidc)
        assert url is not None
        data = await self._fetch(url, settings.fetch_timeout)
        try:
            keys = read_set(data, self._wanted)
        except ValueError as error:
            raise FetchError(f"{url}: {error}") from None
        if not len(keys):
            raise FetchError(f"{url}: it has no key for {', '.join(sorted(self._wanted))}")
        return keys

    async def _discover(self, issuer: str) -> str:
        """Ask an issuer where its keys are; it must be who it says (Discovery 1.0, 4.3)."""
        settings = self._settings
        where = issuer.rstrip("/") + _DISCOVERY
        data = await self._fetch(where, settings.fetch_timeout)
        try:
            document = read_json(data)
            if not isinstance(document, dict) or document.get("issuer") != issuer:
                raise ValueError(f"this is not the document of the issuer {issuer}")
            url = document.get("jwks_uri")
            if not isinstance(url, str):
                raise ValueError("the document has no jwks_uri")
            check_url("jwks_uri", url, allow_http=settings.allow_http)
        except ValueError as error:
            raise FetchError(f"{where}: {error}") from None
        return url
