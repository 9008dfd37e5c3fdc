"""The API's document, against itself and against what the API answers, so that no new operation is left half told."""

import re
import secrets
import tomllib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import TypeAdapter

from config import Settings
from main import create_app
from tests.product.people import account, register, register_admin
from tests.product.routes import Operation, operations_of, stock
from tests.samples import ONE_TIME, with_ids
from tristore.models import Moment
from tristore.stores.stores import Stores
from tristore.testing.lab import PROJECT
from tristore.testing.stores import client_of

PROBLEM = "application/problem+json"
UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


@pytest.fixture
def operations(document: dict[str, Any]) -> list[Operation]:
    return operations_of(document)


def examples_in(part: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each example, and the schema beside which it stands."""
    if isinstance(part, dict):
        schema = part.get("schema", part)
        yield from ((schema, example) for example in part.get("examples", []))
        yield from ((schema, part[word]) for word in ("example", "default") if word in part)
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from examples_in(inner)


def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_example_is_valid(document: dict[str, Any]) -> None:
    found = list(examples_in(document))
    assert len(found) > 100
    for schema, example in found:
        rooted = {**schema, "components": document["components"]}  # where its references lead to
        OAS31Validator(rooted, format_checker=oas31_format_checker).validate(example)


def schemas_in(part: Any, *where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object in it, with the names that lead there."""
    if isinstance(part, dict):
        yield "/".join(where), part
    for name, inner in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from schemas_in(inner, *where, str(name))


def test_every_time_is_one_of_ours(document: dict[str, Any]) -> None:
    """pydantic's own takes numbers too, and is answered with six digits of a second or none. One answer in a thousand
    would show that, or one in a million."""
    ours = TypeAdapter(Moment).json_schema()
    times = {where: part for where, part in schemas_in(document) if part.get("format") == "date-time"}
    assert len(times) > 10
    for where, time in times.items():
        assert time == time | ours, f"{where}: a time that clients send is an Instant, one that is answered is a Moment"


def test_it_introduces_itself(document: dict[str, Any], operations: list[Operation]) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert document["info"]["version"] == project["version"]
    assert document["info"]["license"]["identifier"] in (PROJECT / "LICENSE").read_text()
    assert "/auth/token" in document["info"]["description"]
    assert document["servers"] == [{"url": "/"}]
    told = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert told.keys() == {tag for operation in operations for tag in operation.document["tags"]}
    assert all(re.fullmatch(r"[A-Z].*\.", sentence) for sentence in told.values())


def is_told(status: str, response: dict[str, Any]) -> bool:
    """Whether the document has what a client needs to read this answer."""
    contents = response.get("content", {})
    if status in {"202", "204", "304"}:  # nothing to tell, or not yet
        return all(content.get("schema") for content in contents.values())
    return bool(contents) and all(
        content.get("schema") or not media_type.endswith("json") for media_type, content in contents.items()
    )


def missing_in(operation: Operation) -> list[str]:
    told = operation.document
    statuses = told["responses"].keys()
    names = {parameter["name"] for parameter in told.get("parameters", [])}
    parts = {
        "summary": told["summary"].replace(" ", "_").lower() != told["operationId"],  # FastAPI's own is the name
        "tags": told.get("tags"),
        "a success": any(status.startswith("2") for status in statuses),
        "a schema for each answer": all(is_told(*response) for response in told["responses"].items()),
        "an example of the body": "requestBody" not in told or operation.examples,
        "401, 429 and 503": not told["security"] or statuses >= {"401", "429", "503"},
        "400, 413 and 422": "requestBody" not in told or statuses >= {"400", "413", "422"},
        "404": "{" not in operation.path or "404" in statuses,
        "409": "Idempotency-Key" not in names or "409" in statuses,
        "422": "parameters" not in told or "422" in statuses,
        "X-Request-Id on each answer": all("X-Request-Id" in told["headers"] for told in told["responses"].values()),
    }
    return [part for part, is_there in parts.items() if not is_there]


def test_every_operation_is_told_completely(operations: list[Operation]) -> None:
    assert len(operations) >= 30
    missing = {operation.name: missing_in(operation) for operation in operations}
    assert {name: parts for name, parts in missing.items() if parts} == {}


async def test_every_error_is_a_problem_that_names_its_status(
    client: httpx.AsyncClient, document: dict[str, Any], operations: list[Operation]
) -> None:
    always = set(document["components"]["schemas"]["Problem"]["required"])
    assert (await client.get("/nowhere")).json().keys() == always
    for operation in operations:
        for status, response in operation.document["responses"].items():
            if status >= "400" and not (operation.path.startswith("/health") and status == "503"):
                [(media_type, content)] = response["content"].items()
                assert (media_type, content["schema"]["$ref"]) == (PROBLEM, "#/components/schemas/Problem")
                assert content["example"].keys() == always
                assert content["example"]["status"] == int(status)
    assert not document["components"]["schemas"].keys() & {"HTTPValidationError", "ValidationError"}


def test_bounds_are_in_the_words_of_json_schema(document: dict[str, Any]) -> None:
    """With a validator before them pydantic leaves them in its own, which no client knows."""
    schemas = document["components"]["schemas"]
    told = {(name, field): part for name in schemas for field, part in schemas[name].get("properties", {}).items()}
    capacity = told["CourseIn", "capacity"]
    assert (capacity["minimum"], capacity["maximum"]) == (0, 1_000_000)
    assert {at: part for at, part in told.items() if part.keys() & {"ge", "gt", "le", "lt", "max_length"}} == {}


def test_each_operation_has_a_name_of_its_own_that_reads_as_code(operations: list[Operation]) -> None:
    names = [operation.document["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+){0,3}", name)] == []
    assert {"register", "sign_in", "read_me", "create_conversation", "append_message"} <= set(names)


async def as_admin(client: httpx.AsyncClient, stores: Stores) -> tuple[dict[str, str], dict[str, str]]:
    """A fresh user that may do everything: the headers to send, and the ids of what it has."""
    headers = await register_admin(client, stores)
    return headers, await stock(client, headers, headers)


async def test_every_example_of_a_body_is_accepted(
    alone: tuple[httpx.AsyncClient, Stores], operations: list[Operation]
) -> None:
    client, stores = alone
    bodies = {operation.name: operation for operation in operations if operation.examples}
    bodies = {name: operation for name, operation in bodies.items() if name not in ONE_TIME}
    registration = bodies.pop(("post", "/users/register"))
    for example in registration.examples:
        assert (await client.post(registration.path, json=example)).status_code == 201
    for operation in bodies.values():
        for example in operation.examples:
            headers, ids = await as_admin(client, stores)
            answer = await operation.send(client, headers, ids, example)
            assert answer.is_success, (operation.name, answer.text)
            assert str(answer.status_code) in operation.document["responses"]


async def test_a_bad_body_is_answered_as_documented(
    client: httpx.AsyncClient, stores: Stores, settings: Settings, operations: list[Operation]
) -> None:
    too_large = b"x" * (settings.max_body_bytes + 1)
    for operation in operations:
        if "requestBody" in operation.document:
            headers, ids = await as_admin(client, stores)
            headers["Content-Type"] = operation.media_type
            for content, status in ((too_large, 413), (b"", 422)):
                path = with_ids(operation.path, ids)
                answer = await client.request(operation.method, path, headers=headers, content=content)
                assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), operation.name
                assert str(status) in operation.document["responses"]


