"""The log: what the engine says about clients, and how the server writes it.

Libraries only say: they take `logging.getLogger("mqtrio....")` and put what they know into `extra`
fields. Handlers are set up by the command line (`set_up`) or by the program that embeds a broker,
whose formatter may know nothing of fields: so the text of a record names the client and the reason,
too, and our own formatters, which write every field, take the short text (`SHORT`) in its place.
Passwords, tokens and payloads have no place here; a field that is called so is not written.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

import trio

from mqtrio.settings import Log

#: Who connects, disconnects and is refused.
CONNECTIONS: Final = logging.getLogger("mqtrio.connections")

#: Fields whose values are never written.
SECRET: Final = frozenset(
    {"authentication_data", "correlation_data", "credentials", "password", "payload", "secret"}
    | {"token"}
)

#: The field of a record with its text less what its other fields say.
SHORT: Final = "mqtrio_short"

#: The field of a record with all its other fields in one mapping, where they are known.
FIELDS: Final = "mqtrio_fields"

#: Records that wait to be written together.
MOST_WAITING: Final = 256

#: What every record has, whoever makes it; the rest came through `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    SHORT,
    FIELDS,
}

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@+\-#$%*,\[\]()]+").fullmatch


# -- what is said ----------------------------------------------------------------------------------


def connected(
    client_id: str,
    username: str | None,
    address: str,
    listener: str,
    *,
    protocol_version: int,
    keep_alive: float,
    resumed: bool,
) -> None:
    """A client was let in. Cheap where nobody listens."""
    if CONNECTIONS.isEnabledFor(logging.INFO):
        fields = {
            "client_id": client_id,
            "username": username,
            "address": address,
            "listener": listener,
            "protocol_version": protocol_version,
            "keep_alive": keep_alive,
            "resumed": resumed,
        }
        # %r, because clients choose their identifiers: no line of a log is theirs to make.
        _say(logging.INFO, "connected: %r from %s", (client_id, address), "connected", fields)


def disconnected(
    client_id: str, username: str | None, address: str, reason_code: int, why: str
) -> None:
    """A connection that was let in has ended."""
    _ended(logging.INFO, "disconnected", client_id, username, address, reason_code, why)


def refused(client_id: str, username: str | None, address: str, reason_code: int, why: str) -> None:
    """A connection was not let in; client identifier and username are what it said, if anything."""
    _ended(logging.WARNING, "refused", client_id, username, address, reason_code, why)


def _ended(
    level: int,
    event: str,
    client_id: str,
    username: str | None,
    address: str,
    reason_code: int,
    why: str,
) -> None:
    if CONNECTIONS.isEnabledFor(level):
        code = f"0x{reason_code:02X}"
        fields = {
            "client_id": client_id,
            "username": username,
            "address": address,
            "reason_code": code,
            "why": why,
        }
        arguments = (event, client_id, address, code, why)
        _say(level, "%s: %r from %s, %s %r", arguments, event, fields)


def _say(
    level: int, text: str, arguments: tuple[object, ...], short: str, fields: dict[str, Any]
) -> None:
    """Log a record with these fields.

    Logger.log would look for its caller and compare every field with every attribute of a record,
    which is half of what the record of a connect costs.
    """
    make = logging.getLogRecordFactory()
    record = make(CONNECTIONS.name, level, "(unknown file)", 0, text, arguments, None)
    every = record.__dict__
    every.update(fields)
    every[SHORT] = short
    every[FIELDS] = fields
    CONNECTIONS.handle(record)


# -- how it is written -----------------------------------------------------------------------------


def set_up(settings: Log, stream: TextIO | None = None) -> None:
    """Write the records of the whole process to `stream` (default: standard error).

    For a process that is nothing but a server; calling it again replaces what was set up before.
    """
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.captureWarnings(True)
    # What no line of ours shows need not be found out (Logging HOWTO, "Optimization"): that is
    # half of what a record costs, and a connect is measured in microseconds.
    for name in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks", "_srcfile"):
        setattr(logging, name, None)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes records in their order; those of connects and disconnects all at once.

    Clients come and go in crowds. A line that is made between two CONNECTs costs twice what it
    costs among its like, and a system call; so what is no warning waits until Trio has run those
    tasks that can go on, which is a few milliseconds.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, and before it those that wait; or let it wait with them."""
        waiting = self._waiting
        waiting.append(record)
        if record.levelno >= logging.WARNING or FIELDS not in record.__dict__:
            self.flush()
        elif len(waiting) == 1:
            try:
                token = trio.lowlevel.current_trio_token()
            except RuntimeError:  # not in Trio's thread
                self.flush()
            else:
                token.run_sync_soon(self.flush)
        elif len(waiting) >= MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what waits, in one go."""
        self.acquire()
        try:
            waiting, self._waiting = self._waiting, []
            lines = []
            for record in waiting:
                try:
                    lines.append(self.format(record) + "\n")
                except Exception:  # noqa: BLE001 - as logging does: it goes on without this record
                    self.handleError(record)
            if lines:
                try:
                    self.stream.write("".join(lines))
                except Exception:  # noqa: BLE001 - as logging does: a full disk must not end us
                    self.handleError(waiting[-1])
            super().flush()
        finally:
            self.release()


class _Formatter(logging.Formatter):
    """What both forms share: the time, and the extra fields."""

    def __init__(self) -> None:
        super().__init__()
        self._second = -1
        self._date = ""

    def time(self, record: logging.LogRecord) -> str:
        """Write the time in UTC, with milliseconds (ISO 8601)."""
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._date}.{int(record.msecs):03}Z"

    def text(self, record: logging.LogRecord) -> str:
        """Give the text, without what the fields say again."""
        short = getattr(record, SHORT, None)
        return record.getMessage() if short is None else str(short)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Give the extra fields that have a value."""
        every = vars(record)
        known: dict[str, Any] | None = every.get(FIELDS)
        if known is not None:
            return {name: value for name, value in known.items() if value is not None}
        return {
            name: "***" if name in SECRET else every[name]
            for name in every
            if name not in _OWN and every[name] is not None
        }

    def trace(self, record: logging.LogRecord) -> str:
        """Give the traceback and the stack of a record, if it has any."""
        parts = []
        if record.exc_info:
            # Like logging's own: formatted once, for all handlers.
            record.exc_text = record.exc_text or self.formatException(record.exc_info)
            parts.append(record.exc_text)
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts)


class TextFormatter(_Formatter):
    """One line of text for each record: time, level, logger, message, key=value...

    Clients choose their identifiers: whatever isn't printable is escaped, so that a value can't
    look like a line of its own. The lines of a traceback follow, indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        message = self.text(record)
        if not message.isprintable():
            message = _quote(message)[1:-1]
        line = f"{self.time(record)} {record.levelname.lower()} {record.name} {message}"
        for name, value in self.fields(record).items():
            line += f" {name}={_text(value)}"
        for extra in self.trace(record).splitlines():
            line += f"\n    {extra}"
        return line


class JsonFormatter(_Formatter):
    """One JSON object on one line for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        entry = {
            "time": self.time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.text(record),
        }
        trace = self.trace(record)
        if trace:
            entry["exception"] = trace
        return json.dumps({**entry, **self.fields(record), **entry}, default=_plain)


def _text(value: object) -> str:
    # Strings and numbers first: this runs for every field of every connect.
    kind = type(value)
    if kind is int or kind is float:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    text = value if isinstance(value, str) else str(_plain(value))
    return text if _PLAIN(text) else _quote(text)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _plain(value: object) -> object:
    """Write no bytes: they may be anybody's."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)
