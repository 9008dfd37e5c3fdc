"""The same person, however a name, an address or a password was typed."""

import secrets
import unicodedata

import httpx
import pytest

from tests.product.people import account, register, sign_in

ADDRESSES = [
    "{0}@b\u00fccher.example",
    " {0}@BU\u0308CHER.example",
    "{0}@xn--bcher-kva.example ",
    "{1}@B\u00dcCHER.EXAMPLE",
]


def spelled(name: str) -> list[str]:
    return [address.format(name, name.upper()) for address in ADDRESSES]


async def test_an_address_is_one_however_it_is_spelled(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    name = f"j\u00f6rg{secrets.token_hex(4)}"
    for number, registered in enumerate(spelled(name)):
        answer = await client.post("/users/register", json=account(email=registered))
        assert answer.status_code == (409 if number else 201), answer.text
    for sent in spelled(name):
        assert await sign_in(client, sent, "correct horse 9")
    other = await register(client)
    for changed in spelled(name):
        assert (await client.patch("/users/me", headers=other, json={"email": changed})).status_code == 409
    for searched in (name, unicodedata.normalize("NFD", name.upper())):
        page = (await client.get("/users", headers=admin, params={"search": searched})).json()
        assert [user["email"] for user in page["items"]] == [spelled(name)[0]]


async def test_a_username_is_one_with_spaces_around_it(client: httpx.AsyncClient) -> None:
    body = account()
    name = body["username"]
    assert (await client.post("/users/register", json=body | {"username": f" {name}  "})).status_code == 201
    for sent in (name, f"  {name}", f"{name.upper()}\n"):
        assert await sign_in(client, sent, body["password"])
    assert (await client.post("/users/register", json=account(username=name.lower()))).status_code == 409


@pytest.mark.parametrize("password", ["p\u00e4ssw\u00f6rter", "pa\u0308sswo\u0308rter", "\uff50\u00e4ssw\u00f6rter"])
async def test_a_password_is_one_however_it_is_encoded(client: httpx.AsyncClient, password: str) -> None:
    body = account(password=password)
    assert (await client.post("/users/register", json=body)).status_code == 201
    headers = await sign_in(client, body["username"], "pa\u0308ssw\u00f6rter")
    change = {"current_password": "p\u00e4sswo\u0308rter", "new_password": "\ufb01ne enough 9"}
    assert (await client.post("/users/me/password", headers=headers, json=change)).status_code == 204
    assert await sign_in(client, body["username"], "fine enough 9")


@pytest.mark.parametrize("password", ["\ufdfa" * 8, "a\u0301" * 4, "\u3392" * 60])
async def test_a_password_is_bounded_in_its_normal_form_too(client: httpx.AsyncClient, password: str) -> None:
    answer = await client.post("/users/register", json=account(password=password))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "password", "message": "must have 8 to 128 characters, also in Unicode's form NFKC"}
    ]


@pytest.mark.parametrize("name", ["admin", "Admin", "a.d.m.i.n", "_root_", "...", "-_-", "ChatLingo"])
async def test_names_of_the_service_are_reserved(client: httpx.AsyncClient, name: str) -> None:
    headers = await register(client)
    for answer in (
        await client.post("/users/register", json=account(username=name)),
        await client.patch("/users/me", headers=headers, json={"username": name}),
    ):
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"field": "username", "message": "is reserved, choose another"}]


@pytest.mark.parametrize("text", ["a\nb", "\u202egnp", "\u200b", "\u3164\u3164"])
async def test_what_is_shown_must_be_seen(client: httpx.AsyncClient, text: str) -> None:
    headers = await register(client)
    assert (await client.patch("/users/me", headers=headers, json={"display_name": text})).status_code == 422
    assert (await client.post("/conversations", headers=headers, json={"title": text})).status_code == 422
    form = {"username": headers["X-User-Id"], "password": "correct horse 9", "device": text}
    answer = await client.post("/auth/token", data=form)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "device")
    family = "\U0001f469\u200d\U0001f467"
    assert (await client.patch("/users/me", headers=headers, json={"display_name": family})).status_code == 200
