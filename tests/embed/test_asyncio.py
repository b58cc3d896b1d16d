"""A broker inside of asyncio: what its colour promises, on both loops."""

import asyncio
import logging
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import aiomqtt
import pytest
import sniffio
import trio

import mqtrio
from mqtrio.embed import AsyncioBroker, open_asyncio_broker, open_thread_broker
from tests.embed.kit import LOOPS, run, until


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Any:
    """`loop(main)` runs a program to its end; asyncio has nothing to complain of."""
    with caplog.at_level(logging.ERROR, "asyncio"):
        yield lambda main: run(request.param, main)
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_another_thread_is_told_so(loop: Any) -> None:
    async def main() -> None:
        async with open_asyncio_broker([]) as broker:

            def subscribe() -> None:
                broker.subscribe("a")

            for call in (broker.clients, broker.stop, subscribe):
                with pytest.raises(RuntimeError, match="run_coroutine_threadsafe"):
                    await asyncio.to_thread(call)

            def publish() -> None:
                asyncio.run(broker.publish("a", "b"))

            with pytest.raises(RuntimeError, match="run_coroutine_threadsafe"):
                await asyncio.to_thread(publish)
            assert broker.clients() == []

    loop(main)


def test_publish_subscribe_request_and_the_rest(loop: Any) -> None:
    async def answer(broker: AsyncioBroker, ready: asyncio.Event) -> None:
        async with broker.subscribe("double") as requests:
            ready.set()
            request = await requests.receive(timeout=5)
            assert request.response_topic is not None
            await broker.publish(
                request.response_topic,
                str(2 * int(request.payload)),
                correlation_data=request.correlation_data,
            )

    async def main() -> None:
        async with open_asyncio_broker("mqtt://127.0.0.1:0") as broker:
            async with broker.subscribe("a/+", "b", qos=1) as messages:
                result = await broker.publish("a/1", "one", qos=1)
                assert result.matched
                await broker.publish("b", b"two", qos=1)
                assert [(await messages.receive()).payload for _ in range(2)] == [b"one", b"two"]
                assert broker.statistics().subscriptions == 2
            ready = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(answer(broker, ready))
                await ready.wait()
                response = await broker.request("double", "21", timeout=5)
            assert response.payload == b"42"
            await broker.publish("kept", "1", retain=True)
            assert [message.topic for message in broker.retained()] == ["kept"]
            assert broker.clients() == []
            assert broker.statistics().subscriptions == 0

    loop(main)


def test_a_client_over_the_network(loop: Any) -> None:
    async def main() -> None:
        async with open_asyncio_broker("mqtt://127.0.0.1:0") as broker:
            port = broker.listeners[0].port
            async with (
                aiomqtt.Client("127.0.0.1", port, identifier="ann") as client,
                broker.subscribe("from/ann") as messages,
            ):
                await client.subscribe("to/ann")
                assert [each.client_id for each in broker.clients()] == ["ann"]
                await broker.publish("to/ann", "hello")
                assert (await anext(aiter(client.messages))).payload == b"hello"
                await client.publish("from/ann", "thanks", qos=1)
                message = await messages.receive(timeout=5)
                assert (message.payload, message.publisher) == (b"thanks", "ann")
                assert broker.disconnect("ann")
                with pytest.raises(aiomqtt.MqttError):
                    await anext(aiter(client.messages))

    loop(main)


def test_a_durable_session(loop: Any) -> None:
    async def main() -> None:
        async with open_asyncio_broker([]) as broker:
            async with broker.subscribe("orders/#", session="billing") as orders:
                await broker.publish("orders/1", qos=1)
                await broker.publish("orders/2", qos=1)
                await (await orders.receive()).ack()
                await orders.receive()
            async with broker.subscribe("orders/#", session="billing", timeout=0.01) as orders:
                assert [message.topic async for message in orders] == ["orders/2"]

    loop(main)


