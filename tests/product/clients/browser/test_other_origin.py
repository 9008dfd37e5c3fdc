"""A page of another origin, which the service has named in CORS_ORIGINS."""

import pytest
from playwright.async_api import expect

from tests.product.clients.browser.conftest import Tab
from tests.product.people import account
from tests.under_test import apps_on, fresh_databases
from tristore.testing.lab import App
from tristore.testing.stores import Servers

SIGN_IN = """async ([api, username, password]) => {
  const body = new URLSearchParams({ username, password });
  const answer = await fetch(`${api}/auth/token`, { method: "POST", body });
  const wait = answer.headers.get("Retry-After");
  if (wait) document.querySelector("p").textContent = `Try again in ${wait} s`;
  return [answer.status, answer.headers.get("X-Request-Id"), wait, (await answer.json()).access_token ?? ""];
}"""
CHANGE = """async ([api, token]) => {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ bio: "Salut" });
  return (await (await fetch(`${api}/users/me`, { method: "PATCH", headers, body })).json()).bio;
}"""


async def test_it_signs_in_changes_something_and_shows_how_long_to_wait(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, origin: str, tab: Tab
) -> None:
    limits = {"CORS_ORIGINS": origin, "RATE_LIMIT_SIGN_IN_ACCOUNT": "3/minute"}
    async with (
        fresh_databases(servers) as settings,
        apps_on(settings, tmp_path_factory.mktemp("app")).app(**limits) as app,
    ):
        api, me = str(app.client.base_url), account()
        assert (await app.client.post("/users/register", json=me)).status_code == 201
        await tab.page.goto(origin)

        status, request_id, wait, token = await tab.page.evaluate(SIGN_IN, [api, me["username"], me["password"]])
        assert (status, bool(request_id), wait) == (200, True, None)
        assert await tab.page.evaluate(CHANGE, [api, token]) == "Salut"
        assert tab.errors == []

        for _ in range(3):
            status, _, wait, _ = await tab.page.evaluate(SIGN_IN, [api, me["username"], "not this one"])
        assert status == 429
        await expect(tab.page.locator("p")).to_have_text(f"Try again in {wait} s")


async def test_an_origin_that_was_not_named_reads_nothing(app: App, origin: str, tab: Tab) -> None:
    await tab.page.goto(origin)
    read = "(api) => fetch(`${api}/courses`).then((answer) => answer.status, (error) => String(error))"
    assert await tab.page.evaluate(read, str(app.client.base_url)) == "TypeError: Failed to fetch"
    assert "has been blocked by CORS policy" in tab.errors[0]
