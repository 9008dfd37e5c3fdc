"""Line charts of documents as pictures. The library that draws them elsewhere would come from another host."""

import re
from collections.abc import Iterator, Sequence
from html import escape

CHART = re.compile(r"^```mermaid\nxychart-beta\n(?P<lines>.*?)^```$", re.DOTALL | re.MULTILINE)
WIDTH, HEIGHT, MARGIN = 560, 240, 68
"""In units of the picture's own."""


def drawn(text: str) -> str:
    """The text, with a picture in the place of each chart."""
    return CHART.sub(lambda block: _picture(block["lines"]), text)


def _picture(source: str) -> str:
    title, unit = re.findall(r'"([^"]*)"', re.sub(r"x-axis.*", "", source))
    names = re.findall(r'"([^"]*)"', re.findall(r"x-axis.*", source)[0])
    lines = [[float(value) for value in line.split(",")] for line in re.findall(r"line \[([^\]]*)\]", source)]
    most = max(value for line in lines for value in line)
    return "".join(
        [
            f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" ',
            'fill="none" stroke="currentColor">',
            f"<title>{escape(title)}</title>",
            *_axes(names, most, unit),
            *_lines(lines, len(names), most),
            f"</svg><figcaption>{escape(title)}</figcaption></figure>",
        ]
    )


def _axes(names: Sequence[str], most: float, unit: str) -> Iterator[str]:
    bottom = HEIGHT - MARGIN / 2
    yield f'<path d="M{MARGIN} 8V{bottom}H{WIDTH}" stroke-opacity=".4"/>'
    style = 'font-size="12" fill="currentColor" stroke="none"'
    for place, name in enumerate(names):
        x = _across(place, len(names))
        yield f'<text x="{x}" y="{HEIGHT - 6}" {style} text-anchor="middle">{escape(name)}</text>'
    for value in (most, 0):
        yield f'<text x="{MARGIN - 6}" y="{_up(value, most) + 4}" {style} text-anchor="end">{value:g} {unit}</text>'


def _lines(lines: Sequence[Sequence[float]], places: int, most: float) -> Iterator[str]:
    for number, line in enumerate(lines):
        points = " ".join(f"{_across(place, places)},{_up(value, most)}" for place, value in enumerate(line))
        dashes = f' stroke-dasharray="{6 * number}"' if number else ""
        yield f'<polyline points="{points}" stroke-width="2"{dashes}/>'


def _across(place: int, places: int) -> float:
    return round(MARGIN + (WIDTH - MARGIN) * (place + 0.5) / places, 1)


def _up(value: float, most: float) -> float:
    return round(HEIGHT - MARGIN / 2 - (HEIGHT - MARGIN) * value / (most or 1), 1)
