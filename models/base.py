"""What several of the product's models share."""

from typing import Annotated, Literal

from pydantic import StringConstraints

# No validator before a pattern: the API's document would lose it.
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$", max_length=12)]
CefrLevel = Literal["A1", "A2", "B1", "B2", "C1", "C2"]
LEVELS = "'A1', 'A2', 'B1', 'B2', 'C1', 'C2'"
FORMAT = 2
"""Of what is cached, as part of its key, and of a profile, as part of its tag. Raise it when the bytes get another
shape: nobody must be served, or told to keep, what an earlier release made."""
