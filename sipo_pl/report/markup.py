"""Small pieces of HTML; every text is escaped here."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sipo_pl.report.style import STYLE

LONG_NAME = 24  # characters


def document(title: str, body: Iterable[str], script: str = "") -> str:
    """Return a whole page that asks nothing from anywhere, and that runs no program but `script`."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"; script-src 'sha256-{digest}'" if script else ""
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{allowed}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style></head><body>",
            *body,
            *([f"<script>{script}</script>"] if script else []),
            "</body></html>\n",
        ]
    )


def element(name: str, text: str, css: str = "") -> str:
    """Return one element around an escaped text."""
    attribute = f' class="{css}"' if css else ""
    return f"<{name}{attribute}>{escape(text)}</{name}>"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """Return a table that scrolls inside its own box."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = ["".join(element("td", cell_text(cell)) for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    title = element("caption", caption) if caption else ""
    inner = f"{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table>{inner}</table></div>'


def picture(path: Path, alt: str, caption: str, *, single: bool = False) -> str:
    """Return an SVG file as a figure that holds it.

    Args:
        path: the file.
        alt: what it shows, for those who do not see it.
        caption: what stands below.
        single: whether it has one panel, and so needs no more than a part of the page's width.
    """
    data = base64.b64encode(path.read_bytes()).decode()
    css = ' class="single"' if single else ""
    image = f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure{css}>{image}{element('figcaption', caption)}</figure>"


def side_by_side(found: Iterable[str]) -> str:
    """Return tables beside each other where the page is wide enough."""
    return f'<div class="tables">{"".join(found)}</div>'


def tables(value: Mapping[str, Any], title: str = "") -> list[str]:
    """Return any nested dict as tables: its single values as one, and each dict in it as one where its rows look alike.

    Args:
        value: names to single values, lists, or dicts of the same kind.
        title: caption; those of inner tables add their names.
    """
    single = {name: inner for name, inner in value.items() if not isinstance(inner, Mapping)}
    found = [table(["", "value"], single.items(), title)] if single else []
    for name, inner in value.items():
        if not isinstance(inner, Mapping) or not inner:
            continue
        caption = f"{title}: {name}" if title else name
        leaves = list(_leaves(inner))
        alike = len({tuple(leaf) for _, leaf in leaves}) == 1
        if alike or all(len(path) <= 1 for path, _ in leaves):
            found.append(_leaf_table(leaves, caption))
        else:
            found += tables(inner, caption)
    return found


Leaf = tuple[tuple[str, ...], Mapping[str, Any]]


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    if not any(isinstance(inner, Mapping) for inner in value.values()):
        yield path, value
        return
    for name, inner in value.items():
        yield from _leaves(inner if isinstance(inner, Mapping) else {"value": inner}, (*path, name))


def _leaf_table(leaves: Sequence[Leaf], caption: str) -> str:
    columns = list(dict.fromkeys(column for _, leaf in leaves for column in leaf))
    if any(len(column) > LONG_NAME for column in columns):  # sentences make poor columns
        entries = [[" · ".join(path), name, value] for path, leaf in leaves for name, value in leaf.items()]
        return table(["", "", "value"], entries, caption)
    rows = [[" · ".join(path), *(leaf.get(column, "") for column in columns)] for path, leaf in leaves]
    return table(["", *columns], rows, caption)


def cell_text(value: Any) -> str:
    """Return a table cell for reading."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return (f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}").replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(map(cell_text, value))
    return str(value)
