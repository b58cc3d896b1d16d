"""aiomqtt: the asyncio client of many Python programs."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiomqtt import Client, Message, MqttError, ProtocolVersion, Will
from paho.mqtt.packettypes import PacketTypes

from tests.clients.paho_peer import EXPIRY, properties
from tests.clients.serving import MIB, PATIENCE, Running, topic
from tests.conformance.peer import unique

VERSIONS = (ProtocolVersion.V31, ProtocolVersion.V311, ProtocolVersion.V5)
Make = Callable[..., Client]


@pytest.fixture(params=VERSIONS, ids=["3.1", "3.1.1", "5"])
def make(broker: Running, request: pytest.FixtureRequest) -> Make:
    """Makes clients of one version; `resume` as in paho_peer."""
    version: ProtocolVersion = request.param

    def made(*, resume: bool = False, **arguments: Any) -> Client:
        if version != ProtocolVersion.V5:
            arguments["clean_session"] = not resume
        elif resume:
            arguments["clean_start"] = False
            arguments["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=EXPIRY)
        arguments.setdefault("identifier", unique())
        return Client(broker.host, broker.port, protocol=version, timeout=PATIENCE, **arguments)

    return made


def run(script: Callable[[], Awaitable[None]]) -> None:
    """Run a script on asyncio, for so long as anything may take."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await script()

    asyncio.run(bounded())


async def receive(client: Client) -> Message:
    async for message in client.messages:
        return message
    raise AssertionError("no more messages")


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_round_trip(make: Make, qos: int) -> None:
    name = topic()

    async def script() -> None:
        async with make() as subscriber, make() as publisher:
            await subscriber.subscribe(f"{name}/+", qos=qos)
            for number in range(100):
                await publisher.publish(f"{name}/{number}", number, qos)
            for number in range(100):
                message = await receive(subscriber)
                assert message.topic.value == f"{name}/{number}"
                assert message.payload == str(number).encode()
                assert message.qos == qos

    run(script)


def test_retained_and_will(make: Make) -> None:
    """Presence: "online" is retained, and the will replaces it."""
    name = topic("presence")

    async def script() -> None:
        async with make() as watcher:
            will = Will(name, b"offline", qos=1, retain=True)
            with suppress(MqttError):  # that it was cut off
                async with make(will=will) as client:
                    await client.publish(name, b"online", 1, retain=True)
                    await watcher.subscribe(name, qos=1)
                    message = await receive(watcher)
                    assert (message.payload, message.retain) == (b"online", True)
                    sock = client._client.socket()
                    assert isinstance(sock, socket.socket)
                    sock.shutdown(socket.SHUT_RDWR)
                    message = await receive(watcher)
                    assert (message.payload, message.retain) == (b"offline", False)
            await watcher.publish(name, b"", 1, retain=True)

    run(script)


@pytest.mark.parametrize("qos", [1, 2])
def test_resume_with_queued_messages(make: Make, qos: int) -> None:
    name, identifier = topic(), unique()

    async def script() -> None:
        async with make(identifier=identifier, resume=True) as client:
            await client.subscribe(name, qos=qos)
        async with make() as publisher:
            for number in range(50):
                await publisher.publish(name, number, qos)
        async with make(identifier=identifier, resume=True) as client:
            got = [(await receive(client)).payload for _ in range(50)]
            assert got == [str(number).encode() for number in range(50)]
        async with make(identifier=identifier):
            pass  # ends the session

    run(script)


def test_shared_subscription(make: Make) -> None:
    name, count = topic(), 60

    async def script() -> None:
        got: Counter[bytes] = Counter()
        shares = [0, 0]
        complete = asyncio.Event()

        async def work(member: Client, number: int) -> None:
            async for message in member.messages:
                assert isinstance(message.payload, bytes)
                got[message.payload] += 1
                shares[number] += 1
                if got.total() >= count:
                    complete.set()

        async with make() as one, make() as two, make() as publisher:
            async with asyncio.TaskGroup() as tasks:
                workers = []
                for number, member in enumerate((one, two)):
                    await member.subscribe(f"$share/workers/{name}", qos=1)
                    workers.append(tasks.create_task(work(member, number)))
                for number in range(count):
                    await publisher.publish(name, number, 1)
                await complete.wait()
                for worker in workers:
                    worker.cancel()
        assert got == Counter(str(number).encode() for number in range(count))
        assert all(shares)

    run(script)


def test_a_mebibyte(make: Make) -> None:
    name, payload = topic(), bytes(range(256)) * (MIB // 256)

    async def script() -> None:
        async with make() as client:
            for qos in (0, 1, 2):
                await client.subscribe(name, qos=qos)
                await client.publish(name, payload, qos)
                assert (await receive(client)).payload == payload

    run(script)


def test_a_thousand_subscriptions(make: Make) -> None:
    name = topic()

    async def script() -> None:
        async with make() as client, make() as publisher:
            for number in range(1000):
                await client.subscribe(f"{name}/{number}/#")
            for number in range(1000):
                await publisher.publish(f"{name}/{number}/a", number)
            for number in range(1000):
                assert (await receive(client)).payload == str(number).encode()

    run(script)


def test_request_and_response(broker: Running) -> None:
    requests, responses = topic("requests"), topic("responses")

    def make() -> Client:
        return Client(
            broker.host,
            broker.port,
            identifier=unique(),
            protocol=ProtocolVersion.V5,
            timeout=PATIENCE,
        )

    async def respond(client: Client) -> None:
        request = await receive(client)
        asked: Any = request.properties
        assert asked.UserProperty == [("lang", "en"), ("lang", "de")]
        wanted = properties(PacketTypes.PUBLISH, CorrelationData=asked.CorrelationData)
        await client.publish(asked.ResponseTopic, b"5", 1, properties=wanted)

    async def script() -> None:
        async with make() as responder, make() as requester:
            await responder.subscribe(requests, qos=1)
            await requester.subscribe(responses, qos=1)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(respond(responder))
                wanted = properties(
                    PacketTypes.PUBLISH,
                    ResponseTopic=responses,
                    CorrelationData=b"17",
                    UserProperty=[("lang", "en"), ("lang", "de")],
                )
                await requester.publish(requests, b"2 + 3", 1, properties=wanted)
                response = await receive(requester)
            said: Any = response.properties
            assert (response.payload, said.CorrelationData) == (b"5", b"17")

    run(script)