async def test_what_does_not_exist_is_answered_as_documented(
    client: httpx.AsyncClient, stores: Stores, operations: list[Operation]
) -> None:
    headers, ids = await as_admin(client, stores)
    unknown = dict.fromkeys(ids, UNKNOWN_ID)
    for operation in operations:
        if "{" in operation.path or any(example.keys() & ids.keys() for example in operation.examples):
            assert "404" in operation.document["responses"], operation.name
            assert (await operation.send(client, headers, unknown)).status_code == 404, operation.name


async def test_what_is_limited_says_so(settings: Settings, stores: Stores, operations: list[Operation]) -> None:
    limits = {f"rate_limit_{name}": "1/hour" for name in ("anonymous", "sign_in_address", "registration", "requests")}
    bodies: dict[str, dict[str, Any]] = {
        "/auth/token": {"data": {"username": secrets.token_hex(4), "password": "not this one"}},
        "/users/register": {"json": account()},
    }
    async with client_of(create_app(settings, stores)) as unlimited:
        headers = await register(unlimited)
    async with client_of(create_app(settings.model_copy(update=limits), stores)) as client:
        await stores.redis.client.flushall()
        assert (await client.get("/users/me", headers=headers)).status_code == 200  # the one that the user may send
        for operation in operations:
            path = re.sub(r"\{\w+\}", UNKNOWN_ID, operation.path)
            request = client.build_request(operation.method, path, headers=headers, **bodies.get(path, {}))
            statuses = [(await client.send(request)).status_code for _ in range(2)]
            assert (429 in statuses) == ("429" in operation.document["responses"]), operation.name
