"""What becomes of the pairs between raw data and the prepared splits: filters, draws, mixture, limit."""

import logging
import time
from dataclasses import dataclass, field

from sipo_pl.data.conflicts import has_tie, is_conflict, tied_everywhere
from sipo_pl.data.lengths import Lengths
from sipo_pl.data.mixture import end_of, mix
from sipo_pl.data.rows import PairRow, PromptRow, SFTRow
from sipo_pl.data.sft_rows import sft_rows
from sipo_pl.data.splits import Split, draw_prompts, limit_train, limit_validation, unique_prompts, without_prompts
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe

LOG = logging.getLogger("sipo_pl")


@dataclass
class Splits:
    """The splits of a run, from raw data to what is written.

    Args:
        train: pairs to train on
        validation: pairs to validate on
        test: prompts of the evaluation
        conflict: pairs of train for which candidates are sampled
        sft: responses for supervised fine-tuning
    """

    train: Split[PairRow]
    validation: Split[PairRow]
    test: Split[PromptRow]
    conflict: list[PairRow] = field(default_factory=list)
    sft: list[SFTRow] = field(default_factory=list)

    @property
    def named(self) -> tuple[Split[PairRow], Split[PairRow], Split[PromptRow]]:
        return self.train, self.validation, self.test

    @property
    def pairs(self) -> tuple[Split[PairRow], Split[PairRow]]:
        return self.train, self.validation


def divide(splits: Splits, lengths: Lengths, recipe: Recipe) -> None:
    """Filter the splits, keep them apart, draw test prompts, mix, and limit.

    Length comes first, so that the draw sees only prompts that can be used; ties go after the draw, as their prompts
    can be.
    """
    data = recipe.data
    if data.max_length is not None:
        _filter_lengths(splits, lengths, data.max_length)
    for split in splits.pairs:
        split.check()
    _keep_apart(splits, drop=data.keep_apart)
    if not data.test:
        _draw_test(splits, recipe.seed)
    if recipe.runs("sft"):
        splits.sft = sft_rows(splits.train.rows)[: recipe.limit]
    if data.mixture.share is None:
        _drop_ties(splits, recipe)
    else:
        _mix(splits, recipe, data.mixture.share)
    if recipe.limit is not None:
        _limit(splits, recipe, recipe.limit)
    for any_split in splits.named:
        any_split.check()


def _filter_lengths(splits: Splits, lengths: Lengths, max_length: int) -> None:
    start = time.perf_counter()
    for split in splits.pairs:
        lengths.read(split.rows)
        split.keep([row for row in split.rows if lengths.fits(row, max_length)], f"pairs over {max_length} tokens")
    with_room = [row for row in splits.test.rows if lengths.prompt(row) < max_length]
    splits.test.keep(with_room, f"prompts without room for a response in {max_length} tokens")
    LOG.info("prepare: tokenised in %.1f s", time.perf_counter() - start)


def _keep_apart(splits: Splits, *, drop: bool) -> None:
    """Drop what train shares with validation or test; what those two share only makes the evaluation look better."""
    train, validation, test = splits.named
    for other in (validation, test):
        shared = len(train.prompt_ids & other.prompt_ids)
        if shared and not drop:
            LOG.warning("prepare: train and %s share %d prompts (data.keep_apart is off)", other.name, shared)
        elif shared:
            rows = without_prompts(train.rows, other.prompt_ids)
            lost = train.keep(rows, f"pairs of prompts that {other.name} holds")
            LOG.warning("prepare: train: dropped %d pairs of %d prompts that %s holds", lost, shared, other.name)
    if both := validation.prompt_ids & test.prompt_ids:
        LOG.warning("prepare: validation and test share %d prompts; checkpoints are chosen on them", len(both))
    train.check()


def _draw_test(splits: Splits, seed: int) -> None:
    train, validation, test = splits.named
    prompts, count = unique_prompts(train.rows), len(validation.prompt_ids)
    if count >= len(prompts):
        raise UserError(
            f"data.test: names no file, and a draw of {count} prompts, as many as validation has, would leave none of "
            f"the {len(prompts)} of train; name test files or shorten validation"
        )
    test.rows = draw_prompts(prompts, count, seed)
    train.keep(without_prompts(train.rows, test.prompt_ids), "pairs of prompts drawn for test")


def _drop_ties(splits: Splits, recipe: Recipe) -> None:
    """Drop what no objective decides; a tie in one of them leaves the pair to the others."""
    names, conflicts = recipe.objective_names, recipe.part(is_conflict)
    for split in splits.pairs:
        split.keep([row for row in split.rows if not tied_everywhere(row, names)], "pairs tied in every objective")
    splits.conflict = [row for row in splits.train.rows if conflicts(row, names)]


def _mix(splits: Splits, recipe: Recipe, share: float) -> None:
    names, mixture = recipe.objective_names, recipe.data.mixture
    for split in splits.pairs:
        split.keep([row for row in split.rows if not has_tie(row, names)], "pairs with a tie")
        if split is splits.validation and not mixture.validation:
            continue
        conflicting = [row for row in split.rows if is_conflict(row, names)]
        others = [row for row in split.rows if not is_conflict(row, names)]
        mixed = mix(conflicting, others, share, mixture.take, mixture.seed, recipe.part(end_of))
        LOG.info(
            "prepare: %s: mixed %d of %d conflicting and %d of %d other pairs",
            split.name,
            len(mixed.conflicting),
            len(conflicting),
            len(mixed.others),
            len(others),
        )
        split.keep(mixed.merged, "pairs that the mixture leaves out")
        if split is splits.train:
            splits.conflict = mixed.conflicting if mixture.train_conflict == "chosen" else conflicting


def _limit(splits: Splits, recipe: Recipe, limit: int) -> None:
    names, conflicts = recipe.objective_names, recipe.part(is_conflict)
    train, validation, test = splits.named
    conflicting = [conflicts(row, names) for row in train.rows]
    train.keep(limit_train(train.rows, conflicting, limit), f"pairs over the limit of {limit}")
    validation.keep(limit_validation(validation.rows, names, limit), f"pairs over the limit of {limit}")
    test.keep(test.rows[:limit], f"prompts over the limit of {limit}")
    if recipe.data.mixture.share is None:
        left = {row["pair_id"] for row in train.rows}
        splits.conflict = [row for row in splits.conflict if row["pair_id"] in left]
    else:
        splits.conflict = splits.conflict[:limit]
    LOG.info(
        "prepare: limit %d: the first pairs of train, half of them conflicting where there are enough; the first pairs "
        "of validation, those without a tie before others; the first test prompts",
        limit,
    )
