"""Which part of the method takes another's place where a switch of `compat` is on. Plain data, quick to import."""

import importlib
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

from sipo_pl.recipe.compat import Compat

T = TypeVar("T")


@dataclass(frozen=True)
class Replacement:
    """A function or class of the released code that takes the place of one of ours, and is called alike.

    Args:
        switch: field of `Compat` that asks for it
        path: its import path, below the package
        settings: fields of `Compat` that it takes by name beside
    """

    switch: str
    path: str
    settings: tuple[str, ...] = ()


RELEASED = {  # part, by its import path below the package -> what takes its place
    "data.conflicts.is_conflict": Replacement("tie_is_conflict", "released.conflicts.is_conflict_or_tie"),
    "data.converters.base.by_prompt": Replacement(
        "map_batch", "released.map_batches.adjacent_runs", ("map_batch", "map_shards")
    ),
    "data.converters.base.flaw": Replacement("keep_degenerate", "released.pairing.no_flaw"),
    "data.lengths.Lengths": Replacement("loose_length_filter", "released.lengths.LooseLengths"),
    "data.mixture.end_of": Replacement("zero_share_takes_all", "released.mixture.end_or_all"),
    "data.preference.mask_prompt": Replacement("common_prefix_mask", "released.masks.mask_common_prefix"),
    "engine.decoding.fused_rows.log_probabilities": Replacement("raw_logits", "released.scores.raw_logits"),
    "engine.lora.policies.interpolated_policies": Replacement(
        "compounding_soups", "released.soups.compounding_policies"
    ),
    "method.divergences.alpha.Alpha": Replacement("unscaled_alpha", "released.divergences.UnscaledAlpha"),
    "text.marks.is_unmarked": Replacement("keep_marked", "released.marks.is_marked_or_not"),
    "text.prompts.build.CritiquePrompts": Replacement("search_markers", "released.markers.SearchedCritiquePrompts"),
    "text.templates.answer_text": Replacement("search_markers", "released.markers.searched_text"),
    "training.preference.response_lengths": Replacement("padded_nll", "released.nll.padded_lengths"),
    "training.schedule.cosine_with_warmup": Replacement(
        "step_count_warmup", "released.schedule.cosine_with_warmup_steps"
    ),
}


def chosen_part(part: T, compat: Compat) -> T:
    """Return `part`, a function or class that `RELEASED` names, or what a switch that is on puts in its place."""
    name = f"{part.__module__}.{part.__qualname__}"  # type: ignore[attr-defined]
    replacement = RELEASED[name.removeprefix("sipo_pl.")]
    if getattr(compat, replacement.switch) in (False, None):
        return part
    module, _, found = f"sipo_pl.{replacement.path}".rpartition(".")
    other = getattr(importlib.import_module(module), found)
    settings = {key: getattr(compat, key) for key in replacement.settings}
    return cast("T", partial(other, **settings) if settings else other)
