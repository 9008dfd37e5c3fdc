"""The table in MySQL, and what the probe asks of it."""

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Uuid, update
from sqlalchemy.dialects.mysql import DATETIME

metadata = MetaData()
"""Not that of `tristore.models`: nobody may look for this table in PostgreSQL."""

POINTS = Table(
    "points_of_orders",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("revoked_at", DATETIME(fsp=6), nullable=True),
    Index("ix_points_of_orders_user", "user_id", "revoked_at", "points"),
    mysql_engine="InnoDB",
)
"""A row for each order, for ever. Whoever comes first, the points or their revocation, decides what becomes of them."""

probe = update(POINTS).where(POINTS.c.order_id.is_(None)).values(points=POINTS.c.points)
