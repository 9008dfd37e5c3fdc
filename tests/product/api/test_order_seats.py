"""What is left of a course's seats, through the API."""

import httpx
import pytest

from models.course import EXAMPLE
from tests.product.orders import seats
from tests.product.things import count, new_course
from tristore.stores.stores import Stores


async def test_a_new_course_has_all_its_seats(client: httpx.AsyncClient, stores: Stores, admin: dict[str, str]) -> None:
    made = await new_course(client, admin, capacity=20)
    assert made["seats_left"] == 20
    assert await seats(stores, made) == {"_id": made["id"], "taken": 0, "markers": []}


@pytest.mark.parametrize(("taken", "left"), [(19, 1), (20, 0), (25, 0)])
async def test_what_is_left_is_the_capacity_less_what_is_taken(
    client: httpx.AsyncClient, stores: Stores, admin: dict[str, str], taken: int, left: int
) -> None:
    made = await new_course(client, admin)
    await stores.mongodb.database.seats.update_one({"_id": made["id"]}, {"$set": {"taken": taken}})
    assert (await client.get(f"/courses/{made['id']}")).json()["seats_left"] == left
    assert (await client.get("/courses", params={"limit": 1})).json()["items"][0]["seats_left"] == left
    changed = await client.patch(f"/courses/{made['id']}", headers=admin, json={"capacity": 30})
    assert changed.json()["seats_left"] == 30 - taken
    renamed = await client.patch(f"/courses/{made['id']}", headers=admin, json={"title": "t"})
    assert renamed.json()["seats_left"] == 30 - taken


async def test_each_course_of_a_batch_has_seats(
    client: httpx.AsyncClient, stores: Stores, admin: dict[str, str]
) -> None:
    rows = [EXAMPLE | {"capacity": i} for i in range(100)]
    made = (await client.post("/courses/batch", headers=admin, json={"courses": rows})).json()["items"]
    assert [course["seats_left"] for course in made] == list(range(100))
    owed = "SELECT count(*) FROM outbox WHERE name = 'OpenSeats'"
    opened = await stores.mongodb.database.seats.count_documents({"_id": {"$in": [course["id"] for course in made]}})
    assert opened + await count(stores, owed) >= 100