def test_brokers_of_one_thread_share_one_run(loop: Any) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            brokers = [
                await stack.enter_async_context(open_asyncio_broker("mqtt://127.0.0.1:0"))
                for _ in range(3)
            ]
            root = trio.lowlevel.current_root_task()
            subscriber = await stack.enter_async_context(brokers[0].subscribe("#"))
            for number, broker in enumerate(brokers):
                await broker.publish("n", str(number))
            assert (await subscriber.receive()).payload == b"0"  # and not the others'
            assert len({broker.listeners[0].port for broker in brokers}) == 3
            async with open_asyncio_broker([]):
                assert trio.lowlevel.current_root_task() is root
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_root_task()  # the run has ended with the last one
        for _ in range(3):
            async with open_asyncio_broker([]) as broker:
                await broker.publish("a")

    loop(main)


def test_opened_while_the_last_one_closes(loop: Any) -> None:
    async def once() -> None:
        async with open_asyncio_broker([]) as broker:
            await broker.publish("a")

    async def main() -> None:
        tasks = [asyncio.create_task(once()) for _ in range(5)]
        for _ in range(20):
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(once()))
        await asyncio.gather(*tasks)

    loop(main)


class Fussy:
    """Refuses some topics, thinks about others for ever, and remembers where it was asked."""

    def __init__(self) -> None:
        self.libraries: list[str] = []
        self.asked = threading.Event()
        self.cancelled = 0

    @mqtrio.hookimpl
    async def authorize_publish(self, event: mqtrio.PublishEvent) -> mqtrio.Allow | mqtrio.Deny:
        self.libraries.append(sniffio.current_async_library())
        self.asked.set()
        if event.topic == "thinking":
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.cancelled += 1
                raise
        await trio.lowlevel.checkpoint()
        return mqtrio.Deny() if event.topic == "forbidden" else mqtrio.Allow()


def test_hooks_run_in_trio(loop: Any) -> None:
    fussy = Fussy()

    async def main() -> None:
        assert sniffio.current_async_library() == "asyncio"
        async with open_asyncio_broker([], plugins=[fussy]) as broker:
            await broker.publish("a")
            assert sniffio.current_async_library() == "asyncio"

    loop(main)
    assert fussy.libraries == ["trio"]


def test_exceptions_come_as_they_are(loop: Any) -> None:
    async def main() -> None:
        async with open_asyncio_broker([], plugins=[Fussy()]) as broker:
            with pytest.raises(mqtrio.RefusedError) as refused:
                await broker.publish("forbidden")
            assert refused.value.reason_code is mqtrio.ReasonCode.NOT_AUTHORIZED
            with pytest.raises(ValueError, match="qos"):
                await broker.publish("a", qos=3)
            with pytest.raises(mqtrio.RefusedError):
                async with broker.subscribe("a/#/b"):
                    pass
            with pytest.raises(trio.TooSlowError):
                await broker.request("nobody", timeout=0.01)
            async with broker.subscribe("a") as messages:
                with pytest.raises(trio.TooSlowError):
                    await messages.receive(timeout=0.01)
        with pytest.raises(KeyError, match="mine"):
            async with open_asyncio_broker([]):
                raise KeyError("mine")

    loop(main)


def test_errors_of_the_start(loop: Any) -> None:
    class Broken:
        @mqtrio.hookimpl
        def start(self, event: mqtrio.StartEvent) -> None:
            raise OSError("no such file")

    async def main() -> None:
        with pytest.raises(mqtrio.ConfigurationError):
            async with open_asyncio_broker("gopher://127.0.0.1:70"):
                pass
        with pytest.raises(mqtrio.PluginError):
            async with open_asyncio_broker([], plugins=[Broken()]):
                pass
        async with open_asyncio_broker("mqtt://127.0.0.1:0") as broker:
            with pytest.raises(OSError):  # noqa: PT011 - the text is the system's
                async with open_asyncio_broker(f"mqtt://127.0.0.1:{broker.listeners[0].port}"):
                    pass
            await broker.publish("a")  # the other one goes on

    loop(main)


def test_cancelling_a_call_cancels_it_in_trio(loop: Any) -> None:
    fussy = Fussy()

    async def main() -> None:
        async with open_asyncio_broker([], plugins=[fussy]) as broker:
            publishing = asyncio.create_task(broker.publish("thinking"))
            await until(fussy.asked.is_set)
            publishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await publishing
            assert fussy.cancelled == 1
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await broker.publish("thinking")
            assert fussy.cancelled == 2
            await broker.publish("other")

    loop(main)


