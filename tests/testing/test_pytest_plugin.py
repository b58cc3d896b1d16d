"""The fixtures for pytest, in pytests of their own."""

import re
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")

STRICT = """
[pytest]
filterwarnings = error
addopts = --strict-markers --strict-config -p no:hypothesispytest -p no:anyio
"""

ASYNCIO = STRICT + "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
TRIO = STRICT.replace("-p no:anyio", "-p no:anyio -p no:asyncio") + "trio_mode = true\n"
SYNC = STRICT.replace("-p no:anyio", "-p no:anyio -p no:asyncio")


def run(pytester: pytest.Pytester, ini: str, text: str, *arguments: str) -> pytest.RunResult:
    pytester.makefile(".ini", pytest=ini)
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess(*arguments)


def test_unused_it_imports_nothing(pytester: pytest.Pytester) -> None:
    text = """
    import sys

    def test_nothing(request):
        assert request.config.pluginmanager.hasplugin("mqtrio")
        inside = {name for name in sys.modules if name.split(".")[0] == "mqtrio"}
        assert inside == {"mqtrio", "mqtrio.pytest_plugin"}
        assert not {"trio", "attrs", "pluggy._nothing", "cattrs"} & set(sys.modules)
    """
    # pytest-trio imports Trio, whether it is used or not.
    result = run(pytester, SYNC, text, "-p", "no:trio", "-p", "no:xdist")
    result.assert_outcomes(passed=1)


def test_a_sync_test(pytester: pytest.Pytester) -> None:
    text = """
    import paho.mqtt.client
    import paho.mqtt.publish
    import pytest

    def test_messages(mqtt_broker):
        assert mqtt_broker.url == f"mqtt://127.0.0.1:{mqtt_broker.port}"
        for text in ("one", "two"):
            paho.mqtt.publish.single("a/b", text, 1, port=mqtt_broker.port)
        assert mqtt_broker.wait_for("a/+").payload == b"one"
        assert mqtt_broker.wait_for("#").payload == b"two"
        assert [message.topic for message in mqtt_broker.messages] == ["a/b", "a/b"]
        with pytest.raises(AssertionError, match="for 'a/b' in 0.01 s; there were 'a/b'"):
            mqtt_broker.wait_for("a/b", timeout=0.01)

    def test_another_broker(mqtt_broker):
        assert mqtt_broker.messages == []

    def test_a_client_that_is_left_connected(mqtt_broker):
        client = paho.mqtt.client.Client(paho.mqtt.client.CallbackAPIVersion.VERSION2)
        client.connect(mqtt_broker.host, mqtt_broker.port)
        client.loop_start()
        mqtt_broker.publish("a", "b")
        mqtt_broker.wait_for("a")
        client.loop_stop()
        mqtt_broker.client = client

    def test_publishing_is_not_watched_by_a_subscriber(mqtt_broker):
        assert not mqtt_broker.publish("a/b", "c", qos=1).matched
        assert mqtt_broker.clients() == []
    """
    run(pytester, SYNC, text, "-W", "ignore::ResourceWarning").assert_outcomes(passed=4)


def test_options(pytester: pytest.Pytester) -> None:
    text = """
    import mqtrio
    import pytest

    class Nobody:
        @mqtrio.hookimpl
        def authorize_publish(self, event):
            return mqtrio.Deny()

    @pytest.fixture
    def mqtt_broker_options():
        return {"plugins": [Nobody()], "session": {"owner": "any"}}

    def test_fixture(mqtt_broker):
        assert "Nobody" in mqtt_broker.plugins
        with pytest.raises(mqtrio.RefusedError):
            mqtt_broker.publish("a")

    @pytest.mark.mqtt_broker(plugins=[])
    class TestMarkers:
        def test_of_the_class(self, mqtt_broker):
            mqtt_broker.publish("a")

        @pytest.mark.mqtt_broker(plugins=[Nobody()], limits={"topic_levels": 2})
        def test_the_nearest_one_wins(self, mqtt_broker):
            with pytest.raises(mqtrio.RefusedError, match="0x87"):
                mqtt_broker.publish("a")
            with pytest.raises(mqtrio.RefusedError, match="0x90"):
                mqtt_broker.publish("a/b/c")

    @pytest.mark.mqtt_broker(limits={"nothing": 2})
    def test_a_mistake(mqtt_broker):
        pass
    """
    result = run(pytester, SYNC, text)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*InvalidSettings*limits.nothing*"])


