"""Links in mails, on a real SMTP server: verifying an address, choosing a new password, changing the address."""

from collections.abc import AsyncIterator

import httpx
import pytest

from config import Settings
from main import create_app
from tests.product.mails import joined, me, token_in, until_no_mail_is_owed, until_nothing_is_owed
from tests.product.people import account, register, sign_in
from tristore.stores.stores import Stores
from tristore.testing.mail import LetterBox
from tristore.testing.outbox import forget_effects, query
from tristore.testing.stores import client_of

NEW = "battery staple 7"
VERIFY, NOTICE = "Confirm your address for ChatLingo", "Your address at ChatLingo is about to change"


async def test_who_registers_is_mailed_a_link_that_verifies_the_address(
    mailed: httpx.AsyncClient, box: LetterBox
) -> None:
    body = await joined(mailed, language_preference="de-AT")
    mail = await box.to(body["email"])
    assert mail["Subject"] == "Bestätige deine Adresse für ChatLingo"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    token = token_in(box.text(mail), "/pages/verify-email")
    headers = await sign_in(mailed, body["username"], body["password"])
    assert (await me(mailed, headers))["email_verified"] is False
    opened = await mailed.post("/auth/email-verification/confirm", json={"token": token})
    assert opened.status_code == 204, opened.text
    assert (await me(mailed, headers))["email_verified"] is True
    again = await mailed.post("/auth/email-verification/confirm", json={"token": token})
    assert (again.status_code, again.json()["errors"][0]["field"]) == (422, "token")


async def test_only_hashes_of_tokens_are_stored(mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores) -> None:
    body = await joined(mailed)
    token = token_in(box.text(await box.to(body["email"])), "/pages/verify-email")
    rows = await query(mail_stores, "SELECT CAST(l AS text) FROM email_links l")
    assert rows
    assert token not in str(rows)


async def test_a_new_password_ends_all_sessions_and_the_link_works_once(
    mailed: httpx.AsyncClient, box: LetterBox
) -> None:
    body = await joined(mailed)
    sessions = [await sign_in(mailed, body["username"], body["password"]) for _ in range(2)]
    assert (await mailed.post("/auth/password-reset", json={"email": body["email"]})).status_code == 202
    token = token_in(box.text(await box.to(body["email"], "A new password for ChatLingo")), "/pages/reset-password")
    weak = await mailed.post("/auth/password-reset/confirm", json={"token": token, "new_password": "password123"})
    assert (weak.status_code, weak.json()["errors"][0]["field"]) == (422, "new_password")
    used = await mailed.post("/auth/password-reset/confirm", json={"token": token, "new_password": NEW})
    assert used.status_code == 204, used.text
    assert [(await mailed.get("/users/me", headers=headers)).status_code for headers in sessions] == [401, 401]
    assert (await mailed.post("/auth/token", data=body | {"username": body["username"]})).status_code == 401
    headers = await sign_in(mailed, body["username"], NEW)
    assert (await me(mailed, headers))["email_verified"] is True
    again = await mailed.post("/auth/password-reset/confirm", json={"token": token, "new_password": "correct horse 9"})
    assert again.status_code == 422


