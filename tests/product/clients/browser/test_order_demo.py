"""An order on the page of `make demo`, while the store that counts the seats is away."""

from playwright.async_api import expect

from tests.product.clients.browser.conftest import Tab
from tests.product.clients.browser.demo import demo


async def test_an_order_is_pending_until_its_store_is_back_and_then_confirmed(tab: Tab) -> None:
    page = tab.page
    async with demo() as address:
        await page.goto(address)
        await page.locator("#stop-mongodb").click()
        await expect(page.locator("#card-mongodb .state")).to_contain_text("error")
        await page.get_by_role("button", name="A learner orders a seat").click()
        newest = page.locator("#deeds tr").first
        await expect(newest).to_contain_text("202: pending")
        await page.locator("#start-mongodb").click()
        await expect(newest.locator(".over")).to_contain_text("201: confirmed")
        await expect(page.locator("#status")).to_have_text("ok")
