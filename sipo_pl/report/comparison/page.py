"""The report of a comparison as one self-contained page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipo_pl.recipe.recipe import Recipe
from sipo_pl.report.comparison.browser import browser, script
from sipo_pl.report.comparison.reading import (
    cost_table,
    frame_table,
    headline,
    points_table,
    remarks,
    results_note,
    results_table,
    sensitivity_table,
)
from sipo_pl.report.markup import document, element, picture, table
from sipo_pl.report.sections import few_panels, settings, yields
from sipo_pl.report.tables import RunMetrics


@dataclass(frozen=True)
class Parts:
    """What the page shows beside the numbers of `metrics.json`.

    Args:
        minutes: of each method; None where they are not known
        sensitivity: rows of `sensitivity.csv`
        yields: of each method that improves itself, its title to stage to table of yields
        pictures: name to SVG file: fronts, cost; methods for two objectives, ternary for three
        answers: what `answer_data` returns
        versions: package to the version that the answers were made with
    """

    minutes: Mapping[str, float | None]
    sensitivity: Sequence[Mapping[str, Any]]
    yields: Mapping[str, Mapping[str, Any]]
    pictures: Mapping[str, Path]
    answers: Mapping[str, Any]
    versions: Mapping[str, str]


def page(recipe: Recipe, metrics: RunMetrics, parts: Parts) -> str:
    """Return the report as HTML.

    Args:
        recipe: the run's recipe.
        metrics: what `metrics.json` holds.
        parts: what else is shown.
    """
    body = [
        element("h1", f"{recipe.name}: methods compared on {', '.join(recipe.objective_names)}"),
        element("p", headline(metrics), "headline"),
        *(element("p", said, "note") for said in remarks(metrics)),
        *_fronts(metrics, parts.pictures),
        *_results(metrics),
        *_cost(metrics, parts),
        *_points(metrics),
        *_yields(parts.yields),
        *_ruler(metrics, parts.sensitivity),
        *browser(parts.answers),
        *settings(recipe, metrics, parts.versions),
    ]
    return document(f"{recipe.name}: comparison", body, script() if parts.answers["prompts"] else "")


def _fronts(metrics: RunMetrics, pictures: Mapping[str, Path]) -> Iterable[str]:
    names = metrics["objectives"]
    yield element("h2", "Fronts")
    caption = (
        f"Mean rewards over {metrics['prompts']} test prompts at each weight; up and right is better. Thin bars are "
        f"{metrics['bootstrap']['level']:.0%} intervals over prompts.{few_panels(names)}"
    )
    yield picture(pictures["fronts"], "Fronts of all methods", caption, single=len(names) == 2)
    if "methods" in pictures:
        caption = f"Each method by itself, with weights in the order {', '.join(names)}; grey dots are all the others."
        yield picture(pictures["methods"], "Front of each method", caption)
    if "ternary" in pictures:
        against = next(one["title"] for one in metrics["methods"] if one["method"] == metrics["against"])
        caption = (
            f"What somebody with these weights gains over the answers of {against}: the difference of the weighted "
            "rewards, in units. A method with one answer for all weights has it everywhere."
        )
        yield picture(pictures["ternary"], "Weighted reward over the weights, a triangle a method", caption)


def _results(metrics: RunMetrics) -> Iterable[str]:
    yield element("h2", "Methods")
    yield table(*results_table(metrics))
    yield element("p", results_note(metrics), "note")


def _cost(metrics: RunMetrics, parts: Parts) -> Iterable[str]:
    yield element("h2", "Cost")
    yield table(*cost_table(metrics, parts.minutes))
    yield element("p", "From the prepared data on; what methods share is counted for each of them.", "note")
    caption = "Hypervolume against minutes; thin bars are intervals over prompts."
    if any(one is not None for one in parts.minutes.values()):
        yield picture(parts.pictures["cost"], "Hypervolume against minutes", caption, single=True)
    stages = {method["title"]: ", ".join(method["stages"]) for method in metrics["methods"]}
    yield f"<details>{element('summary', 'The stages that each method takes')}"
    yield from (element("p", f"{title}: {names or 'none'}.", "note") for title, names in stages.items())
    yield "</details>"


def _points(metrics: RunMetrics) -> Iterable[str]:
    yield element("h2", "Mean reward per method and weight")
    yield table(*points_table(metrics))
    note = (
        "● on the front of all methods' points. 'Alike in length': prompts whose answer is as long as the base "
        "model's, within a fifth."
    )
    yield element("p", note, "note")


def _yields(found: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    for title, of_method in found.items():
        yield element("h2", f"Yields per stage and weight: {title}")
        yield from yields(of_method)


def _ruler(metrics: RunMetrics, sensitivity: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield element("h2", "The ruler, and other rulers")
    yield table(*frame_table(metrics))
    note = (
        f"Fixed before any method ran, by {metrics['frame']['texts']} responses of the validation split: a unit is one "
        "standard deviation of the reward."
    )
    yield element("p", note, "note")
    yield table(*sensitivity_table(metrics, sensitivity))
    yield element("p", "Hypervolume, in brackets the rank, under other units and reference points.", "note")
