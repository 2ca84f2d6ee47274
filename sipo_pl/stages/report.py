"""Stage report: what a run measured, as numbers, pictures, tables and a page."""

import logging
from collections.abc import Mapping
from pathlib import Path

from sipo_pl.interop.numbers import NonNegativeInt, PositiveInt
from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.files import write_text
from sipo_pl.storage.json_lines import write_json
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.provenance import Provenance

LOG = logging.getLogger("sipo_pl")
MIN_RESAMPLES = 40  # fewer have no 2.5 % quantile


def report(
    recipe: Recipe, resamples: PositiveInt = 2000, samples: NonNegativeInt = 12, overwrite: bool = False
) -> None:
    """Write report.html, metrics.json, pictures and tables of a run.

    Args:
        recipe: what the stages of the run share
        resamples: draws of the bootstrap over prompts
        samples: how many candidates the page shows with review, rewrite and scores
        overwrite: remove what an earlier report left and make it anew
    """
    made_of = provenance(recipe, resamples, samples)
    folder = made_of.folder
    manifest = made_of.open(overwrite=overwrite or _has_fewer(folder, made_of.inputs))
    if manifest.complete:
        LOG.info("report: complete in %s", folder)
        return
    files = _write(recipe, folder, resamples=resamples, samples=samples)
    manifest.finish(folder, files)
    for file in files:
        LOG.info("report: %s", file)


def provenance(recipe: Recipe, resamples: int, samples: int) -> Provenance:
    """Return what the stage's folder is made of; see `report` for the arguments."""
    from sipo_pl.report.inputs import input_hashes

    if resamples < MIN_RESAMPLES:
        raise UsageError(f"resamples: at least {MIN_RESAMPLES} are needed for a 95 % interval, found {resamples}")
    if samples < 0:
        raise UsageError(f"samples: must not be negative, found {samples}")
    keys = {"resamples": resamples, "samples": samples, "objectives": recipe.objective_names, "seed": recipe.seed}
    return Provenance(recipe.layout.stage("report"), "report", keys, input_hashes(recipe), recipe.seed)


def _has_fewer(folder: Path, inputs: Mapping[str, str]) -> bool:
    """Return whether a report is there that was made of the same stages, before a further round was run."""
    found = Manifest.read(folder)
    return found is not None and found.inputs != inputs and found.inputs.items() <= inputs.items()


def _write(recipe: Recipe, folder: Path, *, resamples: int, samples: int) -> list[Path]:
    """Write everything, and return the files, those first that a reader opens first."""
    from sipo_pl.report.cells import measured_cells
    from sipo_pl.report.figures import draw_fronts, draw_weights
    from sipo_pl.report.inputs import read_inputs
    from sipo_pl.report.numbers import summarise
    from sipo_pl.report.page import page
    from sipo_pl.report.plain_tables import latex_table, markdown_table
    from sipo_pl.report.tables import MEANS_NOTE, headline, mean_table

    inputs = read_inputs(recipe)
    before, after = inputs.rows["measure-align"], inputs.rows["measure-realign"]
    cells = measured_cells(recipe.objective_names, before, after, inputs.earlier)
    metrics = {
        **summarise(cells, seed=recipe.seed, resamples=resamples),
        "yields": inputs.yields,
        "statistics": inputs.statistics,
    }
    write_json(folder / "metrics.json", metrics)
    drawn = draw_fronts(metrics, folder / "pareto")
    if len(recipe.objectives) == 3:
        drawn += draw_weights(metrics, folder / "ternary")
    vector = {path.stem: path for path in drawn if path.suffix == ".svg"}
    header, rows = mean_table(metrics)
    texts = {
        "report.html": page(recipe, metrics, inputs, vector, samples),
        "table.md": f"{markdown_table(header, rows)}\n{MEANS_NOTE}\n",
        "table.tex": latex_table(header, rows, MEANS_NOTE),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    LOG.info("report: %s", headline(metrics))
    return [*(folder / name for name in ("report.html", "metrics.json", "table.md", "table.tex")), *drawn]
