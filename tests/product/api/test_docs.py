"""The page with the API's document: complete, and from this application alone."""

import base64
import hashlib
import re

import httpx

from config import Settings
from main import create_app
from tristore.stores.stores import Stores
from tristore.testing.stores import client_of

TYPES = {"js": "text/javascript", "css": "text/css", "png": "image/png", "json": "application/json"}
ADDRESS = re.compile(r"""(?:src=|href=|url: )["']([^"']+)["']""")


async def addresses(client: httpx.AsyncClient) -> list[httpx.URL]:
    """All that the page refers to, as a browser resolves it."""
    page = await client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    found = [page.url.join(address) for address in ADDRESS.findall(page.text)]
    assert {url.path.rpartition(".")[2] for url in found} == set(TYPES)
    return found


async def test_all_that_the_page_refers_to_is_on_the_app_itself(client: httpx.AsyncClient) -> None:
    for url in await addresses(client):
        assert url.host == client.base_url.host
        answer = await client.get(url)
        kind = answer.headers["content-type"].partition(";")[0]
        assert (answer.status_code, kind) == (200, TYPES[url.path.rpartition(".")[2]]), url


async def test_the_page_names_no_other_host(client: httpx.AsyncClient) -> None:
    assert "//" not in (await client.get("/docs")).text


async def test_files_may_be_kept_and_are_not_sent_twice(client: httpx.AsyncClient) -> None:
    files = [url for url in await addresses(client) if not url.path.endswith(".json")]
    for url in files:
        answer = await client.get(url)
        assert answer.headers["Cache-Control"] == "public, max-age=86400"
        again = await client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    for other in ("none.js", "..%2Fcore.py", "."):
        assert (await client.get(f"/docs/files/{other}")).status_code == 404, other
    assert (await client.post(files[0])).headers["Allow"] == "GET, HEAD"


async def test_the_page_runs_no_script_but_its_own(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    directives = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    [script] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert directives["script-src"] == f"'self' 'sha256-{digest}'"
    assert (directives["default-src"], directives["frame-ancestors"]) == ("'none'", "'none'")
    assert "unsafe" not in page.headers["Content-Security-Policy"]


async def test_the_page_works_below_a_prefix(settings: Settings, stores: Stores) -> None:
    app = create_app(settings, stores)
    app.root_path = "/api"
    async with client_of(app) as client:
        client.base_url = client.base_url.join("/api/")
        page = await client.get("docs")
        assert page.status_code == 200
        found = [page.url.join(address) for address in ADDRESS.findall(page.text)]
        assert {(await client.get(url)).status_code for url in found} == {200}


async def test_the_page_and_the_document_can_be_turned_off(settings: Settings, stores: Stores) -> None:
    async with client_of(create_app(settings.model_copy(update={"docs": False}), stores)) as client:
        for path in ("/docs", "/docs/files/swagger-ui.css", "/openapi.json", "/redoc"):
            assert (await client.get(path)).status_code == 404, path
