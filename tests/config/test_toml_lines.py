"""The finder of lines: each value of the sample is the number of the line that it stands on."""

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mqtrio.toml_lines import KeyPath, key_lines

SAMPLE = r"""
# a comment with = and [brackets] and "quotes
first = 3
"quoted.key" = 4
dotted . "key" . 'x' = 5
text = { a = 6, b = [ 6, 6 ], "c d" = { e = 6 } }
"esc\u0061ped\n" = 7

[limits]   # [not.this]
a = 10
many = [
    12,   # ], not the end
    13, [ 13, 13 ],

    15,
    { x = 16 }, { x = 16, y = [
        17 ] },
]
[ limits . "in side" ]
b = 20
[[listener]]
u = 22
[listener.tls]
v = 24
[[listener]]
u = 26
[[listener.deep]]
w = 28
[[listener.deep]]
w = 30
[listener.deep.more]
y = 32
[[other.list]]
k = 34
"""

STRINGS = '''a = """
has [tables]
and \\""" quotes ""
""""
b = \'\'\'
x = 1 \'\'
\'\'\'\'
c = "a \\" # b"
d = 'c:\\'
e = ["]", '}', """,
"""]
f = 1979-05-27 07:32:00
'''


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from leaves(inside, (*path, key))
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from leaves(inside, (*path, index))
    else:
        yield path, value


def test_every_value_of_the_sample_stands_where_it_says() -> None:
    lines = key_lines(SAMPLE)
    found = list(leaves(tomllib.loads(SAMPLE)))
    assert len(found) > 20
    assert [(path, lines[path]) for path, _ in found] == found


def test_tables_and_arrays_have_lines_of_their_own() -> None:
    lines = key_lines(SAMPLE)
    assert lines["limits",] == 9
    assert lines["limits", "in side"] == 19
    assert lines["listener",] == lines["listener", 0] == 21
    assert lines["listener", 1] == 25
    assert lines["listener", 1, "deep", 1, "more"] == 31


def test_strings_over_several_lines_hide_what_they_hold() -> None:
    lines = key_lines(STRINGS)
    expected = {("a",): 1, ("b",): 5, ("c",): 8, ("d",): 9, ("e",): 10, ("f",): 12}
    assert {path: line for path, line in lines.items() if len(path) == 1} == expected


def test_lines_end_as_on_windows() -> None:
    assert key_lines("a = 1\r\n\r\n[b]\r\nc = 2\r\n")["b", "c"] == 4


def test_an_empty_text_has_no_keys() -> None:
    assert key_lines("") == key_lines("\n# nothing\n") == {}


_KEYS = st.sampled_from(["a", "b-1", '"x y"', "'q.r'", '"\\u0041"'])
_VALUES = st.recursive(
    st.sampled_from(["1", "true", '"s"', "'l]'", '"""m\n"""', "'''\n[x]\n'''", "1.5", "07:32:00"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n".join(items) + "]"),
        st.dictionaries(_KEYS, inner, max_size=2).map(
            lambda table: "{" + ", ".join(f"{k} = {v}" for k, v in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)
_LINES = st.one_of(
    st.tuples(_KEYS, _VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.tuples(_KEYS, _KEYS).map(lambda pair: f"{pair[0]} . {pair[1]} = 0"),
    st.tuples(_KEYS, _KEYS).map(lambda pair: f"[{pair[0]}.{pair[1]}]"),
    _KEYS.map(lambda key: f"[[{key}]]"),
    st.sampled_from(["", "# [c] = 1"]),
)


@settings(max_examples=300)
@given(st.lists(_LINES, max_size=8).map("\n".join))
def test_whatever_tomllib_accepts_has_a_line_for_every_value(text: str) -> None:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = key_lines(text)
    for path, _ in leaves(content):
        assert 1 <= lines[path] <= text.count("\n") + 1


def test_a_big_file_is_read_in_one_pass() -> None:
    size = 20_000
    text = "\n".join(f"key{number} = [{number}, {{ x = 1 }}]" for number in range(size))
    assert key_lines(text)[f"key{size - 1}",] == size
