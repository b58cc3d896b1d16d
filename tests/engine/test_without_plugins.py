"""With no plugin no event is made and no hook entered: what nobody is told costs nothing."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from mqtrio import Allow
from mqtrio.hooks import combine, events
from mqtrio.hooks.manager import HookManager
from mqtrio.testing import Harness, HookRecorder, open_harness
from mqtrio.wire.packets import (
    MQTT_5,
    PubAck,
    PubComp,
    Publish,
    PublishProperties,
    PubRec,
    PubRel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from tests.engine.origins import ORIGINS, Origin


def _classes() -> list[type[events.Event]]:
    found = [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type)
        and issubclass(kind, events.Event)
        and kind not in (events.Event, events.ClientEvent)
    ]
    return list(dict.fromkeys(found))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count every event that is made, and every call of `notify`."""
    counts: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for kind in _classes():
            _count(patch, counts, kind, "__init__", kind.__name__)
        _count(patch, counts, HookManager, "notify", "notify")
        for name in vars(combine):
            if name.startswith(("authenticate", "admit", "transform", "compile", "accept")):
                _count(patch, counts, combine, name, name)
        yield counts


def _count(
    patch: pytest.MonkeyPatch, counts: Counter[str], owner: object, name: str, label: str
) -> None:
    original = getattr(owner, name)

    def counting(*arguments: object, **more: object) -> object:
        counts[label] += 1
        return original(*arguments, **more)

    patch.setattr(owner, name, counting)


async def _everything(harness: Harness, version: int) -> None:
    """What clients do in a day."""
    subscriber = await harness.connect("subscriber", version=version)
    requests = (
        SubscriptionRequest("a/+", 2),
        SubscriptionRequest("$share/g/b", 1),
        SubscriptionRequest("c", 0, version == MQTT_5),
    )
    await subscriber.send(Subscribe(1, requests))
    client = await harness.connect("client", version=version, will=Will("a/will", b"x", 1, True))
    properties = PublishProperties(user_properties=(("a", "b"),)) if version == MQTT_5 else None
    for qos in (0, 1, 2):
        for topic in ("a/b", "b", "c", "$nobody", "nobody"):
            for retain in (False, True):
                for payload in (b"x", b""):
                    await client.send(
                        Publish(topic, payload, qos, retain, False, 5 if qos else 0, properties)
                    )
                    if qos == 2:
                        await client.send(PubRel(5))
        await client.arrived()
    for packet in await subscriber.arrived():
        if isinstance(packet, Publish) and packet.qos == 1:
            await subscriber.send(PubAck(packet.packet_id))
        elif isinstance(packet, Publish) and packet.qos == 2:
            await subscriber.send(PubRec(packet.packet_id), PubComp(packet.packet_id))
    await subscriber.send(Unsubscribe(2, ("c", "nothing")))
    refused = harness.peer("refused", version=version)
    await refused.send(b"\xc0\x00")
    await refused.expect_closed()
    await client.drop()
    late = await harness.connect("late", version=version)
    await late.subscribe("#", 1)
    await late.message(b"x", topic="a/will", retain=True)
    await late.disconnect()
    await subscriber.send(subscriber.connect_packet())
    await subscriber.settle()


@pytest.mark.parametrize("version", [3, 4, 5])
async def test_clients_make_no_event(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness() as harness:
        with counted(monkeypatch) as counts:
            await _everything(harness, version)
            assert counts == {}


@pytest.mark.parametrize("origin", list(ORIGINS))
async def test_no_origin_makes_an_event(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness() as harness:
        subscriber = await harness.connect("subscriber")
        await subscriber.subscribe("#", 2)
        with counted(monkeypatch) as counts:
            for qos in (0, 1, 2):
                await ORIGINS[origin](harness, f"t/{qos}", b"x", qos, True)
                await ORIGINS[origin](harness, f"$t/{qos}", b"x", qos, False)
            assert counts == {}
        for qos in (0, 1, 2):
            await subscriber.message(b"x", topic=f"t/{qos}")


async def test_subscribers_of_this_process_make_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness() as harness:
        with counted(monkeypatch) as counts:
            async with harness.broker.subscribe("a", qos=1) as messages:
                await harness.broker.publish("a", "x", qos=1)
                assert (await messages.receive()).payload == b"x"
            async with harness.broker.subscribe("a", session="durable"):
                pass
            assert counts == {}


async def test_a_publish_to_very_many_makes_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("router", "publish"):
        monkeypatch.setattr(f"mqtrio.engine.{module}.SLICE", 2)
    async with open_harness() as harness:
        for number in range(5):
            await (await harness.connect(f"s{number}")).subscribe("a", 1)
        with counted(monkeypatch) as counts:
            client = await harness.connect("client")
            await client.publish("a", b"x", 1)
            await client.publish("a", b"x", 0, retain=True)
            await client.ping()
            assert counts == {}
        for peer in harness.peers[:5]:
            await peer.message(b"x", qos=1)
            await peer.message(b"x", qos=0)


async def test_what_the_counter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With plugins for everything the same day makes events of every kind."""
    recorder = HookRecorder(
        *_OBSERVED,
        answers={
            "accept": None,
            "authenticate": Allow(),
            "admit": None,
            "authorize_publish": Allow(),
            "authorize_subscribe": Allow(),
            "transform_publish": lambda event: event.changed(payload=event.payload),
            "transform_subscribe": None,
            "compile_delivery": lambda event: lambda message: message,
        },
    )
    async with open_harness(plugins=[recorder]) as harness:
        with counted(monkeypatch) as counts:
            await _everything(harness, 5)
            await trio.sleep(1)
    made = {kind.__name__ for kind in _classes()} & set(counts)
    unused = {
        *("OpenStoreEvent", "LayersEvent", "RunEvent", "ReconfigureEvent", "CommandsEvent"),
        *("HookspecsEvent", "PluginFailedEvent", "DroppedEvent"),
    }
    assert made == {kind.__name__ for kind in _classes()} - unused
    assert counts["notify"] > 0


_OBSERVED = (
    *("client_connected", "client_disconnected", "connection_refused", "session_opened"),
    *("session_ended", "subscribed", "unsubscribed", "published", "delivered", "acknowledged"),
    *("dropped", "retained_changed"),
)
