"""What a process may do that is nothing but a broker: signals, descriptors, garbage collection."""

import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

log = logging.getLogger("mqtrio")

#: Signals that ask the broker to stop.
STOP: Final = (signal.SIGINT, signal.SIGTERM)

#: The signal that asks for the configuration to be read again; Windows has none.
RELOAD: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)

#: Descriptors beside those of clients: listeners, files, the poller, what plugins open.
RESERVE: Final = 512

#: The collector's oldest generation.
FULL: Final = 2

#: A full round after 100,000 new objects at the earliest: it takes 20 ms then.
THRESHOLDS: Final = (1000, 10, 10)


async def on_stop_signal(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `stop` at the first signal; the second one ends the process, whatever it is doing."""
    with trio.open_signal_receiver(*STOP) as signals:
        task_status.started()
        number = await anext(signals)
    # Not a handler of our own: it would have to wait for Python code to run, and that may be stuck.
    for each in STOP:
        signal.signal(each, signal.SIG_DFL)
    name = signal.Signals(number).name
    log.info("%s: stopping; a second signal ends the process at once", name)
    stop()


@contextmanager
def reload_signals() -> Iterator[AsyncIterator[int] | None]:
    """Receive the signals that ask for another configuration; None on Windows, which has none."""
    if RELOAD is None:
        yield None
        return
    with trio.open_signal_receiver(RELOAD) as signals:
        yield signals


def raise_descriptor_limit(connections: int) -> None:
    """Allow so many connections, as far as the system lets us."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # macOS calls its hard limit infinite and means less
        limit = soft
    if limit < wanted:
        log.debug("the system allows %d open files, too few for %d clients", limit, connections)


@contextmanager
def short_collections() -> Iterator[None]:
    """Let the garbage collector look at nothing twice in a full round.

    A full round looks at everything that lives: with 100,000 retained messages it takes 100 ms, in
    which no client is served. So what survives one is left out of later ones. It is still freed
    when nobody refers to it any more; only old objects that refer to each other are not, and those
    that come and go with clients don't (tests/limits/test_garbage.py).
    """
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(_freeze)
    try:
        yield
    finally:
        gc.callbacks.remove(_freeze)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _freeze(phase: str, facts: dict[str, int]) -> None:
    if phase == "stop" and facts["generation"] == FULL:
        gc.freeze()
