"""On a developer's machine mail is kept, and shown at a page that is nowhere else."""

import os
import re
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from config import Settings
from main import create_app
from tests.product.people import account, sign_in
from tests.under_test import apps_on, fresh_databases
from tristore.stores.stores import Stores
from tristore.testing.lab import App, until
from tristore.testing.stores import Servers, client_of

LOCAL = {"ENVIRONMENT": "local", "OUTBOX_POLL_SECONDS": "0.05", "PUBLIC_URL": "http://test"}


@pytest.fixture
async def app(servers: Servers, tmp_path: Path) -> AsyncIterator[App]:
    async with fresh_databases(servers) as settings:
        async with apps_on(settings, tmp_path).app(**LOCAL, DATA_DIR=str(tmp_path)) as app:
            yield app


async def test_the_newest_mail_is_shown_with_a_link_that_works(app: App) -> None:
    client = app.client
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


@pytest.mark.parametrize(
    "headers",
    [{"Host": "site.example"}, {"X-Forwarded-For": "127.0.0.1"}],  # a name that leads here, and a proxy for strangers
)
async def test_nobody_reads_it_through_a_name_or_a_proxy(app: App, headers: dict[str, str]) -> None:
    assert (await app.client.get("/mail")).status_code == 200
    assert (await app.client.get("/mail", headers=headers)).status_code == 403


@pytest.mark.skipif(os.getuid() != 0, reason="only root has another user at hand")
async def test_another_user_of_the_machine_reads_no_mail(app: App) -> None:
    assert [status_for(user, app) for user in (0, 65534)] == [200, 403]


def status_for(user: int, app: App) -> int:
    """A socket belongs to whoever makes it."""
    base = app.client.base_url
    connection = HTTPConnection(base.host, base.port, timeout=10)
    os.seteuid(user)
    try:
        connection.connect()
    finally:
        os.seteuid(0)
    connection.request("GET", "/mail")
    return connection.getresponse().status


async def test_elsewhere_there_is_no_such_page(client: httpx.AsyncClient, settings: Settings, stores: Stores) -> None:
    assert (await client.get("/mail")).status_code == 404
    production = settings.model_copy(update={"environment": "production"})
    async with client_of(create_app(production, stores)) as served:
        assert (await served.get("/mail")).status_code == 404
