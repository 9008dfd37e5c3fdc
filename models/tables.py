"""The product's tables: Alembic sees those that this module imports."""

from models.course import CourseRow
from models.idempotency import IdempotencyRecord
from models.order import LedgerEntry, OrderRow
from models.session import Session
from models.user import Profile, User
from tristore.models import Table

__all__ = [
    "CourseRow",
    "IdempotencyRecord",
    "LedgerEntry",
    "OrderRow",
    "Profile",
    "Session",
    "User",
    "metadata",
]

metadata = Table.metadata
