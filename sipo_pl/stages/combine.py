"""Combine: for each sample, the better of its original and its rewrite under the policies' implicit rewards."""

import logging
from collections import Counter
from dataclasses import asdict
from typing import Any

from sipo_pl.data.folder_card import write_folder_card
from sipo_pl.data.units import read_units
from sipo_pl.method.selection import better_of
from sipo_pl.recipe.inputs import stage_inputs
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import write_json, write_jsonl
from sipo_pl.storage.manifest import input_hash
from sipo_pl.storage.provenance import Provenance
from sipo_pl.text.marks import MARKS, is_unmarked
from sipo_pl.text.prompt import text_id

log = logging.getLogger("sipo_pl")

CountTable = dict[str, dict[str, int]]  # weight -> what -> count


def combine(recipe: Recipe, rewrites: bool = True, overwrite: bool = False) -> None:
    """Choose between each sampled response and its rewrite.

    Args:
        recipe: what the stages share
        rewrites: compare with the rewrites; else every sample stands for itself
        overwrite: remove what the stage's folder holds
    """
    made_of = provenance(recipe, rewrites)
    folder, manifest = made_of.folder, made_of.open(overwrite=overwrite)
    if manifest.complete:
        return
    rows, yields = combine_texts(recipe, rewrites=rewrites)
    path, yields_path = folder / "combined.jsonl", folder / "yields.json"
    count = write_jsonl(path, rows)
    write_json(yields_path, yields)
    chosen = Counter(row["source"] if row["rewards"] else "neither" for row in rows)
    originals, rewritten, neither = (chosen[name] for name in ("original", "rewrite", "neither"))
    log.info("combine: %d originals and %d rewrites go on, %d have neither", originals, rewritten, neither)
    write_folder_card(folder, {"default": {"train": path.name}})
    manifest.finish(folder, [path, yields_path], rows=count)


def provenance(recipe: Recipe, rewrites: bool) -> Provenance:
    """Return what the stage's folder is made of; see `combine` for the arguments."""
    found = stage_inputs("combine", recipe, {"rewrites": rewrites})
    inputs = {name: input_hash(path, command) for name, (path, command) in found.items()}
    keys = {"rewrites": rewrites, "compat": asdict(recipe.compat)}
    return Provenance(recipe.layout.stage("combine"), "combine", keys, inputs, recipe.seed)


def combine_texts(recipe: Recipe, *, rewrites: bool) -> tuple[list[dict[str, Any]], dict[str, CountTable]]:
    """Return a row for each sample, see `CombinedRow`, and the tables of yields by stage.

    Args:
        recipe: what the stages share, and whose round it is.
        rewrites: compare with the rewrites; else every sample stands for itself.
    """
    layout = recipe.layout
    samples = read_units(layout.stage("sample"), ["sample_id", "prompt_id", "text", "marks"])
    written = {row["sample_id"]: row for row in (read_units(layout.stage("rewrite")) if rewrites else [])}
    rewards = {row["text_id"]: row["rewards"] for row in read_units(layout.stage("score"), ["text_id", "rewards"])}
    rows = [_combine_one(sample, written.get(sample["sample_id"]), rewards, recipe) for sample in samples]
    point = {row["sample_id"]: row["point"] for row in samples}
    rewritten = [{**row, "point": point[row["sample_id"]]} for row in written.values()]
    yields = {"sample": marks_table(samples), "rewrite": marks_table(rewritten)}
    return rows, {**yields, "combine": _sources_table(rows)}


def _combine_one(
    sample: dict[str, Any], rewrite: dict[str, Any] | None, rewards: dict[str, dict[str, float]], recipe: Recipe
) -> dict[str, Any]:
    """Return the combined row of one sample; marked texts stand back, and with both marked the marks stay."""
    is_usable = recipe.part(is_unmarked)
    usable = {"original": sample} if is_usable(sample["marks"]) else {}
    if rewrite is not None and is_usable(rewrite["marks"]):
        usable["rewrite"] = rewrite
    scores = {name: rewards[text_id(sample["prompt_id"], row["text"])] for name, row in usable.items()}
    source = next(iter(scores), "original")
    if len(scores) == 2:
        policies = [f"policy:{name}" for name in recipe.objective_names]
        source = better_of(scores["original"], scores["rewrite"], policies)
    chosen = usable.get(source, sample)
    return {
        **{key: sample[key] for key in ("sample_id", "prompt_id", "prompt", "point", "k")},
        "text": chosen["text"],
        "source": source,
        "rewards": scores.get(source, {}),
        "marks": chosen["marks"],
    }


def marks_table(rows: list[dict[str, Any]]) -> CountTable:
    """Return, by weight, how many rows there are, how many bear each mark, and how many are clean."""
    table: CountTable = {}
    for row in rows:
        counts = table.setdefault(row["point"], {"rows": 0, **dict.fromkeys(MARKS, 0), "clean": 0})
        counts["rows"] += 1
        counts["clean"] += not row["marks"]
        for mark in row["marks"]:
            counts[mark] += 1
    return table


def _sources_table(rows: list[dict[str, Any]]) -> CountTable:
    table: dict[str, Counter[str]] = {}
    for row in rows:
        counts = table.setdefault(row["point"], Counter({"original": 0, "rewrite": 0, "none": 0}))
        counts[row["source"] if row["rewards"] else "none"] += 1
    return {point: dict(counts) for point, counts in table.items()}
