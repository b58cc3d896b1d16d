"""`mqtrio explain`: who would decide about a publish or subscribe of a client, and why."""

import argparse
import json
import sys
from typing import Any, Final

import attrs
import trio

from mqtrio.cli.tables import table
from mqtrio.config import Configuration, load_config
from mqtrio.engine.doors import Doors
from mqtrio.engine.plugins import Plugins
from mqtrio.errors import ConfigurationError
from mqtrio.hooks.explain import explain
from mqtrio.hooks.explanation import BROKER, Explanation, HookDecision, PluginAnswer, Question
from mqtrio.hooks.manager import HookManager
from mqtrio.net.addresses import parse_listener
from mqtrio.opening import DEFAULT_LISTENER
from mqtrio.settings import Settings

#: Exit codes: of the two answers, and of a bug, which is none. Wrong arguments are 2.
ALLOWED, DENIED, BROKEN = 0, 1, 3

EPILOG = """\
examples:
  mqtrio explain broker.toml --client sensor-1 --username ann --publish plant/1/temperature
        may ann publish there?
  mqtrio explain broker.toml --client sensor-1 --username ann --subscribe 'plant/#' --json
        may she subscribe to that, as one JSON object for a program
  mqtrio explain broker.toml --client sensor-1 --username ann --password-stdin --publish a < file
        the whole way, from the listener and the password on

The plugins of the configuration are started and asked; the broker doesn't listen, no store is
opened, and nothing is published. The exit code is 0 for allowed, 1 for denied, 2 for arguments or a
configuration that can't be, 3 if mqtrio itself has failed.
"""

VERSIONS: Final = {"3.1": 3, "3.1.1": 4, "5": 5}


def add(commands: Any) -> None:
    """Add the arguments of this command to a parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help="say who decides about a publish or subscribe, and why",
        description="Ask the plugins of a configuration what a client may do, and who decided.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="as for mqtrio serve")
    parser.add_argument("--client", required=True, metavar="ID", help="the client identifier")
    parser.add_argument("--username", metavar="NAME", help="who the client is; default: nobody")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--publish", metavar="TOPIC", help="it publishes to this topic")
    what.add_argument("--subscribe", metavar="FILTER", help="it subscribes to this topic filter")
    parser.add_argument("--qos", type=int, choices=(0, 1, 2), default=0, help="default: 0")
    parser.add_argument("--retain", action="store_true", help="the message is to be retained")
    parser.add_argument("--payload", default="", metavar="TEXT", help="default: empty")
    parser.add_argument(
        "--address", default="", metavar="HOST:PORT", help="where the client comes from"
    )
    parser.add_argument(
        "--listener",
        metavar="URL",
        help="by which listener of the configuration it comes; default: the first one",
    )
    parser.add_argument(
        "--protocol-version", choices=VERSIONS, default="5", help="of MQTT; default: 5"
    )
    parser.add_argument(
        "--authenticate",
        action="store_true",
        help="don't take the username for granted: begin at the listener, without a password",
    )
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="the same with the password that stands on standard input, up to the end of the line",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain; the exit code says whether it is allowed."""
    configuration = load_config(arguments.config)
    question = _question(arguments, configuration.settings)
    try:
        explained = trio.run(_ask, configuration, question)
    except ValueError as error:
        raise ConfigurationError(f"{question.publish or question.subscribe!r}: {error}") from None
    if arguments.json:
        print(json.dumps(_plain(explained), indent=2, ensure_ascii=False))
    else:
        print(_described(explained))
    return ALLOWED if explained.allowed else DENIED


def _question(arguments: argparse.Namespace, settings: Settings) -> Question:
    password = None
    if arguments.password_stdin:
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    try:
        return Question(
            client_id=arguments.client,
            username=arguments.username,
            publish=arguments.publish,
            subscribe=arguments.subscribe,
            qos=arguments.qos,
            retain=arguments.retain,
            payload=arguments.payload.encode(),
            address=arguments.address,
            listener=_listener(arguments.listener, settings),
            protocol_version=VERSIONS[arguments.protocol_version],
            authenticate=arguments.authenticate or arguments.password_stdin,
            password=password,
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _listener(url: str | None, settings: Settings) -> str:
    known = [listener.url for listener in settings.listener] or [DEFAULT_LISTENER]
    if url is None:
        return known[0]
    if url not in known:
        raise ConfigurationError(f"there is no listener {url}; there are: {', '.join(known)}")
    return url


async def _ask(configuration: Configuration, question: Question) -> Explanation:
    """Start the plugins, ask them, and stop them; nothing else of a broker is there."""
    settings = configuration.settings
    hooks = HookManager()
    life = Plugins(hooks, settings.limits.hook_deadline)
    doors = Doors(hooks)
    local = bool(parse_listener(question.listener).local)
    try:
        await life.open(configuration.make_plugins())
        doors.set((listener, False) for listener in settings.listener)
        entrance = doors.entrance(question.listener, local)
        return await explain(hooks, settings, question, entrance)
    finally:
        await life.close()


# -- showing


def _plain(explained: Explanation) -> dict[str, Any]:
    """The explanation as JSON has it: all that a person is shown, under the names of the values."""
    return {**attrs.asdict(explained), "decisive": explained.decisive.hook}


def _described(explained: Explanation) -> str:
    decisive = explained.decisive
    verdict = "allowed" if explained.allowed else "denied"
    who = f"client {explained.client_id!r}" + (
        " without a username" if explained.username is None else f" of {explained.username!r}"
    )
    changed = "" if explained.topic == explained.asked else f" as {explained.topic!r}"
    lines = [
        f"{verdict}: {who}, {explained.action} {explained.asked!r}{changed}, QoS {explained.qos}",
        f"  {decisive.hook}, decided by {', '.join(decisive.decided_by)}"
        + (f": {decisive.why}" if decisive.why else ""),
        "",
    ]
    rows = [row for decision in explained.decisions for row in _rows(decision)]
    return "\n".join([*lines, table(("HOOK", "PLUGIN", "ANSWER", "TOOK", "WHY"), rows)])


def _rows(decision: HookDecision) -> list[tuple[str, ...]]:
    """One row for each plugin, and one for what has come of them."""
    answers = [
        (
            "" if place else decision.hook,
            answer.plugin,
            _words(answer.answer, answer.detail),
            _duration(answer),
            answer.why,
        )
        for place, answer in enumerate(decision.answers)
    ]
    names = ", ".join(decision.decided_by)
    why = decision.why if decision.decided_by == (BROKER,) else f"by {names}"
    together = ("", "=", _words(decision.decision, decision.detail), "", why)
    if not answers:
        return [(decision.hook, *together[1:])]
    return [*answers, together]


def _words(answer: str, detail: str) -> str:
    return f"{answer} ({detail})" if detail else answer


def _duration(answer: PluginAnswer) -> str:
    return f"{answer.seconds * 1000:.3f} ms" if answer.asked else ""
