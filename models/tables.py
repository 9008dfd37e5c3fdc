"""All tables in one metadata: importing this module makes Alembic see them."""

from models.course import CourseRow
from models.idempotency import IdempotencyRecord
from models.order import LedgerEntry, OrderRow
from models.session import Session
from models.user import Profile, User
from tristore.models import Table
from tristore.outbox.tables import OutboxEffect, OutboxStream
from tristore.saga.tables import SagaRow

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
