"""Stacked LoRA: K adapters over one base, applied in one forward (the heart of the engine).

A batch is arranged as K groups of rows, one group per active adapter. Each target linear computes the base product once
over all rows and adds the K low-rank terms by one batched product: y_k = W x_k + B_k A_k x_k.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from sipo_pl.engine.models.device_map import device_of
from sipo_pl.messages.errors import UserError, nearest


class LoRALinear(nn.Module):
    """A frozen linear layer with K low-rank adapters, some of whose ranks may be in training.

    The frozen ranks hold finished adapters with their scale folded into B, in the dtype of the base. The trained ranks
    stay in float32 and keep their scale apart, because it is part of how an optimizer's step acts.

    Args:
        base: the linear layer of the base model; frozen.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.frozen_A: Tensor | None
        self.frozen_B: Tensor | None
        self.register_buffer("frozen_A", None, persistent=False)
        self.register_buffer("frozen_B", None, persistent=False)
        self.lora_A: nn.Parameter | None = None
        self.lora_B: nn.Parameter | None = None
        self.scale, self.dropout = 1.0, 0.0
        self.trained_on = True
        self.active: tuple[Tensor, Tensor] | None = None  # the frozen adapters in use, where they are not all

    def forward(self, x: Tensor) -> Tensor:
        """Map (K * R, ..., in) to (K * R, ..., out), group k of the rows under active adapter k."""
        y = self.base(x)
        for a, b, scale, dropout in self._terms(y.dtype):
            seen = F.dropout(x, dropout) if dropout and self.training else x
            low = torch.bmm(seen.reshape(a.shape[0], -1, x.shape[-1]), a.mT)
            wide = y.reshape(a.shape[0], -1, y.shape[-1])
            add = torch.baddbmm if torch.is_grad_enabled() else torch.Tensor.baddbmm_  # a gradient needs y as it was
            y = add(wide, low, b.mT, alpha=scale).view(y.shape)
        return y

    def _terms(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, float, float]]:
        if self.frozen_A is not None and self.frozen_B is not None:
            yield *((self.frozen_A, self.frozen_B) if self.active is None else self.active), 1.0, 0.0
        if self.lora_A is not None and self.lora_B is not None and self.trained_on:
            # float32 in the optimizer, the base model's dtype in products
            yield self.lora_A.to(dtype), self.lora_B.to(dtype), self.scale, self.dropout

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of products; a base in four bits has one beside its weights'."""
        return getattr(self.base, "compute_dtype", None) or self.base.weight.dtype

    def activate(self, indices: Sequence[int] | None) -> None:
        """Use the frozen adapters `indices`, in their order; all where it is None."""
        self.active = None
        if indices is None or self.frozen_A is None or self.frozen_B is None:
            return
        if list(indices) != list(range(len(self.frozen_A))):
            self.active = (self.frozen_A[list(indices)], self.frozen_B[list(indices)])

    def stack(self, factors: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Set the frozen adapters from (A, B), shapes (r, in) and (out, r), scale in B; ranks pad to the largest."""
        rank = max(a.shape[0] for a, _ in factors)
        dtype, device = self.dtype, device_of(self.base)
        stacked_a = torch.zeros(len(factors), rank, self.base.in_features, dtype=dtype, device=device)
        stacked_b = torch.zeros(len(factors), self.base.out_features, rank, dtype=dtype, device=device)
        for k, (a, b) in enumerate(factors):
            stacked_a[k, : a.shape[0]] = a
            stacked_b[k, :, : b.shape[1]] = b
        self.frozen_A, self.frozen_B = stacked_a, stacked_b

    def train_ranks(self, rank: int, scale: float, generator: torch.Generator, dropout: float = 0.0) -> None:
        """Add `rank` trainable ranks, A Kaiming-uniform(a = sqrt 5), B zero, in float32.

        In training mode, a share `dropout` of their inputs is zero and the rest scaled up, as PEFT has it.
        """
        bound = self.base.in_features**-0.5  # Kaiming-uniform with a = sqrt 5 is uniform on +- 1 / sqrt(fan_in)
        # on the CPU, so that every device starts from the same numbers
        a = torch.empty(1, rank, self.base.in_features, device="cpu").uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(a.to(self.base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(1, self.base.out_features, rank).to(self.base.weight.device))
        self.scale, self.dropout = scale, dropout


class LoRAStack:
    """The LoRA layers of one model, by module name.

    Args:
        model: a causal language model of transformers; its target linears are replaced in place.
        targets: names of the linears, matched against the last part of a module's name, or full names.

    Raises:
        UserError: a target that no linear layer of the model matches.
    """

    def __init__(self, model: PreTrainedModel, targets: Sequence[str]) -> None:
        self.model = model
        linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        suffixes = {name.rpartition(".")[2] for name in linears}
        self.layers: dict[str, LoRALinear] = {}
        for target in targets:
            found = [name for name in linears if _matches(name, target)]
            if not found:
                raise UserError(
                    f"target module {target!r}: the base model has no such linear{nearest(target, suffixes)}"
                )
            for name in found:
                self.layers[name] = LoRALinear(linears[name])
        for name, layer in self.layers.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)

    def stack(self, adapters: Sequence[Mapping[str, tuple[Tensor, Tensor]]]) -> None:
        """Set the frozen adapters: per adapter, module name -> (A, B). A missing module has no effect (B = 0)."""
        for name, layer in self.layers.items():
            empty = (torch.zeros(1, layer.base.in_features), torch.zeros(layer.base.out_features, 1))
            layer.stack([adapter.get(name, empty) for adapter in adapters])

    def train_ranks(
        self, rank: int, alpha: float, seed: int, targets: Sequence[str] | None = None, dropout: float = 0.0
    ) -> None:
        """Add trainable ranks, scaled by alpha / rank, to the layers that `targets` match; to all where not given."""
        generator = torch.Generator("cpu").manual_seed(seed)
        for name, layer in self.layers.items():
            if targets is None or any(_matches(name, target) for target in targets):
                layer.train_ranks(rank, alpha / rank, generator, dropout)

    @property
    def trained(self) -> list[nn.Parameter]:
        """Return A, (1, r, in), and B, (1, out, r), of every layer in training."""
        ranks = [one for layer in self.layers.values() for one in (layer.lora_A, layer.lora_B)]
        return [one for one in ranks if one is not None]

    @property
    def moved(self) -> bool:
        """Return whether some B in training is no longer the zero that it starts from."""
        return any(bool(layer.lora_B.any()) for layer in self.layers.values() if layer.lora_B is not None)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the only frozen adapter to the base weights, and take the LoRA layers out of the model again."""
        for name, layer in self.layers.items():
            if layer.frozen_A is not None and layer.frozen_B is not None:
                (a,), (b,) = layer.frozen_A, layer.frozen_B
                layer.base.weight += (b @ a).to(layer.base.weight.dtype)
            parent, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(parent), child, layer.base)

    @contextlib.contextmanager
    def active(self, indices: Sequence[int]) -> Iterator[None]:
        """Within the block, the groups of a batch are the frozen adapters `indices`; then what they were before."""
        before = {name: layer.active for name, layer in self.layers.items()}
        for layer in self.layers.values():
            layer.activate(indices)
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.active = before[name]

    @contextlib.contextmanager
    def frozen(self, adapter: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
        """Within the block, this one adapter stands in the place of the frozen ones."""
        before = {name: (layer.frozen_A, layer.frozen_B) for name, layer in self.layers.items()}
        self.stack([adapter])
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.frozen_A, layer.frozen_B = before[name]

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Within the block, the ranks in training are off: the model is the reference."""
        for layer in self.layers.values():
            layer.trained_on = False
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.trained_on = True


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
