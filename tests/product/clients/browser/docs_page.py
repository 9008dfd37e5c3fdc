"""What a person does on the page with the API's document."""

import json
from typing import Any

from playwright.async_api import Locator, Page, expect


async def authorize(page: Page, username: str, password: str) -> None:
    dialog = await fill_in_authorization(page, username, password)
    await expect(dialog.get_by_role("button", name="Remove authorization")).to_be_visible()
    await dialog.get_by_role("button", name="Close").click()


async def fill_in_authorization(page: Page, username: str, password: str) -> Locator:
    """A session from before is left."""
    await page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".auth-container")
    leave = dialog.get_by_role("button", name="Remove authorization")
    if await leave.is_visible():
        await leave.click()
    await dialog.get_by_label("username:").fill(username)
    await dialog.get_by_label("password:", exact=True).fill(password)
    await dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
    return dialog


async def try_out(page: Page, tag: str, operation: str, body: object = None) -> tuple[int, Any]:
    """Send an operation's request from the page, with the body that it proposes where none is given. Returns the status
    and the body that the page shows."""
    block = page.locator(f"#operations-{tag}-{operation}")
    if not await block.get_by_role("button", name="Execute").is_visible():
        await block.locator(".opblock-summary-control").click()
        await block.get_by_role("button", name="Try it out").click()
    if body is not None:
        await block.locator("textarea.body-param__text").fill(json.dumps(body))
    await block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response")
    status = int((await answer.locator(".response-col_status").inner_text()).split()[0])
    shown = None if status in {202, 204} else await answer.locator(".highlight-code code").first.inner_text()
    await block.get_by_role("button", name="Clear").click()  # or the next answer could not be told from this one
    return status, shown and json.loads(shown)
