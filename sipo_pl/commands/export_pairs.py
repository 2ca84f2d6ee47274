"""Command export_pairs: the prepared pairs as preference data sets in TRL's format."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.files import atomic_path
from sipo_pl.storage.json_lines import read_jsonl, write_jsonl
from sipo_pl.storage.manifest import input_hash

log = logging.getLogger("sipo_pl")

SPLITS = ("train", "train_conflict", "validation")


def export_pairs(recipe: Recipe, out: str, overwrite: bool = False) -> None:
    """Write the prepared pairs as TRL's preference data, a folder for each objective and a file for each split.

    Args:
        recipe: what the stages of the run share
        out: folder to be made, of <objective>/<split>.jsonl
        overwrite: make an earlier export anew
    """
    folder = Path(out)
    _check_folder(folder, recipe.objective_names, overwrite)
    input_hash(recipe.layout.stage("prepare"), "sipo_pl prepare")
    pairs = {split: read_jsonl(recipe.layout.pairs(split)) for split in SPLITS}
    chat = any(isinstance(row["prompt"], list) for rows in pairs.values() for row in rows)
    with atomic_path(folder) as aside:
        for name in recipe.objective_names:
            for split, rows in pairs.items():
                count = write_jsonl(aside / name / f"{split}.jsonl", preferences(rows, name, chat=chat))
                log.info("export_pairs: %s: %s: %d of %d pairs, the others tie", name, split, count, len(rows))
    log.info("export_pairs: %s", folder)


def _check_folder(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file; choose another folder")
    own = {folder / name / f"{split}.jsonl" for name in names for split in SPLITS}
    found = {path for path in folder.rglob("*") if not path.is_dir()}
    if found - own:
        raise UserError(f"{folder}: holds other files, such as {min(found - own)}; choose another folder")
    if found and not overwrite:
        raise UserError(f"{folder}: holds an earlier export (--overwrite makes it anew)")


def preferences(pairs: Iterable[dict[str, Any]], objective: str, *, chat: bool) -> list[dict[str, Any]]:
    """Return the pairs that an objective decides as rows of prompt, chosen and rejected.

    Args:
        pairs: prepared pairs.
        objective: whose preference it is.
        chat: write lists of messages, also for prompts that are text, since a table holds but one kind.
    """
    rows = []
    for pair in pairs:
        if (index := pair["preferred"][objective]) == -1:
            continue
        chosen, rejected = pair[f"response_{index}"], pair[f"response_{1 - index}"]
        prompt = pair["prompt"]
        if chat:
            prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            chosen, rejected = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows
