"""Stage calibrate: the units and the reference point of a comparison, fixed before any method runs."""

import logging
import random

import numpy as np

from sipo_pl.interop.numbers import PositiveFloat, PositiveInt
from sipo_pl.messages.errors import UsageError
from sipo_pl.metrics.hypervolume import calibrated_frame
from sipo_pl.recipe.inputs import stage_inputs
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import read_jsonl, write_json
from sipo_pl.storage.manifest import input_hash
from sipo_pl.storage.provenance import Provenance
from sipo_pl.text.prompt import TextRow

LOG = logging.getLogger("sipo_pl")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def calibrate(
    recipe: Recipe, max_texts: PositiveInt = 2000, below: PositiveFloat = 2.0, overwrite: bool = False
) -> None:
    """Measure the data's own responses of the validation split, and fix what fronts are measured with.

    Args:
        recipe: what the stages share
        max_texts: responses that are measured at most, drawn by the recipe's seed
        below: how many standard deviations the reference point lies under the mean reward
        overwrite: remove what the stage's folder holds
    """
    from sipo_pl.rewards.panel import objective_rewards

    made_of, layout = provenance(recipe, max_texts, below), recipe.layout
    folder, manifest = made_of.folder, made_of.open(overwrite=overwrite)
    if manifest.complete:
        LOG.info("calibrate: complete in %s", folder)
        return
    texts = _texts(recipe, max_texts)
    columns = objective_rewards(recipe).score_all(texts, layout.cache / "rewards", "calibrate")
    values = np.array([columns[name] for name in recipe.objective_names]).T
    frame = calibrated_frame(values, below)
    quantiles = np.quantile(values, QUANTILES, axis=0)
    write_json(
        layout.frame,
        {
            "texts": len(texts),
            "below": below,
            "objectives": {
                name: {
                    "mean": values[:, index].mean(),
                    "scale": frame.scale[index],
                    "reference": frame.reference[index],
                    "quantiles": dict(zip(map(str, QUANTILES), quantiles[:, index].tolist(), strict=True)),
                }
                for index, name in enumerate(recipe.objective_names)
            },
        },
    )
    LOG.info("calibrate: %d responses of the validation split, reference point %s", len(texts), frame.reference)
    manifest.finish(folder, [layout.frame], rows=len(texts))


def provenance(recipe: Recipe, max_texts: int, below: float) -> Provenance:
    """Return what the stage's folder is made of; see `calibrate` for the arguments."""
    from sipo_pl.rewards.panel import objective_rewards

    if below <= 0:
        raise UsageError(f"below: expected a number above 0, found {below:g}")
    panel = objective_rewards(recipe)
    if missing := [name for name in recipe.objective_names if name not in panel.names]:
        raise UsageError(f"objectives: {missing[0]!r} has no reward to be measured by")
    rewards = {name: panel.keys(name) for name in panel.names}
    keys = {"max_texts": max_texts, "below": below, "rewards": rewards, "seed": recipe.seed}
    found = stage_inputs("calibrate", recipe, {})
    inputs = {name: input_hash(path, command) for name, (path, command) in found.items()}
    return Provenance(recipe.layout.frame.parent, "calibrate", keys, inputs, recipe.seed)


def _texts(recipe: Recipe, max_texts: int) -> list[TextRow]:
    """Return the distinct responses of the validation pairs, or as many of them as are asked for."""
    rows = read_jsonl(recipe.layout.pairs("validation"), ["prompt_id", "prompt", "response_0", "response_1"])
    found = {(row["prompt_id"], row[key]): row["prompt"] for row in rows for key in ("response_0", "response_1")}
    texts = [TextRow(prompt, response) for (_, response), prompt in found.items()]
    if len(texts) <= max_texts:
        return texts
    return [texts[index] for index in sorted(random.Random(recipe.seed).sample(range(len(texts)), max_texts))]
