"""The guide's JavaScript client on a page of another origin."""

import pytest

from tests.product.clients.browser.conftest import Tab
from tests.product.people import register
from tests.product.things import post, start_conversation
from tests.under_test import apps_on, fresh_databases
from tristore.testing.lab import until
from tristore.testing.stores import Servers

FOLLOW = """async (options) => {
  const { follow } = await import("/follow.mjs");
  window.contents = [];
  window.over = null;
  follow({ ...options, onMessage: (message) => window.contents.push(message.content) }).then((status) => {
    window.over = status;
  });
}"""


async def test_it_streams_until_the_session_is_over(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, origin: str, tab: Tab
) -> None:
    async with (
        fresh_databases(servers) as settings,
        apps_on(settings, tmp_path_factory.mktemp("app")).app(CORS_ORIGINS=origin) as app,
    ):
        ana = await register(app.client)
        conversation = await start_conversation(app.client, ana)
        options = {
            "api": str(app.client.base_url),
            "token": ana["Authorization"].removeprefix("Bearer "),
            "conversationId": conversation.rpartition("/")[2],
            "after": 0,
        }
        await tab.page.goto(origin)
        await tab.page.evaluate(FOLLOW, options)
        contents = ["un", "deux\u2028trois", "é"]
        await post(app.client, conversation, ana, *contents)

        async def shown() -> bool:
            return bool(await tab.page.evaluate("window.contents") == contents)

        await until(shown, 30)
        assert (await app.client.post("/auth/logout", headers=ana)).status_code == 204
        await until(lambda: _is(tab, 401), 30)


async def _is(tab: Tab, status: int) -> bool:
    return bool(await tab.page.evaluate("window.over") == status)
