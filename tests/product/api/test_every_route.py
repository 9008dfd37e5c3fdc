"""A walk over all routes of the OpenAPI document, so that a new one cannot be forgotten."""

import secrets

import httpx
import pytest
from sqlalchemy import text

from config import Settings
from main import create_app
from models.tables import metadata
from services.personal import PERSONAL
from tests.product.people import account, register, register_admin, sign_in
from tests.product.routes import Operation, operations_of, stock, stocked
from tests.samples import SAMPLES, about, missing, with_ids
from tristore.stores.stores import Stores
from tristore.testing.stores import client_of

OPEN = {
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/health/startup"),
    ("post", "/users/register"),
    ("post", "/auth/token"),
    ("post", "/auth/password-reset"),
    ("post", "/auth/password-reset/confirm"),
    ("post", "/auth/email-verification/confirm"),
    ("get", "/courses"),
    ("get", "/courses/{course_id}"),
}
FOR_EVERYBODY = {("get", "/users/{user_id}")}
"""Routes that name an object, and show a part of it to whoever is signed in."""


async def secured(client: httpx.AsyncClient) -> list[Operation]:
    """All operations that are not open to everybody. Fails for one that should ask for a token and does not, and for
    one that has no sample."""
    operations = operations_of((await client.get("/openapi.json")).json())
    assert not (message := missing(operation.path for operation in operations)), message
    for operation in operations:
        assert bool(operation.document.get("security")) == (operation.name not in OPEN), operation.name
    return [operation for operation in operations if operation.name not in OPEN]


async def bad_token(client: httpx.AsyncClient, stores: Stores, kind: str) -> dict[str, str]:
    headers = await register(client)
    good = headers["Authorization"]
    if kind == "expired":
        async with stores.postgres.engine.begin() as connection:
            sql = "UPDATE sessions SET expires_at = now() - interval '1 second' WHERE user_id = :id"
            await connection.execute(text(sql), {"id": headers["X-User-Id"]})
        await stores.redis.client.flushall()
    elif kind == "revoked":
        await client.post("/auth/logout", headers=headers)
    return {
        "none": {},
        "garbled": {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"},
        "truncated": {"Authorization": good[:-1]},
        "of another scheme": {"Authorization": good.replace("Bearer", "Basic")},
        "expired": {"Authorization": good},
        "revoked": {"Authorization": good},
    }[kind]


@pytest.mark.parametrize("kind", ["none", "garbled", "truncated", "of another scheme", "expired", "revoked"])
async def test_without_a_good_token_every_route_answers_401(
    client: httpx.AsyncClient, stores: Stores, kind: str
) -> None:
    operations = await secured(client)
    ids = await stocked(client, stores)
    before = await everything_of(stores, ids)
    headers = await bad_token(client, stores, kind)
    for operation in operations:
        answer = await operation.send(client, headers, ids)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), operation.name
    assert await everything_of(stores, ids) == before


async def test_another_user_finds_nothing_and_changes_nothing(client: httpx.AsyncClient, stores: Stores) -> None:
    operations = await secured(client)
    ids = await stocked(client, stores)
    before = await everything_of(stores, ids)
    stranger = account()
    await client.post("/users/register", json=stranger)
    tried = set()
    for operation in operations:
        if operation.has_no_end and "{" not in operation.path:
            continue  # of the stranger's own
        headers = await sign_in(client, stranger["username"], stranger["password"])  # some routes end the session
        answer = await operation.send(client, headers, ids)
        if operation.is_for_admins:
            assert answer.status_code == 403, operation.name
        elif operation.name in FOR_EVERYBODY:
            assert "email" not in answer.json()
        elif "{" in operation.path:
            assert answer.status_code == 404, operation.name
        else:  # it acts on the stranger's own
            assert answer.is_success, operation.name
        tried.add(answer.status_code)
        if operation.path == "/users/me/password":
            stranger["password"] = operation.examples[0]["new_password"]
        elif operation.name == ("delete", "/users/me"):
            stranger = account()
            await client.post("/users/register", json=stranger)
    assert tried >= {200, 201, 202, 204, 403, 404}
    assert await everything_of(stores, ids) == before


