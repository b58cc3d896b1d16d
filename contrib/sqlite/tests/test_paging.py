"""Queues larger than memory, with a real database: nothing read at start, all of it in order."""

from pathlib import Path
from typing import Any

from mqtrio import open_broker
from mqtrio_sqlite import SqlitePlugin, SqliteSettings

#: So little in memory that a queue is many pages.
LIMITS: dict[str, Any] = {"window_messages": 20, "page_messages": 10}


def plugin(path: Path, **values: Any) -> SqlitePlugin:
    return SqlitePlugin(SqliteSettings(path=path, **values), name="sqlite")


async def test_many_sessions_with_unread_queues_over_a_restart(path: Path, writer: str) -> None:
    names = [f"worker {number}" for number in range(20)]
    async with open_broker([], plugins=[plugin(path, writer=writer)], limits=LIMITS) as broker:
        for name in names:
            async with broker.subscribe("a", session=name, qos=1):
                pass
        for number in range(60):
            await broker.publish("a", str(number), qos=1)
        memory = broker.statistics().memory
    async with open_broker([], plugins=[plugin(path, writer=writer)], limits=LIMITS) as broker:
        assert [info.waiting for info in broker.sessions()] == [60] * 20
        assert broker.statistics().memory < memory < 20 * 60 * 200
        async with broker.subscribe("a", session=names[3], qos=1) as messages:
            await broker.publish("a", "60", qos=1)
            for number in range(61):
                message = await messages.receive(timeout=30)
                assert message.payload == b"%d" % number
                message.ack()
        for info in broker.sessions()[:10]:
            assert broker.end_session(info.client_id)
    async with open_broker([], plugins=[plugin(path, writer=writer)], limits=LIMITS) as broker:
        assert len(broker.sessions()) == 10
        assert {info.waiting for info in broker.sessions()} == {61}
