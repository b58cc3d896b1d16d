"""A broker in a thread of its own: what its blocking colour promises."""

import threading
from concurrent.futures import ThreadPoolExecutor

import paho.mqtt.client as paho
import pytest
import trio
from paho.mqtt.enums import CallbackAPIVersion

import mqtrio
from mqtrio.embed import BlockingBroker, open_thread_broker
from mqtrio.embed.threads import BATCH


def test_publish_subscribe_and_the_rest() -> None:
    with open_thread_broker("mqtt://127.0.0.1:0") as broker:
        with broker.subscribe("a/+", "b", qos=1, timeout=0.01) as messages:
            assert broker.publish("a/1", "one", qos=1).matched
            broker.publish("b", b"two", qos=1)
            assert broker.statistics().subscriptions == 2
            assert [message.payload for message in messages] == [b"one", b"two"]
            broker.publish("b", "three")
            assert messages.receive(timeout=5).payload == b"three"
            assert messages.dropped == 0
        broker.publish("kept", "1", retain=True)
        assert [message.topic for message in broker.retained()] == ["kept"]
        assert broker.clients() == []
        assert broker.statistics().subscriptions == 0
        assert dict(broker.plugins) == {}


def test_a_request_answered_by_another_thread() -> None:
    ready = threading.Event()

    def answer(broker: BlockingBroker) -> None:
        with broker.subscribe("double") as requests:
            ready.set()
            request = requests.receive(timeout=5)
            assert request.response_topic is not None
            broker.publish(
                request.response_topic,
                str(2 * int(request.payload)),
                correlation_data=request.correlation_data,
            )

    with open_thread_broker([]) as broker, ThreadPoolExecutor() as pool:
        answering = pool.submit(answer, broker)
        assert ready.wait(5)
        assert broker.request("double", "21", timeout=5).payload == b"42"
        answering.result()


def test_a_client_over_the_network() -> None:
    with open_thread_broker("mqtt://127.0.0.1:0") as broker:
        client = paho.Client(CallbackAPIVersion.VERSION2, "ann")
        client.connect("127.0.0.1", broker.listeners[0].port)
        client.loop_start()
        with broker.subscribe("from/ann") as messages:
            client.publish("from/ann", "hello", qos=1)
            message = messages.receive(timeout=5)
            assert (message.payload, message.publisher) == (b"hello", "ann")
        assert [each.client_id for each in broker.clients()] == ["ann"]
        client.disconnect()
        client.loop_stop()


def test_several_threads_publish_and_take() -> None:
    count = 400
    with open_thread_broker([]) as broker, broker.subscribe("n", timeout=0.5) as messages:
        with ThreadPoolExecutor(8) as pool:
            takers = [pool.submit(lambda: [int(m.payload) for m in messages]) for _ in range(4)]
            list(pool.map(lambda n: broker.publish("n", str(n)), range(count)))
            taken = [taker.result() for taker in takers]
    assert sorted(number for some in taken for number in some) == list(range(count))


def test_more_than_one_batch_in_order() -> None:
    with open_thread_broker([]) as broker, broker.subscribe("n", timeout=0.01) as messages:
        for number in range(2 * BATCH + 10):
            broker.publish("n", str(number))
        assert [int(each.payload) for each in messages] == list(range(2 * BATCH + 10))


def test_a_durable_session() -> None:
    with open_thread_broker([]) as broker:
        with broker.subscribe("orders/#", session="billing") as orders:
            broker.publish("orders/1", qos=1)
            broker.publish("orders/2", qos=1)
            orders.receive(timeout=5).ack()
            orders.receive(timeout=5)
        with broker.subscribe("orders/#", session="billing", timeout=0.01) as orders:
            assert [message.topic for message in orders] == ["orders/2"]