def test_the_session_form(pytester: pytest.Pytester) -> None:
    text = """
    import pytest

    @pytest.fixture(scope="session")
    def mqtt_broker_session_options():
        return {"limits": {"topic_levels": 3}}

    PORTS = set()

    def test_one(mqtt_broker_session):
        PORTS.add(mqtt_broker_session.port)
        mqtt_broker_session.publish("a", "b", retain=True)

    def test_two(mqtt_broker_session):
        PORTS.add(mqtt_broker_session.port)
        assert len(PORTS) == 1
        assert [message.topic for message in mqtt_broker_session.messages] == ["a"]
        mqtt_broker_session.clear()
        assert mqtt_broker_session.messages == mqtt_broker_session.retained() == []

    def test_beside_the_other(mqtt_broker, mqtt_broker_session):
        assert mqtt_broker.port != mqtt_broker_session.port
    """
    run(pytester, SYNC, text).assert_outcomes(passed=3)


def test_with_pytest_asyncio(pytester: pytest.Pytester) -> None:
    text = """
    import asyncio
    import aiomqtt
    import pytest

    async def test_messages(mqtt_broker):
        async with aiomqtt.Client(mqtt_broker.host, mqtt_broker.port) as client:
            waiting = asyncio.create_task(mqtt_broker.wait_for_async("a/+"))
            await client.subscribe("b")
            await client.publish("a/b", "one")
            assert (await waiting).payload == b"one"
            mqtt_broker.publish("b", "two")
            assert (await anext(aiter(client.messages))).payload == b"two"

    async def test_giving_up(mqtt_broker):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await mqtt_broker.wait_for_async("a", timeout=1000)
        with pytest.raises(AssertionError, match="none at all"):
            await mqtt_broker.wait_for_async("a", timeout=0.01)

    async def test_session(mqtt_broker_session):
        mqtt_broker_session.publish("a")
        await mqtt_broker_session.wait_for_async("a")
    """
    run(pytester, ASYNCIO, text).assert_outcomes(passed=3)


def test_with_pytest_trio(pytester: pytest.Pytester) -> None:
    text = """
    import pytest
    import trio

    async def test_messages(mqtt_broker, nursery):
        async def later():
            stream = await trio.open_tcp_stream(mqtt_broker.host, mqtt_broker.port)
            async with stream:
                await stream.send_all(bytes.fromhex("100d00044d5154540402003c000141"))
                assert (await stream.receive_some())[:1] == b" "
                await stream.send_all(bytes.fromhex("30060003612f6278"))
                await stream.send_all(bytes.fromhex("e000"))
                await stream.receive_some()

        nursery.start_soon(later)
        message = await mqtt_broker.wait_for_async("a/+")
        assert (message.payload, message.client_id) == (b"x", "A")

    async def test_giving_up(mqtt_broker):
        with trio.move_on_after(0.01) as scope:
            await mqtt_broker.wait_for_async("a", timeout=1000)
        assert scope.cancelled_caught

    def test_sync(mqtt_broker):
        mqtt_broker.publish("a")
        mqtt_broker.wait_for("a")
    """
    run(pytester, TRIO, text).assert_outcomes(passed=3)


def test_with_anyio(pytester: pytest.Pytester) -> None:
    text = """
    import pytest

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_messages(mqtt_broker, anyio_backend):
        mqtt_broker.publish("a", anyio_backend)
        message = await mqtt_broker.wait_for_async("a")
        assert message.payload.decode() == anyio_backend
    """
    ini = STRICT.replace("-p no:anyio", "-p no:asyncio")
    run(pytester, ini, text).assert_outcomes(passed=2)


def test_with_xdist(pytester: pytest.Pytester) -> None:
    text = """
    import pytest

    @pytest.mark.parametrize("number", range(6))
    def test_many(mqtt_broker, mqtt_broker_session, number):
        mqtt_broker.publish("a", str(number))
        assert mqtt_broker.wait_for("a").payload == str(number).encode()
        mqtt_broker_session.publish("a")
    """
    run(pytester, SYNC, text, "-n", "2").assert_outcomes(passed=6)


def test_the_page_is_right(pytester: pytest.Pytester) -> None:
    (code,) = re.findall(r"<!-- pytest -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    run(pytester, SYNC, code).assert_outcomes(passed=2)


def test_how_fast_a_client_is_answered(pytester: pytest.Pytester) -> None:
    """The figure is printed (-s); only its order is asserted, as machines may be busy."""
    text = """
    import socket
    import time
    import pytest

    @pytest.fixture
    def began():
        return time.perf_counter()

    @pytest.mark.parametrize("number", range(5))
    def test_connect(began, mqtt_broker, number):
        with socket.create_connection((mqtt_broker.host, mqtt_broker.port)) as connection:
            connection.sendall(bytes.fromhex("100d00044d5154540402003c000141"))
            assert connection.recv(4)[0] == 0x20
            took = time.perf_counter() - began
            print(f"CONNECT answered after {1000 * took:.1f} ms")
            connection.sendall(bytes.fromhex("e000"))
            assert connection.recv(1) == b""
        assert took < 1
    """
    result = run(pytester, SYNC, text, "-s")
    result.assert_outcomes(passed=5)
    for line in result.outlines:
        if "CONNECT answered" in line:
            sys.stdout.write(line + "\n")
