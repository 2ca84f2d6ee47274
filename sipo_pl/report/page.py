"""The report as one self-contained page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sipo_pl.recipe.recipe import Recipe
from sipo_pl.report.cells import BASE
from sipo_pl.report.examples import Example, Text, candidate_examples, test_examples
from sipo_pl.report.inputs import ReportInputs
from sipo_pl.report.markup import document, element, side_by_side, tables
from sipo_pl.report.sections import changes, corner_control, fronts, means, settings, volumes, yields
from sipo_pl.report.tables import RunMetrics, headline, number, remarks

CANDIDATES = (
    "Both responses of a conflicting pair, a response sampled for its prompt, its review and its rewrite. Numbers are "
    "implicit rewards of the objectives' policies, β (log π − log π_ref) summed over the response: they compare texts "
    "of one prompt only, and are not the rewards of the fronts above."
)
TESTS = "Responses to prompts that no training saw, with the rewards of the fronts above."


def page(recipe: Recipe, metrics: RunMetrics, inputs: ReportInputs, pictures: Mapping[str, Path], samples: int) -> str:
    """Return the report as HTML.

    Args:
        recipe: the run's recipe.
        metrics: what `metrics.json` holds.
        inputs: rows and tables of the stages.
        pictures: name to SVG file: pareto, and for three objectives ternary.
        samples: how many candidates to show; a quarter as many test prompts.
    """
    names = recipe.objective_names
    candidates = candidate_examples(inputs, names, samples)
    tests = test_examples(inputs, names, -(-samples // 4))
    paired = metrics["changes"] and any(entry["phase"] == BASE for entry in metrics["points"])
    body = [
        element("h1", f"{recipe.name}: {' and '.join(names) if len(names) == 2 else ', '.join(names)}"),
        element("p", headline(metrics), "headline"),
        *(element("p", remark) for remark in remarks(metrics)),
        *fronts(metrics, pictures),
        *_left_out(inputs, "measure-align", "measure-realign"),
        *volumes(metrics),
        *means(metrics),
        *changes(metrics),
        *corner_control(metrics),
        element("h2", "Preference pairs and their conflicts"),
        side_by_side(tables(inputs.statistics or {})),
        *_left_out(inputs, "prepare"),
        element("h2", "Yields per stage and weight"),
        *yields(inputs.yields),
        *_left_out(inputs, "filter"),
        *_examples("Candidates", CANDIDATES, candidates),
        *_left_out(inputs, "sample", "review", "rewrite", "score", "combine"),
        *_examples("Test prompts", TESTS, tests, "pairs" if paired else ""),
        *_left_out(inputs, "evaluate-align", "evaluate-realign"),
        *settings(recipe, metrics, inputs.versions),
    ]
    return document(f"{recipe.name}: SIPO report", body)


def _left_out(inputs: ReportInputs, *stages: str) -> list[str]:
    return [element("p", inputs.left_out[stage], "left-out") for stage in stages if stage in inputs.left_out]


def _examples(title: str, note: str, examples: Sequence[Example], css: str = "") -> Iterable[str]:
    yield element("h2", title)
    if not examples:
        return
    yield element("p", note, "note")
    for example in examples:
        yield '<article class="example">'
        yield element("div", example.prompt, "prompt")
        yield element("p", example.note, "note") if example.note else ""
        yield f'<div class="texts {css}">{"".join(map(_text, example.texts))}</div></article>'


def _text(text: Text) -> str:
    badges = [*(["kept"] if text.kept else []), *text.marks]
    scores = " · ".join(f"{name} {number(value)}" for name, value in text.rewards.items())
    return (
        f'<section class="text{" kept" if text.kept else ""}">{element("b", text.title)}'
        + "".join(element("span", badge, "badge") for badge in badges)
        + (element("div", scores, "rewards") if scores else "")
        + element("div", text.text or "(empty)", "body")
        + "</section>"
    )
