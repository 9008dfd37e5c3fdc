"""The pages that links in mails open."""

import re

import httpx
import pytest

from tests.product.mails import joined, me, token_in
from tests.product.people import sign_in
from tristore.testing.mail import LetterBox

NEW = "battery staple 7"


async def test_a_page_changes_nothing_until_its_button_is_pressed(mailed: httpx.AsyncClient, box: LetterBox) -> None:
    body = await joined(mailed, language_preference="es")
    headers = await sign_in(mailed, body["username"], body["password"])
    token = token_in(box.text(await box.to(body["email"])), "/pages/verify-email")
    for _ in range(2):  # as scanners of mail do
        page = await mailed.get("/pages/verify-email", params={"token": token, "language": "es"})
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert '<html lang="es">' in page.text
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]
    assert (await me(mailed, headers))["email_verified"] is False
    form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
    pressed = await mailed.post("/pages/verify-email", data=form)
    assert (pressed.status_code, "<form" in pressed.text) == (200, False)
    assert (await me(mailed, headers))["email_verified"] is True
    assert (await mailed.post("/pages/verify-email", data=form)).status_code == 422


async def test_a_new_password_is_chosen_on_a_page(mailed: httpx.AsyncClient, box: LetterBox) -> None:
    body = await joined(mailed)
    await mailed.post("/auth/password-reset", json={"email": body["email"]})
    mail = await box.to(body["email"], "A new password for ChatLingo")
    token = token_in(box.text(mail), "/pages/reset-password")
    form = {"token": token, "language": "en"}
    weak = await mailed.post("/pages/reset-password", data=form | {"password": "password123"})
    assert (weak.status_code, "too easy" in weak.text, token in weak.text) == (200, True, True)
    done = await mailed.post("/pages/reset-password", data=form | {"password": NEW})
    assert (done.status_code, token in done.text) == (200, False)
    await sign_in(mailed, body["username"], NEW)


@pytest.mark.parametrize("language", ["en", "de", "es"])
async def test_a_page_masks_a_password_and_lets_managers_fill_it_in(mailed: httpx.AsyncClient, language: str) -> None:
    page = await mailed.get("/pages/reset-password", params={"token": "x", "language": language})
    [field] = re.findall(r'<input [^>]*name="password"[^>]*>', page.text)
    assert 'type="password"' in field
    assert 'autocomplete="new-password"' in field
    assert not re.search(r"<script|\son\w+=|autocomplete=\"off\"", page.text)  # so nothing keeps anybody from pasting


async def test_a_page_shows_nothing_that_a_link_says_as_html(mailed: httpx.AsyncClient) -> None:
    page = await mailed.get("/pages/verify-email", params={"token": '"><script>alert(1)</script>'})
    assert "<script>" not in page.text
    assert (await mailed.get("/pages/verify-email", params={"token": "x", "language": "../x"})).status_code == 422
