"""The browser of answers: what the page holds of them, and its controls; `browser.js` does the rest."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from sipo_pl.report.cells import JsonRow, weights_of
from sipo_pl.report.examples import prompt_text, spread
from sipo_pl.report.markup import element

SORTS = {
    "": "order of the prompts",
    "highest": "left answer's score, highest first",
    "lowest": "left answer's score, lowest first",
    "gain": "right minus left, largest first",
    "loss": "right minus left, smallest first",
}


def answer_data(
    answers: Sequence[JsonRow], titles: Mapping[str, str], objectives: Sequence[str], most: int
) -> dict[str, Any]:
    """Return what the browser holds, as plain JSON values; equal texts are held once.

    Args:
        answers: rows of the stages answer and judge, joined, `method` being a key of `titles`.
        titles: method to how it is called, in order.
        objectives: names, in the recipe's order.
        most: how many answers to hold at the most; whole prompts are left out, at even distances.

    Returns:
        `objectives`, `methods` (titles), `points` by descending first weight, `prompts`, `texts`; `answers`, each
        ``[prompt, method, point, text, rewards, words, kl, wins, marks]``, the first four as places in those lists;
        `all_prompts`, how many there are with those left out.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in answers:
        groups.setdefault(row["prompt_id"], []).append(row)
    largest = max(map(len, groups.values()), default=1)
    kept = spread(list(groups.values()), most // largest)
    order = sorted({row["point"] for row in answers}, key=lambda point: [-weight for weight in weights_of(point)])
    methods, points, texts = _Places(titles), _Places(order), _Places()
    rows = []
    for place, group in enumerate(kept):
        for row in group:
            at = [place, methods[row["method"]], points[row["point"]], texts[row["text"]]]
            scores = [_short(row["rewards"][name]) for name in objectives]
            beside = [row["words"], _short(row["kl"]), _short(row.get("wins")), row["marks"]]
            rows.append([*at, scores, *beside])
    return {
        "objectives": list(objectives),
        "methods": list(titles.values()),
        "points": list(points.values),
        "prompts": [prompt_text(group[0]["prompt"]) for group in kept],
        "texts": list(texts.values),
        "answers": rows,
        "all_prompts": len(groups),
    }


class _Places:
    """Gives each value the place at which it came first."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values = {value: place for place, value in enumerate(values)}

    def __getitem__(self, value: str) -> int:
        return self.values.setdefault(value, len(self.values))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def script() -> str:
    """Return the browser's program."""
    return (files("sipo_pl.report.comparison") / "browser.js").read_text(encoding="utf-8")


def embedded(data: Mapping[str, Any]) -> str:
    """Return the data as an element that no text in it can end."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="answers">{text}</script>'


def browser(data: Mapping[str, Any]) -> list[str]:
    """Return the section: what is held, the controls, the place of the list, and the data."""
    held, there = len(data["prompts"]), data["all_prompts"]
    if not held:
        return [element("p", f"Left out: answers to {there} test prompts (examples).", "left-out")]
    count = f"All {there} test prompts" if held == there else f"{held} of {there} test prompts, at even distances"
    names = [(str(place), title) for place, title in enumerate(data["methods"])]
    points = [(str(place), point) for place, point in enumerate(data["points"]) if point]
    points = points or [("0", "all weights")]
    middle = points[len(points) // 2][0]
    right = names[-1][0] if len(names) > 1 else ""
    bounds = "".join(
        _field(name, label, f'<input id="browse-{name}" type="number" step="any">') for name, label in BOUNDS
    )
    fields = [
        _select("left", "left: method", names, names[0][0]),
        _select("left-weight", "weight", points, middle),
        _select("right", "right: method", [("", "none"), ("*", "every method"), *names], right),
        _select("right-weight", "weight", [("", "the same"), *points], ""),
        _select("objective", "objective", [(str(i), name) for i, name in enumerate(data["objectives"])], "0"),
        bounds,
        _select("sort", "order", list(SORTS.items()), ""),
        _field("text", "words in prompt or answers", '<input id="browse-text" type="search" autocomplete="off">'),
    ]
    pager = '<button type="button" data-step="-1">Previous</button> <button type="button" data-step="1">Next</button>'
    note = (
        f"{count}, with the answers of every method at every weight. Weights are in the order "
        f"{', '.join(data['objectives'])}. In brackets the difference from the left answer. Keys: / to search, n and p "
        "for the next and the previous page."
    )
    return [
        element("h2", "Answers"),
        element("p", note, "note"),
        f"<noscript>{element('p', 'The browser of answers needs JavaScript.', 'left-out')}</noscript>",
        f'<div class="controls" role="group" aria-label="Choice of answers">{"".join(fields)}</div>',
        f'<p class="pager">{pager} <span id="browse-status" role="status"></span></p>',
        f'<div id="browse-list"></div><p class="pager">{pager}</p>',
        embedded(data),
    ]


BOUNDS = (("least", "left answer's score, at least"), ("most", "at most"))


def _select(name: str, label: str, options: Sequence[tuple[str, str]], chosen: str) -> str:
    entries = "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in options
    )
    return _field(name, label, f'<select id="browse-{name}">{entries}</select>')


def _field(name: str, label: str, control: str) -> str:
    return f'<label for="browse-{name}">{escape(label)} {control}</label>'
