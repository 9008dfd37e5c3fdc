"""Points that orders have earned, in MySQL.

An order has one row, whose key is the order's id. So the server itself decides, and no clock is asked:
- The same points are earned once, however often they are credited.
- What is revoked first is never earned. A write that was given up, and lands after its order was cancelled, finds the
  row of the revocation. A revocation that comes while that write is under way waits for it at this row.
"""

import uuid

from sqlalchemy import func, select
from sqlalchemy.dialects.mysql import insert

from examples.mysql_points.mysql import MySQL
from examples.mysql_points.tables import POINTS


class PointsRepository:
    """Each method raises StoreUnavailable when MySQL does not answer in time."""

    def __init__(self, mysql: MySQL) -> None:
        self._mysql = mysql

    async def credit(self, order_id: uuid.UUID, user_id: uuid.UUID, points: int) -> None:
        """Once, however often and late this is asked; not at all once it is revoked."""
        new = insert(POINTS).values(order_id=order_id, user_id=user_id, points=points)
        async with self._mysql.operation() as connection:
            await connection.execute(new.on_duplicate_key_update(order_id=POINTS.c.order_id))

    async def revoke(self, order_id: uuid.UUID, user_id: uuid.UUID, points: int) -> None:
        """Whether they were credited or not: from now on they never are."""
        now = func.utc_timestamp(6)
        new = insert(POINTS).values(order_id=order_id, user_id=user_id, points=points, revoked_at=now)
        first = func.coalesce(POINTS.c.revoked_at, now)
        async with self._mysql.operation() as connection:
            await connection.execute(new.on_duplicate_key_update(revoked_at=first))

    async def balance(self, user_id: uuid.UUID) -> int:
        query = select(func.coalesce(func.sum(POINTS.c.points), 0))
        query = query.where(POINTS.c.user_id == user_id, POINTS.c.revoked_at.is_(None))
        async with self._mysql.operation() as connection:
            return int((await connection.execute(query)).scalar_one())
