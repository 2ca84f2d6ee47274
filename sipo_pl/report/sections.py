"""Sections of the page that show the numbers of `metrics.json`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sipo_pl.recipe.recipe import Recipe
from sipo_pl.report.cells import BASE
from sipo_pl.report.figures import panels
from sipo_pl.report.markup import element, picture, side_by_side, table, tables
from sipo_pl.report.tables import (
    MEANS_NOTE,
    RunMetrics,
    by_point,
    interval,
    mean_table,
    number,
    reward,
    reward_decimals,
    unbroken,
    with_interval,
)

VOLUME = 3  # decimals
FIXED_BY = {BASE: "the base", "before": "the first alignment", "after": "the re-alignment"}


def fronts(metrics: RunMetrics, pictures: Mapping[str, Path]) -> Iterable[str]:
    """Yield the picture of the fronts, and for three objectives that of the weights."""
    names = metrics["objectives"]
    level, prompts = metrics["bootstrap"]["level"], metrics["prompts"]
    caption = (
        f"Mean rewards over {prompts} test prompts; up and right is better. Labels are weights in the order "
        f"{', '.join(names)}; thin bars are {level:.0%} intervals over prompts.{few_panels(names)}"
    )
    yield element("h2", "Fronts")
    yield picture(pictures["pareto"], "Fronts before and after re-alignment", caption, single=len(names) == 2)
    if "ternary" in pictures:
        caption = (
            "The weighted reward at each weight, in units above the reference point of the frame below: what somebody "
            "with these weights gets. Corners are weights of one objective alone."
        )
        yield picture(pictures["ternary"], "Weighted reward over the weights, before and after", caption)


def few_panels(names: Sequence[str]) -> str:
    """Return the words that not all pairs of objectives are drawn, where they are not."""
    shown = len(panels(names))
    return f" The first {shown} pairs of objectives are drawn." if shown < len(names) * (len(names) - 1) // 2 else ""


def volumes(metrics: RunMetrics) -> Iterable[str]:
    """Yield hypervolume before and after, and the frame in which it is measured."""
    names, volume = metrics["objectives"], metrics["hypervolume"]
    found = {phase: volume[phase] for phase in ("before", "after", "change") if volume[phase]}
    for step in volume.get("rounds", ()):
        if step["phase"] != "after":
            found[f"after {step['phase']}"] = step["volume"]
        found[f"change, {step['since']} to {step['phase']}"] = step["change"]
    found_table = table(
        ["hypervolume", "", "interval"],
        [
            [name, number(entry["estimate"], VOLUME, sign=name.startswith("change")), interval(entry, VOLUME)]
            for name, entry in found.items()
        ],
    )
    frame_table = table(
        ["frame", "reference point", "unit"],
        [
            [name, reward(metrics, name, volume["reference"][name]), reward(metrics, name, volume["range"][name])]
            for name in names
        ],
    )
    yield side_by_side([found_table, frame_table])
    measured = " and ".join(FIXED_BY[phase] for phase in volume["fixed_by"])
    yield element(
        "p",
        "Hypervolume is what a front dominates above the reference point, in units; larger is better. "
        f"The frame is fixed by {measured} alone: the unit of an objective is its range over those points, the "
        "reference point lies a tenth of it below the worst. Intervals speak of other prompts, not of another seed.",
        "note",
    )


def means(metrics: RunMetrics) -> Iterable[str]:
    """Yield the means of every weight, before and after, and how the responses end."""
    phases, points = by_point(metrics)
    endings = []
    for point, entries in points.items():
        ending = [f"{entry['words']:.0f}" if entry else "" for entry in entries]
        ending += [f"{entry[what]:.0%}" if entry else "" for what in ("finished", "collapsed") for entry in entries]
        endings.append([point, *ending])
    header, rows = mean_table(metrics)
    yield element("h2", "Mean reward per weight")
    yield table(header, rows)
    yield element("p", MEANS_NOTE, "note")
    yield element("h2", "Length and endings per weight")
    yield table(
        [header[0], *(f"{what} {phase}" for what in ("words", "finished", "collapsed") for phase in phases)], endings
    )
    yield element(
        "p",
        "Mean words; share of responses that ended by themselves rather than at the limit of tokens; share that repeat "
        "themselves.",
        "note",
    )


def changes(metrics: RunMetrics) -> Iterable[str]:
    """Yield the paired differences between the phases, over all prompts and length-matched."""
    if not metrics["changes"]:
        return
    names = metrics["objectives"]
    header = ["weights", *names, *(f"{name}, alike in length" for name in names), "prompts alike"]
    rows = []
    for entry in metrics["changes"]:
        matched = entry["length_matched"]
        row = [entry["point"]]
        row += [_difference(metrics, entry["difference"], name) for name in names]
        row += [_difference(metrics, matched["difference"], name) for name in names]
        rows.append([*row, f"{matched['prompts']} of {metrics['prompts']}"])
    yield element("h2", "Change by re-alignment, prompt by prompt")
    yield table(header, rows)
    yield element(
        "p",
        "After − before with intervals; 'alike in length' counts only the prompts whose two responses differ by at "
        "most a fifth in words.",
        "note",
    )


def corner_control(metrics: RunMetrics) -> Iterable[str]:
    """Yield the paired differences of the corners from the base."""
    yield element("h2", "Control: do the corners beat the base?")
    if not metrics["corners"]:
        yield element("p", "Left out: the base or the corners were not measured.", "left-out")
        return
    names = metrics["objectives"]
    rows = [
        [
            f"{entry['objective']} ({entry['phase']})",
            *(_difference(metrics, entry["difference"], name) for name in names),
            "yes" if entry["beats_base"] else "no",
        ]
        for entry in metrics["corners"]
    ]
    yield table(["corner", *(f"{name} − base" for name in names), "beats the base on its own objective"], rows)


def _difference(metrics: RunMetrics, difference: RunMetrics | None, name: str) -> str:
    if difference is None:
        return "–"
    return unbroken(with_interval(difference[name], reward_decimals(metrics, name), sign=True))


def yields(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield what each stage let through, by weight; one part a round where there are several.

    Args:
        found: stage to its table of yields, of a later round as round-2/filter.
    """
    filters = {name: one for name, one in found.items() if name.endswith("filter")}
    if len(filters) < 2:
        yield side_by_side(tables(filters.get("filter", found)))
        return
    for index, one in enumerate(filters.values(), start=1):
        yield element("h3", f"Round {index}")
        yield side_by_side(tables(one))


def settings(recipe: Recipe, metrics: RunMetrics, versions: Mapping[str, str]) -> Iterable[str]:
    """Yield what the run was made with.

    Args:
        recipe: the run's recipe.
        metrics: what `metrics.json` holds.
        versions: package to version.
    """
    rows = {
        "name": recipe.name,
        "base model": recipe.base_model,
        "objectives": ", ".join(recipe.objective_names),
        "beta": recipe.beta,
        "dtype": recipe.dtype,
        "seed": recipe.seed,
        **({"limit": recipe.limit} if recipe.limit else {}),
        **({"rounds": recipe.rounds} if recipe.rounds > 1 else {}),
        "bootstrap resamples": metrics["bootstrap"]["resamples"],
        **versions,
    }
    yield element("h2", "Run")
    yield table(["setting", "value"], rows.items())
