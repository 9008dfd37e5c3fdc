"""With REGISTRATION_PRIVACY nothing tells whether an address has an account, but a mail to that address."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from config import Settings
from main import create_app
from tests.product.mails import joined, open_link, until_nothing_is_owed
from tests.product.people import account, register, sign_in
from tristore.stores.stores import Stores
from tristore.testing.mail import LetterBox
from tristore.testing.outbox import forget_effects, query
from tristore.testing.stores import client_of

TAKEN, FREE = "You have an account with ChatLingo already", "Confirm your address for ChatLingo"


@pytest.fixture(scope="module")
def mail_settings() -> dict[str, Any]:
    return {"registration_privacy": True}


async def owner_of(client: httpx.AsyncClient, box: LetterBox, **changes: Any) -> dict[str, Any]:
    """An account whose address is proved."""
    body = await joined(client, **changes)
    opened = await open_link(client, box, body["email"])
    assert opened.status_code == 204, opened.text
    return body


def shape(answer: httpx.Response, *names: str) -> str:
    """All of an answer, without what no two have in common."""
    told = f"{answer.status_code} {sorted(answer.headers.items())} {answer.text}"
    for name in names:
        told = re.sub(re.escape(name), "NAME", told, flags=re.IGNORECASE)
    told = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", told)
    told = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", told)
    told = re.sub(r"[\w-]{43}", "TOKEN", told)
    return re.sub(r"\('(x-request-id|etag)', '[^']*'\)|[0-9a-f]{32}", "", told)


async def test_whoever_registers_sees_the_same_whether_the_address_is_taken_or_not(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    owner = await owner_of(mailed, box, password="battery staple 7")
    stranger = await register(mailed)
    seen = []
    for address in (owner["email"], account()["email"]):
        body = account(email=address)
        names, key = (body["username"], address), {"Idempotency-Key": body["username"]}

        async def ask(method: str, path: str, names: tuple[str, ...] = names, **sent: Any) -> str:
            return shape(await mailed.request(method, path, **sent), *names)

        told = [await ask("POST", "/users/register", json=body, headers=key) for _ in range(2)]
        told.append(await ask("POST", "/users/register", json=account(username=body["username"])))
        told.append(await ask("POST", "/auth/token", data={"username": address, "password": body["password"]}))
        headers = await sign_in(mailed, body["username"], body["password"])
        await until_nothing_is_owed(mail_stores)
        told.append(await ask("GET", "/users/me", headers=headers))
        user_id = (await mailed.get("/users/me", headers=headers)).json()["id"]
        told.append(await ask("GET", f"/users/{user_id}", headers=stranger))
        told.append(await ask("PATCH", "/users/me", headers=headers, json={"email": address}))
        told.append(await ask("POST", "/auth/email-verification", headers=headers))
        await until_nothing_is_owed(mail_stores)
        told.append(await ask("GET", "/users/me/export", headers=headers))
        told.append(await ask("POST", "/users/register", json=account(email=address), names=(address,)))
        seen.append(told)
    for taken, free in zip(*seen, strict=True):
        assert taken == free
    statuses = [told.partition(" ")[0] for told in seen[0]]
    assert statuses == ["201", "201", "409", "401", "200", "200", "200", "202", "200", "201"]
    assert '"email":""' in seen[0][4]
    assert '"field": "username"' in seen[0][2]


ASKED = ContextVar("ASKED", default=False)
"""Set for what a test asks, and so for what the service does at once. The relay's tasks are older."""


