"""What is at `/`."""

import httpx
import pytest

from config import Settings
from main import create_app
from tristore.stores.stores import Stores
from tristore.testing.stores import client_of


async def test_a_browser_is_led_to_the_documents(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "docs")
    assert (await client.get("/", follow_redirects=True)).url.path == "/docs"


@pytest.mark.parametrize("change", [{"environment": "production"}, {"docs": False}])
async def test_where_there_are_no_documents_it_is_one_word(
    settings: Settings, stores: Stores, change: dict[str, object]
) -> None:
    async with client_of(create_app(settings.model_copy(update=change), stores)) as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.text) == (200, "ok\n")
        assert answer.headers["Content-Type"].startswith("text/plain")
