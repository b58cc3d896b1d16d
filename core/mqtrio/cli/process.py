"""What a process may do that is nothing but a broker: signals, descriptors, garbage collection."""

import gc
import logging
import signal
from collections.abc import Callable
from typing import Final

import trio

log = logging.getLogger("mqtrio")

#: Signals that ask the broker to stop.
STOP: Final = (signal.SIGINT, signal.SIGTERM)

#: Descriptors beside those of clients: listeners, files, the poller, what plugins open.
RESERVE: Final = 512


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


def freeze() -> None:
    """Take what exists now, and will exist to the end, out of the collector's rounds."""
    gc.collect()
    gc.freeze()
