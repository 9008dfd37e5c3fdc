"""What `make docs` adds to MkDocs: pages from the code and from the top of the repository, links between them, charts.

`tristore/ops/site.py` and `tristore/ops/reference.py` do the work. Here is what they need to know of the product."""

import asyncio
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import Settings
from main import create_app
from manage import cli
from tristore.ops.charts import drawn
from tristore.ops.metrics import Family
from tristore.ops.parts import Parts
from tristore.ops.reference import api_page, commands_page, metrics_page, settings_page
from tristore.ops.site import foreign, navigation, relinked
from wiring import open_services

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
TOP = {
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "who-attacks.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files at the top of the repository, and the pages that they become."""
NOWHERE: dict[str, Any] = {
    "postgres_dsn": "postgresql://127.0.0.1:9/reference",
    "redis_dsn": "redis://127.0.0.1:9",
    "mongodb_dsn": "mongodb://127.0.0.1:9",
}
"""The services are built for what they say of themselves. They ask no store."""

log = logging.getLogger("mkdocs.hooks.docs")


def reference() -> dict[str, str]:
    """The pages that the code writes, by their paths."""
    settings = Settings(_env_file=None, environment="test", **NOWHERE)
    return {
        "reference/settings.md": settings_page(Settings, (PROJECT / ".env.example").read_text()),
        "reference/commands.md": commands_page(cli, "manage.py"),
        "reference/api.md": api_page(create_app(settings).openapi()),
        "reference/metrics.md": metrics_page(asyncio.run(_families(settings))),
    }


async def _families(settings: Settings) -> list[Family]:
    async with open_services(settings) as services:
        return services.metrics.families()


def on_files(files: "Files", *, config: "MkDocsConfig") -> "Files":
    """Add the pages that are not in docs/, and lay out the navigation."""
    from mkdocs.structure.files import File

    pages = {TOP[path.name]: path.read_text() for path in sorted(PROJECT.glob("*.md")) if path.name in TOP}
    records = sorted(file.src_uri for file in files if file.src_uri.startswith("decisions/"))
    for path, text in (pages | reference() | {"decisions/index.md": _list_of(records)}).items():
        files.append(File.generated(config, path, content=text))
    config.nav = navigation(config.nav or [], files.src_uris, _groups(files, records))
    return files


def _groups(files: "Files", records: list[str]) -> dict[str, list[str]]:
    """What one entry of the navigation may stand for."""
    parts = Parts.of(PROJECT).by_name.values() if (PROJECT / "parts.toml").exists() else ()
    known = sorted(page.src_uri for page in files.documentation_pages())
    return {
        "decisions/": ["decisions/index.md", *records],
        "runbooks/": [page for page in known if page.startswith("runbooks/")],
        "parts.toml": [page for page in known if "/" not in page and any(part.owns(f"docs/{page}") for part in parts)],
    }


def _list_of(records: list[str]) -> str:
    titles = {path: (PROJECT / "docs" / path).read_text().partition("\n")[0].lstrip("# ") for path in records}
    lines = [f"- [{title}]({path.removeprefix('decisions/')})" for path, title in titles.items()]
    return "\n".join(
        ["# Decisions", "", "Why it is so: one page for each question that the next reader would ask.", "", *lines]
    )


def on_page_markdown(markdown: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    published = {f"docs/{file.src_uri}": file.src_uri for file in files} | TOP
    published["docs/decisions"] = "decisions/index.md"
    sources = {name: path for path, name in TOP.items()}
    path = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    marks = re.compile(r"^<!-- (begin|end) part \w+ -->\n", re.MULTILINE)
    return drawn(relinked(marks.sub("", markdown), path, published, lambda name: (PROJECT / name).exists()))


def on_post_page(output: str, *, page: "Page", config: "MkDocsConfig") -> str:
    for address in foreign(output):
        log.warning("%s fetches %s from another host", page.file.src_uri, address)
    return output
