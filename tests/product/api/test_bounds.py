"""A walk over the API's document: every route has a bound on what it reads, on how often, and on what grows by it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from config import Settings
from tests.product.routes import Operation, operations_of
from tests.samples import SAMPLES

NOT_COUNTED = {
    "/health/live": "a 429 would restart pods",
    "/health/ready": "a 429 would take a pod out of service",
    "/health/startup": "a 429 would restart pods",
}
GROWS = {
    "/users/register": "rate_limit_registration",
    "/auth/token": "sessions_per_user",
    "/courses/batch": "by admins alone",
} | {sample.path: sample.most for sample in SAMPLES}
"""What each route makes more of: the setting that says how many there may be, or why none does."""
BOUNDS = {
    "string": {"maxLength", "format", "enum", "const"},
    "integer": {"maximum", "exclusiveMaximum"},
    "number": {"maximum", "exclusiveMaximum"},
    "array": {"maxItems"},
    "object": {"properties", "maxProperties"},
}
"""Any of these bounds a value of the type."""
Schema = dict[str, Any]


@pytest.fixture
async def document(client: httpx.AsyncClient) -> Schema:
    document: Schema = (await client.get("/openapi.json")).json()
    return document


@pytest.fixture
def operations(document: Schema) -> list[Operation]:
    return operations_of(document)


def unbounded(schema: Schema, document: Schema, at: str) -> Iterator[str]:
    """The places in a schema where a value may be as large as it likes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from unbounded(document["components"]["schemas"][name], document, name)
        return
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from unbounded(part, document, at)
    for name, part in schema.get("properties", {}).items():
        yield from unbounded(part, document, f"{at}.{name}")
    if "items" in schema:
        yield from unbounded(schema["items"], document, f"{at}[]")
    has_short_pattern = not {*"*+"} & {*schema.get("pattern", "*")}
    if (kind := schema.get("type")) in BOUNDS and not schema.keys() & BOUNDS[kind] and not has_short_pattern:
        yield at


def test_whatever_a_body_holds_has_a_most(document: Schema, operations: list[Operation]) -> None:
    """Parameters have a most together: a target has 4 KB, a head 16 KB."""
    found: set[str] = set()
    for operation in operations:
        if "requestBody" in operation.document:
            [content] = operation.document["requestBody"]["content"].values()
            found |= {*unbounded(content["schema"], document, "")}
            assert "413" in operation.document["responses"], operation.name
    assert not found


def test_whoever_asks_is_counted(operations: list[Operation]) -> None:
    """That a route does what its document says of 429 is tested in test_openapi.py."""
    uncounted = {operation.path for operation in operations if "429" not in operation.document["responses"]}
    assert uncounted == NOT_COUNTED.keys()


def test_whatever_a_route_makes_has_a_most(operations: list[Operation]) -> None:
    makes = {operation.path for operation in operations if "201" in operation.document["responses"]} | {"/auth/token"}
    for path in makes - GROWS.keys():
        pytest.fail(f"POST {path} makes something, and nothing says how many there may be: add the route to GROWS")
    assert makes == GROWS.keys()
    for path, most in GROWS.items():
        assert most in Settings.model_fields or " " in most, f"{path}: name a setting, or say why there is none"
