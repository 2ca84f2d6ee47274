"""Stage compare: all compared methods as tables and pictures, of one run or of several."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from sipo_pl.artifacts import atomic_path, file_hash, input_hash, open_stage, read_json, write_json
from sipo_pl.errors import UsageError, UserError, nearest
from sipo_pl.methods import BASELINE, METHODS
from sipo_pl.recipe import Layout, Recipe

LOG = logging.getLogger("sipo_pl")
FILES = ("table.csv", "points.csv", "sensitivity.csv", "metrics.json", "fronts.png", "cost.png")


def compare(
    recipe: Recipe,
    resamples: PositiveInt = 2000,
    against: str = BASELINE,
    others: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the tables and pictures of a comparison.

    Args:
        recipe: what the stages share
        resamples: draws of the bootstrap over prompts
        against: method whose hypervolume the others' is compared with, prompt by prompt
        others: run folders of other comparisons over the same data, such as ablations, whose methods are put beside
        overwrite: remove what the stage's folder holds
    """
    layout = recipe.layout
    folders = {"": layout.run_dir, **{Path(name).name: Path(name) for name in others or ()}}
    inputs = {"prepare": input_hash(layout.stage("prepare"), "sipo_pl prepare")}
    for prefix, folder in folders.items():
        for name in ("calibrate", "judge"):
            inputs[f"{prefix} {name}".strip()] = input_hash(folder / name, "sipo_pl run")
    keys = {"resamples": resamples, "against": against, "methods": recipe.methods, "others": list(folders)[1:]}
    target = layout.stage("compare")
    manifest = open_stage(target, "compare", keys, inputs, seed=recipe.seed, overwrite=overwrite)
    if manifest.complete:
        LOG.info("compare: complete in %s", target)
        return
    _write(recipe, folders, target, against=against, resamples=resamples)
    manifest.finish(target, [target / name for name in FILES])
    LOG.info("compare: %s", ", ".join(str(target / name) for name in FILES))


def _write(recipe: Recipe, folders: dict[str, Path], target: Path, *, against: str, resamples: int) -> None:
    from sipo_pl.comparison.answers import Answers, Key, read_answers
    from sipo_pl.comparison.cost import costs, minutes
    from sipo_pl.comparison.numbers import Ruler, sensitivity, summarise
    from sipo_pl.comparison.pictures import draw_cost, draw_methods
    from sipo_pl.comparison.tables import method_rows, point_rows, write_csv
    from sipo_pl.data.units import read_units
    from sipo_pl.metrics.hypervolume import Frame

    layout, names = recipe.layout, recipe.objective_names
    stored = read_json(layout.frame)
    answers: dict[Key, Answers] = {}
    cost: dict[str, dict[str, Any]] = {}
    spent: dict[str, float | None] = {}
    for prefix, folder in folders.items():
        _check_alike(folder, layout, stored)
        found = read_answers(read_units(folder / "judge"), names)
        answers |= {(_named(prefix, method), point): one for (method, point), one in found.items()}
        own = costs(recipe) if not prefix else read_json(folder / "compare" / "metrics.json")["cost"]
        cost |= {_named(prefix, method): one for method, one in own.items()}
        spent |= {_named(prefix, method): minutes(folder, one["stages"]) for method, one in own.items()}
    known = {method for method, _ in answers}
    if against not in known:
        raise UsageError(f"against: no method {against!r}{nearest(against, known)}")
    values = list(stored["objectives"].values())
    reference, scale, mean = (np.array([one[key] for one in values]) for key in ("reference", "scale", "mean"))
    points = recipe.evaluate_weights.resolve(names)
    ruler = Ruler(Frame(reference, scale), mean, points)
    metrics = summarise(answers, names, ruler, against=against, seed=recipe.seed, resamples=resamples)
    for entry in metrics["methods"]:
        entry |= {"title": _title(entry["method"]), **cost[entry["method"]]}
    metrics |= {"frame": stored, "cost": {name: one for name, one in cost.items() if name in recipe.methods}}
    write_json(target / "metrics.json", metrics)
    write_csv(target / "table.csv", method_rows(metrics, spent))
    write_csv(target / "points.csv", point_rows(metrics))
    write_csv(target / "sensitivity.csv", sensitivity(answers, stored["objectives"], stored["below"]))
    with atomic_path(target / "fronts.png") as aside:
        draw_methods(metrics, aside)
    with atomic_path(target / "cost.png") as aside:
        draw_cost(metrics, spent, aside)


def _check_alike(folder: Path, layout: Layout, stored: dict[str, Any]) -> None:
    other = Layout(folder)
    if read_json(other.frame) != stored:
        raise UserError(f"{folder}: calibrated on other texts or rewards, so its numbers cannot stand beside these")
    if file_hash(other.test_prompts) != file_hash(layout.test_prompts):
        raise UserError(f"{folder}: answers to other test prompts")


def _named(prefix: str, method: str) -> str:
    return f"{prefix}:{method}" if prefix else method


def _title(name: str) -> str:
    prefix, _, method = name.rpartition(":")
    title = METHODS[method].title
    return f"{title} ({prefix})" if prefix else title
