"""Filter: per conflicting pair, the response that beats both originals under every reward model."""

import logging
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from sipo_pl.data.folder_card import write_folder_card
from sipo_pl.data.previous_round import previous_kept
from sipo_pl.data.units import read_units
from sipo_pl.interop.numbers import NonNegativeInt
from sipo_pl.messages.errors import UserError
from sipo_pl.method.seeds import seed_of
from sipo_pl.method.selection import Candidate, Choice, Rewards, minimum_margin, select_best_margin, select_pareto
from sipo_pl.method.weights import point_name
from sipo_pl.recipe.inputs import stage_inputs
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.stages.combine import CountTable, combine_texts
from sipo_pl.storage.json_lines import read_json, read_jsonl, write_json, write_jsonl
from sipo_pl.storage.manifest import input_hash
from sipo_pl.storage.provenance import Provenance
from sipo_pl.text.prompt import text_id

log = logging.getLogger("sipo_pl")


def filter(
    recipe: Recipe,
    min_kept: NonNegativeInt = 8,
    on_too_few: Literal["stop", "best_margin"] = "stop",
    combined: bool = True,
    rule: Literal["pareto", "any"] = "pareto",
    overwrite: bool = False,
) -> None:
    """Keep, per conflicting pair, the best of the responses that beat both originals under every reward model.

    Args:
        recipe: what the stages share
        min_kept: pairs that must keep a response
        on_too_few: with fewer, stop with the table of yields, or keep each pair's best by minimum margin and say so
        combined: the candidates are what combine chose; else the samples themselves
        rule: keep what beats both originals under every reward model, or any candidate, drawn by the seed (an ablation)
        overwrite: remove what the stage's folder holds
    """
    made_of = provenance(recipe, min_kept, on_too_few, combined, rule)
    min_kept, on_too_few = made_of.keys["min_kept"], made_of.keys["on_too_few"]
    folder, manifest = made_of.folder, made_of.open(overwrite=overwrite)
    if manifest.complete:
        return
    rows, yields = _candidates(recipe, combined=combined)
    judged = _judge(recipe, rows)
    chosen = [judge.pareto if rule == "pareto" else judge.drawn(recipe.seed) for judge in judged]
    points = [point_name(point) for point in recipe.sample_weights.resolve(recipe.objective_names)]
    kept, fallback = sum(choice is not None for choice in chosen), None
    if kept < min_kept:
        log.warning("filter: %s", _describe(_table(judged, chosen, points), len(judged), kept))
        if on_too_few == "stop":
            raise UserError(
                f"filter: {kept} of {len(judged)} pairs keep a response, fewer than min_kept {min_kept} (table above); "
                "sample more or other candidates, or set on_too_few: best_margin"
            )
        log.warning("filter: going on with each pair's best candidate by minimum margin")
        chosen, fallback = [judge.best_margin for judge in judged], "best_margin"
    kept_rows = [judge.row(choice) for judge, choice in zip(judged, chosen, strict=True) if choice]
    if not kept_rows:
        raise UserError(
            "filter: no pair has a candidate without marks; see the marks of the samples"
            + (", and combine's yields.json" if combined else "")
        )
    table = _table(judged, chosen, points)
    log.info("filter: %s", _describe(table, len(judged), len(kept_rows)))
    path, yields_path = recipe.layout.kept, folder / "yields.json"
    write_jsonl(path, kept_rows)
    counts = {"pairs": len(judged), "kept": len(kept_rows), "kept_share": round(len(kept_rows) / len(judged), 4)}
    if recipe.round > 1:
        counts["had_previous"] = sum(judge.previous is not None for judge in judged)
        counts["beat_previous"] = sum("previous" in row for row in kept_rows)
    write_json(yields_path, {**counts, "on_too_few": fallback, "stages": {**yields, "filter": table}})
    write_folder_card(folder, {"default": {"train": path.name}})
    manifest.finish(folder, [path, yields_path], rows=len(kept_rows))


def provenance(recipe: Recipe, min_kept: int, on_too_few: str, combined: bool, rule: str) -> Provenance:
    """Return what the stage's folder is made of; see `filter` for the arguments."""
    if recipe.limit is not None:  # a smoke run shows that the stages fit together, not that they help
        min_kept, on_too_few = 1, "best_margin"
    keys: dict[str, Any] = {
        "min_kept": min_kept,
        "on_too_few": on_too_few,
        "combined": combined,
        "compat": asdict(recipe.compat),
    }
    if rule != "pareto":
        keys["rule"] = rule
    found = stage_inputs("filter", recipe, {"combined": combined})
    inputs = {name: input_hash(path, command) for name, (path, command) in found.items()}
    return Provenance(recipe.layout.stage("filter"), "filter", keys, inputs, recipe.seed)