def test_exceptions_come_as_they_are() -> None:
    class Never:
        @mqtrio.hookimpl
        def authorize_publish(self, event: mqtrio.PublishEvent) -> mqtrio.Deny:
            return mqtrio.Deny()

    with open_thread_broker([], plugins=[Never()]) as broker:
        with pytest.raises(mqtrio.RefusedError) as refused:
            broker.publish("a")
        assert refused.value.reason_code is mqtrio.ReasonCode.NOT_AUTHORIZED
        with pytest.raises(mqtrio.RefusedError), broker.subscribe("a/#/b"):
            pass
        with broker.subscribe("a") as messages, pytest.raises(trio.TooSlowError):
            messages.receive(timeout=0.01)
        with pytest.raises(ValueError, match="reason code"):
            broker.disconnect("ann", 0)
        name = broker.add_plugin(Never(), "again")
        assert list(broker.plugins) == ["Never", "again"]
        broker.remove_plugin(name)
    with pytest.raises(KeyError, match="mine"), open_thread_broker([]):
        raise KeyError("mine")


def test_errors_of_the_start() -> None:
    class Broken:
        @mqtrio.hookimpl
        def start(self, event: mqtrio.StartEvent) -> None:
            raise OSError("no such file")

    with pytest.raises(mqtrio.ConfigurationError), open_thread_broker("gopher://127.0.0.1:70"):
        pass
    with pytest.raises(mqtrio.PluginError), open_thread_broker([], plugins=[Broken()]):
        pass
    with pytest.raises(mqtrio.ConfigurationError), open_thread_broker([], limits={"no": 1}):
        pass
    assert not [each for each in threading.enumerate() if each.name == "mqtrio broker"]


def test_trio_itself_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(main: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("trio.run", run)
    with pytest.raises(OSError, match="Too many open files"):
        with open_thread_broker([]):
            pass


def test_leaving_ends_who_still_calls() -> None:
    ready = threading.Event()

    def listen(broker: BlockingBroker) -> None:
        with broker.subscribe("a") as messages:
            ready.set()
            messages.receive()

    with ThreadPoolExecutor() as pool:
        with open_thread_broker([]) as broker:
            listening = pool.submit(listen, broker)
            stopping = pool.submit(broker.wait_stopped)
            assert ready.wait(5)
        for each in (listening, stopping):
            with pytest.raises(mqtrio.BrokerStopped):
                each.result(5)
    with pytest.raises(mqtrio.BrokerStopped):
        broker.publish("a")
    with pytest.raises(mqtrio.BrokerStopped):
        broker.clients()
    with pytest.raises(mqtrio.BrokerStopped), broker.subscribe("a"):
        pass
    assert not [each for each in threading.enumerate() if each.name == "mqtrio broker"]


def break_down(broker: BlockingBroker) -> None:
    error = RuntimeError("out of order")
    broker._thread._ask(lambda: broker._thread.running.abort(error))
    with broker.subscribe("a") as messages:
        messages.receive()


def test_a_broker_that_ends_by_itself() -> None:
    with pytest.raises(RuntimeError, match="out of order"), open_thread_broker([]) as broker:
        break_down(broker)


def test_it_is_said_beside_another_error() -> None:
    def block() -> None:
        with open_thread_broker([]) as broker:
            with pytest.raises(mqtrio.BrokerStopped):
                break_down(broker)
            raise KeyError("mine")

    with pytest.raises(KeyError) as raised:
        block()
    assert "out of order" in raised.value.__notes__[0]


def test_its_own_thread_must_not_wait_for_itself() -> None:
    raised: list[BaseException] = []

    class Plugin:
        @mqtrio.hookimpl
        def published(self, event: mqtrio.PublishEvent) -> None:
            try:
                broker.clients()
            except RuntimeError as error:
                raised.append(error)

    with open_thread_broker([], plugins=[Plugin()]) as broker:
        broker.publish("a")
    assert "wait for itself" in str(raised)


def test_two_brokers_know_nothing_of_each_other() -> None:
    with open_thread_broker([]) as one, open_thread_broker([]) as two:
        one.publish("a", "1", retain=True)
        assert two.retained() == []


async def test_from_a_trio_program() -> None:
    """Its Trio is another one; the calls block, so they belong into threads."""

    def work() -> list[str]:
        with open_thread_broker([]) as broker:
            broker.publish("a", "1", retain=True)
            return [message.topic for message in broker.retained()]

    assert await trio.to_thread.run_sync(work) == ["a"]
