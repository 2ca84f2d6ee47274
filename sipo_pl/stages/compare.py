"""Stage compare: all compared methods as a page, tables and pictures, of one run or of several."""

import logging
from pathlib import Path
from typing import Any

from sipo_pl.interop.numbers import NonNegativeInt, PositiveInt
from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.recipe.inputs import stage_inputs
from sipo_pl.recipe.methods import BASELINE
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.files import write_text
from sipo_pl.storage.json_lines import read_json, write_json
from sipo_pl.storage.manifest import input_hash
from sipo_pl.storage.provenance import Provenance

LOG = logging.getLogger("sipo_pl")
FILES = ("report.html", "metrics.json", "table.csv", "table.md", "table.tex", "points.csv", "sensitivity.csv")


def compare(
    recipe: Recipe,
    resamples: PositiveInt = 2000,
    against: str = BASELINE,
    examples: NonNegativeInt = 10000,
    others: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the page, the tables and the pictures of a comparison.

    Args:
        recipe: what the stages share
        resamples: draws of the bootstrap over prompts
        against: method whose hypervolume the others' is compared with, prompt by prompt
        examples: most answers that the page's browser holds, of whole prompts at even distances; 0 for none
        others: run folders of other comparisons over the same data, such as ablations, whose methods are put beside
        overwrite: remove what the stage's folder holds
    """
    made_of = provenance(recipe, resamples, against, examples, others)
    target, manifest = made_of.folder, made_of.open(overwrite=overwrite)
    if manifest.complete:
        LOG.info("compare: complete in %s", target)
        return
    files = _write(recipe, _folders(recipe, others), target, against=against, resamples=resamples, examples=examples)
    manifest.finish(target, files)
    LOG.info("compare: %s", ", ".join(str(target / name) for name in FILES))


def provenance(recipe: Recipe, resamples: int, against: str, examples: int, others: list[str] | None) -> Provenance:
    """Return what the stage's folder is made of; see `compare` for the arguments."""
    layout, folders = recipe.layout, _folders(recipe, others)
    inputs: dict[str, str] = {}
    for prefix, folder in folders.items():
        for name, (path, _) in stage_inputs("compare", recipe, {}).items():
            if not prefix or name != "prepare":  # others may have prepared their data in another way
                made_in = folder / path.relative_to(layout.run_dir)
                inputs[f"{prefix} {name}".strip()] = input_hash(made_in, "sipo_pl run")
    keys: dict[str, Any] = {"resamples": resamples, "against": against, "examples": examples}
    keys |= {"methods": recipe.methods, "others": list(folders)[1:]}
    return Provenance(layout.stage("compare"), "compare", keys, inputs, recipe.seed)


def _folders(recipe: Recipe, others: list[str] | None) -> dict[str, Path]:
    """Return prefix -> run folder of this comparison, which has none, and of the others, which are called by name.

    Raises:
        UsageError: two folders of one name, or the comparison's own.
    """
    found = {"": recipe.layout.run_dir}
    for folder in map(Path, others or ()):
        name = folder.resolve().name
        if folder.resolve() == recipe.layout.run_dir.resolve():
            raise UsageError(f"others: {folder} is the folder of this comparison")
        if name in found:
            raise UsageError(f"others: {found[name]} and {folder} have one name; rename one of them")
        found[name] = folder
    return found


def _write(
    recipe: Recipe, folders: dict[str, Path], target: Path, *, against: str, resamples: int, examples: int
) -> list[Path]:
    """Write everything, and return the files."""
    from sipo_pl.report.comparison.browser import answer_data
    from sipo_pl.report.comparison.curves import write_curves
    from sipo_pl.report.comparison.inputs import read_inputs
    from sipo_pl.report.comparison.numbers import sensitivity, summarise
    from sipo_pl.report.comparison.page import Parts, page
    from sipo_pl.report.comparison.pictures import draw_all
    from sipo_pl.report.comparison.reading import headline, latex, markdown
    from sipo_pl.report.comparison.ruler import ruler
    from sipo_pl.report.comparison.tables import method_rows, point_rows, write_csv

    names, stored = recipe.objective_names, read_json(recipe.layout.frame)
    found = read_inputs(recipe, folders)
    if against not in found.titles:
        raise UsageError(f"against: no method {against!r}{nearest(against, found.titles)}")
    measure = ruler(stored, recipe.evaluate_weights.resolve(names))
    metrics = summarise(found.answers, names, measure, against=against, seed=recipe.seed, resamples=resamples)
    for entry in metrics["methods"]:
        entry |= {"title": found.titles[entry["method"]], **found.cost[entry["method"]]}
    metrics |= {"frame": stored, "cost": {name: one for name, one in found.cost.items() if name in recipe.methods}}
    rulers = sensitivity(found.answers, stored["objectives"], stored["below"])
    write_json(target / "metrics.json", metrics)
    write_csv(target / "table.csv", method_rows(metrics, found.minutes))
    write_csv(target / "points.csv", point_rows(metrics))
    write_csv(target / "sensitivity.csv", rulers)
    write_text(target / "table.md", markdown(metrics))
    write_text(target / "table.tex", latex(metrics))
    drawn = draw_all(metrics, found.minutes, target)
    vector = {path.stem: path for path in drawn if path.suffix == ".svg"}
    answers = answer_data(found.rows, found.titles, names, examples)
    parts = Parts(found.minutes, rulers, found.yields, vector, answers, found.versions)
    write_text(target / "report.html", page(recipe, metrics, parts))
    LOG.info("compare: %s", headline(metrics))
    return [*(target / name for name in FILES), *drawn, *write_curves(metrics, target / "tensorboard")]
