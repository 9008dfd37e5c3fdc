"""All tables in one metadata: importing this module makes Alembic see them."""

from models.base import Table
from models.user import Profile, User

__all__ = ["Profile", "User", "metadata"]

metadata = Table.metadata
