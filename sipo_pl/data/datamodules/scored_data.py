"""DataModule of scored responses: what a reward model learns from, and its micro-batches."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from sipo_pl.data.step_loader import StepLoader
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.text.chat_rendering import ChatTemplate
from sipo_pl.text.prompt import TextRow, text_id
from sipo_pl.text.reward_template import TextTemplate, scored_ids
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import TokenBatch, collate
from sipo_pl.text.tokenizers import load_tokenizer

log = logging.getLogger("sipo_pl")


@dataclass(frozen=True)
class ScoredText:
    """A tokenised response with its scores.

    Args:
        text_id: id of the response below its prompt
        ids: what a reward model reads
        scores: one for each objective, in the recipe's order, larger is better
    """

    text_id: str
    ids: list[int]
    scores: tuple[float, ...]


class ScoredBatch(NamedTuple):
    """A micro-batch.

    Args:
        row_ids: ids of its rows
        tokens: its rows
        scores: (rows, objectives), float32
        step_rows: rows of the whole optimizer step, over micro-batches and devices; the loss is their mean
        spare: the rows count nothing, see `StepLoader`
    """

    row_ids: list[str]
    tokens: TokenBatch
    scores: Tensor
    step_rows: int
    spare: bool = False

    @property
    def token_count(self) -> int:
        return int(self.tokens.attention_mask.sum())


class ScoredLoader(StepLoader[ScoredText, ScoredBatch]):
    """Iterates micro-batches of scored responses, see `StepLoader`."""

    def collate(self, rows: Sequence[ScoredText], step: Sequence[ScoredText]) -> ScoredBatch:
        tokens = collate([Encoded(row.ids, 0) for row in rows])
        return ScoredBatch([row.text_id for row in rows], tokens, torch.tensor([row.scores for row in rows]), len(step))


class ScoredData(LightningDataModule):
    """The responses of the prepared pairs with their scores under every objective.

    Args:
        recipe: what the stages share
        template: text with {prompt} and {response} that the model reads, which the reward must be given too; the
            tokenizer's chat template where not given
        micro_batch_size: responses in one forward; an optimizer step takes trainer.accumulate_grad_batches of them
        eval_batch_size: responses in one forward of validation
        max_length: longest text in tokens; longer ones are left out and counted
    """

    def __init__(
        self,
        recipe: Recipe,
        template: str | None = None,
        micro_batch_size: PositiveInt = 4,
        eval_batch_size: PositiveInt = 16,
        max_length: PositiveInt = 512,
    ) -> None:
        super().__init__()
        self.recipe, self.template = recipe, TextTemplate(template, "data.template") if template else None
        self.micro_batch_size, self.eval_batch_size, self.max_length = micro_batch_size, eval_batch_size, max_length
        self.loaders: dict[str, ScoredLoader] = {}

    def setup(self, stage: str) -> None:
        """Read and tokenise the responses."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if stage == "fit":
            accumulate = trainer.accumulate_grad_batches if trainer else 1
            rows = self._texts("train")
            self.loaders["train"] = ScoredLoader(rows, self.micro_batch_size, accumulate, self.recipe.seed, rank, world)
        self.loaders["validation"] = ScoredLoader(
            self._texts("validation"), self.eval_batch_size, world, rank=rank, world_size=world
        )

    def _texts(self, split: str) -> list[ScoredText]:
        """Return the distinct responses of a split's pairs."""
        path = self.recipe.layout.pairs(split)
        tokenizer = load_tokenizer(self.recipe.base_model)
        chat = ChatTemplate(tokenizer, self.recipe.date) if self.template is None else None
        found: dict[str, ScoredText] = {}
        long = 0
        for row in read_jsonl(path, ["pair_id", "prompt_id", "prompt", "response_0", "response_1"]):
            scores = row.get("scores", {})
            if missing := [name for name in self.recipe.objective_names if name not in scores]:
                raise UserError(f"{path}: pair {row['pair_id']!r} has no scores of {missing[0]!r}, only a preference")
            for place, key in enumerate(("response_0", "response_1")):
                name = text_id(row["prompt_id"], row[key])
                if name in found:
                    continue
                ids = scored_ids(tokenizer, chat, self.template, TextRow(row["prompt"], row[key]))
                if len(ids) > self.max_length:
                    long += 1
                    continue
                labels = tuple(float(scores[one][place]) for one in self.recipe.objective_names)
                found[name] = ScoredText(name, ids, labels)
        log.info("%s: %d scored responses (left out: %d longer than max_length)", path.name, len(found), long)
        if not found:
            raise UserError(f"{path}: no scored response of at most {self.max_length} tokens")
        return list(found.values())

    def train_dataloader(self) -> ScoredLoader:
        return self.loaders["train"]

    def val_dataloader(self) -> ScoredLoader:
        return self.loaders["validation"]

    def test_dataloader(self) -> ScoredLoader:
        return self.loaders["validation"]
