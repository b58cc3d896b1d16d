"""The base class is typed: a wrong override is an error of the type checker."""

from pathlib import Path

from mypy import api

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
from mqtrio.hooks.answers import Allow, Deny, Drop, Reject, Throttle
from mqtrio.hooks.client import ConnectionSlot
from mqtrio.hooks.events import *
from mqtrio.hooks.provide_events import *
from mqtrio.hooks.plugin import DeliveryFilter, Plugin
from mqtrio.hooks.specs import hookimpl
"""

RIGHT = """
class Right(Plugin[int]):
    def __init__(self, settings: int, *, name: str) -> None:
        super().__init__(settings + 1, name=name)
        self.seen = ConnectionSlot[list[str]](list)

    @hookimpl
    async def authenticate(self, event: AuthenticateEvent) -> Allow | None:
        return Allow(username=event.client_id)

    @hookimpl
    def authorize_publish(self, event: PublishEvent) -> Allow | Deny:
        self.seen.get(event).append(event.topic)
        return Allow()

    @hookimpl
    def transform_publish(self, event: PublishEvent) -> PublishEvent | Throttle:
        return event.changed(topic="x") if event.qos else Throttle(self.settings)

    @hookimpl
    def compile_delivery(self, event: DeliveryEvent) -> DeliveryFilter | None:
        return lambda message: message if message.qos else None

    @hookimpl
    async def run(self, event: RunEvent) -> None:
        pass

    @hookimpl
    def published(self, event: PublishedEvent) -> None:
        pass
"""

#: What is wrong -> the method.
WRONG = {
    "the answer": "def authorize_publish(self, event: PublishEvent) -> Drop: return Drop()",
    "the event": "def authorize_publish(self, event: SubscribeEvent) -> None: return None",
    "the colour": "async def published(self, event: PublishedEvent) -> None: pass",
    "the arguments": "def published(self) -> None: pass",
    "one of the answers": "async def admit(self, event: AdmitEvent) -> Allow | str: return ''",
    "a filter": "def compile_delivery(self, event: DeliveryEvent) -> int: return 1",
    "no coroutine": "def run(self, event: RunEvent) -> None: pass",
}


def test_a_wrong_override_is_an_error(tmp_path: Path) -> None:
    lines = [*HEAD.splitlines(), *RIGHT.splitlines()]
    wrong: dict[int, str] = {}
    for number, (what, method) in enumerate(WRONG.items()):
        lines += [f"class Wrong{number}(Plugin[int]):", f"    {method}"]
        wrong[len(lines)] = what
    source = tmp_path / "plugins.py"
    source.write_text("\n".join(lines) + "\n")
    report, errors, _ = api.run(
        [
            "--strict",
            "--no-error-summary",
            "--hide-error-context",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            str(source),
        ]
    )
    assert not errors
    found = {int(line.split(":")[1]): line for line in report.splitlines() if ": error:" in line}
    assert {wrong.get(number, found[number]) for number in found} == set(WRONG), report
    assert all("[override]" in line for line in found.values()), report
