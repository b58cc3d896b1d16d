"""Telemetry in a browser: a page that draws what sensors publish, and publishes itself.

    python examples/telemetry-page/telemetry_page.py          # then open the address that it prints

It needs mqtrio-websocket (`pip install mqtrio-websocket`). The page is three files without any
library; a web server serves them, here the one of Python. The broker lets in pages of that server's
origin and of no other. Ctrl-C ends it.
"""

import argparse
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import trio

import mqtrio

FOLDER = Path(__file__).parent
ROOMS = ("kitchen", "cellar", "attic")


class Files(SimpleHTTPRequestHandler):
    """The files of this folder, without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Say nothing."""


@contextmanager
def web_server(port: int) -> Iterator[str]:
    """Serve the page for the length of a block, in a thread; its origin."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(Files, directory=FOLDER)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def sensor(broker: mqtrio.Broker, room: str, period: float) -> None:
    """Publish the temperature of a room, as a sensor does."""
    celsius = random.uniform(17, 23)
    while True:
        celsius = min(28.0, max(12.0, celsius + random.uniform(-0.5, 0.5)))
        await broker.publish(f"sensors/{room}/temperature", f"{celsius:.2f}")
        await trio.sleep(period)


async def main(options: argparse.Namespace) -> None:
    """Run the broker, the web server and the sensors, and print what pages publish."""
    with web_server(options.http) as origin:
        listener = mqtrio.Listener(
            url=f"ws://127.0.0.1:{options.ws}", websocket={"origins": [origin]}
        )
        async with mqtrio.open_broker(listener) as broker, trio.open_nursery() as nursery:
            port = broker.listeners[0].port
            print(f"open {origin}/?broker=ws://127.0.0.1:{port}/mqtt", flush=True)
            for room in ROOMS:
                nursery.start_soon(sensor, broker, room, options.period)
            async with broker.subscribe("sensors/page/temperature") as messages:
                async for message in messages:
                    print(f"the page says {message.payload.decode()}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, default=8080, help="port of the web server")
    parser.add_argument("--ws", type=int, default=8083, help="port of the broker")
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two readings")
    try:
        trio.run(main, parser.parse_args())
    except* KeyboardInterrupt:
        pass
