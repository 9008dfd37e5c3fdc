"""How documents of a repository become a site."""

import re

import pytest

from tristore.ops.charts import drawn
from tristore.ops.site import Entry, foreign, navigation, relinked

PUBLISHED = {"README.md": "index.md", "docs/a.md": "a.md", "docs/deep/b.md": "deep/b.md", "docs/deep": "deep/index.md"}
FILES = {*PUBLISHED, "tools/run.py", "LICENSE"}


def test_an_entry_whose_page_is_missing_is_left_out_and_a_group_is_replaced_by_its_pages() -> None:
    entries: list[Entry] = ["a.md", {"B": "b.md"}, {"More": [{"C": "c.md"}, "records/"]}, {"None": [{"D": "d.md"}]}]
    pages = {"a.md", "c.md", "records/1.md", "records/2.md"}
    groups = {"records/": ["records/1.md", "records/2.md", "records/gone.md"]}
    assert navigation(entries, pages, groups) == [
        "a.md",
        {"More": [{"C": "c.md"}, "records/1.md", "records/2.md"]},
    ]


@pytest.mark.parametrize(
    ("path", "text", "becomes"),
    [
        ("README.md", "[a](docs/a.md)", "[a](a.md)"),
        ("README.md", "[a](docs/a.md#part) and [b](docs/deep)", "[a](a.md#part) and [b](deep/index.md)"),
        ("docs/deep/b.md", "[top](../../README.md), [a](../a.md)", "[top](../index.md), [a](../a.md)"),
        ("docs/a.md", "[the tool](../tools/run.py)", "the tool (`tools/run.py`)"),
        ("docs/a.md", "[`LICENSE`](../LICENSE)", "`LICENSE`"),
        ("docs/a.md", "[gone](gone.md)", "[gone](gone.md)"),  # which fails the build
        (
            "docs/a.md",
            "[here](#part), [there](https://example.org/a.md)",
            "[here](#part), [there](https://example.org/a.md)",
        ),
        ("README.md", "```md\n[a](docs/a.md)\n```\n[a](docs/a.md)", "```md\n[a](docs/a.md)\n```\n[a](a.md)"),
    ],
)
def test_links_hold_on_the_site(path: str, text: str, becomes: str) -> None:
    assert relinked(text, path, PUBLISHED, FILES.__contains__) == becomes


def test_what_comes_from_another_host_is_found() -> None:
    page = """<link rel="canonical" href="https://docs.example.org/"><link rel=stylesheet href="a.css">
    <script src="//cdn.example.org/a.js"></script><img alt="" src="https://cdn.example.org/a.png">
    <a href="https://example.org">a link is not fetched</a>"""
    assert foreign(page) == ["//cdn.example.org/a.js", "https://cdn.example.org/a.png"]


def test_a_chart_becomes_a_picture_with_its_lines() -> None:
    chart = """Before.

```mermaid
xychart-beta
  title "Reading & writing"
  x-axis ["0", "1,000"]
  y-axis "ms"
  line [2.5, 5]
  line [1, 40]
```
"""
    picture = drawn(chart)
    assert picture.startswith("Before.\n\n<figure><svg")
    assert "<title>Reading &amp; writing</title>" in picture
    assert picture.count("<polyline") == 2
    assert ">1,000</text>" in picture
    assert ">40 ms</text>" in picture
    [points] = re.findall(r'points="([^"]*)"[^>]*stroke-dasharray', picture)
    low, high = (float(point.partition(",")[2]) for point in points.split())
    assert high < low  # y grows downwards
