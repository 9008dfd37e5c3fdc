"""A day of an account, by the API. In clients/ it is lived on the page of /docs, and by generated clients."""

import httpx

from tests.product.mails import joined, me, open_link, token_in
from tests.product.people import sign_in
from tristore.testing.mail import LetterBox

NEW = "battery staple 7"


async def test_an_account_is_kept_for_a_day(mailed: httpx.AsyncClient, box: LetterBox) -> None:
    body = await joined(mailed)
    assert (await open_link(mailed, box, body["email"])).status_code == 204
    phone, laptop = [await sign_in(mailed, body["username"], body["password"]) for _ in range(2)]
    assert (await me(mailed, phone))["email_verified"] is True

    async def sessions(headers: dict[str, str]) -> int:
        return len((await mailed.get("/auth/sessions", headers=headers)).json()["items"])

    assert await sessions(laptop) == 2
    assert (await mailed.post("/auth/password-reset", json={"email": body["email"]})).status_code == 202
    mail = await box.to(body["email"], "A new password for ChatLingo")
    choice = {"token": token_in(box.text(mail), "/pages/reset-password"), "new_password": NEW}
    assert (await mailed.post("/auth/password-reset/confirm", json=choice)).status_code == 204
    assert (await mailed.get("/users/me", headers=laptop)).status_code == 401
    phone = await sign_in(mailed, body["username"], NEW)
    assert await sessions(phone) == 1

    moved = f"moved.{body['email']}".lower()
    assert (await mailed.patch("/users/me", headers=phone, json={"email": moved})).status_code == 200
    assert (await open_link(mailed, box, moved)).status_code == 204
    profile = await me(mailed, phone)
    assert (profile["email"], profile["email_verified"]) == (moved, True)
    assert (await mailed.delete("/users/me", headers=phone)).status_code == 202
    assert (await mailed.get("/users/me", headers=phone)).status_code == 401
    form = {"username": body["username"], "password": NEW}
    assert (await mailed.post("/auth/token", data=form)).status_code == 401
