"""What the round before kept, which a later round is compared with as well."""

from pathlib import Path

from sipo_pl.recipe.recipe import Recipe
from sipo_pl.registry import command_of
from sipo_pl.storage.artifacts import read_jsonl


def previous_filter(recipe: Recipe) -> dict[str, tuple[Path, str]]:
    """Return the filter of the round before as an input, name -> (path, command); none in the first round."""
    previous = recipe.layout.previous
    if previous is None:
        return {}
    return {"previous filter": (previous.stage("filter"), command_of("filter", round=previous.round))}


def previous_kept(recipe: Recipe) -> dict[str, str]:
    """Return pair_id -> the response that the round before kept for it."""
    previous = recipe.layout.previous
    return {row["pair_id"]: row["kept"] for row in read_jsonl(previous.kept, ["pair_id", "kept"])} if previous else {}
