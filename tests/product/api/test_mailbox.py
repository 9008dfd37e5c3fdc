"""On a developer's machine mail is kept, and shown at a page that is nowhere else."""

import re
from pathlib import Path

import httpx

from config import Settings
from main import create_app
from tests.product.people import account, sign_in
from tests.under_test import fresh_databases
from tristore.stores.stores import Stores, open_stores
from tristore.testing.lab import until
from tristore.testing.stores import Servers, client_of


async def test_the_newest_mail_is_shown_with_a_link_that_works(servers: Servers, tmp_path: Path) -> None:
    local = {"environment": "local", "data_dir": tmp_path, "outbox_poll_seconds": 0.05, "public_url": "http://test"}
    async with fresh_databases(servers, **local) as settings, open_stores(settings) as stores:
        async with client_of(create_app(settings, stores)) as client:
            assert "There is none yet" in (await client.get("/mail")).text
            body = account()
            await client.post("/users/register", json=body)

            async def is_shown() -> bool:
                return "Confirm your address" in (await client.get("/mail")).text

            await until(is_shown, 20)
            page = await client.get("/mail")
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
            assert body["email"].lower() in page.text
            link = re.search(r'<a href="http://test(/pages/verify-email\?[^"]+)"', page.text)
            assert link
            form = await client.get(link[1].replace("&amp;", "&"))
            sent = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.text))
            assert (await client.post("/pages/verify-email", data=sent)).status_code == 200
            headers = await sign_in(client, body["username"], body["password"])
            assert (await client.get("/users/me", headers=headers)).json()["email_verified"] is True


async def test_elsewhere_there_is_no_such_page(client: httpx.AsyncClient, settings: Settings, stores: Stores) -> None:
    assert (await client.get("/mail")).status_code == 404
    production = settings.model_copy(update={"environment": "production"})
    async with client_of(create_app(production, stores)) as served:
        assert (await served.get("/mail")).status_code == 404
