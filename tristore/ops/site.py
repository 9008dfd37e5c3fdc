"""What turns the documents of a repository into a site. It knows nothing of the program that builds the site."""

import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence

Entry = str | dict[str, "str | list[Entry]"]
"""One of a navigation: a page, or a title with a page or with entries."""
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?P<before>\[[^\]\n]*\]\()(?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)[^>]*>")


def navigation(entries: Sequence[Entry], pages: Collection[str], groups: Mapping[str, Sequence[str]]) -> list[Entry]:
    """The entries whose pages there are. In the place of an entry that names a group come the pages of the group.

    A clone may take pages out without a change here. What nobody may forget is a page that no entry names."""
    kept: list[Entry] = []
    for entry in entries:
        if isinstance(entry, str):
            kept += [page for page in groups.get(entry, [entry]) if page in pages]
            continue
        for title, inner in entry.items():
            if isinstance(inner, str):
                kept += [{title: inner}] if inner in pages else []
            elif within := navigation(inner, pages, groups):
                kept.append({title: within})
    return kept


def relinked(text: str, path: str, published: Mapping[str, str], exists: Callable[[str], bool]) -> str:
    """The text of the file at `path`, with links that hold on the site. `published` says which file becomes which page.
    What is not published and exists is named instead: a reader finds it in the repository."""
    here = posixpath.dirname(published[path]) or "."

    def changed(link: re.Match[str]) -> str:
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(path), link["target"]))
        if meant in published:
            return f"{link['before']}{posixpath.relpath(published[meant], here)}{link['anchor'] or ''})"
        words = link["before"][1:-2]
        return (words if words.strip("`") == meant else f"{words} (`{meant}`)") if exists(meant) else link[0]

    return outside_code(text, lambda prose: LINK.sub(changed, prose))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text, with everything changed that stands in no fenced block."""
    kept, at = [], 0
    for block in FENCE.finditer(text):
        kept += [change(text[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*kept, change(text[at:])])


def foreign(page: str) -> list[str]:
    """What a browser would fetch from another host to show this page of HTML."""
    return [found[1] for found in FETCHED.finditer(page) if 'rel="canonical"' not in found[0]]
