"""$SYS beside a real Mosquitto: each of its names is one of ours, or the page says why it isn't."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mqtrio.testing import open_harness
from mqtrio_plugins.sys_topics import SysTopics, SysTopicsSettings
from tests.bench.brokers import mosquitto_path, started
from tests.clients.serving import PATIENCE

pytestmark = pytest.mark.skipif(
    mosquitto_path() is None or shutil.which("mosquitto_sub") is None,
    reason="missing: mosquitto, mosquitto_sub (Debian: mosquitto, mosquitto-clients)",
)

PAGE = (Path(__file__).parents[2] / "docs" / "plugins" / "sys_topics.md").read_text()
NOT_OURS = PAGE.partition("Names that Mosquitto has and we don't")[2].partition("##")[0]

ROOT = "$SYS/broker/"

#: All that is retained, for a second: nobody knows how many there are.
LISTEN = ["-t", f"{ROOT}#", "-F", "%t", "--retained-only", "-W", "1"]


def theirs() -> set[str]:
    with started("mosquitto", "") as running:
        done = subprocess.run(
            ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(running.port), *LISTEN],
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    return {line.removeprefix(ROOT) for line in done.stdout.splitlines()}


async def test_each_name_of_mosquitto(autojump_clock: MockClock) -> None:
    names = theirs()
    assert {"version", "uptime", "messages/sent", "load/sockets/15min"} <= names
    plugin = SysTopics(SysTopicsSettings(), name="sys_topics")
    async with open_harness(plugins=[plugin]) as harness:
        await trio.sleep(1)
        ours = {kept.topic.removeprefix(ROOT) for kept in harness.broker.retained(f"{ROOT}#")}
    items = re.findall(r"^- ((?:(?:, )?`[^`]+`)+)", NOT_OURS, re.MULTILINE)
    listed = re.findall(r"`([^`…]+)…?`", "".join(items))
    assert {"publish/bytes/sent", "log/"} <= set(listed)
    assert not ours & set(listed), "the page says that we don't have these"
    missing = {name for name in names - ours if not name.startswith(tuple(listed))}
    assert not missing
