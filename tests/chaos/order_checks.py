"""What must be true of orders, points and seats when all sagas have come to their end."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pymongo import AsyncMongoClient

from config import Settings
from tests.chaos.guests import Found
from tests.chaos.memory import Violation
from tests.chaos.snapshot import Row, grouped, query

CENTS_PER_POINT = 100
ENDS = {"confirmed": "done", "cancelled": "compensated"}


COURSES = "SELECT CAST(id AS text) AS id, capacity, is_deleted FROM courses"
ORDERS = """
SELECT CAST(id AS text) AS id, CAST(user_id AS text) AS user_id, CAST(course_id AS text) AS course, quantity,
       price_cents, status, reason
FROM orders
"""
LEDGER = "SELECT CAST(order_id AS text) AS order_id, CAST(user_id AS text) AS user_id, points FROM points_ledger"
SAGAS = "SELECT CAST(id AS text) AS id, state, step, reason FROM sagas"


@dataclass(frozen=True)
class OrderRows:
    courses: dict[str, Row]
    orders: dict[str, Row]
    ledger: dict[str, list[Row]]
    """Of each order."""
    sagas: dict[str, Row]
    seats: dict[str, Row]


async def take(settings: Settings) -> OrderRows:
    async with AsyncMongoClient[dict[str, Any]](settings.dsn("mongodb_dsn")) as client:
        seats = await client[settings.mongodb_database].seats.find({}).to_list(None)
    return OrderRows(
        courses={row["id"]: row for row in await query(settings, COURSES)},
        orders={row["id"]: row for row in await query(settings, ORDERS)},
        ledger=grouped(await query(settings, LEDGER), "order_id"),
        sagas={row["id"]: row for row in await query(settings, SAGAS)},
        seats={document["_id"]: document for document in seats},
    )


@dataclass(frozen=True)
class OrderChecks:
    stores: OrderRows
    found: Found

    def all(self) -> Iterator[Violation]:
        for order in self.stores.orders.values():
            yield from self._order(order)
        for id_, saga in self.stores.sagas.items():
            if id_ not in self.stores.orders:
                yield self.found(f"a saga of no order: {saga}", id_)
        yield from self._seats()

    def _order(self, order: Row) -> Iterator[Violation]:
        id_, saga = order["id"], self.stores.sagas.get(order["id"])
        if order["status"] == "pending":
            yield self.found(f"order {id_} is still pending, its saga {saga}", id_)
        elif saga is None or saga["state"] != ENDS[order["status"]]:
            yield self.found(f"order {id_} is {order['status']}, its saga {saga}", id_)
        entries = [entry["points"] for entry in self.stores.ledger.get(id_, [])]
        earned = order["price_cents"] // CENTS_PER_POINT
        possible = [[earned]] if order["status"] == "confirmed" else [[], sorted([earned, -earned])]
        if sorted(entries) not in possible:
            yield self.found(f"order {id_} of {earned} points is {order['status']}, its ledger {entries}", id_)
        if any(entry["user_id"] != order["user_id"] for entry in self.stores.ledger.get(id_, [])):
            yield self.found(f"the points of order {id_} went to somebody else", id_)

    def _seats(self) -> Iterator[Violation]:
        sold: Counter[str] = Counter()
        for order in self.stores.orders.values():
            sold[order["course"]] += order["quantity"] if order["status"] == "confirmed" else 0
        for id_, course in self.stores.courses.items():
            seats = self.stores.seats.get(id_)
            if seats is None:
                yield self.found(f"nobody counts the seats of course {id_}", id_)
                continue
            if seats["taken"] != sold[id_]:
                yield self.found(f"course {id_}: {seats['taken']} seats are taken, {sold[id_]} were sold", id_)
            if seats["taken"] > course["capacity"]:
                yield self.found(f"course {id_}: {seats['taken']} of {course['capacity']} seats are taken", id_)
            if seats["markers"]:
                yield self.found(f"course {id_} still has markers: {seats['markers']}", seats["markers"][0]["id"][:36])
        for id_ in self.stores.seats.keys() - self.stores.courses.keys():
            yield self.found(f"seats of no course: {id_}", id_)
