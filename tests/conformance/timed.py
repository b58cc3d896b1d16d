"""Tests that must let real time pass: all that are selected run at once, when the first is due.

Against a broker in another process there is no virtual time, and one test after the other would
wait for minutes. Each still counts, and fails, by itself.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
import trio

from tests.conformance.peer import Peers

Script = Callable[[Peers], Awaitable[None]]

#: Seconds after which a timed test has failed.
LIMIT: Final = 60.0


class Outcomes:
    """What each timed test came to: None, or what it raised."""

    def __init__(self, scripts: dict[Script, Peers]) -> None:
        self._scripts = scripts
        self._raised: dict[Script, BaseException | None] | None = None

    def report(self, script: Script) -> None:
        """Raise what `script` raised, after running all of them if they did not run yet."""
        if self._raised is None:
            self._raised = {}
            trio.run(self._run_all)
        raised = self._raised[script]
        if raised is not None:
            raise raised

    async def _run_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for script, peers in self._scripts.items():
                nursery.start_soon(self._run, script, peers)

    async def _run(self, script: Script, peers: Peers) -> None:
        assert self._raised is not None
        self._raised[script] = AssertionError(f"took more than {LIMIT} seconds")
        with trio.move_on_after(LIMIT):
            try:
                await script(peers)
                await peers.tidy()
                self._raised[script] = None
            except (Exception, pytest.skip.Exception) as error:  # noqa: BLE001  # raised by report
                self._raised[script] = error


def timed(script: Script) -> Callable[..., None]:
    """Mark a test as timed: its own peers, real time, together with all other timed ones."""

    def test(timed_outcomes: Outcomes) -> None:
        timed_outcomes.report(script)

    test.__name__ = script.__name__
    test.__qualname__ = script.__qualname__
    test.__module__ = script.__module__
    test.__doc__ = script.__doc__
    marked: Any = pytest.mark.timed(test)
    marked.script = script
    return marked  # type: ignore[no-any-return]
