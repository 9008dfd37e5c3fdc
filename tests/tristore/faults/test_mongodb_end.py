"""The end of a client of MongoDB, whose server hangs."""

import asyncio
import time

import pytest

from tristore.stores.mongodb import open_mongodb
from tristore.testing.lab import Lab
from tristore.testing.proxy import proxy_to

SECONDS = 2


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_a_client_waits_no_longer_than_its_time_and_the_event_loop_goes_on_meanwhile(
    lab: Lab, driver: str
) -> None:
    port, turns = lab.servers["mongodb"].port, 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(SECONDS / 20)
            turns += 1

    async with proxy_to(port) as proxy, asyncio.TaskGroup() as tasks:
        dsn = lab.settings.dsn("mongodb_dsn").replace(f":{port}", f":{proxy.port}")
        values = lab.settings.model_dump() | {"mongodb_dsn": dsn, "mongodb_driver": driver, "mongodb_timeout": SECONDS}
        async with open_mongodb(type(lab.settings)(_env_file=None, **values)) as mongodb:
            await mongodb.database.probes.find_one({})  # it has a session now, which it wants to end
            proxy.black_hole = True
            begun = time.monotonic()
            counting = tasks.create_task(count())
        assert time.monotonic() - begun < 4 * SECONDS
        assert turns > 5
        counting.cancel()
