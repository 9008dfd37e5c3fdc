"""The system's Chromium, new and empty, for which the app is the only host there is."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.async_api import ConsoleMessage, Page, Request, async_playwright, expect

from tristore.testing.lab import PROJECT

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = [
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
]

expect.set_options(timeout=30_000)  # ms, for a busy machine


@dataclass
class Tab:
    """A page, all it asked for, and what went wrong on it: scripts that failed, and what its policy refused."""

    page: Page
    urls: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._note_request)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note_request(self, request: Request) -> None:
        self.urls.append(request.url)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)


def chromium() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.fail(
            "Chromium is needed: `apt-get install chromium`, or set CHROMIUM to a browser's path.", pytrace=False
        )
    return found


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    path = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield Tab(await browser.new_page())
        await browser.close()


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """Another origin than the app's: it serves an empty page, and the guide's JavaScript."""
    (tmp_path / "index.html").write_text("<!doctype html><title>Another origin</title><link rel=icon href=data:,><p>")
    for script in (PROJECT / "docs/clients").glob("*.mjs"):
        shutil.copy(script, tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {".html": "text/html", ".mjs": "text/javascript"}

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tab notes what fails."""
