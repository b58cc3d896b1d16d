"""What a configuration may say, and what each wrong one gets."""

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import pytest

from mqtrio.config import Document, InvalidSettings, Problem, load_config, settings_from
from mqtrio.config.document import Result
from mqtrio.config.reference import core_sections, plugin_sections
from mqtrio.errors import ConfigurationError
from mqtrio.fields import base_type, is_array, is_mapping, setting
from mqtrio.installed import find_installed
from mqtrio.settings import MIB, Limits, Listener, Log, SessionRules, Settings


def write(folder: Path, text: str) -> Path:
    path = folder / "broker.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(values: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(InvalidSettings) as caught:
        settings_from(values)
    return caught.value.problems


def lines_of(folder: Path, text: str) -> list[str]:
    """Give the errors of a file, without the folder that it stands in."""
    path = write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


# -- what is right -------------------------------------------------------------------------------


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")).settings == Settings() == settings_from({})


def test_every_section_of_a_file_is_read(tmp_path: Path) -> None:
    text = """
        [[listener]]
        url = "mqtt://0.0.0.0"
        allow_anonymous = true
        [[listener]]
        url = "mqtt://[::1]:0"
        [limits]
        maximum_packet_size = "1MiB"
        connect_timeout = "500ms"
        hook_deadline = 3
        overflow = "drop_oldest"
        [session]
        owner = "any"
        maximum_expiry_interval = "1d"
        maximum_qos = 1
        retain_available = false
        [log]
        level = "warning"
        format = "json"
    """
    assert load_config(write(tmp_path, text)).settings == Settings(
        listener=(
            Listener(url="mqtt://0.0.0.0", allow_anonymous=True),
            Listener(url="mqtt://[::1]:0"),
        ),
        limits=Limits(
            maximum_packet_size=1 * MIB,
            connect_timeout=0.5,
            hook_deadline=3.0,
            overflow="drop_oldest",
        ),
        session=SessionRules(
            owner="any", maximum_expiry_interval=86_400, maximum_qos=1, retain_available=False
        ),
        log=Log(level="warning", format="json"),
    )


def test_a_program_may_mix_mappings_and_instances() -> None:
    limits = Limits(queue_messages=5)
    made = settings_from(
        {
            "listener": [Listener(url="mqtt://h:1"), {"url": "mqtt://h:2"}],
            "limits": limits,
            "session": {"maximum_keep_alive": None},
        }
    )
    assert [each.url for each in made.listener] == ["mqtt://h:1", "mqtt://h:2"]
    assert made.limits is limits
    assert made.session == SessionRules()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(2, 2.0), (0.25, 0.25), ("500ms", 0.5), ("30s", 30.0), ("1.5m", 90.0), ("2 h", 7200.0)],
)
def test_durations(written: object, seconds: float) -> None:
    read = settings_from({"limits": {"connect_timeout": written}}).limits.connect_timeout
    assert (read, type(read)) == (seconds, float)


@pytest.mark.parametrize(
    ("written", "size"),
    [(99, 99), ("99B", 99), ("64KiB", 65_536), ("1.5MiB", 1_572_864), ("2 GiB", 2 << 30)],
)
def test_sizes(written: object, size: int) -> None:
    read = settings_from({"limits": {"memory": written}}).limits.memory
    assert (read, type(read)) == (size, int)


@pytest.mark.parametrize("url", ["mqtt://localhost", "mqtt://10.0.0.1:0/", "mqtt://[::]:1883"])
def test_urls(url: str) -> None:
    assert settings_from({"listener": [{"url": url}]}).listener == (Listener(url=url),)


# -- each wrong type for each setting ------------------------------------------------------------

#: One value of each kind that TOML or a program can hold.
VALUES: dict[str, Any] = {
    "true": True,
    "false": False,
    "a number": 20,
    "a fraction": 1.9,
    "a number as a string": "20",
    "true as a string": "true",
    "false as a string": "false",
    "an empty string": "",
    "a duration": "30s",
    "a size": "16KiB",
    "another unit": "30KB",
    "infinite": float("inf"),
    "no number": float("nan"),
    "an array": [20],
    "a table": {"x": 20},
    "a date": date(2025, 1, 1),
    "bytes": b"20",
    "nothing": None,
}

