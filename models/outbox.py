"""Effects: what a PostgreSQL transaction owes to another store."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict


class Effect(BaseModel):
    """One idempotent change of one other store; its fields are the payload. `services/effects.py` has them all."""

    model_config = ConfigDict(frozen=True)

    store: ClassVar[Literal["redis", "mongodb"]]
