"""What a new password must not be made of, wherever one is set, and what is compared of it."""

import secrets

import httpx

from tests.product.people import account, register, sign_in
from tristore.stores.stores import Stores
from tristore.testing.outbox import query


async def test_a_password_made_of_ones_own_names_is_refused_when_registering(client: httpx.AsyncClient) -> None:
    body = account(email=f"emil.{account()['username']}.tischbein@example.com")
    for password in (body["username"], "Tischbein1929", "chatlingo123"):
        answer = await client.post("/users/register", json=body | {"password": password})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "password")
        assert password not in answer.text
    assert (await client.post("/users/register", json=body)).status_code == 201


async def test_and_when_it_is_changed(client: httpx.AsyncClient) -> None:
    body = account()
    headers = await register(client, **body)
    await client.patch("/users/me", headers=headers, json={"display_name": "Pony H\u00fctchen"})
    change = {"current_password": body["password"]}
    for password in (f"{body['username']}1", "H\u00fctchen12"):
        answer = await client.post("/users/me/password", headers=headers, json=change | {"new_password": password})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "new_password")
        assert password not in answer.text


async def test_a_password_counts_to_its_last_character_and_in_its_case(client: httpx.AsyncClient) -> None:
    password = f"{secrets.token_urlsafe(47)[:62]} a"
    body = account(password=password)
    assert (await client.post("/users/register", json=body)).status_code == 201
    for wrong in (password[:-1], f"{password[:-1]}b", f"{password} ", f" {password}", password.swapcase()):
        answer = await client.post("/auth/token", data={"username": body["username"], "password": wrong})
        assert answer.status_code == 401
    assert len(password) == 64
    assert await sign_in(client, body["username"], password)


async def test_a_password_is_good_for_years(client: httpx.AsyncClient, stores: Stores) -> None:
    body = account()
    headers = await register(client, **body)
    old = "created_at = now() - interval '10 years', updated_at = now() - interval '10 years'"
    await query(stores, f"UPDATE users SET {old} WHERE id = :id", id=headers["X-User-Id"])
    assert await sign_in(client, body["username"], body["password"])
