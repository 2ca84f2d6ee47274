"""A reward model of several outputs, one for each objective, trained on the data's scores."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics.regression import PearsonCorrCoef
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from sipo_pl.data.datamodules.scored_data import ScoredBatch
from sipo_pl.engine.logprobs.response_logprobs import positions
from sipo_pl.engine.models.text_limit import TextLimit, text_limit
from sipo_pl.interop.numbers import NonNegativeFloat
from sipo_pl.interop.pretrained import read_config, read_weights
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.files import atomic_path
from sipo_pl.storage.model_hashes import resolve_base_model
from sipo_pl.text.token_batch import TokenBatch
from sipo_pl.text.tokenizers import load_tokenizer
from sipo_pl.training.fit import Fit


class RewardModel(Fit):
    """Trains all weights of a model and a linear head over its state at a text's last token.

    An output is a score in standard deviations from the mean of the training scores; the loss is the mean squared error
    over texts and objectives. The result is a sequence classifier whose logits are named for the objectives.

    Args:
        recipe: what the stages share
        optimizer: class_path and init_args of a torch optimizer
        warmup: share of the optimizer steps that warm up, before a cosine to zero
    """

    def __init__(self, recipe: Recipe, optimizer: OptimizerCallable, warmup: NonNegativeFloat = 0.1) -> None:
        super().__init__(recipe, optimizer, warmup)
        count = len(recipe.objectives)
        self.model: PreTrainedModel | None = None
        self.limit: TextLimit | None = None
        self.correlation = PearsonCorrCoef(num_outputs=count)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    @property
    def base_model(self) -> str:
        return self.recipe.base_model

    def configure_model(self) -> None:
        """Load the base with a new head of one logit an objective."""
        if self.model is not None:
            return
        torch.manual_seed(self.recipe.seed)  # the head is drawn
        names = dict(enumerate(self.recipe.objective_names))
        folder, label = resolve_base_model(self.base_model), f"base_model {self.base_model!r}"
        config = read_config(folder, label)
        config.id2label, config.label2id = names, {name: index for index, name in names.items()}
        model = read_weights(
            AutoModelForSequenceClassification,
            folder,
            label,
            config=config,
            made=("score.",),
            unused=("lm_head.",),
            dtype=torch.float32,
        )
        if not isinstance(getattr(model, "score", None), torch.nn.Linear):
            raise UserError(f"base_model {self.base_model!r}: {type(model).__name__} has no linear layer `score`")
        self.model, self.limit = model, text_limit(model)

    def on_fit_start(self) -> None:
        """Take the scale of the scores from the training split."""
        rows = self.trainer.datamodule.loaders["train"].rows  # type: ignore[attr-defined]
        scores = torch.tensor([row.scores for row in rows])
        self.mean.copy_(scores.mean(dim=0))
        spread = scores.std(dim=0, unbiased=False)
        self.deviation.copy_(torch.where(spread > 0, spread, 1.0))

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Return the outputs of texts, (rows, objectives), float32."""
        assert self.model is not None
        if self.limit:
            self.limit.check(tokens.input_ids.shape[1], "a prompt with its response (data.max_length leaves it out)")
        hidden = self.model.base_model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            position_ids=positions(tokens.attention_mask),
            use_cache=False,
        ).last_hidden_state
        last = tokens.attention_mask.sum(dim=1) - 1
        head: torch.nn.Module = self.model.get_submodule("score")
        outputs: Tensor = head(hidden[torch.arange(len(last), device=last.device), last])
        return outputs.float()

    def _errors(self, batch: ScoredBatch) -> tuple[Tensor, Tensor]:
        """Return outputs and squared errors, both (rows, objectives)."""
        outputs = self(batch.tokens)
        return outputs, F.mse_loss(outputs, (batch.scores - self.mean) / self.deviation, reduction="none")

    def training_step(self, batch: ScoredBatch, batch_idx: int) -> Tensor:
        errors = self._errors(batch)[1].mean(dim=1)
        self.log_means({"loss": errors.sum()}, len(errors), batch, "")
        return errors.sum() * self.share_of_step(batch, batch.step_rows)

    def validation_step(self, batch: ScoredBatch, batch_idx: int) -> None:
        outputs, errors = self._errors(batch)
        if not batch.spare:
            self.correlation.update(outputs, batch.scores)
        self.log_means({"loss": errors.mean(dim=1).sum()}, len(outputs), batch, "val/")

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        found = self.correlation.compute().reshape(-1)
        self.correlation.reset()
        for name, value in zip(self.recipe.objective_names, found, strict=True):
            self.log(f"val/correlation/{name}", value)

    @property
    def recipe_keys(self) -> dict[str, Any]:
        # beta, divergence and template have no part in it
        unused = ("beta", "divergence", "template")
        return {key: value for key, value in super().recipe_keys.items() if key not in unused}

    def write(self, folder: Path) -> list[Path]:
        assert self.model is not None
        # a padding token at the end of a text would be taken for padding, see `ClassifierScorer.pad_token`
        self.model.config.pad_token_id = None
        with atomic_path(folder / "model") as aside:
            self.model.save_pretrained(aside)
            load_tokenizer(self.base_model).save_pretrained(aside)
        return [folder / "model"]
