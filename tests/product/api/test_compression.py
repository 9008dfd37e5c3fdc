"""What clients that take gzip are sent compressed. httpx takes it, and gives the text back."""

import httpx

from tests.product.people import account, register
from tests.product.things import post, start_conversation


async def test_lists_and_the_document_are_compressed(client: httpx.AsyncClient) -> None:
    headers = await register(client)
    conversation = await start_conversation(client, headers)
    await post(client, conversation, headers, *["Bonjour !"] * 10)
    for path in (f"{conversation}/messages", conversation, "/openapi.json"):
        answer = await client.get(path, headers=headers)
        assert answer.headers["Content-Encoding"] == "gzip", path
        assert answer.headers["Vary"] == "Accept-Encoding", path
        assert answer.json()


async def test_tokens_small_answers_and_exports_are_not(client: httpx.AsyncClient) -> None:
    body = account()
    registered = await client.post("/users/register", json=body)
    form = {"username": body["username"], "password": body["password"]}
    token = await client.post("/auth/token", data=form)
    headers = {"Authorization": f"Bearer {token.json()['access_token']}"}
    profile = await client.get("/users/me", headers=headers)
    conversation = await start_conversation(client, headers)
    await post(client, conversation, headers, *["Bonjour !"] * 10)
    export = await client.get("/users/me/export", headers=headers)
    assert len(export.content) > 1024
    for answer in (registered, token, profile, export):
        assert answer.is_success
        assert not {"content-encoding", "vary"} & answer.headers.keys(), answer.url
