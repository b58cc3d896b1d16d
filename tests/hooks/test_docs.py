"""docs/hooks.md says what the code says: hooks, signatures, events, answers, rules."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

import mqtrio
from mqtrio.hooks import answers, combine, events, plugin
from mqtrio.hooks.answers import Allow, Deny
from mqtrio.hooks.manager import HookManager
from mqtrio.hooks.specs import HOOKS
from tests.hooks.driver import CLIENT, at_once, drive, publish_event

FACTS = ("Event", "Kind", "Colour", "Order", "Deadline", "Failure", "Cost", "Test")

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "hooks.md").read_text()


def sections(level: int) -> dict[str, str]:
    """Heading -> text up to the next heading of the same or a higher level."""
    pieces = re.split(rf"^(#{{2,{level}}}) (.+)$", PAGE, flags=re.MULTILINE)
    return {
        title: text
        for marks, title, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True)
        if len(marks) == level
    }


def code(text: str) -> str:
    found = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert found, "no signature"
    return found[1]


def facts(text: str) -> dict[str, str]:
    return {
        name: value
        for name, value in re.findall(r"^- (\w+): (.+)$", text, flags=re.MULTILINE)
        if name in FACTS
    }


def methods() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(inspect.getsource(plugin.Plugin))
    [cls] = tree.body
    assert isinstance(cls, ast.ClassDef)
    return {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef)}


SPECIFIED = methods()
HEADINGS = sections(3)


def test_every_hook_has_a_heading_and_every_heading_is_of_a_hook_or_an_answer() -> None:
    assert list(HEADINGS) == [*HOOKS, *ANSWERS]


def test_the_base_class_has_the_hooks_of_the_table() -> None:
    marked = [name for name, node in SPECIFIED.items() if node.decorator_list]
    assert marked == list(HOOKS)
    assert all(ast.get_docstring(SPECIFIED[name]) for name in marked)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_signature_is_the_codes(hook: str) -> None:
    [written] = ast.parse(code(HEADINGS[hook]).rstrip() + ": ...").body
    specified = SPECIFIED[hook]
    assert isinstance(written, ast.FunctionDef)
    assert written.returns is not None
    assert specified.returns is not None
    assert written.name == hook
    assert ast.dump(written.args) == ast.dump(specified.args)
    assert ast.dump(written.returns) == ast.dump(specified.returns)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_facts_are_the_tables(hook: str) -> None:
    said = facts(HEADINGS[hook])
    assert tuple(said) == FACTS
    row = HOOKS[hook]
    assert said["Kind"] == row.kind
    assert said["Colour"] == ("sync or async" if row.awaits else "sync")
    deadline = row.awaits and row.kind in ("decide", "transform")
    assert said["Deadline"].startswith("`limits.hook_deadline`" if deadline else "none")
    denied = {"decide": "denied", "observe": "isolated, logged, counted; switched off"}
    assert said["Failure"].startswith(denied.get(row.kind, ""))


@pytest.mark.parametrize("hook", HOOKS)
def test_the_failure_rule_has_a_test(hook: str) -> None:
    found = re.fullmatch(r"`(tests/[\w/]+\.py)::(\w+)`", facts(HEADINGS[hook])["Test"])
    assert found, "it names no test"
    assert found[2] in {
        node.name
        for node in ast.walk(ast.parse((ROOT / found[1]).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_reasons_for_a_drop_are_listed() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", HEADINGS["dropped"], flags=re.MULTILINE)
    assert sorted(listed) == sorted(get_args(events.DropReason))


@pytest.mark.parametrize("hook", HOOKS)
def test_the_order_is_one_of_those_that_there_are(hook: str) -> None:
    """The words of the page say one thing: who is asked, and when it ends."""
    order = facts(HEADINGS[hook])["Order"]
    expected = {"observe": "all are told, in the order of the plugins"}
    if hook == "authenticate":
        assert "first" in order
    elif hook.startswith("transform"):
        assert order.startswith("chained")
    elif HOOKS[hook].kind == "decide":
        assert order.startswith("all are asked")
        assert "one Deny ends it" in order
    else:
        assert order.startswith(expected.get(HOOKS[hook].kind, ""))
    assert order


@pytest.mark.parametrize("hook", HOOKS)
def test_the_fields_of_the_event_are_listed(hook: str) -> None:
    annotation = SPECIFIED[hook].args.args[1].annotation
    assert isinstance(annotation, ast.Name)
    event: Any = getattr(mqtrio, annotation.id)
    fields = [field.name for field in attrs.fields(event)] if attrs.has(event) else event.__slots__
    said = re.findall(r"`(\w+)`", facts(HEADINGS[hook])["Event"])
    assert said == [annotation.id, *(name for name in fields if name != "scratch")]


ANSWERS = ("Allow", "Deny", "Challenge", "Drop", "Reject", "Close", "Throttle")


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_fields_of_an_answer_are_the_codes(answer: str) -> None:
    parameters = inspect.signature(getattr(answers, answer)).parameters.values()
    written = code(HEADINGS[answer]).strip()
    called = ast.parse(f"def {written}: ...").body[0]
    assert isinstance(called, ast.FunctionDef)
    assert [argument.arg for argument in called.args.args] == [
        parameter.name for parameter in parameters if parameter.kind != parameter.KEYWORD_ONLY
    ]
    assert [argument.arg for argument in called.args.kwonlyargs] == [
        parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY
    ]


async def test_the_first_example_works() -> None:
    names: dict[str, Any] = {}
    exec(code(PAGE), names)
    manager = HookManager()
    manager.add(names["Guard"]("a/", name="guard"))

    async def answers_to(password: bytes) -> object:
        event = events.AuthenticateEvent(CLIENT, password)
        return await drive(combine.authenticate(manager, event))

    assert await answers_to(b"a good password") == Allow()
    assert await answers_to(b"guessed") == Deny(0x86)
    assert type(at_once(combine.authorize_publish(manager, publish_event("a/b")))) is Allow
    assert type(at_once(combine.authorize_publish(manager, publish_event("b")))) is Deny
    request = events.SubscribeEvent(CLIENT, "a/#")
    assert type(await drive(combine.authorize_subscribe(manager, request))) is Allow


def test_the_second_example_works() -> None:
    names: dict[str, Any] = {"mqtrio": mqtrio}
    exec(code(sections(2)["Values of a plugin's own"]), names)
    counting = names["Counting"](None, name="counting")
    manager = HookManager()
    manager.add(counting)
    event = publish_event("x/y")
    manager.notify(manager.published, event)
    assert counting.seen.get(event)[-1] == "x/y"
