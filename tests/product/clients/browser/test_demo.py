"""The page of `make demo`, as a person uses it: a store is stopped with a click, and comes back."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect

from tests.product.clients.browser.conftest import Tab
from tests.product.clients.browser.demo import demo


@pytest.fixture(scope="module")
async def page_of_demo() -> AsyncIterator[str]:
    async with demo() as address:
        yield address


async def test_what_is_owed_waits_for_the_store_and_comes_when_it_is_back(page_of_demo: str, tab: Tab) -> None:
    page = tab.page
    await page.goto(page_of_demo)
    await expect(page.locator("#status")).to_have_text("ok")
    await expect(page.locator("#card-mongodb .state")).to_have_text("connected")

    await page.locator("#stop-mongodb").click()
    await expect(page.locator("#card-mongodb .state")).to_contain_text("error")
    await expect(page.locator("#status")).to_have_text("degraded")
    await page.get_by_role("button", name="A learner registers").click()
    await page.get_by_role("button", name="A learner writes a message").click()
    deeds = page.locator("#deeds")
    await expect(deeds).to_contain_text("the first conversation is owed to MongoDB")
    await expect(deeds).to_contain_text("503: asks again, with the same id")
    await expect(page.locator("#backlog")).not_to_have_text("0")

    await page.locator("#start-mongodb").click()
    await expect(deeds).to_contain_text("the first conversation is in MongoDB")
    await expect(deeds).to_contain_text("201: message number 16")
    await expect(page.locator("#status")).to_have_text("ok")
    await expect(page.locator("#backlog")).to_have_text("0")
    assert all("503" in error or "ERR_" in error for error in tab.errors), tab.errors


async def test_without_redis_all_goes_on(page_of_demo: str, tab: Tab) -> None:
    page = tab.page
    await page.goto(page_of_demo)
    await page.locator("#stop-redis").click()
    await expect(page.locator("#card-redis .state")).to_contain_text("error")
    await page.get_by_role("button", name="A learner registers").click()
    await expect(page.locator("#deeds tr").first).to_contain_text("the first conversation is in MongoDB")
    await page.locator("#start-redis").click()
    await expect(page.locator("#card-redis .state")).to_have_text("connected")
    assert tab.errors == []
