"""`mqtrio serve`: run a broker until a signal stops it."""

import argparse
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, get_args

import attrs
import trio

from mqtrio.broker import Broker
from mqtrio.cli import process
from mqtrio.cli.failure import leaves
from mqtrio.config import Configuration, load_config
from mqtrio.errors import ConfigurationError, MqtrioError
from mqtrio.log import set_up
from mqtrio.net.addresses import parse_listener
from mqtrio.net.opening import GivenSockets
from mqtrio.net.systemd import Supervisor, passed_sockets
from mqtrio.opening import open_broker
from mqtrio.settings import Listener, Log

log = logging.getLogger("mqtrio")

EPILOG = """\
examples:
  mqtrio serve
        on this machine only, mqtt://127.0.0.1:1883, anonymous clients allowed
  mqtrio serve --listen mqtt://0.0.0.0:1883 --allow-anonymous
        for the whole network, without any authentication: for trying things out
  mqtrio serve --listen mqtt://127.0.0.1:0
        on any free port; the first lines of the log name it
  mqtrio serve broker.toml --log-level debug
        as broker.toml says, with more in the log

a configuration:
  [[listener]]
  url = "mqtt://127.0.0.1:1883"

  [limits]
  maximum_packet_size = "1MiB"

SIGHUP reads the configuration again: what is wrong in it stands in the log and changes
nothing; otherwise it is in force at once, and clients stay connected.

Below systemd, --listen systemd://NAME takes sockets of a socket unit, and systemd is told
when the broker is ready, reloads, stops, and that its event loop still turns.

SIGINT (Ctrl-C) or SIGTERM stops the broker: clients are told, what is under way is
finished, and the exit code is 0. A second signal ends it at once.
"""


def add(commands: Any) -> None:
    """Add the arguments of this command to a parser's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="run a broker",
        description="Run a broker until SIGINT or SIGTERM.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG.toml", help="settings (docs/configuration.md)"
    )
    parser.add_argument(
        "--listen",
        action="append",
        type=_listener,
        default=[],
        metavar="URL",
        help="listen here instead of where the configuration says; may be given several times",
    )
    parser.add_argument(
        "--allow-anonymous",
        action="store_true",
        help="let in clients that nobody authenticates, on every listener",
    )
    parser.add_argument(
        "--log-level",
        choices=get_args(attrs.fields(Log).level.type),
        help="least severe record that is written to the log, on standard error",
    )
    parser.set_defaults(run=run)


def _listener(url: str) -> Listener:
    try:
        parse_listener(url)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Listener(url=url)


def run(arguments: argparse.Namespace) -> int:
    """Serve; the exit code is 0 once a signal has stopped the broker."""
    configuration = configuration_of(arguments)
    _use_in_process(configuration)
    supervisor = Supervisor(os.environ)
    sockets = passed_sockets(os.environ)
    read = partial(configuration_of, arguments)
    trio.run(_serve, configuration, read, supervisor, sockets)
    return 0


def _use_in_process(configuration: Configuration) -> None:
    set_up(configuration.settings.log)
    process.raise_descriptor_limit(configuration.settings.limits.connections)


def configuration_of(arguments: argparse.Namespace) -> Configuration:
    """Read the configuration and lay what the command line says over it."""
    read = load_config(arguments.config) if arguments.config else Configuration()
    settings = read.settings
    if arguments.listen:
        settings = attrs.evolve(settings, listener=tuple(arguments.listen))
    if arguments.allow_anonymous:
        every = (attrs.evolve(each, allow_anonymous=True) for each in settings.listener)
        settings = attrs.evolve(settings, listener=tuple(every))
    if arguments.log_level:
        settings = attrs.evolve(settings, log=attrs.evolve(settings.log, level=arguments.log_level))
    return attrs.evolve(read, settings=settings)


async def _serve(
    configuration: Configuration,
    read: Callable[[], Configuration],
    supervisor: Supervisor,
    sockets: GivenSockets,
) -> None:
    """Run a broker until it ends or a signal comes.

    A signal while it starts gives the start up. Later it ends the wait, and leaving the block is
    what stops a broker in good order. `read` reads the configuration again, when SIGHUP asks.
    """
    scope = starting = trio.CancelScope()

    def stop() -> None:
        scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(process.on_stop_signal, stop)
        with starting, process.reload_signals() as signals:
            async with _open(configuration, sockets) as broker:
                for address in broker.listeners:
                    log.info("listening on %s", address)
                _look_for_unused(broker, sockets)
                supervisor.tell("READY=1")
                nursery.start_soon(supervisor.reassure)
                with process.short_collections(), trio.CancelScope() as scope:
                    async with trio.open_nursery() as reloading:
                        reloading.start_soon(_reload_on, signals, broker, read, supervisor)
                        await broker.wait_stopped()
                        reloading.cancel_scope.cancel()
                supervisor.tell("STOPPING=1")
        nursery.cancel_scope.cancel()


def _look_for_unused(broker: Broker, sockets: GivenSockets) -> None:
    """Say which sockets nobody listens on: who connects to one of them would wait for ever."""
    used = {address.url.partition("://")[2] for address in broker.listeners}
    for name in sockets:
        if name not in used:
            log.warning("the sockets %r were passed, and no listener is systemd://%s", name, name)


async def _reload_on(
    signals: AsyncIterator[int] | None,
    broker: Broker,
    read: Callable[[], Configuration],
    supervisor: Supervisor,
) -> None:
    if signals is not None:
        async for _ in signals:
            supervisor.tell_reloading()
            await _reload(broker, read)
            supervisor.tell("READY=1")


async def _reload(broker: Broker, read: Callable[[], Configuration]) -> None:
    """Read the configuration again; whatever is wrong with it stands in the log."""
    try:
        configuration = read()
        before = set(broker.listeners)
        await broker.reload(configuration)
    except (MqtrioError, OSError) as error:
        log.error("the configuration is not reloaded, the old one stays in force: %s", error)
        return
    _use_in_process(configuration)
    for address in broker.listeners:
        if address not in before:
            log.info("listening on %s", address)


@asynccontextmanager
async def _open(configuration: Configuration, sockets: GivenSockets) -> AsyncIterator[Broker]:
    """Open a broker; whatever keeps it from starting is an error that a person can mend."""
    started = False
    try:
        async with open_broker(config=configuration, sockets=sockets) as broker:
            started = True
            yield broker
    except* (MqtrioError, OSError) as group:
        if started:
            raise
        raise ConfigurationError("\n".join(_said(error) for error in leaves(group))) from group


def _said(error: BaseException) -> str:
    """Give an error's words; the number of a system's error tells a person nothing."""
    if isinstance(error, OSError) and error.strerror and not error.filename:
        return error.strerror
    return str(error)
