"""The page with the API's document, as a person uses it on a machine without internet."""

import json
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Locator, Page, expect

from tests.product.clients.browser.conftest import Tab
from tristore.testing.lab import App


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


async def authorize(page: Page, username: str, password: str) -> None:
    dialog = await fill_in_authorization(page, username, password)
    await expect(dialog.get_by_role("button", name="Remove authorization")).to_be_visible()
    await dialog.get_by_role("button", name="Close").click()


async def fill_in_authorization(page: Page, username: str, password: str) -> Locator:
    await page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".auth-container")
    await dialog.get_by_label("username:").fill(username)
    await dialog.get_by_label("password:", exact=True).fill(password)
    await dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
    return dialog


async def try_out(page: Page, tag: str, operation: str) -> tuple[int, Any]:
    """Send an operation's request from the page as it is. Returns the status and the body that the page shows."""
    block = page.locator(f"#operations-{tag}-{operation}")
    await block.locator(".opblock-summary-control").click()
    await block.get_by_role("button", name="Try it out").click()
    await block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response")
    status = await answer.locator(".response-col_status").inner_text()
    body = await answer.locator(".highlight-code code").first.inner_text()
    return int(status.split()[0]), json.loads(body)
