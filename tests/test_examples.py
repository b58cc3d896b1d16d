"""Each example runs to its end by itself, without a warning, and prints what it should."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

#: Example -> what its output must be, as a regular expression over all of it.
PRINTS = {
    "telemetry": r"""
        listening\ on\ mqtt://127\.0\.0\.1:\d+ \n
        attic:\ 20\ readings,\ -?\d+\.\d\ degrees\ on\ average \n
        cellar:\ 20\ readings,\ -?\d+\.\d\ degrees\ on\ average \n
        kitchen:\ 20\ readings,\ -?\d+\.\d\ degrees\ on\ average \n
        3\ averages\ are\ retained \n
        """,
    "remote_control": r"""
        the\ lamp\ is\ ready \n
        how\ are\ you\?\ ->\ {'on':\ False} \n
        {'on':\ True}\ ->\ {'on':\ True} \n
        {'on':\ False}\ ->\ {'on':\ False} \n
        nobody\ answers\ any\ more \n
        """,
    "presence": r"""
        presence/ann:\ online\ \(from\ ann\) \n
        presence/bob:\ online\ \(from\ bob\) \n
        presence/ann:\ gone\ home\ \(from\ ann\) \n
        presence/bob:\ offline\ \(from\ bob\) \n
        retained:\ presence/ann\ is\ gone\ home \n
        retained:\ presence/bob\ is\ offline \n
        """,
    "first_plugin": r"""
        ann\ with\ 'correct\ horse'\ at\ ann/door:\ Success,\ No\ matching\ subscribers,
            \ Granted\ QoS\ 1 \n
        ann\ with\ 'correct\ horse'\ at\ bob/door:\ Success,\ Not\ authorized,\ Not\ authorized \n
        ann\ with\ 'correct\ horse'\ at\ announcements:\ Success,\ Not\ authorized,
            \ Granted\ QoS\ 1 \n
        ann\ with\ 'a\ guess'\ at\ ann/door:\ Bad\ user\ name\ or\ password \n
        eve\ with\ 'anything'\ at\ ann/door:\ Bad\ user\ name\ or\ password \n
        """,
    "with_asyncio": r"""
        listening\ on\ port\ \d+ \n
        boiler/state:\ on \n
        pump/state:\ on \n
        valve/state:\ on \n
        """,
    "with_fastapi": r"""
        {'detail':\ 'it\ has\ never\ said\ a\ word'} \n
        {'name':\ 'attic',\ 'value':\ '30'} \n
        {'heard':\ True} \n
        the\ lamp\ goes\ on \n
        {'heard':\ False} \n
        """,
    "with_flask": r"""
        {'name':\ 'attic',\ 'values':\ \['30'\]} \n
        {'answer':\ 'fine'} \n
        """,
    "own_stream": r"""
        visitor:\ hello\ over\ a\ Unix\ socket \n
        1\ connection,\ 0\ mistakes \n
        stopped \n
        """,
}


def test_all_examples_are_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_example(name: str) -> None:
    if name == "own_stream" and sys.platform == "win32":
        pytest.skip("only on systems with Unix sockets")
    path = EXAMPLES / f"{name}.py"
    warnings = ["-W", "error"]
    if "import paho" in path.read_text(encoding="utf-8"):
        # A paho client closes a pair of sockets only when it is collected, maybe in a cycle.
        warnings += ["-W", "ignore::ResourceWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PRINTS[name], done.stdout, re.VERBOSE), done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("name", PRINTS)
def test_example_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert f"    python examples/{name}.py\n" in text
    assert ("pip install paho-mqtt" in text) == ("import paho" in text)
