"""A page in a real browser: examples/telemetry-page in Chromium, without a window."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.clients.serving import PATIENCE

CHROMIUM = shutil.which("chromium")
PAGE = Path(__file__).parents[2] / "examples" / "telemetry-page" / "telemetry_page.py"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="missing: chromium (Debian: chromium)")

#: Waits in the page, without polling, until something about it is true; then gives what it is.
WAIT = """
new Promise((resolve) => {
    const look = () => {
        const found = (%s);
        if (found) { observer.disconnect(); resolve(found); }
    };
    const observer = new MutationObserver(look);
    const all = {subtree: true, childList: true, attributes: true, characterData: true};
    observer.observe(document, all);
    look();
})
"""


class Tab:
    """One page, by the protocol of Chromium's developer tools."""

    def __init__(self, tools: ClientConnection, url: str) -> None:
        self._tools = tools
        self._numbers = count(1)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session: str = attached["sessionId"]
        self._ask("Page.enable", self._session)
        self._ask("Page.navigate", self._session, url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def _ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        asked: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            asked["sessionId"] = session
        self._tools.send(json.dumps(asked))
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        """The next thing that the browser says: an answer, or an event."""
        said: dict[str, Any] = json.loads(self._tools.recv(timeout=PATIENCE))
        return said

    def evaluate(self, script: str) -> Any:
        """Run a script in the page; its value, awaited."""
        said = self._ask(
            "Runtime.evaluate",
            self._session,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Wait until an expression about the page is true; its value."""
        return self.evaluate(WAIT % condition)


@contextmanager
def printing(*command: str, stream: str) -> Iterator[IO[str]]:
    """Run a program for the length of a block; what it prints."""
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, text=True, **pipes | {stream: subprocess.PIPE}
    )
    lines = getattr(process, stream)
    with process:
        try:
            yield lines
        finally:
            process.kill()


def first(lines: IO[str], pattern: str) -> str:
    """What a pattern's group finds in the first line that matches it."""
    for line in lines:
        found = re.search(pattern, line)
        if found:
            return found[1]
    raise AssertionError(f"no line matches {pattern}")


@contextmanager
def chromium(folder: Path) -> Iterator[ClientConnection]:
    """Chromium without a window, and its developer tools."""
    assert CHROMIUM is not None
    with printing(
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-proxy-server", "--remote-debugging-port=0", f"--user-data-dir={folder}"),
        stream="stderr",
    ) as lines:
        address = first(lines, r"DevTools listening on (\S+)")
        with connect(address, proxy=None, max_size=None) as tools:
            yield tools


def test_a_page_draws_what_is_published_and_publishes(tmp_path: Path) -> None:
    serve = (sys.executable, "-W", "error", str(PAGE), "--http=0", "--ws=0", "--period=0.05")
    with (
        printing(*serve, stream="stdout") as said,
        chromium(tmp_path) as tools,
    ):
        tab = Tab(tools, first(said, r"open (\S+)"))
        tab.wait("document.getElementById('state').textContent.startsWith('connected')")
        # Subscribed: lines of all rooms, each with several points, and its own reading among them.
        rooms = """
            [...document.querySelectorAll("polyline")]
                .filter((line) => (line.getAttribute("points") ?? "").split(" ").length > LEAST)
                .map((line) => line.dataset.room).sort().join()
        """
        tab.wait(rooms.replace("LEAST", "5") + " === 'attic,cellar,kitchen'")
        assert tab.wait("document.querySelector('[data-room=page]').getAttribute('points')")
        cells = "[...document.querySelectorAll('td')].map((cell) => cell.textContent).join(' ')"
        assert re.search(r"attic -?\d+\.\d °C", tab.evaluate(cells))
        # Published: once by itself, and when somebody moves the slider.
        assert first(said, r"the page says (\d+)") == "21"
        tab.evaluate("slider.value = 27; slider.dispatchEvent(new Event('change'))")
        assert first(said, r"the page says (\d+)") == "27"
        assert tab.wait(f"{cells}.includes('page 27.0 °C')")


def test_a_page_of_another_origin_is_kept_out(tmp_path: Path) -> None:
    serve = (sys.executable, str(PAGE), "--http=0", "--ws=0")
    with (
        printing(*serve, stream="stdout") as said,
        printing(*serve, stream="stdout") as other_said,
        chromium(tmp_path) as tools,
    ):
        page = first(said, r"open (\S+)\?")
        other = first(other_said, r"broker=(\S+)")
        tab = Tab(tools, f"{page}?broker={other}")
        state = tab.wait("/^no /.test(state.textContent) && state.textContent")
        assert state == f"no connection to {other}"
