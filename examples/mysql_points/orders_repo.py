"""Orders whose points are in MySQL. The orders themselves are in PostgreSQL, as before."""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from database.postgres import Postgres, connect
from examples.mysql_points.points_repo import PointsRepository
from models.order import CENTS_PER_POINT, Order, OrderRow
from repositories.order_repo import OrderRepository
from tristore.models import Page


@dataclass(frozen=True)
class Earned:
    """What MySQL has to know of an order."""

    order_id: uuid.UUID
    user_id: uuid.UUID
    points: int


class OrdersWithPoints(OrderRepository):
    """Reads the orders that were placed before as well: their points are still in PostgreSQL's ledger."""

    def __init__(self, postgres: Postgres, points: PointsRepository) -> None:
        super().__init__(postgres)
        self._points = points

    async def earned(self, order_id: uuid.UUID) -> Earned:
        query = select(OrderRow.user_id, OrderRow.price_cents).where(OrderRow.id == order_id)
        async with connect(self._postgres.reads) as connection:
            row = (await connection.execute(query)).one()
        return Earned(order_id, row.user_id, row.price_cents // CENTS_PER_POINT)

    async def credit(self, session: AsyncSession, order_id: uuid.UUID, user_id: uuid.UUID, points: int) -> None:
        """A step before this one has credited them in MySQL."""

    async def points(self, user_id: uuid.UUID) -> int:
        """Raises StoreUnavailable, also when MySQL is down."""
        return await super().points(user_id) + await self._points.balance(user_id)

    async def get(self, user_id: uuid.UUID, order_id: uuid.UUID) -> Order | None:
        order = await super().get(user_id, order_id)
        return order and _with_points(order)

    async def page(self, user_id: uuid.UUID, limit: int, cursor: uuid.UUID | None) -> Page[Order]:
        page = await super().page(user_id, limit, cursor)
        return Page(items=[_with_points(order) for order in page.items], next_cursor=page.next_cursor)


def _with_points(order: Order) -> Order:
    # As the saga has it: an order is confirmed after its points were credited, and cancelled before they are revoked.
    points = order.price_cents // CENTS_PER_POINT if order.status == "confirmed" else 0
    return order.model_copy(update={"points": points})