def _candidates(recipe: Recipe, *, combined: bool) -> tuple[list[dict[str, Any]], dict[str, CountTable]]:
    """Return the rows that combine chose, or would have made of samples alone, and the yields so far."""
    if not combined:
        return combine_texts(recipe, rewrites=False)
    folder = recipe.layout.stage("combine")
    return read_jsonl(folder / "combined.jsonl"), read_json(folder / "yields.json")


def _judge(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> "list[_Judged]":
    """Judge the candidates of every conflicting pair that has some."""
    layout = recipe.layout
    candidates: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        candidates.setdefault(row["prompt_id"], []).append(row)
    rewards = {row["text_id"]: row["rewards"] for row in read_units(layout.stage("score"))}
    previous = previous_kept(recipe)
    return [
        _Judged(pair, candidates[pair["prompt_id"]], previous.get(pair["pair_id"]), rewards)
        for pair in read_jsonl(layout.pairs("train_conflict"))
        if pair["prompt_id"] in candidates
    ]


class _Judged:
    """A pair, its scored candidates, and what the selection rules say."""

    def __init__(
        self,
        pair: dict[str, Any],
        rows: Sequence[dict[str, Any]],
        previous: str | None,
        rewards: dict[str, Rewards],
    ) -> None:
        self.pair, self.previous = pair, previous
        self.rows = {row["sample_id"]: row for row in rows if row["rewards"]}
        self.responses = [rewards[text_id(pair["prompt_id"], pair[f"response_{i}"])] for i in (0, 1)]
        self.previous_rewards = None if previous is None else rewards[text_id(pair["prompt_id"], previous)]
        self.candidates = [
            Candidate(sample_id, row["rewards"], order) for order, (sample_id, row) in enumerate(self.rows.items())
        ]
        self.pareto = select_pareto(self.candidates, self.responses)
        self.best_margin = select_best_margin(self.candidates, self.responses)

    def drawn(self, seed: int) -> Choice | None:
        """Return any candidate, drawn by the seed."""
        if not self.candidates:
            return None
        one = random.Random(seed_of(seed, self.pair["pair_id"])).choice(self.candidates)
        return Choice(one, minimum_margin(one.rewards, self.responses))

    def row(self, choice: Choice) -> dict[str, Any]:
        sample = self.rows[choice.candidate.sample_id]
        keys = ("pair_id", "prompt_id", "prompt", "response_0", "response_1", "preferred")
        row = {
            **{key: self.pair[key] for key in keys},
            "kept": sample["text"],
            **{key: sample[key] for key in ("sample_id", "point", "source")},
            "margin": choice.margin,
            "rewards": sample["rewards"],
        }
        before = self.previous_rewards
        if before is not None and minimum_margin(sample["rewards"], [before]) > 0:
            row["previous"] = self.previous
        return row


def _table(judged: Sequence[_Judged], chosen: Sequence[Choice | None], points: Sequence[str]) -> CountTable:
    """Return, by weight: candidates of pairs, survivors, kept, and how many fail each response or any reward model."""
    table: CountTable = {point: {"candidates": 0, "survive": 0, "kept": 0} for point in points}
    for judge, choice in zip(judged, chosen, strict=True):
        for candidate in judge.candidates:
            row = table[judge.rows[candidate.sample_id]["point"]]
            row["candidates"] += 1
            row["survive"] += minimum_margin(candidate.rewards, judge.responses) > 0
            row["kept"] += choice is not None and choice.candidate is candidate
            for index, response in enumerate(judge.responses):
                fails = f"fails response_{index}"
                row[fails] = row.get(fails, 0) + (minimum_margin(candidate.rewards, [response]) <= 0)
            for model in judge.responses[0]:
                fails = f"fails {model}"
                margins = [candidate.rewards[model] - response[model] for response in judge.responses]
                row[fails] = row.get(fails, 0) + (min(margins) <= 0)
    return table


def _describe(table: CountTable, pairs: int, kept: int) -> str:
    lines = [f"{kept} of {pairs} pairs keep a response"]
    for point, row in table.items():
        lines.append(f"  weights {point}: " + ", ".join(f"{name} {count}" for name, count in row.items()))
    return "\n".join(lines)
