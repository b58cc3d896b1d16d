"""Loops that are closed early, and Ctrl-C: programs of their own, which must end in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.embed.kit import LOOPS

START = """
import asyncio, gc, os, signal, sys, threading
from mqtrio.embed import open_asyncio_broker, open_thread_broker

KIND = sys.argv[1]

def new_loop():
    if KIND == "uvloop":
        import uvloop
        return uvloop.new_event_loop()
    return asyncio.new_event_loop()

async def never_left():
    opening = open_asyncio_broker("mqtt://127.0.0.1:0")
    broker = await opening.__aenter__()
    await broker.publish("a", "b")
    return broker

async def listening(say=lambda: None):
    async with open_asyncio_broker("mqtt://127.0.0.1:0") as broker:
        async with broker.subscribe("x") as messages:
            say()
            async for message in messages:
                pass

def interrupt():
    # From another thread: what runs here is in the middle of something.
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()

def check():
    gc.collect()
    import trio
    try:
        trio.lowlevel.current_root_task()
    except RuntimeError:
        pass
    else:
        raise SystemExit("Trio runs")
    left = [each.name for each in threading.enumerate() if not each.daemon]
    assert left == ["MainThread"], left
    print("end")
"""

PROGRAMS = {
    "stop in the middle": """
        loop = new_loop()
        task = loop.create_task(listening(loop.stop))
        loop.run_forever()
        loop.close()
        task._log_destroy_pending = False  # that one is the program's
        del task
        check()
    """,
    "never left": """
        loop = new_loop()
        broker = loop.run_until_complete(never_left())
        loop.close()
        check()
    """,
    "run ends": """
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(never_left())
        check()
    """,
    "never closed": """
        loop = new_loop()
        broker = loop.run_until_complete(never_left())
        print("end")
    """,
    "stop while a broker starts": """
        loop = new_loop()
        task = loop.create_task(listening())
        for _ in range(4):
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
        task._log_destroy_pending = False
        del task
        check()
    """,
    "a task thrown away": """
        loop = new_loop()
        task = loop.create_task(listening(loop.stop))
        loop.run_forever()
        task.get_coro().close()
        loop.run_until_complete(asyncio.sleep(0.1))
        import trio
        try:
            trio.lowlevel.current_root_task()
        except RuntimeError:
            pass
        else:
            raise SystemExit("Trio runs")
        assert "already awaited" in str(task.exception())
        loop.close()
        check()
    """,
    "two loops": """
        first, second = new_loop(), new_loop()
        one = first.run_until_complete(never_left())
        two = second.run_until_complete(never_left())
        first.run_until_complete(one.publish("a"))
        second.run_until_complete(two.publish("a"))
        first.close()
        second.run_until_complete(two.publish("a"))
        third = new_loop()
        third.run_until_complete(asyncio.sleep(0))
        second.close()
        hooks = sys.get_asyncgen_hooks()
        assert hooks == (None, None), hooks
        third.close()
        check()
    """,
    "Ctrl-C in a runner": """
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(listening(interrupt))
        except KeyboardInterrupt:
            print("interrupted")
        check()
    """,
    "Ctrl-C in a bare loop": """
        loop = new_loop()
        try:
            loop.run_until_complete(listening(interrupt))
        except KeyboardInterrupt:
            print("interrupted")
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
        loop.close()
        check()
    """,
    "Ctrl-C with threads": """
        try:
            with open_thread_broker("mqtt://127.0.0.1:0") as broker:
                with broker.subscribe("x") as messages:
                    interrupt()
                    for message in messages:
                        pass
        except KeyboardInterrupt:
            print("interrupted")
        check()
    """,
    "Ctrl-C while a broker with threads starts": """
        import mqtrio, trio
        class Slow:
            @mqtrio.hookimpl
            async def start(self, event):
                interrupt()
                await trio.sleep_forever()
        try:
            with open_thread_broker([], plugins=[Slow()]):
                pass
        except KeyboardInterrupt:
            print("interrupted")
        names = [each.name for each in threading.enumerate()]
        assert "mqtrio broker" not in names, names
        check()
    """,
    "a fork": """
        import warnings
        import mqtrio
        warnings.simplefilter("ignore", DeprecationWarning)
        status = None
        with open_thread_broker("mqtt://127.0.0.1:0") as broker:
            child = os.fork()
            if not child:
                signal.alarm(20)
                try:
                    broker.publish("a", "b")
                except mqtrio.BrokerStopped as error:
                    assert "forked" in str(error), error
                    status = 7
        if not child:
            os._exit(status or 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        check()
    """,
    "threads, never left": """
        opening = open_thread_broker("mqtt://127.0.0.1:0")
        broker = opening.__enter__()
        broker.publish("a", "b")
        print("end")
    """,
}


def dedented(text: str) -> str:
    return "\n".join(line.removeprefix("        ") for line in text.splitlines())


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_ends_in_silence(name: str, kind: str, tmp_path: Path) -> None:
    if kind == "uvloop" and sys.platform == "win32":
        pytest.skip("only on systems with uvloop")
    if "Ctrl-C" in name and sys.platform == "win32":
        pytest.skip("only on systems with signals")
    if name == "a fork" and not hasattr(os, "fork"):
        pytest.skip("only on systems with fork")
    program = tmp_path / "program.py"
    program.write_text(START + dedented(PROGRAMS[name]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", program, kind],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    errors = "\n".join(
        line
        for line in done.stderr.splitlines()
        # A loop that its program never closes is the program's, and Python says so.
        if not (name == "never closed" and "unclosed" in line)
    )
    assert (done.returncode, errors) == (0, "")
    assert done.stdout.split() == (["interrupted", "end"] if "Ctrl-C" in name else ["end"])
