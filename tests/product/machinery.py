"""Looks into `tristore/` for words of the product."""

import re

from tristore.testing.lab import PROJECT


def machinery_lines(words: str) -> list[str]:
    """Path, number and text of each line, and each name of a file, with one of these words (a regular expression)."""
    texts = [path for path in (PROJECT / "tristore").rglob("*") if path.suffix in {".py", ".mako", ".sql", ".lua"}]
    assert len(texts) > 50
    return [
        f"{path.relative_to(PROJECT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate([path.name, *path.read_text().splitlines()])
        if re.search(words, line)
    ]
