"""Our brokers for the suite, in one process: `python -m tests.conformance.server`.

Prints one line of JSON, profile name -> port, and runs until its standard input is closed.
"""

import json
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

import trio

import mqtrio
from mqtrio.settings import Limits, SessionRules
from tests.conformance.plugins import Gatekeeper
from tests.conformance.target import PLAIN

#: What each broker is set up to make visible. A test asks for one by `@needs(name)`.
PROFILES: Final[dict[str, dict[str, Any]]] = {
    # As it comes.
    PLAIN: {},
    # Authenticates (also by AUTH packets), and refuses what the plugin's docstring says.
    "auth": {"plugins": [Gatekeeper()]},
    # Offers less than the standard's most, and waits for less.
    "limited": {
        "limits": Limits(
            maximum_packet_size=2048, receive_maximum=4, topic_alias_maximum=2, connect_timeout=1.0
        ),
        "session": SessionRules(
            maximum_expiry_interval=2, maximum_keep_alive=2, maximum_qos=1, retain_available=False
        ),
    },
    "no-aliases": {"limits": Limits(topic_alias_maximum=0)},
    "websocket": {"listen": ["ws://127.0.0.1:0"]},
    "limited-qos-0": {"session": SessionRules(maximum_qos=0)},
}


async def main() -> None:
    """Run all of them until standard input ends; a crash in one of them is an error."""
    async with AsyncExitStack() as stack:
        brokers = {}
        for name, settings in PROFILES.items():
            brokers[name] = await stack.enter_async_context(
                mqtrio.open_broker(**{"listen": ["mqtt://127.0.0.1:0"]} | settings)
            )
        ports = {name: broker.listeners[0].port for name, broker in brokers.items()}
        print(json.dumps(ports), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        crashes = {name: broker.statistics().crashes for name, broker in brokers.items()}
    if any(crashes.values()):
        raise SystemExit(f"connections crashed: {crashes}")


if __name__ == "__main__":
    trio.run(main)
