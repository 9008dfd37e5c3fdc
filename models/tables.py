"""All tables in one metadata: importing this module makes Alembic see them."""

from models.base import Table
from models.course import CourseRow
from models.idempotency import IdempotencyRecord
from models.outbox import OutboxEffect, OutboxStream
from models.session import Session
from models.user import Profile, User

__all__ = ["CourseRow", "IdempotencyRecord", "OutboxEffect", "OutboxStream", "Profile", "Session", "User", "metadata"]

metadata = Table.metadata
