"""`run --estimate`: the stages of a run with what each will take, as a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.components import import_class
from sipo_pl.recipe.graph.node import Node
from sipo_pl.recipe.methods import entrants
from sipo_pl.recipe.recipe import Objective, Recipe
from sipo_pl.registry import TRAINER_STAGES
from sipo_pl.run.estimate.counts import count
from sipo_pl.run.estimate.rates import rates_of
from sipo_pl.run.estimate.size import ModelSize
from sipo_pl.run.estimate.stages import Cost, Setting, cost_of, value

HEADS = ("stage", "devices", "rows", "tokens", "hours", "GiB a device", "disk, GiB")
CAVEAT = (
    "An estimate: expect the truth within a factor of two, more where texts end early or late. As many responses as\n"
    "conflicts are taken to be kept, no text to be marked, reward models to be as large as the base model, devices to\n"
    "share work evenly, and layers on a GPU to be compiled: without recipe.compile short steps of fits take up to\n"
    "twice as long."
)


def estimate(
    recipe: Recipe, device: str, nodes: Sequence[Node], found: Mapping[str, Mapping[str, Any]], gpus: int
) -> str:
    """Return the table of what stages will take.

    Args:
        recipe: what they share.
        device: see `rates.rates_of`.
        nodes: the stages.
        found: settings of all stages of the run, by their names.
        gpus: how many there are here, for `devices: auto`.

    Raises:
        UsageError: an unknown device.
        UserError: no model, or no data, to be looked at.
    """
    rates, counts = rates_of(device, recipe.dtype), count(recipe)
    names, compared = recipe.objective_names, entrants(recipe)
    setting = Setting(
        counts=counts,
        size=ModelSize.of(read_config(recipe.base_model)),
        rates=rates,
        dtype=recipe.dtype,
        quantized=recipe.quantize is not None,
        objectives=len(names),
        sampled=len(recipe.sample_weights.resolve(names)),
        evaluated=len(recipe.evaluate_weights.resolve(names)),
        rewrites=recipe.runs("rewrite") and recipe.runs("review"),
        spread=recipe.device_map is not None,
        mixes=len({one.mix for one in compared}),
        entrants=len(compared),
        judged=any(_needs_model(one) for one in recipe.objectives),
        configs=found,
    )
    lines, total = [], Cost(0, 0.0, 0.0, 0.0, 0.0)
    for node in nodes:
        config = found[node.name]
        devices = _devices(config, gpus) if node.config in TRAINER_STAGES else 1
        cost = cost_of(node.config, config, setting, devices)
        if cost is None:
            lines.append([node.name, "", "", "", "seconds", "", ""])
            continue
        lines.append([node.name, str(devices), *_cells(cost)])
        memory = max(total.memory, cost.memory)
        total = Cost(0, total.tokens + cost.tokens, total.seconds + cost.seconds, memory, total.disk + cost.disk)
    lines.append(["all", "", "", *_cells(total)[1:]])
    said = [
        f"model: {setting.size.parameters / 1e9:.2f} billion weights, from the config of {recipe.base_model}",
        f"data: {counts.pairs} pairs, {counts.conflicts} conflicts, {counts.validation} for validation, {counts.test} "
        f"test prompts, {counts.source}",
        f"lengths: {counts.prompt:.0f} tokens a prompt and {counts.response:.0f} a response, of four characters each",
        f"rates: {rates.source}; {rates.memory:.0f} GiB a device",
    ]
    if total.memory > rates.memory:
        said.append("a stage needs more memory than a device has: smaller batches, quantize, ZeRO-3 or device_map")
    return "\n".join([_table([list(HEADS), *lines]), "", *said, "", CAVEAT])


def _needs_model(objective: Objective) -> bool:
    """Return whether a model measures an objective: a reward model, or the policies where it has no reward."""
    if objective.reward is None:
        return True
    from sipo_pl.rewards.model_reward import ModelReward

    kind = import_class(objective.reward["class_path"])
    return not isinstance(kind, type) or issubclass(kind, ModelReward)


def read_config(base_model: str) -> Mapping[str, Any]:
    """Return the `config.json` of a base model; UserError where it cannot be had."""
    from sipo_pl.storage.model_hashes import resolve_base_model

    name = resolve_base_model(base_model)
    if Path(name).is_dir():
        file = Path(name) / "config.json"
        if not file.is_file():
            raise UserError(f"base_model {base_model!r}: no model here (config.json is missing)")
        found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    from sipo_pl.interop import pretrained

    return pretrained.read_config(name, f"base_model {base_model!r}").to_dict()


def _devices(config: Mapping[str, Any], gpus: int) -> int:
    given, nodes = value(config, "trainer.devices", 1), value(config, "trainer.num_nodes", 1)
    if isinstance(given, list):
        return len(given) * nodes
    each = int(given) if str(given).isdigit() else max(1, gpus)  # auto, or -1
    return each * nodes


def _cells(cost: Cost) -> list[str]:
    hours = cost.seconds / 3600
    return [
        f"{cost.rows:,}",
        f"{cost.tokens:.2g}",
        f"{hours:.2g}" if hours >= 0.01 else "< 0.01",
        f"{cost.memory:.1f}",
        f"{cost.disk / 2**30:.2g}" if cost.disk >= 2**30 / 100 else "< 0.01",
    ]


def _table(lines: Sequence[Sequence[str]]) -> str:
    first, *others = (max(map(len, cells)) for cells in zip(*lines, strict=True))
    padded = ([line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)
