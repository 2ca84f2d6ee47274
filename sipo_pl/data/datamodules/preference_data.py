"""DataModule of preference pairs: training and validation micro-batches for alignment and re-alignment."""

import logging
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning.pytorch import LightningDataModule

from sipo_pl.data.loader import FrozenValues, PairLoader, RowKey, TrainingPair
from sipo_pl.data.preference import Select, mask_prompt, preference_pairs, realignment_pairs, unique_rows, unique_texts
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.inputs import stage_input
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.registry import STAGES
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.text.prompt import TextRow
from sipo_pl.text.templates import Encoded, PromptTemplate
from sipo_pl.text.tokenizers import load_template

log = logging.getLogger("sipo_pl")

PREPARED = "prepare"
PAIR_FILES = {name: stage.pairs for name, stage in STAGES.items() if stage.pairs}  # stage -> its file of pairs
if TYPE_CHECKING:
    PairSource = str
else:
    PairSource = Literal[tuple(PAIR_FILES)]


class PreferenceData(LightningDataModule):
    """Pairs of one objective.

    Args:
        recipe: what the stages share
        objective: whose preferences are learned
        source: stage whose pairs are trained on: prepare has the prepared pairs, filter the kept responses
        select: of the prepared pairs, those that the objective decides (own), that any objective decides (any, for
            DPO-LW and RACO), or whose winner wins under every objective (agreed, Reward Consistency)
        micro_batch_size: pairs in one forward; an optimizer step takes trainer.accumulate_grad_batches of them
        eval_batch_size: pairs in one forward of validation
        max_length: longest template + response + EOS in tokens; longer pairs are left out and counted
        max_pairs: train on that many pairs, drawn by the recipe's seed; all where not given
        max_validation_pairs: validate on that many pairs, drawn likewise; all where not given
    """

    def __init__(
        self,
        recipe: Recipe,
        objective: str,
        source: PairSource = PREPARED,
        select: Select = "own",
        micro_batch_size: PositiveInt = 1,
        eval_batch_size: PositiveInt = 6,
        max_length: PositiveInt = 512,
        max_pairs: PositiveInt | None = None,
        max_validation_pairs: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        recipe.objective(objective)
        self.recipe, self.objective, self.source, self.select = recipe, objective, source, select
        self.micro_batch_size, self.eval_batch_size, self.max_length = micro_batch_size, eval_batch_size, max_length
        self.max_pairs, self.max_validation_pairs = max_pairs, max_validation_pairs
        self.loaders: dict[str, PairLoader] = {}

    @property
    def inputs(self) -> dict[str, tuple[Path, str]]:
        """Return the stage whose pairs are trained on: name -> (path, command that makes it)."""
        return {self.source: stage_input(self.recipe, self.source)}

    def setup(self, stage: str) -> None:
        """Read and tokenise the pairs."""
        template = load_template(self.recipe.policy_base, self.recipe.dated_template)
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if stage == "fit":
            accumulate = trainer.accumulate_grad_batches if trainer else 1
            self.loaders["train"] = PairLoader(
                self._train_pairs(template), self.micro_batch_size, accumulate, self.recipe.round_seed, rank, world
            )
        self.loaders["validation"] = PairLoader(
            self._validation_pairs(template), self.eval_batch_size, world, rank=rank, world_size=world
        )

    def _train_pairs(self, template: PromptTemplate) -> list[TrainingPair]:
        path = self.recipe.layout.stage(self.source) / PAIR_FILES[self.source]
        if self.source != PREPARED:
            pairs, dropped = realignment_pairs(
                read_jsonl(path),  # type: ignore[arg-type]
                self.recipe.objective_names,
                template,
                self.max_length,
                mask=self.recipe.part(mask_prompt),
            )
        else:
            pairs, dropped = self._preferred(path, template)
        drawn = self._draw(self._checked(path, pairs, dropped), self.max_pairs)
        template.check_ends((pair.pair_id, row) for pair in drawn for row in pair.rows)
        return drawn

    def _preferred(self, path: Path, template: PromptTemplate) -> tuple[list[TrainingPair], Counter[str]]:
        return preference_pairs(
            read_jsonl(path),  # type: ignore[arg-type]
            self.objective,
            template,
            self.max_length,
            select=self.select,
            mask=self.recipe.part(mask_prompt),
        )

    def _draw(self, pairs: list[TrainingPair], count: int | None) -> list[TrainingPair]:
        """Return `count` of the pairs, in their order; all where it is None."""
        if count is None or count >= len(pairs):
            return pairs
        drawn = random.Random(self.recipe.seed).sample(range(len(pairs)), count)
        log.info("%d of them drawn", len(drawn))
        return [pairs[index] for index in sorted(drawn)]

    def _validation_pairs(self, template: PromptTemplate) -> list[TrainingPair]:
        path = self.recipe.layout.pairs("validation")
        pairs, dropped = self._preferred(path, template)
        return self._draw(self._checked(path, pairs, dropped), self.max_validation_pairs)

    def _checked(self, path: Path, pairs: list[TrainingPair], dropped: dict[str, int]) -> list[TrainingPair]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none"
        log.info("%s: %d pairs for %s (left out: %s)", path.name, len(pairs), self.objective, reasons)
        if not pairs:
            raise UserError(f"{path}: no pair left for objective {self.objective!r} (left out: {reasons})")
        return pairs

    def texts(self) -> list[Encoded]:
        """Return the distinct tokenised rows of all loaders."""
        return unique_rows(self._pairs)

    def text_rows(self) -> dict[RowKey, TextRow]:
        """Return the texts of those rows."""
        return unique_texts(self._pairs)

    @property
    def _pairs(self) -> list[TrainingPair]:
        return [pair for loader in self.loaders.values() for pair in loader.pairs]

    def set_values(self, values: FrozenValues) -> None:
        """Give every loader what was computed of its rows."""
        for loader in self.loaders.values():
            loader.values = values

    def train_dataloader(self) -> PairLoader:
        return self.loaders["train"]

    def val_dataloader(self) -> PairLoader:
        return self.loaders["validation"]

    def test_dataloader(self) -> PairLoader:
        return self.loaders["validation"]
