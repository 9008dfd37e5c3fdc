"""Nothing of a user grows without bound."""

import httpx

from config import Settings
from main import create_app
from models.session import SignedIn
from tests.product.people import account, register, sign_in
from tristore.errors import InProgress
from tristore.models import new_id
from tristore.stores.stores import Stores
from tristore.testing.outbox import query
from tristore.testing.stores import client_of
from wiring import Services


async def test_of_many_sessions_the_oldest_end(settings: Settings, stores: Stores) -> None:
    body = account()
    async with client_of(create_app(settings.model_copy(update={"sessions_per_user": 3}), stores)) as client:
        assert (await client.post("/users/register", json=body)).status_code == 201
        signed_in = [await sign_in(client, body["username"], body["password"]) for _ in range(5)]
        assert [await status(client, headers) for headers in signed_in] == [401, 401, 200, 200, 200]
        assert len((await client.get("/auth/sessions", headers=signed_in[-1])).json()["items"]) == 3
        assert (await client.post("/auth/logout", headers=signed_in[3])).status_code == 204
        signed_in.append(await sign_in(client, body["email"], body["password"]))
        assert [await status(client, headers) for headers in signed_in[2:]] == [200, 401, 200, 200]


async def test_what_has_ended_is_forgotten_once_nobody_has_a_copy(settings: Settings, stores: Stores) -> None:
    body = account()
    async with client_of(create_app(settings.model_copy(update={"sessions_per_user": 2}), stores)) as client:
        user = (await client.post("/users/register", json=body)).json()["user_id"]

        async def kept_after_a_sign_in() -> int:
            await sign_in(client, body["username"], body["password"])
            return int((await query(stores, "SELECT count(*) AS n FROM sessions WHERE user_id = :id", id=user))[0].n)

        assert [await kept_after_a_sign_in() for _ in range(4)] == [1, 2, 3, 4]
        await query(stores, "UPDATE sessions SET revoked_at = now() - interval '1h' WHERE revoked_at < now()")
        assert await kept_after_a_sign_in() == 3


async def status(client: httpx.AsyncClient, headers: dict[str, str]) -> int:
    return (await client.get("/users/me", headers=headers)).status_code


async def test_beyond_the_most_no_conversation_is_started_and_what_was_is_told(
    settings: Settings, stores: Stores
) -> None:
    async with client_of(create_app(settings.model_copy(update={"conversations_per_user": 2}), stores)) as client:
        headers = await register(client)  # with a welcome
        keyed = headers | {"Idempotency-Key": "k"}
        answers = [await client.post("/conversations", headers=keyed, json={"title": "t"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        refused = await client.post("/conversations", headers=headers, json={"title": "t"})
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/too-many")
        assert refused.json()["detail"] == "A user may have 2 conversations."
        assert (await client.delete(f"/conversations/{answers[0].json()['id']}", headers=headers)).is_success
        assert (await client.post("/conversations", headers=headers, json={"title": "t"})).status_code == 201


async def test_one_export_of_a_user_is_made_at_a_time(
    client: httpx.AsyncClient, settings: Settings, stores: Stores
) -> None:
    headers = await register(client)
    services = Services(settings, stores)
    who = SignedIn(session_id=new_id(), user_id=headers["X-User-Id"])
    begun = await services.privacy.export(who)
    assert (await anext(begun)).startswith(b"{")
    assert await refusal(services, who) == "Another export of yours is being made. Ask again."
    await begun.aclose()
    unread = await services.privacy.export(who)
    assert await refusal(services, who)
    del unread  # a HEAD, or a client that has hung up before the first piece
    pieces = [piece async for piece in await services.privacy.export(who)]
    assert pieces[-1].endswith(b"}")
    assert (await client.get("/users/me/export", headers=headers)).status_code == 200
    await services.close()


async def refusal(services: Services, who: SignedIn) -> str:
    try:
        await services.privacy.export(who)
    except InProgress as refused:
        return str(refused)
    return ""
