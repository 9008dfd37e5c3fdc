"""All tables in one metadata: importing this module makes Alembic see them."""

from models.base import Table
from models.course import CourseRow
from models.idempotency import IdempotencyRecord
from models.order import LedgerEntry, OrderRow
from models.outbox import OutboxEffect, OutboxStream
from models.saga import SagaRow
from models.session import Session
from models.user import Profile, User

__all__ = [
    "CourseRow",
    "IdempotencyRecord",
    "LedgerEntry",
    "OrderRow",
    "OutboxEffect",
    "OutboxStream",
    "Profile",
    "SagaRow",
    "Session",
    "User",
    "metadata",
]

metadata = Table.metadata
