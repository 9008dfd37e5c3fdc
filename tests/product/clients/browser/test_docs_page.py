"""The page with the API's document, as a person uses it on a machine without internet."""

import re
from urllib.parse import urlsplit

from playwright.async_api import Page, expect

from tests.product.clients.browser.conftest import Tab
from tests.product.clients.browser.docs_page import authorize, fill_in_authorization, try_out
from tests.product.people import account
from tristore.testing.lab import App, until


async def test_a_person_registers_signs_in_and_reads_the_profile_on_the_page(app: App, tab: Tab) -> None:
    document = (await app.client.get("/openapi.json")).json()
    example = document["components"]["schemas"]["Registration"]["examples"][0]
    await tab.page.goto(f"{app.client.base_url}/docs")
    await expect(tab.page.locator(".opblock")).to_have_count(sum(map(len, document["paths"].values())))

    status, registered = await try_out(tab.page, "users", "register")  # with the body that the page proposes
    assert status == 201
    await authorize(tab.page, example["username"], example["password"])
    status, profile = await try_out(tab.page, "users", "read_me")
    assert (status, profile["id"], profile["level"]) == (200, registered["user_id"], example["cefr_level"])

    app_itself = f"{app.client.base_url.host}:{app.client.base_url.port}"
    assert {urlsplit(url).netloc for url in tab.urls if not url.startswith("data:")} == {app_itself}
    assert tab.errors == []


async def test_a_wrong_password_is_refused_on_the_page(app: App, tab: Tab) -> None:
    await tab.page.goto(f"{app.client.base_url}/docs")
    dialog = await fill_in_authorization(tab.page, "nobody-here", "not this one")
    await expect(dialog.locator(".errors")).to_contain_text("Unauthorized")
    await dialog.get_by_role("button", name="Close").click()
    status, problem = await try_out(tab.page, "auth", "list_sessions")
    assert (status, problem["title"]) == (401, "Unauthorized")


async def test_an_account_is_kept_for_a_day_on_the_page(app_with_mailbox: App, tab: Tab) -> None:
    """Verified, signed in on two devices, its password forgotten and replaced, its address changed, erased."""
    base, body = str(app_with_mailbox.client.base_url).rstrip("/"), account()
    name, new, moved = body["username"], "battery staple 7", f"moved.{body['email']}".lower()
    browser = tab.page.context.browser
    assert browser
    phone, laptop, mailbox = tab.page, await browser.new_page(), await browser.new_page()
    for device in (phone, laptop):
        await device.goto(f"{base}/docs")

    assert (await try_out(phone, "users", "register", body))[0] == 201
    link = {"token": await mailed(mailbox, base, body["email"], "verify-email")}
    assert await try_out(phone, "links", "verify_email", link) == (204, None)
    for device in (phone, laptop):
        await authorize(device, name, body["password"])
    status, profile = await try_out(laptop, "users", "read_me")
    assert (status, profile["email_verified"]) == (200, True)
    assert len((await try_out(laptop, "auth", "list_sessions"))[1]["items"]) == 2

    assert await try_out(phone, "links", "request_password_reset", {"email": body["email"]}) == (202, None)
    choice = {"token": await mailed(mailbox, base, body["email"], "reset-password"), "new_password": new}
    assert await try_out(phone, "links", "reset_password", choice) == (204, None)
    assert (await try_out(laptop, "users", "read_me"))[0] == 401
    await authorize(phone, name, new)
    assert len((await try_out(phone, "auth", "list_sessions"))[1]["items"]) == 1

    assert (await try_out(phone, "users", "update_me", {"email": moved}))[0] == 200
    link = {"token": await mailed(mailbox, base, moved, "verify-email")}
    assert await try_out(phone, "links", "verify_email", link) == (204, None)
    _, profile = await try_out(phone, "users", "read_me")
    assert (profile["email"], profile["email_verified"]) == (moved, True)
    assert await try_out(phone, "users", "erase_me") == (202, None)
    assert (await try_out(phone, "users", "read_me"))[0] == 401
    dialog = await fill_in_authorization(phone, name, new)
    await expect(dialog.locator(".errors")).to_contain_text("Unauthorized")


async def mailed(page: Page, base: str, address: str, target: str) -> str:
    """The token of the newest link in the mails to an address."""
    mails = page.locator("section", has_text=f"to {address.lower()}")
    link = mails.locator(f'a[href*="/pages/{target}?"]').first

    async def is_shown() -> bool:
        await page.goto(f"{base}/mail")
        return bool(await link.is_visible())

    await until(is_shown, 20)
    found = re.search(r"token=([\w-]+)", await link.get_attribute("href") or "")
    assert found
    return found[1]
