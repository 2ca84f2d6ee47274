"""What the round before kept, which a later round is compared with as well."""

from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import read_jsonl


def previous_kept(recipe: Recipe) -> dict[str, str]:
    """Return pair_id -> the response that the round before kept for it."""
    previous = recipe.layout.previous
    return {row["pair_id"]: row["kept"] for row in read_jsonl(previous.kept, ["pair_id", "kept"])} if previous else {}
