"""The broker of pytest's fixtures: in a thread of its own, with an eye on every message."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import trio

from mqtrio.embed import BlockingBroker, open_thread_broker
from mqtrio.hooks.events import PublishedEvent
from mqtrio.hooks.specs import hookimpl
from mqtrio.state.topics import check_topic_filter, topic_matches

#: Grace in seconds for clients that a test has left connected.
GRACE: Final = 0.2


class Watcher:
    """Remembers every message that was published. A plugin, so that it isn't a subscriber."""

    def __init__(self) -> None:
        self.messages: list[PublishedEvent] = []
        self._unclaimed: list[PublishedEvent] = []
        self._changed = threading.Condition()

    @hookimpl
    def published(self, event: PublishedEvent) -> None:
        """A message has come."""
        with self._changed:
            self.messages.append(event)
            self._unclaimed.append(event)
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget all of them."""
        with self._changed:
            self.messages.clear()
            self._unclaimed.clear()

    def claim(
        self, topic_filter: str, timeout: float, given_up: threading.Event | None = None
    ) -> PublishedEvent:
        """The first message that matches and that nobody has claimed, as soon as it is there."""
        check_topic_filter(topic_filter)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for message in self._unclaimed:
                    if topic_matches(topic_filter, message.topic):
                        self._unclaimed.remove(message)
                        return message
                left = deadline - time.monotonic()
                if left <= 0 or (given_up is not None and given_up.is_set()):
                    break
                self._changed.wait(left)
            others = sorted({message.topic for message in self.messages})
        raise AssertionError(
            f"no message for {topic_filter!r} in {timeout:g} s; "
            f"there were {', '.join(map(repr, others[:20])) or 'none at all'}"
        )

    def give_up(self, given_up: threading.Event) -> None:
        """Let a `claim` end, for which nobody waits any more."""
        given_up.set()
        with self._changed:
            self._changed.notify_all()


class MqttBroker(BlockingBroker):
    """What the fixtures `mqtt_broker` and `mqtt_broker_session` are: a broker for tests.

    Its methods are those of `mqtrio.embed.BlockingBroker`.
    """

    def __init__(self, broker: BlockingBroker, watcher: Watcher) -> None:
        super().__init__(broker._thread)
        self._watcher = watcher

    @property
    def host(self) -> str:
        """Where it listens: 127.0.0.1, if the test has said nothing else."""
        return self.listeners[0].host

    @property
    def port(self) -> int:
        """The port that it was given."""
        return self.listeners[0].port

    @property
    def url(self) -> str:
        """`mqtt://host:port`."""
        address = self.listeners[0]
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{address.scheme}://{host}:{address.port}"

    @property
    def messages(self) -> list[PublishedEvent]:
        """The messages that were published so far, by clients and by the test, in their order."""
        return list(self._watcher.messages)

    def clear(self) -> None:
        """Forget the messages, and remove those that are retained."""
        for message in self.retained():
            self.publish(message.topic, retain=True)
        self._watcher.clear()

    def wait_for(self, topic_filter: str, *, timeout: float = 5.0) -> PublishedEvent:
        """Wait for a message that matches, and return it; it may have come before.

        Each message is returned once, so that a second call waits for a second message. Raises
        AssertionError after `timeout` seconds. Blocks: see `wait_for_async`.
        """
        return self._watcher.claim(topic_filter, timeout)

    async def wait_for_async(self, topic_filter: str, *, timeout: float = 5.0) -> PublishedEvent:
        """`wait_for` for tests in Trio and asyncio: others in the loop go on."""
        given_up = threading.Event()
        claim = partial(self._watcher.claim, topic_filter, timeout, given_up)
        try:
            if _in_trio():
                return await trio.to_thread.run_sync(claim, abandon_on_cancel=True)
            return await asyncio.to_thread(claim)
        finally:
            self._watcher.give_up(given_up)


def _in_trio() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


@contextmanager
def open_test_broker(**options: Any) -> Iterator[MqttBroker]:
    """A broker for a test, without pytest's fixtures; the arguments are those of `open_broker`.

    By default it listens on a free port of 127.0.0.1, and gives clients that are still connected
    0.2 seconds at its end.
    """
    watcher = Watcher()
    settings = options.get("settings")
    if options.get("config") is None:
        if settings is None:
            options["limits"] = {"stop_grace": GRACE, **options.get("limits", {})}
        if settings is None or not settings.listener:
            options.setdefault("listen", "mqtt://127.0.0.1:0")
    with open_thread_broker(**options) as broker:
        broker.add_plugin(watcher, "mqtt_broker")
        yield MqttBroker(broker, watcher)