#: The broker's own tables.
SECTIONS: dict[str, type] = {
    "listener": Listener,
    "limits": Limits,
    "session": SessionRules,
    "log": Log,
}


def content_of(section: str, table: dict[str, Any]) -> dict[str, Any]:
    """A configuration with one table, and what else that table needs."""
    return {section: [{"url": "mqtt://h", **table}] if section == "listener" else table}


def meant(value: object, unit: str | None) -> object:
    """The number that one of VALUES stands for, where it is one."""
    if not isinstance(value, str):
        return value
    return {("30s", "seconds"): 30, ("16KiB", "bytes"): 16_384}.get((value, unit or ""), value)


def fits(value: Any, kind: Any, metadata: Mapping[str, Any]) -> bool:
    """Tell whether one of VALUES is right for a setting, told without the code that reads it."""
    if value is None:
        return kind is object or type(None) in get_args(kind)
    base: Any = base_type(kind)
    if base is bool or base is str:
        return isinstance(value, base)
    if base is Path:
        return isinstance(value, str) and value != ""
    if base is int or base is float:
        number: Any = meant(value, metadata["unit"])
        if isinstance(number, bool) or not isinstance(number, int | float):
            return False
        low, high = metadata["minimum"], metadata["maximum"]
        return (
            number - number == 0  # neither infinite nor no number
            and (base is float or isinstance(number, int))
            and (low is None or number >= low)
            and (high is None or number <= high)
        )
    if get_origin(base) is Literal:
        return any(value == each and type(value) is type(each) for each in get_args(base))
    if is_array(base):
        return isinstance(value, list) and all(
            fits(each, get_args(base)[0], metadata) for each in value
        )
    if is_mapping(base):
        return isinstance(value, dict) and all(
            fits(each, get_args(base)[1], metadata) for each in value.values()
        )
    if base is object:
        return isinstance(value, dict)
    assert attrs.has(base), f"a type that a configuration can't hold: {base}"
    return False


#: Every table of the broker and of the plugins in the box, also those inside of others.
TABLES = [*core_sections(), *plugin_sections(find_installed(), "mqtrio")[0]]


def settings_and_values() -> Iterator[Any]:
    for table in TABLES:
        for field in attrs.fields(attrs.resolve_types(table.kind)):
            for name, value in VALUES.items():
                yield pytest.param(
                    table.kind, field, value, id=f"{table.header}.{field.name}-{name}"
                )


@pytest.mark.parametrize(("kind", "field", "value"), list(settings_and_values()))
def test_each_type_for_each_setting(
    kind: type, field: "attrs.Attribute[Any]", value: object
) -> None:
    result: Result[Any] = Document("x", {}).read(kind, {field.name: value})
    # The class may want other settings, too, or refuse what they are together.
    problems = [each for each in result.problems if each.path[:1] == (field.name,)]
    if fits(value, field.type, field.metadata):
        told = [each.text for each in problems if "; allowed: " in each.text]
        assert not told
        return
    assert problems
    for problem in problems:
        assert "; allowed: " in problem.text or "unknown" in problem.text or "miss" in problem.text


@pytest.mark.parametrize(
    ("section", "field"), [(s, f) for s, kind in SECTIONS.items() for f in attrs.fields(kind)]
)
def test_every_setting_is_described_and_bounded(
    section: str, field: "attrs.Attribute[Any]"
) -> None:
    assert field.metadata["help"]
    if base_type(field.type) not in (int, float):
        return
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    needed = {"url": "mqtt://h"} if section == "listener" else {}
    for value in (minimum - 1, *(() if maximum is None else (maximum + 1,))):
        (problem,) = problems_of(content_of(section, {field.name: value}))
        assert "is out of range; allowed: " in problem.text
        with pytest.raises(ConfigurationError, match=f"{field.name}: .* is out of range"):
            SECTIONS[section](**needed, **{field.name: value})
    for value in (minimum, *(() if maximum is None else (maximum,))):
        made = SECTIONS[section](**needed, **{field.name: value})
        assert getattr(made, field.name) == value


