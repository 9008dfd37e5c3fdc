"""The app that kills itself when told: see tristore/testing/doomed.py. Run as `python -m tests.doomed PORT`."""

import asyncio
import sys

import uvicorn
from pymongo import monitoring

from config import get_settings
from main import create_app
from tristore.http.protocol import HttpProtocol
from tristore.stores.stores import open_stores
from tristore.testing.doomed import Arm, Doom, MongoCalls, watch


async def main(port: int) -> None:
    doom = Doom()
    monitoring.register(MongoCalls(doom))
    settings = get_settings()
    async with open_stores(settings) as stores:
        watch(stores, doom)
        app = create_app(settings, stores)
        app.add_middleware(Arm, doom=doom)
        config = uvicorn.Config(app, port=port, http=HttpProtocol, log_level="warning", timeout_keep_alive=75)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
