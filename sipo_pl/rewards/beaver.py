"""The reward and cost models of Safe RLHF (Beaver, arXiv 2310.12773)."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.models.files import read_tensor, tensor_files
from sipo_pl.interop.numbers import IntFromTwo
from sipo_pl.messages.errors import UserError
from sipo_pl.rewards.linear_head import LinearHeadScorer
from sipo_pl.rewards.model_reward import ModelReward
from sipo_pl.rewards.scorer import ScorerSettings

TEMPLATE = "BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{response}"
_EPSILON = 1e-8  # added to the standard deviation, as in their code


class BeaverReward(ModelReward):
    """How helpful a response is, by a reward model.

    Args:
        model: folder or hub name; the released one where not given
        template: text with {prompt} and {response}, to which no EOS is added
        dtype: dtype of the model: float32, bfloat16 or float16
        device: where it runs; the accelerator where there is one, if not given
        batch_tokens: tokens of one forward at most, padding included
        max_length: longest text in tokens; longer ones are cut in front, behind their first token, and counted in a
            warning; the model's positions where not given
    """

    released: ClassVar[str] = "PKU-Alignment/beaver-7b-v1.0-reward"
    score_type: ClassVar[str] = "reward"
    sign: ClassVar[float] = 1.0

    def __init__(
        self,
        model: str | None = None,
        template: str = TEMPLATE,
        dtype: str = "bfloat16",
        device: str | None = None,
        batch_tokens: IntFromTwo = 8192,
        max_length: IntFromTwo | None = None,
    ) -> None:
        name = model or self.released
        settings = ScorerSettings(name, template, "template", dtype, device, batch_tokens, max_length)
        super().__init__(BeaverScorer, settings, self.sign)

    def output_index(self, config: Any) -> int:
        found = getattr(config, "score_type", "reward")
        if found != self.score_type:
            raise UserError(
                f"model {self.settings.model!r}: a {found} model by its config (score_type), "
                f"{type(self).__name__} asks for a {self.score_type} model"
            )
        return 0


class BeaverCost(BeaverReward):
    """How safe a response is, by a cost model: minus the cost, as safer responses cost less. Arguments as above."""

    released = "PKU-Alignment/beaver-7b-v1.0-cost"
    score_type = "cost"
    sign = -1.0


class BeaverScorer(LinearHeadScorer):
    """One output of a Llama model, normalised where its config says do_normalize.

    A reward is (x - mean) / std, a cost x / std. Mean and variance are tensors of the checkpoint, or else keys of the
    config, or else 0 and 1.
    """

    model_type = "llama"
    head = "score_head"
    ignored = ("lm_head.weight", "normalizer.")

    @property
    def labels(self) -> int:
        return int(getattr(self.config, "score_dim", 1))

    def check_checkpoint(self, folder: Path) -> None:
        super().check_checkpoint(folder)
        if self.labels != 1:
            raise UserError(f"model {self.settings.model!r}: expected score_dim 1 in its config, found {self.labels}")

    def load_model(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        self.mean, self.variance = self._statistic(folder, "mean", 0.0), self._statistic(folder, "var", 1.0)
        return super().load_model(folder, dtype)

    def _statistic(self, folder: Path, name: str, default: float) -> float:
        tensor = f"normalizer.{name}"
        if tensor in tensor_files(folder):
            return read_tensor(folder, tensor).float().item()
        value = getattr(self.config, name, None)
        return default if value is None else float(torch.as_tensor(value).reshape(()))

    def normalize(self, outputs: Tensor) -> Tensor:
        if not getattr(self.config, "do_normalize", False):
            return outputs
        mean = self.mean if getattr(self.config, "score_type", "reward") == "reward" else 0.0
        return (outputs - mean) / (self.variance**0.5 + _EPSILON)
