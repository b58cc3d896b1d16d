"""The settings of the plugin, as they stand in the table [plugin.sqlite]."""

from pathlib import Path
from typing import Literal

import attrs

import mqtrio


@attrs.define(frozen=True, kw_only=True)
class SqliteSettings:
    """Where the database is, and what a commit has to survive."""

    path: Path = mqtrio.required_setting("the database; it is made if it isn't there")
    synchronous: Literal["full", "normal"] = mqtrio.setting(
        "full", "what survives; full: also a power failure; normal: only the end of the broker"
    )
    writer: Literal["process", "thread"] = mqtrio.setting(
        "process", "who writes; a thread needs no second process, and is slower beside much traffic"
    )
    busy_timeout: float = mqtrio.setting(
        5.0, "time to wait for another program that holds the database", minimum=0, unit="seconds"
    )
    max_size: int | None = mqtrio.setting(
        None,
        "largest size of the database; what doesn't fit is refused; default: no bound",
        minimum=65_536,
        unit="bytes",
    )
    checkpoint: int = mqtrio.setting(
        16 * 1024 * 1024,
        "size of the write-ahead log at which it is moved into the database",
        minimum=65_536,
        unit="bytes",
    )