async def test_a_link_of_the_mail_before_works_too_and_an_old_one_does_not(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    body = await joined(mailed)
    subject, tokens = "A new password for ChatLingo", []
    for number in range(3):
        await mailed.post("/auth/password-reset", json={"email": body["email"]})
        mail = await box.to(body["email"], subject, number=number)
        tokens.append(token_in(box.text(mail), "/pages/reset-password"))
    change = {"new_password": NEW}
    first = await mailed.post("/auth/password-reset/confirm", json=change | {"token": tokens[0]})
    assert first.status_code == 422
    await query(mail_stores, "UPDATE email_links SET expires_at = now() WHERE purpose = 'reset'")
    late = await mailed.post("/auth/password-reset/confirm", json=change | {"token": tokens[2]})
    assert late.status_code == 422
    await query(mail_stores, "UPDATE email_links SET expires_at = now() + interval '1h' WHERE purpose = 'reset'")
    before = await mailed.post("/auth/password-reset/confirm", json=change | {"token": tokens[1]})
    assert before.status_code == 204


async def test_a_new_password_is_mailed_to_the_present_address_alone(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    """Whatever changed it: an operator, or the service while it had no mail."""
    body, subject = await joined(mailed), "A new password for ChatLingo"
    before, now = body["email"].lower(), f"now.{body['email']}".lower()
    await mailed.post("/auth/password-reset", json={"email": before})
    old = token_in(box.text(await box.to(before, subject)), "/pages/reset-password")
    await query(mail_stores, "UPDATE users SET email = :now WHERE email = :before RETURNING id", now=now, before=before)
    await mailed.post("/auth/password-reset", json={"email": now})
    new = token_in(box.text(await box.to(now, subject)), "/pages/reset-password")
    assert len(box.mails_to(before, subject)) == 1
    for token, status in ((old, 422), (new, 204)):
        answer = await mailed.post("/auth/password-reset/confirm", json={"token": token, "new_password": NEW})
        assert answer.status_code == status


async def test_a_token_that_has_expired_is_not_brought_back_by_the_next_mail(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    body = await joined(mailed)
    await mailed.post("/auth/password-reset", json={"email": body["email"]})
    subject = "A new password for ChatLingo"
    old = token_in(box.text(await box.to(body["email"], subject)), "/pages/reset-password")
    await query(mail_stores, "UPDATE email_links SET expires_at = now() WHERE purpose = 'reset'")
    await mailed.post("/auth/password-reset", json={"email": body["email"]})
    await box.to(body["email"], subject, number=1)
    late = await mailed.post("/auth/password-reset/confirm", json={"token": old, "new_password": NEW})
    assert late.status_code == 422


async def test_a_token_is_good_for_its_purpose_only(mailed: httpx.AsyncClient, box: LetterBox) -> None:
    body = await joined(mailed)
    token = token_in(box.text(await box.to(body["email"])), "/pages/verify-email")
    reset = await mailed.post("/auth/password-reset/confirm", json={"token": token, "new_password": NEW})
    assert reset.status_code == 422


@pytest.mark.parametrize("token", ["x", r"\ud800", r"\u0000", "a" * 100])
async def test_what_is_no_token_opens_nothing(mailed: httpx.AsyncClient, token: str) -> None:
    path, content = "/auth/email-verification/confirm", f'{{"token": "{token}"}}'
    answer = await mailed.post(path, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "token")


async def test_nothing_tells_whether_an_address_has_an_account(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    """In the answer, or by what the request does in PostgreSQL."""
    body = await joined(mailed)
    await box.to(body["email"])
    owed = "SELECT name, (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(payload) k) AS fields FROM outbox"
    async with box.closed():  # so that what is owed stays to be looked at
        seen = []
        for address in (body["email"], "nobody-at-all@example.com"):
            await forget_effects(mail_stores)
            answer = await mailed.post("/auth/password-reset", json={"email": address})
            rows = await query(mail_stores, owed)
            seen.append((answer.status_code, answer.content, [tuple(map(str, row)) for row in rows]))
        assert seen[0] == seen[1]
        assert seen[0][0] == 202
        assert len(seen[0][2]) == 1
    await forget_effects(mail_stores)


async def test_mails_to_one_address_are_limited_without_a_word(
    mailing: Settings, mail_stores: Stores, box: LetterBox
) -> None:
    box.clear()
    await mail_stores.redis.client.flushall()
    limited = mailing.model_copy(update={"rate_limit_mail": "3/hour"})
    async with client_of(create_app(limited, mail_stores)) as client:
        body = await joined(client)
        answers = [await client.post("/auth/password-reset", json={"email": body["email"]}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202] * 4
        await box.to(body["email"], "A new password for ChatLingo", number=1)
        await until_nothing_is_owed(mail_stores)
        assert len(box.mails_to(body["email"])) == 3  # with the one of the registration


@pytest.fixture
async def sparing(mailing: Settings, mail_stores: Stores, box: LetterBox) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service that sends two mails to an address."""
    box.clear()
    await mail_stores.redis.client.flushall()
    limited = mailing.model_copy(update={"rate_limit_mail": "2/hour"})
    async with client_of(create_app(limited, mail_stores)) as client:
        yield client


async def test_nobody_is_mailed_without_end_by_registrations(
    sparing: httpx.AsyncClient, mail_stores: Stores, box: LetterBox
) -> None:
    """Whoever erases the account can register with the address anew."""
    address = account()["email"]
    for _ in range(4):
        headers = await register(sparing, email=address)
        await until_no_mail_is_owed(mail_stores)
        assert (await sparing.delete("/users/me", headers=headers)).status_code == 202
    assert len(box.mails_to(address)) == 2


async def test_nobody_is_mailed_without_end_by_changes_of_address(
    sparing: httpx.AsyncClient, mail_stores: Stores, box: LetterBox
) -> None:
    """However many accounts want it, and ask for the mail again. They are told nothing of each other."""
    strangers, wanted = account()["email"], {"email": account()["email"]}
    accounts = [await register(sparing, email=strangers), await register(sparing), await register(sparing)]
    for headers in accounts:
        changes = [await sparing.patch("/users/me", headers=headers, json=wanted) for _ in range(3)]
        assert [answer.status_code for answer in changes] == [200] * 3
        assert [(await sparing.post("/auth/email-verification", headers=headers)).status_code for _ in range(3)] == [
            *[202] * 2,
            429,  # for one's own requests alone
        ]
    await until_no_mail_is_owed(mail_stores)
    assert len(box.mails_to(wanted["email"])) == 2
    assert len(box.mails_to(strangers, NOTICE)) == 2  # it is an address that this account has never proved


async def test_who_is_about_to_lose_an_account_is_told_whatever_mails_have_come_before(
    sparing: httpx.AsyncClient, box: LetterBox
) -> None:
    body = await joined(sparing)
    headers = await sign_in(sparing, body["username"], body["password"])
    for _ in range(3):
        await sparing.post("/auth/password-reset", json={"email": body["email"]})
    await sparing.patch("/users/me", headers=headers, json={"email": account()["email"]})
    await box.to(body["email"], NOTICE)


async def test_what_waits_for_one_address_does_not_go_to_the_next_one(
    mailed: httpx.AsyncClient, mail_stores: Stores, box: LetterBox
) -> None:
    """It was not counted for that one. Whoever corrects an address just after registering gets one mail there."""
    body = account()
    addresses = [body["email"], *(account()["email"] for _ in range(3))]
    async with box.closed():
        headers = await register(mailed, **body)
        for address in addresses[1:]:
            assert (await mailed.patch("/users/me", headers=headers, json={"email": address})).status_code == 200
    token = token_in(box.text(await box.to(addresses[-1])), "/pages/verify-email")
    await until_no_mail_is_owed(mail_stores)
    assert [len(box.mails_to(address, VERIFY)) for address in addresses] == [0, 0, 0, 1]
    assert (await mailed.post("/auth/email-verification/confirm", json={"token": token})).status_code == 204
    assert (await me(mailed, headers))["email"] == addresses[-1].lower()


async def test_guessing_the_token_of_a_link_is_limited(mailing: Settings, mail_stores: Stores) -> None:
    await mail_stores.redis.client.flushall()
    limited = mailing.model_copy(update={"rate_limit_sign_in_address": "3/minute"})
    async with client_of(create_app(limited, mail_stores)) as client:
        body = {"token": "x", "new_password": NEW}
        answers = [await client.post("/auth/password-reset/confirm", json=body) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [422, 422, 422, 429]
        assert (await client.get("/pages/reset-password", params={"token": "x"})).status_code == 429


async def test_a_new_address_holds_once_confirmed_and_the_old_one_is_told(
    mailed: httpx.AsyncClient, box: LetterBox
) -> None:
    body = await joined(mailed)
    await box.to(body["email"])  # what is sent later goes to the address that is asked for then
    headers = await sign_in(mailed, body["username"], body["password"])
    changed = f"new.{body['email']}".lower()
    answer = await mailed.patch("/users/me", headers=headers, json={"email": changed, "bio": "b"})
    assert (answer.json()["email"], answer.json()["bio"]) == (body["email"].lower(), "b")
    await box.to(body["email"], NOTICE)
    assert len(box.mails_to(changed)) <= 1
    token = token_in(box.text(await box.to(changed)), "/pages/verify-email")
    exported = (await mailed.get("/users/me/export", headers=headers)).json()["email_links"]
    assert {(link["purpose"], link["address"]) for link in exported} >= {("verify", changed)}
    assert (await mailed.post("/auth/email-verification/confirm", json={"token": token})).status_code == 204
    after = await me(mailed, headers)
    assert (after["email"], after["email_verified"]) == (changed, True)


async def test_what_was_sent_to_another_address_confirms_nothing_any_more(
    mailed: httpx.AsyncClient, box: LetterBox
) -> None:
    body = await joined(mailed)
    first = token_in(box.text(await box.to(body["email"])), "/pages/verify-email")
    headers = await sign_in(mailed, body["username"], body["password"])
    await mailed.patch("/users/me", headers=headers, json={"email": f"new.{body['email']}"})
    late = await mailed.post("/auth/email-verification/confirm", json={"token": first})
    assert late.status_code == 422


async def test_an_address_that_somebody_else_has_by_then_is_refused(mailed: httpx.AsyncClient, box: LetterBox) -> None:
    body = await joined(mailed)
    headers = await sign_in(mailed, body["username"], body["password"])
    wanted = f"wanted.{body['email']}".lower()
    await mailed.patch("/users/me", headers=headers, json={"email": wanted})
    token = token_in(box.text(await box.to(wanted)), "/pages/verify-email")
    await joined(mailed, email=wanted)
    answer = await mailed.post("/auth/email-verification/confirm", json={"token": token})
    assert (answer.status_code, answer.json()["field"]) == (409, "email")


async def test_the_owner_of_an_address_takes_it_from_a_squatter_by_a_reset(
    mailed: httpx.AsyncClient, box: LetterBox
) -> None:
    squatted = await joined(mailed)
    squatter = await sign_in(mailed, squatted["username"], squatted["password"])
    await mailed.patch("/users/me", headers=squatter, json={"email": f"elsewhere.{squatted['email']}"})
    begun = token_in(box.text(await box.to(f"elsewhere.{squatted['email']}")), "/pages/verify-email")
    await mailed.post("/auth/password-reset", json={"email": squatted["email"]})
    mail = await box.to(squatted["email"], "A new password for ChatLingo")
    token = token_in(box.text(mail), "/pages/reset-password")
    assert (
        await mailed.post("/auth/password-reset/confirm", json={"token": token, "new_password": NEW})
    ).status_code == 204
    assert (await mailed.get("/users/me", headers=squatter)).status_code == 401
    assert (await mailed.post("/auth/email-verification/confirm", json={"token": begun})).status_code == 422


async def test_of_who_is_erased_nothing_is_mailed(
    mailed: httpx.AsyncClient, box: LetterBox, mail_stores: Stores
) -> None:
    body = await joined(mailed)
    await box.to(body["email"])
    headers = await sign_in(mailed, body["username"], body["password"])
    async with box.closed():
        await mailed.post("/auth/password-reset", json={"email": body["email"]})
        assert (await mailed.delete("/users/me", headers=headers)).status_code == 202
    assert (
        await query(
            mail_stores, "SELECT 1 FROM email_links l JOIN users u ON u.id = owner_id WHERE erased_at > '-infinity'"
        )
        == []
    )
    await until_no_mail_is_owed(mail_stores)
    assert len(box.mails_to(body["email"])) == 1


async def test_where_the_setting_says_so_new_accounts_need_a_verified_address(
    mailing: Settings, mail_stores: Stores, box: LetterBox
) -> None:
    strict = mailing.model_validate({**mailing.model_dump(), "verified_email_since": "2020-01-01"})
    async with client_of(create_app(strict, mail_stores)) as client:
        body = await joined(client)
        headers = await sign_in(client, body["username"], body["password"])
        refused = await client.post("/conversations", headers=headers, json={"title": "t"})
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/not-verified")
        token = token_in(box.text(await box.to(body["email"])), "/pages/verify-email")
        await client.post("/auth/email-verification/confirm", json={"token": token})
        assert (await client.post("/conversations", headers=headers, json={"title": "t"})).status_code == 201
        old = await joined(client)
        headers = await sign_in(client, old["username"], old["password"])
        before = "UPDATE users SET created_at = '2019-01-01', version = version + 1 WHERE email = :email"
        await query(mail_stores, before, email=old["email"].lower())
        await mail_stores.redis.client.flushall()
    async with client_of(create_app(strict, mail_stores)) as client:
        assert (await client.post("/conversations", headers=headers, json={"title": "t"})).status_code == 201
