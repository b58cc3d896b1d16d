"""A broker inside of a FastAPI application: sensors speak MQTT, browsers speak HTTP.

    pip install fastapi uvicorn httpx
    python examples/with_fastapi.py

The broker lives as long as the application (its lifespan). Run as above, the program serves itself
on a free port, and asks itself by HTTP. As an application of your own:

    uvicorn --app-dir examples with_fastapi:app
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException

import mqtrio.embed

MQTT = "mqtt://127.0.0.1:0"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the broker with the application, and stop it with it."""
    async with mqtrio.embed.open_asyncio_broker(MQTT) as broker:
        app.state.broker = broker
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/sensors/{name}")
async def read(name: str) -> dict[str, str]:
    """What a sensor has said last."""
    broker: mqtrio.embed.AsyncioBroker = app.state.broker
    for message in broker.retained(f"sensors/{name}"):
        return {"name": name, "value": message.payload.decode()}
    raise HTTPException(404, "it has never said a word")


@app.post("/lamps/{name}/{state}")
async def switch(name: str, state: str) -> dict[str, bool]:
    """Tell a lamp to go on or off; says whether there is one that listens."""
    broker: mqtrio.embed.AsyncioBroker = app.state.broker
    result = await broker.publish(f"lamps/{name}", state, qos=1)
    return {"heard": result.matched}


async def main() -> None:
    """Serve the application, and be its sensor, its lamp and its browser."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    broker: mqtrio.embed.AsyncioBroker = app.state.broker
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as browser:
        print((await browser.get("/sensors/attic")).json())
        await broker.publish("sensors/attic", "30", retain=True)
        print((await browser.get("/sensors/attic")).json())
        async with broker.subscribe("lamps/desk") as lamp:
            print((await browser.post("/lamps/desk/on")).json())
            print(f"the lamp goes {(await lamp.receive(timeout=5)).payload.decode()}")
        print((await browser.post("/lamps/desk/off")).json())
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
