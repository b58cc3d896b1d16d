"""What a token costs of a CONNECT: `python -m tests.bench.tokens`.

The CPU time of mqtrio-jwt's hook for one CONNECT, by algorithm: reading the token, checking its
signature and claims, compiling its permissions (four filters). Rounds of all algorithms take turns;
the lowest and the median round of each are shown.
"""

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from contrib.jwt.tests.kit import SECRET, Kit
from mqtrio import Allow, AuthenticateEvent, ClientFacts, StartEvent
from mqtrio_jwt import Jwt, JwtSettings
from mqtrio_jwt.algorithms import ALGORITHMS, is_symmetric

#: CONNECTs of one round.
COUNT = 200


async def plugin_for(algorithm: str, kit: Kit, folder: Path) -> Jwt:
    """A plugin that is ready to be asked."""
    path = folder / f"{algorithm}.json"
    path.write_bytes(kit.key_set(algorithm, kid="k"))
    settings = JwtSettings(
        algorithms=(algorithm,),
        secret=SECRET if is_symmetric(algorithm) else None,
        jwks_file=None if is_symmetric(algorithm) else path,
        issuer="https://id.example",
        audience=("mqtt",),
        client_id="{sub}",
        publish=("telemetry/%u/#", "state/%c"),
        subscribe=("commands/%u/#", "site/{site}/#"),
    )
    plugin = Jwt(settings, name="jwt")
    await plugin.start(StartEvent())
    return plugin


def round_of(plugin: Jwt, token: bytes) -> float:
    """CPU seconds for one CONNECT, in a round of many."""
    event = AuthenticateEvent(ClientFacts("ann", "x"), token)
    began = time.process_time()
    for _ in range(COUNT):
        answer = plugin.authenticate(event)
    took = (time.process_time() - began) / COUNT
    assert isinstance(answer, Allow), answer
    return took


async def main(rounds: int) -> None:
    """Measure, and print a table."""
    kit = Kit()
    claims: dict[str, Any] = {
        "iss": "https://id.example",
        "aud": ["mqtt"],
        "site": "north",
        "jti": "17",
    }
    with TemporaryDirectory() as folder:
        plugins = {each: await plugin_for(each, kit, Path(folder)) for each in ALGORITHMS}
    tokens = {each: kit.token(each, {"kid": "k"}, **claims) for each in ALGORITHMS}
    times: dict[str, list[float]] = {each: [] for each in ALGORITHMS}
    for _ in range(rounds):
        for each, plugin in plugins.items():
            times[each].append(round_of(plugin, tokens[each]))
    print("algorithm  bytes  lowest us  median us")
    for each, found in times.items():
        low, middle = min(found) * 1e6, statistics.median(found) * 1e6
        print(f"{each:<9}  {len(tokens[each]):>5}  {low:>9.0f}  {middle:>9.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a token costs of a CONNECT.")
    parser.add_argument("--rounds", type=int, default=15)
    trio.run(main, parser.parse_args().rounds)
