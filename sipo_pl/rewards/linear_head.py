"""Reward models whose class transformers does not have: a decoder and one linear layer, mapped by hand."""

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from sipo_pl.engine.models.files import read_tensor, tensor_files
from sipo_pl.interop.pretrained import read_weights
from sipo_pl.messages.errors import UserError
from sipo_pl.rewards.scorer import Scorer

DECODER_PREFIX = "model."


class LinearHeadScorer(Scorer):
    """A linear layer over the decoder's state at the last token of a text; outputs in float32."""

    model_type: str
    head: str | None = None  # name of the layer; whatever is there beside the decoder where None
    ignored: tuple[str, ...] = ("lm_head.weight",)  # tensors beside the decoder that are no part of the layer

    @property
    @abstractmethod
    def labels(self) -> int:
        """Return how many outputs the layer has by the config."""

    def check_checkpoint(self, folder: Path) -> None:
        if self.config.model_type != self.model_type:
            raise UserError(
                f"model {self.settings.model!r}: expected a {self.model_type} model, found {self.config.model_type}"
            )
        if names := list(tensor_files(folder)):
            self.head_names(names)

    def head_names(self, names: list[str]) -> tuple[str, str | None]:
        """Return the names of the layer's weight and bias among a checkpoint's tensors.

        Raises:
            UserError: no layer, or more than one.
        """
        beside = sorted(name for name in names if not name.startswith((DECODER_PREFIX, *self.ignored)))
        heads = {name.rpartition(".")[0] for name in beside}
        head = self.head or (next(iter(heads)) if len(heads) == 1 else None)
        if head is None or f"{head}.weight" not in beside or set(beside) - {f"{head}.weight", f"{head}.bias"}:
            found = ", ".join(beside[:4]) or "none"
            expected = f"{self.head}.weight" if self.head else "one linear layer"
            raise UserError(f"model {self.settings.model!r}: expected {expected} beside the decoder, found {found}")
        return f"{head}.weight", f"{head}.bias" if f"{head}.bias" in beside else None

    def load_model(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        weight, bias = self.head_names(list(tensor_files(folder)))
        self.weight = read_tensor(folder, weight).to(dtype)
        self.bias = read_tensor(folder, bias).to(dtype) if bias else None
        expected = (self.labels, self.config.hidden_size)
        if tuple(self.weight.shape) != expected:
            raise UserError(
                f"model {self.settings.model!r}: {weight} has the shape {tuple(self.weight.shape)}, expected {expected}"
            )
        beside = (weight, *((bias,) if bias else ()), *self.ignored)
        return read_weights(AutoModel, folder, self.label, config=self.config, unused=beside, dtype=dtype)

    def load(self) -> None:
        super().load()
        self.weight = self.weight.to(self.device)
        self.bias = self.bias.to(self.device) if self.bias is not None else None

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        assert self.model is not None
        states = self.model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = states[torch.arange(len(states), device=states.device), mask.sum(-1) - 1]
        return self.normalize(torch.nn.functional.linear(last, self.weight, self.bias).float())

    def normalize(self, outputs: Tensor) -> Tensor:
        """Return what the model's own scale makes of the outputs; here the outputs."""
        return outputs