async def test_what_is_made_is_read_where_its_location_says(client: httpx.AsyncClient, stores: Stores) -> None:
    operations = {operation.name: operation for operation in operations_of((await client.get("/openapi.json")).json())}
    headers, admin = await register(client), await register_admin(client, stores)
    ids = await stock(client, headers, admin)
    for sample in SAMPLES:
        told = operations["post", sample.path].document["responses"]["201"].get("headers", {})
        is_readable = ("get", f"{sample.path}/{{{sample.parameter}}}") in operations
        assert ("Location" in told) == is_readable, (
            f"POST {sample.path}: a POST sends `Location` where what it has made can be read, and only there. "
            "Say so by `sends` in its `responses`, and set the header, as routers/courses.py does"
        )
        body = about(ids, sample.body)
        maker = admin if sample.owner == "admin" else headers
        made = await client.post(with_ids(sample.path, ids), headers=maker, json=body)
        assert ("Location" in made.headers) == is_readable
        if is_readable:
            read = await client.get(made.headers["Location"], headers=maker)
            assert read.json()["id"] == made.json()["id"]


async def test_an_account_is_read_where_its_location_says_also_below_a_prefix(
    settings: Settings, stores: Stores
) -> None:
    app = create_app(settings, stores)
    app.root_path = "/api"
    async with client_of(app) as client:
        client.base_url = client.base_url.join("/api/")
        body = account()
        made = await client.post("users/register", json=body)
        assert made.headers["Location"] == f"/api/users/{made.json()['user_id']}"
        headers = await sign_in(client, body["username"], body["password"])
        read = await client.get(client.base_url.join(made.headers["Location"]), headers=headers)
        assert read.json()["id"] == made.json()["user_id"]


async def everything_of(stores: Stores, ids: dict[str, str]) -> list[str]:
    """What the databases hold of a user, and all that is for everybody."""
    mine = {place for entity in PERSONAL for place in entity.stored_in}
    of_user = [ids["user_id"], *(ids[sample.parameter] for sample in SAMPLES if sample.owner == "user")]
    found: list[str] = []
    async with stores.postgres.engine.connect() as connection:
        for table in (*metadata.tables, "sagas"):
            rows = await connection.scalars(text(f"SELECT CAST(t AS text) FROM {table} t ORDER BY 1"))
            found += [f"{table} {row}" for row in rows if table in metadata.tables.keys() - mine or names(row, of_user)]
    for collection in mine - metadata.tables.keys():
        documents = await stores.mongodb.database[collection].find().sort("_id", 1).to_list(None)
        found += [f"{collection} {document}" for document in documents if names(str(document), of_user)]
    places = {line.partition(" ")[0] for line in found}
    for entity in PERSONAL:
        for place in entity.stored_in if entity.export else ():
            assert place in places, f"tests/samples.py: the samples put nothing into {place}. Add one to SAMPLES"
    return found


def names(text: str, ids: list[str]) -> bool:
    return any(id_ in text for id_ in ids)


async def test_an_admin_gives_and_takes_the_role(client: httpx.AsyncClient, stores: Stores) -> None:
    admin, ana = await register_admin(client, stores), await register(client)
    path = f"/users/{ana['X-User-Id']}/role"
    assert (await client.put(path, headers=ana, json={"role": "admin"})).status_code == 403
    assert (await client.put(path, headers=admin, json={"role": "admin"})).json()["role"] == "admin"
    theirs = f"/users/{admin['X-User-Id']}"
    assert "email" in (await client.get(theirs, headers=ana)).json()
    assert (await client.put(f"{theirs}/role", headers=ana, json={"role": "learner"})).json()["role"] == "learner"
    assert (await client.put(path, headers=admin, json={"role": "learner"})).status_code == 403
    assert (await client.put(path, headers=ana, json={"role": "owner"})).status_code == 422
