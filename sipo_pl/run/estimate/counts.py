"""How much data a run has: of the prepared folder or, before there is one, of the raw files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipo_pl.data.conflicts import is_conflict
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.manifest import Manifest

CHARACTERS = 4.0  # of a token, in English


@dataclass(frozen=True)
class Counts:
    """Rows and mean lengths.

    Args:
        source: where the numbers are from
        pairs: of the training split
        conflicts: those that candidates are sampled for
        validation: pairs of the validation split
        test: prompts
        responses: rows of the supervised fine-tuning
        prompt: mean tokens of a prompt
        response: mean tokens of a response
        asked: the prompt of each conflict, by its id, in the order of the file
    """

    source: str
    pairs: int
    conflicts: int
    validation: int
    test: int
    responses: int
    prompt: float
    response: float
    asked: tuple[str, ...] = ()

    def conflict_prompts(self, first: int | None) -> int:
        """Return how many prompts candidates are sampled for, of the first so many conflicts, or of all."""
        return len(set(self.asked[:first])) if self.asked else min(self.conflicts, first or self.conflicts)


def count(recipe: Recipe) -> Counts:
    """Count the prepared data, or the raw data where nothing is prepared yet.

    There a label that a reward gives is not known, so that every pair is taken for a conflict.
    """
    folder = recipe.layout.stage("prepare")
    manifest = Manifest.read(folder)
    if manifest and manifest.complete:
        return _of(f"counted in {folder}", *(read_jsonl(path) for path in _prepared(recipe)))
    from sipo_pl.stages.prepare import read_raw

    splits = read_raw(recipe)
    found = (splits.train.rows, splits.validation.rows, splits.test.rows)
    train, validation, test = ([*rows][: recipe.limit] for rows in found)
    labelled = any(one.label for one in recipe.objectives)
    conflicts = [row for row in train if labelled or is_conflict(row, recipe.objective_names)]
    source = "counted in the raw data, before lengths, overlaps and mixtures leave pairs out: more than there will be"
    # where there are no files of test prompts, as many as validation has are drawn
    drawn = test or list({row["prompt_id"]: row for row in validation}.values())
    return _of(source, train, conflicts, validation, drawn)


def _prepared(recipe: Recipe) -> list[Path]:
    layout = recipe.layout
    return [*(layout.pairs(split) for split in ("train", "train_conflict", "validation")), layout.test_prompts]


def _of(
    source: str,
    train: Sequence[Mapping[str, Any]],
    conflicts: Sequence[Mapping[str, Any]],
    validation: Sequence[Any],
    test: Sequence[Any],
) -> Counts:
    texts = [row[key] for row in train for key in ("response_0", "response_1")]
    return Counts(
        source=source,
        pairs=len(train),
        conflicts=len(conflicts),
        validation=len(validation),
        test=len(test),
        responses=len({(row["prompt_id"], row[key]) for row in train for key in ("response_0", "response_1")}),
        prompt=_mean_tokens(row["prompt"] for row in train),
        response=_mean_tokens(texts),
        asked=tuple(row["prompt_id"] for row in conflicts),
    )


def _mean_tokens(texts: Iterable[Any]) -> float:
    lengths = [len(text if isinstance(text, str) else "".join(one["content"] for one in text)) for text in texts]
    return sum(lengths) / CHARACTERS / max(1, len(lengths))