@pytest.mark.parametrize(("kind", "name"), [(Limits, "overflow"), (Log, "level")])
def test_a_choice_names_its_options(kind: type, name: str) -> None:
    field = getattr(attrs.fields(kind), name)
    (problem,) = problems_of({"limits" if kind is Limits else "log": {name: "loud"}})
    for option in get_args(field.type):
        assert f'"{option}"' in problem.text


@pytest.mark.parametrize("value", [True, 1.0, "1", 3, -1])
def test_a_choice_of_numbers_takes_nothing_that_only_equals_one(value: object) -> None:
    (problem,) = problems_of({"session": {"maximum_qos": value}})
    assert problem.text.endswith("allowed: 0, 1 or 2")


@pytest.mark.parametrize("prefix", ["a", "a/#", "+/", "$share/x/", "a\0", "x" * 65_536])
def test_mount_points_that_are_refused(prefix: str) -> None:
    (problem,) = problems_of({"listener": [{"url": "mqtt://h", "mount_point": prefix}]})
    assert problem.path == ("listener", 0, "mount_point")


def test_a_listener_names_those_who_authenticate_its_clients() -> None:
    made = settings_from({"listener": [{"url": "mqtt://h", "authenticate": ["a", "b"]}]})
    assert made.listener[0].authenticate == ("a", "b")
    with pytest.raises(ConfigurationError, match="authenticate: 3 is a whole number"):
        Listener(url="mqtt://h", authenticate=(3,))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="authenticate: it is an array"):
        Listener(url="mqtt://h", authenticate=["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["localhost", "mqtt:h", "mqtt://h:65536", "http://h"])
def test_urls_that_are_refused(url: str) -> None:
    (problem,) = problems_of({"listener": [{"url": "mqtt://h"}, {"url": url}]})
    assert problem.path == ("listener", 1, "url")
    assert url in problem.text


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    for url in ("mqtt://me:hunter2@h", "mqtt://me:hunter2@h:99999", "hunter2@h"):
        (problem,) = problems_of({"listener": [{"url": url}]})
        assert "hunter2" not in str(problem)


# -- what errors say -----------------------------------------------------------------------------


def test_all_errors_come_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """\
[limits]
receive_maximum = 70000
recieve_maximum = 10
connect_timeout = "3 weeks"
maximum_qos = 1

[[listener]]
url = "mqtt://127.0.0.1"
[[listener]]
allow_anonymous = "false"

[limit]
x = 1
"""
    assert lines_of(tmp_path, text) == [
        "7 errors in the configuration:",
        "  broker.toml:2: limits.receive_maximum: 70000 is out of range; "
        "allowed: a whole number, from 1 to 65535",
        "  broker.toml:3: limits.recieve_maximum: unknown; did you mean receive_maximum?",
        '  broker.toml:4: limits.connect_timeout: "3 weeks" is a string; '
        'allowed: a number of seconds or a string such as "30s", "5m", "2h", "1d", at least 1 ms',
        "  broker.toml:5: limits.maximum_qos: unknown here; did you mean session.maximum_qos?",
        "  broker.toml:9: listener[1].url: missing; "
        "where to listen: mqtt://HOST[:PORT], mqtts:// (TLS), ws:// (WebSocket), wss:// (both), "
        "unix:///PATH or systemd://NAME; port 0: any free one",
        '  broker.toml:10: listener[1].allow_anonymous: "false" is a string; '
        "allowed: true or false",
        "  broker.toml:12: limit: unknown; did you mean limits?",
    ]


def test_a_program_is_told_without_lines() -> None:
    (problem,) = problems_of({"lisener": []})
    assert str(problem) == "settings: lisener: unknown; did you mean listener?"


def test_a_key_that_resembles_nothing_gets_the_list() -> None:
    (problem,) = problems_of({"log": {"xyzzy": 1}})
    assert problem.text == "unknown; allowed: level, format"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"limits": 3}, "3 is a whole number; allowed: a table"),
        ({"limits": []}, "it is an array; allowed: a table"),
        ({"listener": {"url": "mqtt://h"}}, "it is a table; allowed: tables, each with its own"),
        ({"listener": "mqtt://h"}, '"mqtt://h" is a string; allowed: tables'),
        ({"listener": ["mqtt://h"]}, '"mqtt://h" is a string; allowed: a table'),
        ({"limits": {"memory": 10**5000}}, "a number of more than 20 digits is out of range"),
        ({"limits": {"memory": 1 << 63}}, "9223372036854775808 is out of range"),
        ({"limits": {"connect_timeout": None}}, "None stands there; allowed: a number of seconds"),
        ({"session": {"maximum_keep_alive": "1500ms"}}, '"1500ms" is no whole number'),
        ({"log": {"level": "x\n" * 99}}, '"x\\nx\\n'),
        ({3: 1}, "unknown"),
    ],
)
def test_other_wrong_shapes(content: dict[str, Any], text: str) -> None:
    (problem,) = problems_of(content)
    assert text in problem.text
    assert "\n" not in str(problem)
    assert len(problem.text) < 250


