"""The table of the links that users are mailed."""

import uuid

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tristore.links import LinkTable


class EmailLink(LinkTable):
    __tablename__ = "email_links"

    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
