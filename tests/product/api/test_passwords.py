"""What a new password must not be made of, wherever one is set."""

import httpx

from tests.product.people import account, register


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