def test_a_text_that_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, "[limits]\nmemory = \n")
    assert line.startswith("broker.toml:2: no TOML: ")
    assert "at line" not in line


def test_a_key_that_stands_twice_is_no_toml(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, "[log]\nlevel = 'info'\nlevel = 'debug'\n")
    assert line.startswith("broker.toml:3: no TOML: ")


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    path.write_bytes(b"[log]\n# caf\xe9\n")
    with pytest.raises(ConfigurationError, match=r"broker\.toml:2: this is not UTF-8"):
        load_config(path)


def test_a_file_that_nests_too_deeply(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, f"a = {'[' * 20_000}{']' * 20_000}")
    assert line == "broker.toml: nested too deeply"


def test_a_number_that_python_refuses_to_read(tmp_path: Path) -> None:
    (line,) = lines_of(tmp_path, f"a = {'9' * 5000}")
    assert line.startswith("broker.toml: no TOML: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml: can't be read: No such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_config(tmp_path)


# -- other classes -------------------------------------------------------------------------------


@attrs.define(frozen=True, kw_only=True)
class Rule:
    topic: str
    actions: list[Literal["publish", "subscribe"]] = attrs.Factory(list)


def _even(instance: object, attribute: object, value: int) -> None:
    if value % 2:
        raise ValueError("odd numbers are not allowed")


@attrs.define(frozen=True, kw_only=True)
class Foreign:
    """As somebody else may write one, with and without what fields.py offers."""

    rules: tuple[Rule, ...] = ()
    retries: int = setting(3, "how often", minimum=0, maximum=9)
    pair: int = attrs.field(default=2, validator=_even)
    weights: list[float] = attrs.Factory(list)
    limits: dict[str, int] = attrs.Factory(dict)


def read(content: object) -> list[tuple[tuple[str | int, ...], str]]:
    result = Document("x", {}).read(Foreign, content, ("plugin", "p"))
    return [(each.path, each.text) for each in result.problems]


def test_any_attrs_class_is_filled_with_the_same_rules() -> None:
    content = {"rules": [{"topic": "a", "actions": ["publish"]}], "weights": [1, 1.5], "pair": 4}
    made = Document("x", {}).read(Foreign, content, ("plugin", "p"))
    expected = Foreign(rules=(Rule(topic="a", actions=["publish"]),), weights=[1.0, 1.5], pair=4)
    assert made.value == expected


def test_any_attrs_class_is_refused_with_the_same_words() -> None:
    at = ("plugin", "p")
    assert read({"retries": 10}) == [
        ((*at, "retries"), "10 is out of range; allowed: a whole number, from 0 to 9")
    ]
    assert read({"rules": [{"topic": 1}, {"topic": "a", "actions": ["pub"]}]}) == [
        ((*at, "rules", 0, "topic"), "1 is a whole number; allowed: a string"),
        (
            (*at, "rules", 1, "actions", 0),
            '"pub" is none of them; allowed: "publish" or "subscribe"',
        ),
    ]
    assert read({"weights": ["1"]}) == [((*at, "weights", 0), '"1" is a string; allowed: a number')]
    assert read({"limits": {"a": True}}) == [
        ((*at, "limits", "a"), "true is a boolean; allowed: a whole number")
    ]
    assert read({"pair": 3}) == [(at, "odd numbers are not allowed")]
    assert read({"limits": 3}) == [((*at, "limits"), "3 is a whole number; allowed: a table")]