@contextmanager
def statements_of(stores: Stores) -> Iterator[list[str]]:
    """What a request sends to PostgreSQL, in its order."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if ASKED.get():
            sent.append(statement)

    engine, asked = stores.postgres.engine.sync_engine, ASKED.set(True)
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
        ASKED.reset(asked)


async def test_a_registration_does_the_same_work_whether_the_address_is_taken_or_not(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    """So its time tells nothing either."""
    owner = await owner_of(mailed, box)
    await until_nothing_is_owed(mail_stores)
    owed = "SELECT name, (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(payload) k) AS fields FROM outbox"
    rows = "SELECT email, email_verified_at, purpose FROM users JOIN email_links ON owner_id = id WHERE id = :id"
    done = []
    async with box.closed():  # so that what is owed stays to be looked at
        for address in (owner["email"], account()["email"]):
            await forget_effects(mail_stores)
            with statements_of(mail_stores) as sent:
                answer = await mailed.post("/users/register", json=account(email=address))
            effects = [tuple(map(str, row)) for row in await query(mail_stores, f"{owed} WHERE store = 'mail'")]
            found = [tuple(row) for row in await query(mail_stores, rows, id=answer.json()["user_id"])]
            done.append((answer.status_code, sent, effects, found))
    await forget_effects(mail_stores)
    assert done[0] == done[1]
    assert done[0][2] == [("SendLink", "['mail_id', 'only_to', 'owner_id', 'purpose']")]
    assert done[0][3] == [(None, None, "verify")]
    assert any("INSERT INTO users" in statement for statement in done[0][1])


async def test_the_owner_of_an_address_is_told_in_their_language_and_gets_no_link(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    owner = await owner_of(mailed, box, language_preference="de")
    squatter = await register(mailed, email=owner["email"])
    mail = await box.to(owner["email"], "Du hast schon ein Konto bei ChatLingo")
    assert "http" not in box.text(mail)
    await mailed.post("/auth/email-verification", headers=squatter)
    await box.to(owner["email"], "Du hast schon ein Konto bei ChatLingo", number=1)
    assert len(box.mails_to(owner["email"])) == 3  # with the one that proved it
    headers = await sign_in(mailed, owner["email"], owner["password"])
    me = (await mailed.get("/users/me", headers=headers)).json()
    assert (me["email"], me["email_verified"], me["version"]) == (owner["email"].lower(), True, 2)
    acts = (await mailed.get("/users/me/activity", headers=headers)).json()["items"]
    assert {act["action"] for act in acts} == {"registered", "email_verified", "signed_in"}


async def test_an_address_holds_once_its_link_is_opened(mailed: httpx.AsyncClient, box: LetterBox) -> None:
    body = account()
    headers = await register(mailed, **body)
    form = {"username": body["email"], "password": body["password"]}
    assert (await mailed.post("/auth/token", data=form)).status_code == 401
    await box.to(body["email"], FREE)
    assert (await open_link(mailed, box, body["email"])).status_code == 204
    me = (await mailed.get("/users/me", headers=headers)).json()
    assert (me["email"], me["email_verified"]) == (body["email"].lower(), True)
    assert (await mailed.post("/auth/token", data=form)).status_code == 200


async def test_of_two_who_want_an_address_it_is_theirs_who_opens_a_link_first(
    mailed: httpx.AsyncClient, box: LetterBox
) -> None:
    address = account()["email"]
    await register(mailed, email=address)
    await box.to(address)
    second = await register(mailed, email=address)
    await box.to(address, number=1)
    assert (await open_link(mailed, box, address, number=1)).status_code == 204
    late = await open_link(mailed, box, address)
    assert (late.status_code, late.json()["field"]) == (409, "email")
    assert (await mailed.get("/users/me", headers=second)).json()["email"] == address.lower()


async def test_nobody_is_mailed_without_end(mailing: Settings, mail_stores: Stores, box: LetterBox) -> None:
    await mail_stores.redis.client.flushall()
    limited = mailing.model_copy(update={"rate_limit_mail": "3/hour"})
    async with client_of(create_app(limited, mail_stores)) as client:
        owner = await owner_of(client, box)
        answers = [await client.post("/users/register", json=account(email=owner["email"])) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [201] * 4
        await box.to(owner["email"], TAKEN, number=1)
        await until_nothing_is_owed(mail_stores)
        assert len(box.mails_to(owner["email"])) == 3  # with the one that proved it


async def test_who_is_erased_before_a_link_was_opened_leaves_nothing(
    mailed: httpx.AsyncClient, mail_stores: Stores
) -> None:
    headers = await register(mailed)
    assert (await mailed.delete("/users/me", headers=headers)).status_code == 202
    left = "SELECT username, email, password_hash FROM users WHERE id = :id AND erased_at IS NOT NULL"
    assert await query(mail_stores, left, id=headers["X-User-Id"]) == [(None, None, None)]
    links = "SELECT 1 FROM email_links WHERE owner_id = :id"
    assert await query(mail_stores, links, id=headers["X-User-Id"]) == []
