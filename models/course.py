"""Courses: the table in PostgreSQL and what the API takes and gives."""

import uuid
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints
from pydantic.config import JsonDict
from sqlalchemy import CheckConstraint, String, false, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import LEVELS, CefrLevel, Language
from tristore.models import Model, Moment, Number, OneLine, PartialUpdate, Storable, Table, at_most, example

MAX_CAPACITY = 1_000_000
MAX_PRICE = 100_000_000
AT_ONCE = 100
"""Rows of a batch."""

EXAMPLE: JsonDict = {
    "title": "Portuguese for the weekend",
    "description": "Order, ask the way, say thank you.",
    "price_cents": 4900,
    "language": "pt",
    "level": "A1",
    "capacity": 20,
}

Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), at_most(200), OneLine]
Description = Annotated[str, StringConstraints(max_length=5000), Storable]
Price = Annotated[int, Field(ge=0, le=MAX_PRICE), Number]
Capacity = Annotated[int, Field(ge=0, le=MAX_CAPACITY), Number]


class CourseRow(Table):
    __tablename__ = "courses"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(String(5000))
    price_cents: Mapped[int]
    language: Mapped[str] = mapped_column(String(12))
    level: Mapped[str] = mapped_column(String(2))
    capacity: Mapped[int]
    version: Mapped[int] = mapped_column(server_default="1")
    """Grows by one with each change."""
    is_deleted: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("price_cents >= 0", name="price_cents"),
        CheckConstraint(f"capacity BETWEEN 0 AND {MAX_CAPACITY}", name="capacity"),
        CheckConstraint(f"level IN ({LEVELS})", name="level"),
    )


class CourseIn(Model):
    """Body of POST /courses."""

    model_config = example(EXAMPLE)

    title: Title
    description: Description = ""
    price_cents: Price
    language: Language
    level: CefrLevel
    capacity: Capacity


class CourseBatch(Model):
    """Body of POST /courses/batch."""

    model_config = example({"courses": [EXAMPLE, EXAMPLE | {"level": "A2"}]})

    courses: Annotated[list[CourseIn], Field(min_length=1, max_length=AT_ONCE)]


class CourseUpdate(PartialUpdate):
    """Body of PATCH /courses/{id}: what is not sent stays as it is."""

    model_config = example({"price_cents": 3900})

    title: Title = ""
    description: Description = ""
    price_cents: Price = 0
    language: Language = ""
    level: CefrLevel = "A1"
    capacity: Capacity = 0


class CourseBrief(BaseModel):
    """What is shown of a course within something else."""

    id: uuid.UUID
    title: str
    language: str
    level: CefrLevel


class Course(CourseBrief):
    description: str
    price_cents: int
    capacity: int
    # begin part orders
    seats_left: int | None = Field(None, description="null while the database that counts them does not answer")
    # end part orders
    version: int
    created_at: Moment
    updated_at: Moment


class CourseList(BaseModel):
    items: list[Course]


class CoursePage(CourseList):
    total: int = Field(description="how many there are on all pages")
