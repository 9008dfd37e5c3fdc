"""Without the store that counts seats."""

from collections.abc import Awaitable

import pytest
from pymongo.errors import PyMongoError

from tests.product.people import register_admin
from tests.product.things import new_course
from tests.under_test import Lab, stores_beside
from tristore.testing.lab import FAULTS, App, Fault, timed, until


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_mongodb_courses_are_shown_and_added(lab: Lab, app: App, fault: Fault) -> None:
    client = app.client
    async with stores_beside(lab.settings) as stores:
        admin = await register_admin(client, stores)
        first = await new_course(client, admin)
        async with lab.without("mongodb", fault):
            path = f"/courses/{(await new_course(client, admin))['id']}"
            one, seconds_of_one = await timed(client.get(path))
            page, seconds_of_page = await timed(client.get("/courses", params={"limit": 2}))
            assert (one.status_code, page.status_code) == (200, 200)
            assert page.json()["items"] == [one.json(), first | {"seats_left": None}]
            assert one.json()["seats_left"] is None
            assert max(seconds_of_one, seconds_of_page) < 1.5
        opened = stores.mongodb.database.seats
        await until(lambda: has(opened.find_one({"_id": path.removeprefix("/courses/")})), 5)
        assert (await client.get(path)).json()["seats_left"] == first["capacity"]


async def has(found: Awaitable[object]) -> bool:
    try:
        return await found is not None
    except PyMongoError:  # not yet
        return False
