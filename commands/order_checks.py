"""What must agree between orders in PostgreSQL and seats in MongoDB."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from models.course import CourseRow
from models.order import OrderRow
from tristore.ops.agreement import Check, Seen, missing
from tristore.saga.repository import OPEN
from tristore.saga.tables import SagaRow
from tristore.stores.keys import MongoKeys, PostgresKeys, uuids
from tristore.stores.mongodb import Document
from tristore.stores.postgres import connect
from wiring import Services

TRIES, PAUSE_SECONDS = 25, 0.2
"""So often a course is looked at, until no order of it moves for a moment."""
AT_ONCE = 20
"""Courses. All orders of each are summed."""
UNCOUNTED = "Nobody can order these courses. docs/orders.md says how to begin to count."
ALONE = "PostgreSQL does not know these courses. docs/orders.md says how to delete what is counted of them."
MISCOUNTED = "docs/orders.md says how to mend this in MongoDB, while the service runs."
ORDERS = (
    select(
        OrderRow.course_id,
        func.count().label("orders"),
        func.max(SagaRow.updated_at).label("moved"),
        func.count().filter(SagaRow.state.in_(OPEN)).label("open"),
        func.coalesce(func.sum(OrderRow.quantity).filter(OrderRow.status == "confirmed"), 0).label("sold"),
    )
    .outerjoin(SagaRow, SagaRow.id == OrderRow.id)
    .group_by(OrderRow.course_id)
)


def checks(services: Services) -> Sequence[Check]:
    courses = PostgresKeys(services.stores.postgres, CourseRow.id)
    seats = MongoKeys(services.stores.mongodb, "seats")
    return [
        missing("courses without seats", UNCOUNTED, courses, seats, lambda key: f"course:{key}"),
        missing("seats of no course", ALONE, seats, courses),
        Check(
            "courses whose seats are not those that are sold",
            MISCOUNTED,
            seats.following,
            _Counts(services).look,
            at_once=AT_ONCE,
        ),
    ]


@dataclass(frozen=True)
class _Orders:
    """Of a course, as far as seats go."""

    number: int = 0
    moved: datetime | None = None
    open: int = 0
    sold: int = 0


class _Counts:
    """Compares a course while none of its orders moves: read before and after the seats, they are the same."""

    def __init__(self, services: Services) -> None:
        self._stores = services.stores
        self._outbox = services.outbox.repository

    async def look(self, keys: Collection[str]) -> Seen:
        told: dict[str, str] = {}
        left = list(keys)
        for turn in range(TRIES):
            await asyncio.sleep(PAUSE_SECONDS if turn else 0)
            told |= await self._compare(left)
            left = [key for key in left if key not in told]
            if not left:
                break
        return Seen({key: words for key, words in told.items() if words}, left)

    async def _compare(self, keys: Sequence[str]) -> dict[str, str]:
        """What is wrong with those that do not move, "" where nothing is."""
        before, first = await self._orders(keys), await self._seats(keys)
        markers = [f"marker:{marker}" for document in first.values() for marker in _markers(document)]
        owed = await self._outbox.waiting(markers)
        seats = await self._seats(keys)  # again: what was owed by then may have been dropped meanwhile
        after = await self._orders(keys)
        still = [key for key in keys if before[key] == after[key] and not after[key].open]
        return {key: _told(seats.get(key), after[key].sold, owed) for key in still}

    async def _orders(self, keys: Sequence[str]) -> Mapping[str, _Orders]:
        async with connect(self._stores.postgres.background) as connection:
            rows = await connection.execute(ORDERS.where(OrderRow.course_id.in_(list(uuids(keys)))))
            found = {str(row[0]): _Orders(*row[1:]) for row in rows}
        return dict.fromkeys(keys, _Orders()) | found

    async def _seats(self, keys: Sequence[str]) -> Mapping[str, Document]:
        async with self._stores.mongodb.reading() as database:
            found = await database.seats.find({"_id": {"$in": keys}}).to_list(None)
        return {document["_id"]: document for document in found}


def _told(seats: Document | None, sold: int, owed: Collection[str]) -> str:
    if seats is None:
        return ""  # it is gone, and another check tells of it
    taken = seats["taken"]
    words = [f"{taken} are taken and {sold} sold: add {sold - taken}"] * (taken != sold)
    left = [marker for marker in _markers(seats) if f"marker:{marker}" not in owed]
    return "; ".join(words + [f"nobody drops the markers {', '.join(left)}"] * bool(left))


def _markers(seats: Document) -> list[str]:
    return [marker["id"] for marker in seats["markers"]]