def test_being_cancelled_loses_no_message(loop: Any) -> None:
    async def main() -> None:
        async with open_asyncio_broker([]) as broker, broker.subscribe("count") as messages:
            got: list[int] = []

            async def take() -> None:
                while True:
                    got.append(int((await messages.receive()).payload))

            for number in range(50):
                task = asyncio.create_task(take())
                await broker.publish("count", str(number))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            while len(got) < 50:
                got.append(int((await messages.receive(timeout=5)).payload))
            assert got == list(range(50))

    loop(main)


def test_subscribing_that_is_cancelled_leaves_nothing_behind(loop: Any) -> None:
    async def main() -> None:
        async with open_asyncio_broker([]) as broker:

            async def listen() -> None:
                async with broker.subscribe("a"):
                    await asyncio.Event().wait()

            for turns in range(30):
                task = asyncio.create_task(listen())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await until(lambda: not broker.statistics().subscriptions)

    loop(main)


def test_opening_that_is_cancelled(loop: Any) -> None:
    async def opened() -> None:
        async with open_asyncio_broker([]) as broker:
            await broker.publish("a")

    async def main() -> None:
        for turns in range(40):
            task = asyncio.create_task(opened())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            with pytest.raises(RuntimeError):
                trio.lowlevel.current_root_task()

    loop(main)


def test_leaving_ends_who_still_calls(loop: Any) -> None:
    async def main() -> None:
        async with open_asyncio_broker([]) as broker:
            ready = asyncio.Event()

            async def listen() -> None:
                async with broker.subscribe("a") as messages:
                    ready.set()
                    await messages.receive()

            listening = asyncio.create_task(listen())
            stopping = asyncio.create_task(broker.wait_stopped())
            await ready.wait()
        for task in (listening, stopping):
            with pytest.raises(mqtrio.BrokerStopped):
                await task
        with pytest.raises(mqtrio.BrokerStopped):
            await broker.publish("a")
        with pytest.raises(mqtrio.BrokerStopped):
            broker.statistics()

    loop(main)


def test_a_broker_that_ends_by_itself_ends_the_block(loop: Any) -> None:
    async def block() -> None:
        async with open_asyncio_broker([]) as broker:
            broker._running.abort(RuntimeError("out of order"))
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(RuntimeError, match="out of order"):
            await block()
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    loop(main)


def test_contexts_of_callers_reach_hooks(loop: Any) -> None:
    import contextvars

    who = contextvars.ContextVar("who", default="nobody")
    seen = []

    class Plugin:
        @mqtrio.hookimpl
        def published(self, event: mqtrio.PublishEvent) -> None:
            seen.append(who.get())

    async def main() -> None:
        async with open_asyncio_broker([], plugins=[Plugin()]) as broker:
            who.set("ann")
            await broker.publish("a")

    loop(main)
    assert seen == ["ann"]


async def test_inside_of_trio_it_is_refused() -> None:
    opening = open_asyncio_broker([])
    coroutine: Coroutine[Any, Any, Any] = opening.__aenter__()
    with pytest.raises(RuntimeError):
        await coroutine


def test_two_threads_have_a_run_each() -> None:
    async def main(barrier: threading.Barrier, roots: list[object]) -> None:
        async with open_asyncio_broker([]) as broker:
            roots.append(trio.lowlevel.current_root_task())
            await asyncio.to_thread(barrier.wait, 10)
            await broker.publish("a")

    barrier, roots = threading.Barrier(2), list[object]()
    threads = [
        threading.Thread(target=run, args=("asyncio", partial(main, barrier, roots)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(roots)) == 2


def test_both_colours_in_one_program() -> None:
    async def main() -> None:
        async with open_asyncio_broker([]) as ours:
            with open_thread_broker([]) as theirs:
                await ours.publish("a", "1", retain=True)
                await asyncio.to_thread(theirs.publish, "b", "1", retain=True)
                assert [each.topic for each in theirs.retained()] == ["b"]
            assert [each.topic for each in ours.retained()] == ["a"]

    run("asyncio", main)
