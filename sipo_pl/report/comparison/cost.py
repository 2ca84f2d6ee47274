"""What each method cost, from the prepared data on: what methods share is counted for each of them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sipo_pl.callbacks.cost import BACKWARD_PASSES, TRAINED_TOKENS
from sipo_pl.data.units import read_units
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.graph.comparison import stages_of
from sipo_pl.recipe.graph.node import Node
from sipo_pl.recipe.graph.run import build_graph
from sipo_pl.recipe.methods import entrants
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.registry import STAGES
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.timings import read_timings

LOG = logging.getLogger("sipo_pl")


def costs(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return for each method its stages, trained and generated tokens, backward passes, and policies per token.

    Raises:
        UserError: some fits keep their last adapter and others their best, which is no fair comparison.
    """
    graph = build_graph(recipe)
    nodes = {node.name: node for node in graph}
    manifests = {name: _manifest(recipe, name) for name in nodes}
    kept = {m.notes["keep"]: name for name, m in manifests.items() if m and "keep" in m.notes and name != "sft"}
    if len(kept) > 1:
        (one, first), (other, second) = list(kept.items())[:2]
        raise UserError(f"{first} keeps the {one} adapter, {second} the {other}; compare like with like (saving.keep)")
    mixes = entrants(recipe)
    found = {}
    for name in recipe.methods:
        stages = stages_of(recipe, name, graph)
        notes = [manifest.notes for stage in stages if (manifest := manifests[stage])]
        found[name] = {
            "stages": stages,
            "trained_tokens": sum(one.get(TRAINED_TOKENS, 0) for one in notes),
            "backward_passes": sum(one.get(BACKWARD_PASSES, 0) for one in notes),
            "generated_tokens": sum(_generated(recipe, nodes[stage]) for stage in stages),
            "policies_per_token": max([len(one.mix) for one in mixes if one.method == name] + [1]),
        }
    pair = [found[name]["trained_tokens"] for name in ("mod", "mod_long") if name in found]
    if len(pair) == 2 and pair[1] <= pair[0]:
        LOG.warning("mod_long was trained on no more tokens than mod: raise align_long's data.max_pairs or max_epochs")
    return found


def minutes(run_dir: Path, stages: Sequence[str]) -> float | None:
    """Return the minutes that stages took, over all their starts; None where `run` has not timed them all."""
    timings = read_timings(run_dir)
    if any(stage not in timings for stage in stages):
        return None
    return round(sum(timings[stage] for stage in stages) / 60, 3)


def _manifest(recipe: Recipe, name: str) -> Manifest | None:
    return Manifest.read(recipe.layout.run_dir / name)


def _generated(recipe: Recipe, node: Node) -> int:
    if not STAGES[node.config].decodes:
        return 0
    return sum(row["tokens"] for row in read_units(recipe.layout.run_dir / node.name, ["tokens"]))
