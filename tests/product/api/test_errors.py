"""Problem details, request ids and the log."""

import uuid

import httpx
import pytest
from sqlalchemy import text

from config import Settings
from main import create_app
from tristore.stores.postgres import connect
from tristore.stores.stores import Stores
from tristore.testing import log_of_run
from tristore.testing.stores import client_of


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/health", 405)])
async def test_the_frameworks_own_errors_are_problems_too(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status


async def test_a_method_that_is_not_there_is_told_all_that_are(client: httpx.AsyncClient) -> None:
    answer = await client.put("/users/me")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, PATCH, DELETE")
    answer = await client.put(f"/conversations/{uuid.uuid4()}/messages")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


async def test_each_answer_has_a_request_id_and_keeps_the_callers(client: httpx.AsyncClient) -> None:
    ids = {(await client.get("/nowhere")).json()["request_id"] for _ in range(3)}
    assert len(ids) == 3
    kept = await client.get("/nowhere", headers={"X-Request-ID": "trace-7"})
    assert kept.json()["request_id"] == kept.headers["X-Request-ID"] == "trace-7"
    forged = await client.get("/nowhere", headers={"X-Request-ID": "a b"})
    assert forged.headers["X-Request-ID"] != "a b"


async def test_a_bug_answers_500_without_its_text_and_is_logged_with_the_id(
    settings: Settings, stores: Stores, unanswered: list[str]
) -> None:
    app = create_app(settings, stores)

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("with a secret")

    async with client_of(app) as client:
        answer = await client.get("/bug")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    logged = log_of_run.path().read_text().partition(f"request_id={answer.json()['request_id']}")[2]
    assert "ZeroDivisionError" in logged
    assert unanswered.pop() == "ZeroDivisionError: with a secret"


async def test_operators_are_told_the_servers_code_and_nobody_its_text(settings: Settings, stores: Stores) -> None:
    app = create_app(settings, stores)
    statement = text("DO $$ BEGIN RAISE EXCEPTION 'with a secret' USING ERRCODE = '53100'; END $$")

    @app.get("/full")
    async def full() -> None:
        async with connect(stores.postgres.engine) as connection:
            await connection.execute(statement)

    async with client_of(app) as client:
        answer = await client.get("/full")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "postgresql is not available at the moment (refuses writes)."
    logged = [
        line
        for line in log_of_run.path().read_text().splitlines()
        if f"request_id={answer.json()['request_id']}" in line
    ]
    assert any("cause=53100" in line for line in logged)
    assert not any("secret" in line for line in logged)
