"""The broker as its users see it: publish, subscribe, look at it, stop it."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import uuid4

import trio

from mqtrio.engine.convert import is_text
from mqtrio.engine.core import Core
from mqtrio.engine.ending import Whom, disconnect, revoke
from mqtrio.engine.link import PeerFacts
from mqtrio.engine.local import join, leave, payload_bytes, properties_of, publish
from mqtrio.engine.plugins import Plugins
from mqtrio.engine.subscriber import ReceivedMessage, Subscriber, received
from mqtrio.errors import BrokerStopped, RefusedError
from mqtrio.hooks.explain import explain
from mqtrio.hooks.explanation import Explanation, Question
from mqtrio.info import BrokerStatistics, ClientInfo, PublishResult, SessionInfo
from mqtrio.net.addresses import BoundAddress
from mqtrio.net.network import Network
from mqtrio.reasons import ALLOWED, ReasonCode
from mqtrio.reload import Config, Reload
from mqtrio.state.session import LOCAL_PREFIX
from mqtrio.state.topics import InvalidTopic, check_topic, check_topic_filter
from mqtrio.wire.properties import DISCONNECT

log = logging.getLogger("mqtrio")


class Broker:
    """A running broker; made by `open_broker` and `serve_broker`."""

    def __init__(self, core: Core, life: Plugins, network: Network, reload: Reload) -> None:
        self._core = core
        self._reload = reload
        self._life = life
        self._network = network
        self._stop = trio.Event()

    @property
    def listeners(self) -> tuple[BoundAddress, ...]:
        """Where it listens: `url`, `host` and `port` of each, the port as it was given out."""
        return self._network.listeners

    # -- messages

    async def publish(
        self,
        topic: str,
        payload: bytes | str = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        message_expiry_interval: int | None = None,
        payload_format_indicator: int | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        user_properties: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        origin: Literal["local", "system", "bridge"] = "local",
    ) -> PublishResult:
        """Publish a message, by the same way and rules as a client's.

        `origin` is what hooks are told: the program itself, what the broker says of itself ($SYS),
        or what a bridge has brought.

        Returns when it was accepted, at QoS 1 and 2 when it is stored where it must be. Waits while
        subscribers of the topic are behind. Raises RefusedError with the reason code if it was
        refused, ValueError for a value that can't be, StoreError if it was not stored.
        """
        try:
            check_topic(topic, self._core.limits.topic_levels)
            if response_topic is not None:
                check_topic(response_topic)
        except InvalidTopic as error:
            raise RefusedError(error.reason_code, str(error)) from None
        if qos not in (0, 1, 2):
            raise ValueError(f"qos must be 0, 1 or 2, not {qos!r}")
        if origin not in ("local", "system", "bridge"):
            raise ValueError(f"origin must be local, system or bridge, not {origin!r}")
        properties = properties_of(
            payload_format_indicator,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
        )
        data = payload_bytes(payload)
        if payload_format_indicator and not is_text(data):
            raise RefusedError(ReasonCode.PAYLOAD_FORMAT_INVALID, "the payload is not UTF-8")
        self._check_running()
        code = await publish(self._core, topic, data, qos, retain, properties, origin)
        return PublishResult(ReasonCode(code))

    @asynccontextmanager
    async def subscribe(
        self,
        *topic_filters: str,
        qos: int = 0,
        session: str | None = None,
        size: int = 1000,
        no_retained: bool = False,
        timeout: float | None = None,
    ) -> AsyncIterator[Subscriber]:
        """Receive messages in this program: `async with broker.subscribe("a/+") as messages`.

        At most `size` messages wait in it; further ones at QoS 0 are dropped and counted. With
        `session` the subscription is durable: it and its unacknowledged messages stay when the
        block is left, as long as the broker (with a store: the disk) lasts, and go on with the next
        block of that name; `qos` 1 is meant then, and each message wants `await message.ack()`.
        The iteration ends when no message has come for `timeout` seconds. Raises RefusedError for a
        filter that can't be or is not allowed.
        """
        if qos not in (0, 1, 2) or size < 1:
            raise ValueError(f"qos must be 0, 1 or 2 and size at least 1: {qos!r}, {size!r}")
        for topic_filter in topic_filters:
            self._check_filter(topic_filter)
        self._check_running()
        name = session if session is not None else f"{uuid4().hex}"
        granted = 1 if session is not None and not qos else qos
        subscriber = await join(
            self._core,
            f"{LOCAL_PREFIX}{name}",
            topic_filters,
            granted,
            size,
            timeout,
            durable=session is not None,
            retained=not no_retained,
        )
        try:
            yield subscriber
        finally:
            leave(self._core, subscriber, durable=session is not None)

    async def request(
        self,
        /,
        topic: str,
        payload: bytes | str = b"",
        *,
        timeout: float = 10.0,
        qos: int = 1,
        response_topic: str | None = None,
        **properties: Any,
    ) -> ReceivedMessage:
        """Publish a request and return its response (4.10).

        The responder answers to the request's response topic (default: one made for this request)
        with the same correlation data. Raises trio.TooSlowError after `timeout` seconds, and
        RefusedError like `publish`.
        """
        correlation = uuid4().bytes
        topic_of_response = response_topic or f"response/{uuid4().hex}"
        async with self.subscribe(topic_of_response, qos=qos, no_retained=True) as responses:
            with trio.fail_after(timeout):
                await self.publish(
                    topic,
                    payload,
                    qos=qos,
                    response_topic=topic_of_response,
                    correlation_data=correlation,
                    **properties,
                )
                async for response in responses:
                    if response.correlation_data == correlation:
                        return response
        raise BrokerStopped("the broker has stopped")

    def retained(self, topic_filter: str = "#") -> list[ReceivedMessage]:
        """The retained messages whose topics match, as they are now.

        Raises RefusedError for a filter that can't be.
        """
        core = self._core
        self._check_filter(topic_filter)
        core.tick()
        return [
            received(message, True, (), core.now)
            for message in core.retained.match(topic_filter)
            if not message.expired(core.now)
        ]

    # -- clients

    async def serve_stream(
        self, stream: trio.abc.Stream, *, address: str = "", listener: str = "stream"
    ) -> None:
        """Serve one client over a stream of your own until it is gone.

        `listener` names it to plugins. With the URL of a listener in the settings that one's rules
        hold; else clients are let in as on a loopback listener.
        """
        self._check_running()
        peer = PeerFacts(address=address, listener=listener, local=True)
        await self._network.serve_stream(stream, peer)

    def clients(self) -> list[ClientInfo]:
        """The clients that are connected."""
        core = self._core
        core.tick()
        return [
            ClientInfo(
                connection.client_id,
                connection.username,
                str(connection.peer),
                connection.peer.listener,
                connection.decoder.version,
                connection.keep_alive,
                core.now - connection.last_seen,
                connection.queued,
            )
            for connection in core.connections
            if connection.announced
        ]

    def sessions(self) -> list[SessionInfo]:
        """The sessions, of connected clients and of others."""
        return [
            SessionInfo(
                session.client_id,
                session.username,
                session.outlet is not None,
                session.expiry_interval,
                tuple(session.subscriptions),
                len(session.inflight),
                session.waiting,
                session.waiting_bytes,
                session.dropped,
            )
            for session in self._core.sessions.by_id.values()
        ]

    def disconnect(
        self,
        client_id: str | None = None,
        reason_code: int = ReasonCode.ADMINISTRATIVE_ACTION,
        *,
        username: str | None = None,
        why: str = "administrative action",
        server_reference: str | None = None,
    ) -> int:
        """End the connections of a client identifier, of a username, or of both together.

        Their wills are published, their sessions stay. Returns how many connections there were.
        `server_reference` goes with USE_ANOTHER_SERVER and SERVER_MOVED. Raises ValueError for a
        reason code that a server can't send in a DISCONNECT (3.14.2.1), and if nobody is named.
        """
        self._check_disconnect(reason_code)
        whom = Whom(client_id, username)
        return disconnect(self._core, whom, reason_code, why, server_reference)

    def revoke(
        self,
        client_id: str | None = None,
        *,
        username: str | None = None,
        drop_session: bool = False,
        publish_will: bool = True,
        reason_code: int = ReasonCode.NOT_AUTHORIZED,
        why: str = "the credentials were revoked",
    ) -> int:
        """Cut off whoever has got in by credentials that are no longer good, at once.

        Meant are the clients of a client identifier, of a username, or of both together: those
        that are connected, and those that are about to be let in. `drop_session` ends their
        sessions too, also of those that are away. With `publish_will=False` nothing of their wills
        is published, nor of those that wait for their delay. Returns how many clients that were.

        It is no ban: whoever lets them in (a token, a file of users) has to know better from now
        on, or they are back in a moment. Raises ValueError like `disconnect`.
        """
        self._check_disconnect(reason_code)
        whom = Whom(client_id, username)
        return revoke(self._core, whom, reason_code, why, drop_session, publish_will)

    def end_session(self, client_id: str) -> bool:
        """Throw a session away, and its connection with it; False if there is none."""
        session = self._core.sessions.by_id.get(client_id)
        if session is None:
            return False
        self.disconnect(client_id)
        if self._core.sessions.by_id.get(client_id) is session:
            self._core.turn(self._core.sessions.remove, session)
        return True

    # -- plugins

    @property
    def plugins(self) -> Mapping[str, object]:
        """The plugins by name, in the order in which they are asked."""
        return self._life.hooks.plugins

    async def add_plugin(self, plugin: object, name: str | None = None) -> str:
        """Start a plugin and add it behind the others; returns its name.

        Nothing but `start` is called before it is there. Raises PluginError, and has changed
        nothing then, if it can't be used or doesn't start.
        """
        self._check_running()
        return await self._life.add(plugin, name)

    async def remove_plugin(self, name: str) -> object:
        """Take a plugin out, at once, and end it: it gets no new calls, from nobody.

        Returns when the calls that were running in it have finished, its background task has ended,
        and it was stopped; each of these may take `limits.hook_deadline` seconds. (Its own hooks
        can't wait for that: they would wait for themselves.) Raises PluginError if there is none of
        that name.
        """
        return await self._life.remove(name)

    def hook(self, name: str) -> Sequence[Callable[[Any], Any]]:
        """What to call for a hook that a plugin has brought: implementations, in plugin order.

        Each takes the event. Calls are counted; what an implementation raises comes out. Raises
        PluginError if there is no such hook.
        """
        return self._core.hooks.calls(name)

    def reconsider(self) -> None:
        """Void what plugins have decided so far: for a plugin whose rules have just changed.

        Answers that were remembered are asked for again, and the filters of all live subscriptions
        are compiled anew (`compile_delivery`, reason "reload").
        """
        self._core.turn(self._core.hooks_changed, frozenset({"compile_delivery"}))

    async def explain(
        self,
        *,
        client_id: str,
        username: str | None = None,
        publish: str | None = None,
        subscribe: str | None = None,
        qos: int = 0,
        retain: bool = False,
        payload: bytes | str = b"",
        address: str = "",
        listener: str = "",
        protocol_version: int = 5,
        authenticate: bool = False,
        password: bytes | str | None = None,
    ) -> Explanation:
        """Say who would decide about a publish or subscribe of a client, what, and why.

        Asks the plugins as the engine would, but nothing happens, nothing is counted, and no
        observer is told. `publish` is a topic or `subscribe` a topic filter. `username` is taken
        for granted unless `authenticate` is asked for, which begins at the first connection (and
        alone learns of the permissions and the QoS that authentication gives). Raises ValueError
        for a question that makes no sense.
        """
        self._check_running()
        core = self._core
        question = Question(
            client_id=client_id,
            username=username,
            publish=publish,
            subscribe=subscribe,
            qos=qos,
            retain=retain,
            payload=payload_bytes(payload),
            address=address,
            listener=listener,
            protocol_version=protocol_version,
            authenticate=authenticate,
            password=None if password is None else payload_bytes(password),
        )
        # What isn't known by its URL is reached from this machine only.
        entrance = core.doors.entrance(listener, local=True)
        return await explain(core.hooks, core.settings, question, entrance)

    # -- the broker itself

    def statistics(self) -> BrokerStatistics:
        """Counters and sizes as they are now."""
        core = self._core
        counted = core.statistics
        references = core.recorder.references
        return BrokerStatistics(
            uptime=core.clock.monotonic() - counted.started,
            clients=len(core.sessions.holders),
            sessions=len(core.sessions.by_id),
            subscriptions=len(core.router.index),
            shared_subscriptions=core.router.index.shared,
            retained=len(core.retained),
            messages_held=core.deliveries.held + references.away,
            payload_bytes_held=core.deliveries.held_bytes + references.away_bytes,
            memory=core.memory,
            bytes_received=counted.bytes_received,
            bytes_sent=counted.bytes_sent,
            packets_received=counted.packets_received,
            packets_sent=counted.packets_sent,
            messages_received=counted.messages_received,
            messages_sent=counted.messages_sent,
            sockets_accepted=counted.sockets_accepted,
            connections_opened=counted.connections_opened,
            connections_closed=counted.connections_closed,
            crashes=counted.crashes,
            stalls=counted.stalls,
            dropped=dict(counted.dropped),
            refused=dict(counted.refused),
            plugins=tuple(self._core.hooks.statistics()),
        )

    async def reload(self, config: Config) -> None:
        """Have another configuration, from one moment to the next; sessions and connections stay.

        `config` is what `open_broker` takes. Everything is read, checked, started and opened before
        anything changes: what is raised then has changed nothing. Plugins with a hook `reconfigure`
        get their settings, others are replaced if theirs have changed; those of the program and
        listeners that it has named itself stay. Returns when what was replaced has ended. Raises
        ConfigurationError, PluginError, or OSError for an address that can't be had.
        """
        await self._reload(config)

    def stop(self) -> None:
        """Ask the broker to stop gracefully; returns at once. Only `serve_broker` listens to it."""
        self._stop.set()

    async def wait_stopped(self) -> None:
        """Wait until somebody has called `stop`."""
        await self._stop.wait()

    def _check_filter(self, topic_filter: str) -> None:
        try:
            check_topic_filter(topic_filter, self._core.limits.topic_levels)
        except InvalidTopic as error:
            raise RefusedError(error.reason_code, f"{topic_filter!r}: {error}") from None

    def _check_disconnect(self, reason_code: int) -> None:
        if reason_code < ReasonCode.UNSPECIFIED_ERROR or reason_code not in ALLOWED[DISCONNECT]:
            raise ValueError(f"0x{reason_code:02X} is no reason code for ending a connection")

    def _check_running(self) -> None:
        if self._core.stopping:
            raise BrokerStopped("the broker has stopped")
