"""The plugin in a broker: configured, over restarts, and when it can't start."""

from pathlib import Path
from typing import Any

import pytest

from mqtrio import (
    ConfigurationError,
    PluginError,
    ReconfigureEvent,
    load_config,
    open_broker,
)
from mqtrio_sqlite import SqlitePlugin, SqliteSettings


def plugin(path: Path, **values: Any) -> SqlitePlugin:
    return SqlitePlugin(SqliteSettings(path=path, **values), name="sqlite")


async def test_a_configuration_enables_it(tmp_path: Path) -> None:
    """A relative path is relative to the folder of the configuration."""
    file = tmp_path / "mqtrio.toml"
    file.write_text('[plugin.sqlite]\npath = "broker.db"\n')
    for expected in ([], [b"1"]):
        async with open_broker([], config=load_config(file)) as broker:
            async with broker.subscribe("a") as messages:
                if expected:
                    assert [(await messages.receive()).payload] == expected
                else:
                    await broker.publish("a", b"1", qos=1, retain=True)
    assert (tmp_path / "broker.db").exists()


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_durable_session_over_restarts(tmp_path: Path, writer: str, qos: int) -> None:
    path = tmp_path / "broker.db"
    async with open_broker([], plugins=[plugin(path, writer=writer)]) as broker:
        async with broker.subscribe("a/#", session="worker", qos=2):
            pass
        for number in range(50):
            await broker.publish(f"a/{number}", str(number), qos=qos)
    async with open_broker([], plugins=[plugin(path, writer=writer)]) as broker:
        async with broker.subscribe("a/#", session="worker", qos=2) as messages:
            for number in range(50):
                message = await messages.receive()
                assert message.payload == b"%d" % number
                await message.ack()
        assert broker.end_session(broker.sessions()[0].client_id)
    async with open_broker([], plugins=[plugin(path, writer=writer)]) as broker:
        assert broker.sessions() == []


async def test_two_brokers_at_one_file(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "broker.db"
    async with open_broker([], plugins=[plugin(path, writer=writer)]):
        with pytest.raises(PluginError, match=r"plugin 'sqlite'.*another program holds it"):
            async with open_broker([], plugins=[plugin(path, writer=writer, busy_timeout=0.05)]):
                raise AssertionError("not reached")


async def test_settings_that_change_while_it_runs(tmp_path: Path) -> None:
    one = plugin(tmp_path / "a.db")
    put_in_force = one.reconfigure(ReconfigureEvent(SqliteSettings(path=tmp_path / "a.db")))
    put_in_force()
    with pytest.raises(ConfigurationError, match="restart"):
        one.reconfigure(ReconfigureEvent(SqliteSettings(path=tmp_path / "b.db")))
