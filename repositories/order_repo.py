"""Orders and the points they earn, in PostgreSQL."""

import uuid
from dataclasses import dataclass

from sqlalchemy import BigInteger, Select, cast, func, insert, literal, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import contains_eager, selectinload

from database.postgres import Postgres, connect, read_anywhere
from models.course import CourseBrief, CourseRow
from models.order import CENTS_PER_POINT, CancelReason, LedgerEntry, Order, OrderIn, OrderRow
from models.user import User
from tristore.errors import TooMany
from tristore.models import Page, cursor_page

BRIEF = (CourseRow.id, CourseRow.title, CourseRow.language, CourseRow.level)
ORDER = (
    OrderRow.id,
    OrderRow.quantity,
    OrderRow.price_cents,
    OrderRow.status,
    OrderRow.reason,
    OrderRow.created_at,
)


@dataclass(frozen=True)
class SeatsWanted:
    """What MongoDB has to know of an order."""

    course_id: uuid.UUID
    quantity: int
    capacity: int
    course_deleted: bool
    was_confirmed: bool


class OrderRepository:
    """Never commits: what writes takes the session of a unit of work. Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def add(self, session: AsyncSession, order_id: uuid.UUID, user_id: uuid.UUID, order: OrderIn) -> Order | None:
        """The pending order; None when there is no such course."""
        wanted = (
            select(CourseRow.price_cents, *BRIEF)
            .where(CourseRow.id == order.course_id, CourseRow.is_deleted.is_(False))
            .cte("wanted")
        )
        price = wanted.c.price_cents * cast(order.quantity, BigInteger)
        values = select(literal(order_id), literal(user_id), wanted.c.id, literal(order.quantity), price)
        columns = ["id", "user_id", "course_id", "quantity", "price_cents"]
        placed = insert(OrderRow).from_select(columns, values).returning(*ORDER).cte("placed")
        course = (wanted.c[column.name].label(f"course_{column.name}") for column in BRIEF)
        row = (await session.execute(select(placed, *course).join(wanted, true()))).one_or_none()
        if row is None:
            return None
        values_of = dict(row._mapping)
        brief = {column.name: values_of.pop(f"course_{column.name}") for column in BRIEF}
        return Order.model_validate({"course": brief, "points": 0, **values_of})

    async def refuse_beyond(self, session: AsyncSession, most: int, user_id: uuid.UUID) -> None:
        """Raises TooMany. Requests that come together may each find room for one."""
        last = select(OrderRow.id).where(OrderRow.user_id == user_id).offset(most - 1).limit(1)
        if await session.scalar(last) is not None:
            raise TooMany(most, "orders")

    async def outcome(self, order: Order) -> Order:
        """A placed order as it is now."""
        query = select(OrderRow.status, OrderRow.reason).where(OrderRow.id == order.id)
        async with connect(self._postgres.reads) as connection:
            row = (await connection.execute(query)).one()
        points = order.price_cents // CENTS_PER_POINT if row.status == "confirmed" else 0
        return order.model_copy(update={"status": row.status, "reason": row.reason, "points": points})

    async def get(self, user_id: uuid.UUID, order_id: uuid.UUID) -> Order | None:
        async with connect(self._postgres.reads) as connection:
            found = await _read(connection, _orders(user_id).where(OrderRow.id == order_id))
        return found[0] if found else None

    async def page(self, user_id: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[Order]:
        """As many statements for one as for a hundred."""
        query = _orders(user_id).order_by(OrderRow.id.desc()).limit(limit + 1)
        query = query.where(OrderRow.id < cursor) if cursor else query
        return cursor_page(await read_anywhere(self._postgres, lambda connection: _read(connection, query)), limit)

    async def points(self, user_id: uuid.UUID) -> int:
        """What the user's orders have earned, less what was taken back."""
        query = select(func.coalesce(func.sum(LedgerEntry.points), 0)).where(LedgerEntry.user_id == user_id)
        async with connect(self._postgres.reads) as connection:
            return int((await connection.execute(query)).scalar_one())

    async def seats_wanted(self, order_id: uuid.UUID) -> SeatsWanted:
        query = (
            select(
                OrderRow.course_id,
                OrderRow.quantity,
                CourseRow.capacity,
                CourseRow.is_deleted.label("course_deleted"),
                OrderRow.confirmed_at.is_not(None).label("was_confirmed"),
            )
            .join(CourseRow)
            .where(OrderRow.id == order_id)
        )
        async with connect(self._postgres.reads) as connection:
            return SeatsWanted(**(await connection.execute(query)).one()._mapping)

    async def confirm(self, session: AsyncSession, order_id: uuid.UUID) -> uuid.UUID | CancelReason:
        """Confirm a pending order and credit its points, with its user locked. Returns the course, or why not."""
        owner = select(OrderRow.user_id).where(OrderRow.id == order_id).scalar_subquery()
        user = select(User.erased_at).where(User.id == owner).with_for_update(read=True, key_share=True)
        if (await session.execute(user)).scalar_one() is not None:
            return "erased"
        confirmed = (
            update(OrderRow)
            .where(OrderRow.id == order_id, OrderRow.status == "pending", CourseRow.id == OrderRow.course_id)
            .where(CourseRow.is_deleted.is_(False))
            .values(status="confirmed", confirmed_at=func.now())
            .returning(OrderRow.user_id, OrderRow.course_id, OrderRow.price_cents)
        )
        row = (await session.execute(confirmed)).one_or_none()
        if row is None:  # an erasure would have been seen
            return "course deleted"
        await self.credit(session, order_id, row.user_id, row.price_cents // CENTS_PER_POINT)
        course_id: uuid.UUID = row.course_id
        return course_id

    async def credit(self, session: AsyncSession, order_id: uuid.UUID, user_id: uuid.UUID, points: int) -> None:
        entry = {"order_id": order_id, "user_id": user_id, "points": points}
        await session.execute(insert(LedgerEntry).values(kind="earned", **entry))

    async def cancel(self, session: AsyncSession, order_id: uuid.UUID, reason: CancelReason) -> None:
        """Unless it is cancelled already: the first reason stays."""
        query = update(OrderRow).where(OrderRow.id == order_id, OrderRow.status != "cancelled")
        await session.execute(query.values(status="cancelled", reason=reason))

    async def erase(self, session: AsyncSession, user_id: uuid.UUID) -> None:
        """Cancel what is pending. Orders and points stay."""
        query = update(OrderRow).where(OrderRow.user_id == user_id, OrderRow.status == "pending")
        await session.execute(query.values(status="cancelled", reason="erased"))

    async def revoke_points(self, session: AsyncSession, order_id: uuid.UUID) -> None:
        """Take back what the order earned."""
        earned = select(LedgerEntry.user_id, LedgerEntry.order_id, literal("revoked"), -LedgerEntry.points).where(
            LedgerEntry.order_id == order_id, LedgerEntry.kind == "earned"
        )
        await session.execute(insert(LedgerEntry).from_select(["user_id", "order_id", "kind", "points"], earned))


async def _read(connection: AsyncConnection, query: Select[OrderRow]) -> list[Order]:
    async with AsyncSession(connection) as session:
        return [_as_order(row) for row in await session.scalars(query)]


def _orders(user_id: uuid.UUID) -> Select[OrderRow]:
    # The page is one statement with the courses, and the ledger's entries of all its orders are a second.
    together = (contains_eager(OrderRow.course), selectinload(OrderRow.entries))
    return select(OrderRow).join(OrderRow.course).options(*together).where(OrderRow.user_id == user_id)


def _as_order(row: OrderRow) -> Order:
    course = CourseBrief.model_validate(row.course, from_attributes=True)
    points = sum(entry.points for entry in row.entries)
    columns = {column.name: getattr(row, column.name) for column in ORDER}
    return Order.model_validate({"course": course, "points": points, **columns})
