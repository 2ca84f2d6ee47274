"""DataModule of supervised fine-tuning: prompts with one response each, and their micro-batches."""

import logging
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule

from sipo_pl.data.rows import SFTRow
from sipo_pl.data.step_loader import StepLoader
from sipo_pl.interop.numbers import OpenShare, PositiveInt
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.text.prompt import text_id
from sipo_pl.text.templates import Encoded, PromptTemplate
from sipo_pl.text.tokenizers import load_template

log = logging.getLogger("sipo_pl")

Responses = Literal["both", "chosen"]
KEYS = ("prompt_id", "prompt", "response", "preferred_by")


@dataclass(frozen=True)
class SFTExample:
    """A tokenised response.

    Args:
        text_id: id of the response below its prompt
        prompt_id: id of the prompt
        tokens: prompt and response
    """

    text_id: str
    prompt_id: str
    tokens: Encoded


class SFTBatch(NamedTuple):
    """A micro-batch.

    Args:
        row_ids: ids of its rows
        rows: its rows
        step_tokens: response tokens of the whole optimizer step, over micro-batches and devices; the loss is their mean
        spare: the rows count nothing, see `StepLoader`
    """

    row_ids: list[str]
    rows: list[Encoded]
    step_tokens: int
    spare: bool = False

    @property
    def token_count(self) -> int:
        return sum(len(row.input_ids) for row in self.rows)

    def to(self, device: torch.device) -> "SFTBatch":
        """Return the batch as it is: its rows are packed, and moved, for a forward."""
        return self


class SFTLoader(StepLoader[SFTExample, SFTBatch]):
    """Iterates micro-batches of responses, see `StepLoader`."""

    def collate(self, rows: Sequence[SFTExample], step: Sequence[SFTExample]) -> SFTBatch:
        tokens = [row.tokens for row in rows]
        return SFTBatch([row.text_id for row in rows], tokens, sum(row.tokens.response_length for row in step))


def sft_examples(
    rows: Iterable[SFTRow], responses: Responses, template: PromptTemplate, max_length: int, *, truncate: bool = False
) -> tuple[list[SFTExample], Counter[str]]:
    """Tokenise prepared responses.

    Args:
        rows: of `prepare/sft.jsonl`.
        responses: both takes every row, chosen those that at least one objective prefers over another response.
        template: renders and tokenises.
        max_length: longest prompt + response + EOS in tokens.
        truncate: cut what is longer, which then lacks its EOS, instead of leaving it out (`compat.truncate_sft`).

    Returns:
        The examples, and how many rows were left out by reason.
    """
    given = list(rows)
    taken = [row for row in given if responses == "both" or row["preferred_by"]]
    dropped = Counter[str]()
    if len(taken) < len(given):
        dropped["preferred by no objective"] = len(given) - len(taken)
    examples: list[SFTExample] = []
    encoded = template.encode_all([(row["prompt"], row["response"]) for row in taken])
    for row, tokens in zip(taken, encoded, strict=True):
        if truncate:
            tokens = tokens._replace(input_ids=tokens.input_ids[:max_length])
        if len(tokens.input_ids) > max_length or tokens.response_length < 1:
            dropped["longer than max_length"] += 1
            continue
        examples.append(SFTExample(text_id(row["prompt_id"], row["response"]), row["prompt_id"], tokens))
    return examples, dropped


def split_by_prompt(
    examples: Sequence[SFTExample], share: float, seed: int
) -> tuple[list[SFTExample], list[SFTExample]]:
    """Split into training and validation examples, all of a prompt on one side.

    Args:
        examples: in the order of their file, which both parts keep.
        share: share of the prompts that validate, rounded up.
        seed: seed of the draw.
    """
    prompts = list(dict.fromkeys(example.prompt_id for example in examples))
    drawn = set(random.Random(seed).sample(prompts, math.ceil(share * len(prompts))))
    train = [example for example in examples if example.prompt_id not in drawn]
    return train, [example for example in examples if example.prompt_id in drawn]


class SFTData(LightningDataModule):
    """Responses for supervised fine-tuning.

    Args:
        recipe: what the stages share
        responses: both responses of every pair, or those alone that an objective prefers (chosen)
        micro_batch_size: responses in one forward; an optimizer step takes trainer.accumulate_grad_batches of them
        eval_batch_size: responses in one forward of validation
        max_length: longest template + response + EOS in tokens; longer responses are left out and counted
        validation_share: share of the prompts, rounded up, whose responses validate and do not train, drawn by the
            recipe's seed
    """

    def __init__(
        self,
        recipe: Recipe,
        responses: Responses = "both",
        micro_batch_size: PositiveInt = 4,
        eval_batch_size: PositiveInt = 8,
        max_length: PositiveInt = 512,
        validation_share: OpenShare = 0.02,
    ) -> None:
        super().__init__()
        if not 0 < validation_share < 1:
            raise UsageError(f"data.validation_share: {validation_share:g} is not between 0 and 1")
        self.recipe, self.responses, self.validation_share = recipe, responses, validation_share
        self.micro_batch_size, self.eval_batch_size, self.max_length = micro_batch_size, eval_batch_size, max_length
        self.loaders: dict[str, SFTLoader] = {}

    def setup(self, stage: str) -> None:
        """Read, tokenise and split the responses."""
        train, validation = self._examples()
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if stage == "fit":
            accumulate = trainer.accumulate_grad_batches if trainer else 1
            seed = self.recipe.seed
            self.loaders["train"] = SFTLoader(train, self.micro_batch_size, accumulate, seed, rank, world)
        self.loaders["validation"] = SFTLoader(validation, self.eval_batch_size, world, rank=rank, world_size=world)

    def _examples(self) -> tuple[list[SFTExample], list[SFTExample]]:
        path = self.recipe.layout.sft_rows
        if not path.exists():
            raise UserError(
                f"{path}: no such file; `sipo_pl prepare` makes it where the recipe says stages: {{sft: true}}"
            )
        template = load_template(self.recipe.base_model, self.recipe.dated_template)
        truncate = self.recipe.compat.truncate_sft
        rows = read_jsonl(path, KEYS)
        examples, dropped = sft_examples(rows, self.responses, template, self.max_length, truncate=truncate)  # type: ignore[arg-type]
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none"
        train, validation = split_by_prompt(examples, self.validation_share, self.recipe.seed)
        log.info("%s: %d to train, %d to validate (left out: %s)", path.name, len(train), len(validation), reasons)
        if not train:
            raise UserError(f"{path}: {len(validation)} responses, none is left to train on (left out: {reasons})")
        if not truncate:
            template.check_ends((row.text_id, row.tokens) for row in train)
        return train, validation

    def train_dataloader(self) -> SFTLoader:
        return self.loaders["train"]

    def val_dataloader(self) -> SFTLoader:
        return self.loaders["validation"]

    def test_dataloader(self) -> SFTLoader:
        return self.loaders["validation"]
