"""Orders of courses, and the points they earn: tables in PostgreSQL and what the API takes and gives."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from pydantic.config import JsonDict
from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.course import CourseBrief, CourseRow, Price
from tristore.models import Model, Moment, Number, Page, Table, example

Status = Literal["pending", "confirmed", "cancelled"]
CancelReason = Literal["sold out", "course deleted", "deadline", "erased", "by the user", "by an operator"]
CENTS_PER_POINT = 100
EXAMPLE: JsonDict = {"course_id": "0199d3c2-7b44-7000-8000-000000000000", "quantity": 1}


class LedgerEntry(Table):
    """Points that an order earned, or that were taken back. Nothing here is ever changed: the balance is the sum."""

    __tablename__ = "points_ledger"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    order_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orders.id"))
    kind: Mapped[str] = mapped_column(String(8))
    points: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("order_id", "kind"),
        CheckConstraint("CASE kind WHEN 'earned' THEN points >= 0 WHEN 'revoked' THEN points <= 0 END", name="kind"),
        Index("ix_points_ledger_user_id", "user_id"),
    )


class OrderRow(Table):
    __tablename__ = "orders"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    course_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("courses.id"))
    quantity: Mapped[int]
    price_cents: Mapped[int] = mapped_column(BigInteger)
    """Of the whole order, as it was when it was placed."""
    status: Mapped[str] = mapped_column(String(16), server_default="pending")
    reason: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    confirmed_at: Mapped[datetime | None]

    # Loaded by those queries that ask for them: a lazy load is a statement for each row, and raises.
    course: Mapped[CourseRow] = relationship(lazy="raise")
    entries: Mapped[list[LedgerEntry]] = relationship(lazy="raise")

    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("status IN ('pending', 'confirmed', 'cancelled')", name="status"),
        CheckConstraint("(reason IS NULL) = (status <> 'cancelled')", name="reason"),
        Index("ix_orders_user_id", "user_id", "id"),
        Index("ix_orders_course_id", "course_id"),
    )


class OrderIn(Model):
    """Body of POST /orders."""

    model_config = example(EXAMPLE)

    course_id: uuid.UUID
    quantity: Annotated[int, Field(ge=1, le=100), Number] = 1
    expected_price_cents: Price | None = Field(
        None,
        description="of one seat, as the user was shown it: any other price is a conflict",
        exclude_if=lambda price: price is None,  # the release before, which does not know it, repeats the same body
    )


class Order(BaseModel):
    id: uuid.UUID
    course: CourseBrief
    quantity: int
    price_cents: int
    points: int = Field(description="what it earned, less what was taken back")
    status: Status
    reason: CancelReason | None = Field(description="why it was cancelled")
    created_at: Moment


class OrderPage(Page[Order]):
    points: int = Field(description="the caller's balance: what all orders earned")


class OrderPlaced(BaseModel):
    """What is kept with an idempotency key: the order itself may have changed when the key comes again."""

    order_id: uuid.UUID
