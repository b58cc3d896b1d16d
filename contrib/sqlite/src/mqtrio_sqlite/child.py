"""The writer process: reads requests from a socket and does them one after the other.

`python -m mqtrio_sqlite.child FD` is started by `process.py`. It ends when its socket does, however
the broker has ended, and takes its last commit to an end before.
"""

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mqtrio import StoreError, StoreFull
from mqtrio_sqlite.database import Database, Options
from mqtrio_sqlite.frames import HEADER, frame, unframe
from mqtrio_sqlite.records import Record


def main() -> None:
    """Serve until the socket ends."""
    # The broker says when to end: a signal for all, like Ctrl-C, must not take its last commit.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as sock, sock.makefile("rb") as requests:
        database: Database | None = None
        try:
            for method, arguments in _requests(requests):
                answer: tuple[bool, Any]
                try:
                    if method == "open":
                        (values,) = arguments
                        database = Database(Options(**values | {"path": Path(values["path"])}))
                        answer = (True, database.commits)
                    else:
                        answer = (True, getattr(database, method)(*arguments))
                except StoreError as error:
                    answer = (False, (isinstance(error, StoreFull), str(error)))
                if method == "close":
                    database = None
                sock.sendall(frame(answer))
        except OSError:
            pass  # the broker is gone
        finally:
            if database is not None:
                database.close()


def _requests(stream: BinaryIO) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Go through the requests; the parts of a commit come together as one."""
    records: list[Record] = []
    while len(header := stream.read(HEADER.size)) == HEADER.size:
        (length,) = HEADER.unpack(header)
        body = stream.read(length)
        if len(body) < length:
            return  # the broker has died in the middle of it
        method, arguments = unframe(body)
        if method == "part":
            records += arguments
        elif method == "commit":
            yield method, ([*records, *arguments],)
            records = []
        else:
            yield method, arguments


if __name__ == "__main__":
    main()
