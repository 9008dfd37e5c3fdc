"""What fields take from clients."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from tristore.fields import Instant
from tristore.models import Moment

TIME: TypeAdapter[datetime] = TypeAdapter(Instant)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("2026-11-28T07:56:39Z", 39),
        ("2026-11-28t07:56:39z", 39),
        ("2026-11-28T07:56:39.000000001Z", 39),
        ("2026-11-28T07:56:39.25-00:00", 39.25),
        ("2026-11-28T09:26:39+01:30", 39),
    ],
)
def test_a_time_is_one_in_each_form_of_rfc_3339(sent: str, seconds: float) -> None:
    time = TIME.validate_python(sent)
    assert time == datetime(2026, 11, 28, 7, 56, int(seconds), int(seconds % 1 * 1e6), tzinfo=UTC)
    assert time.tzinfo is UTC


@pytest.mark.parametrize(
    "sent",
    [
        1e9,
        0,
        "1e9",
        "1764316599",
        True,
        None,
        [],
        "",
        "2026-11-28",
        "2026-11-28T07:56:39",
        "2026-11-28T07:56Z",
        "2026-11-28 07:56:39Z",
        "2026-11-28T07:56:39+0100",
        "2026-11-28T07:56:39,5Z",
        "2026-11-28T07:56:39Z\n",
        "\u0662026-11-28T07:56:39Z",
        "2026-02-30T07:56:39Z",
        "2026-11-28T24:00:00Z",
        "2026-11-28T07:56:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "2026-11-28T07:56:39+24:00",
    ],
)
def test_nothing_else_is_a_time(sent: Any) -> None:
    with pytest.raises(ValidationError):
        TIME.validate_python(sent)


def test_it_is_documented_and_answered_as_every_time_is() -> None:
    class Thing(BaseModel):
        at: Instant

    for mode in ("validation", "serialization"):
        schema = Thing.model_json_schema(mode=mode)
        assert schema["properties"]["at"] == TypeAdapter(Moment).json_schema() | {"title": "At"}
    thing = Thing.model_validate({"at": "2026-11-28T09:56:39+02:00"})
    for same in (thing, Thing(at=thing.at)):
        assert same.model_dump_json() == '{"at":"2026-11-28T07:56:39.000000Z"}'
    with pytest.raises(ValidationError):
        Thing(at=thing.at.replace(tzinfo=None))
