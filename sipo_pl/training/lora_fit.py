"""What fits of adapters share: LoRA ranks in training over a frozen base, and their checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.logprobs.chunked_backward import summed_over
from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps
from sipo_pl.engine.logprobs.packed_sequences import packed_length
from sipo_pl.engine.logprobs.token_budget import tokens_at_once
from sipo_pl.engine.lora.adapters import Factors, check_fit, concatenate, read_adapter, trained_factors, write_adapter
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.activation_checkpointing import checkpoint_layers
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.engine.models.loading import load_base
from sipo_pl.engine.models.text_limit import text_limit
from sipo_pl.engine.models.zero3 import is_divided
from sipo_pl.interop.numbers import PositiveFloat, PositiveInt, ShareBelowOne
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.seeds import seed_of
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.text.templates import Encoded
from sipo_pl.training.fit import Fit, FitBatch
from sipo_pl.training.zero import trained_state


@dataclass
class LoRASettings:
    """Low-rank adapters in training.

    Args:
        r: rank
        alpha: scale of the adapter times its rank
        targets: linear layers that are adapted, by the last part of their name
        dropout: share of an adapted layer's inputs that the ranks in training do not see, seeded by epoch and rows
    """

    r: PositiveInt = 64
    alpha: PositiveFloat = 1.0
    targets: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"])
    dropout: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model.lora.dropout: {self.dropout:g} is not in [0, 1)")


@dataclass
class Forwards:
    """How the forwards of a fit are computed; losses and gradients are the same.

    Args:
        batch_tokens: tokens of one forward, a shared prompt counted once; a micro-batch with more takes several, with
            the same losses and gradients; a pair that is longer is an error; as suits the device where not given
        checkpointing: compute each layer again in the backward pass instead of keeping its states: less memory, more
            time
        graphs: on a GPU, replay short forwards and their backward passes as CUDA graphs, so that their kernels are
            launched at once; what cannot be captured is computed as ever
    """

    batch_tokens: PositiveInt | None = None
    checkpointing: bool = False
    graphs: bool = True


class LoRAFit(Fit):
    """Trains LoRA ranks over a frozen base, on top of a frozen adapter where there is one.

    Args:
        recipe: what the stages share
        optimizer: class_path and init_args of a torch optimizer
        lora: the ranks in training
        warmup: share of the optimizer steps that warm up, before a cosine to zero
        forwards: how the forwards are computed
    """

    def __init__(
        self, recipe: Recipe, optimizer: OptimizerCallable, lora: LoRASettings, warmup: float, forwards: Forwards
    ) -> None:
        super().__init__(recipe, optimizer, warmup)
        self.strict_loading = False  # checkpoints hold the ranks in training and nothing of the base
        self.lora, self.forwards = lora, forwards
        self.model: torch.nn.Module | None = None
        self.stack: LoRAStack

    @property
    def first_adapter(self) -> Path | None:
        """Return the folder of the frozen adapter under the ranks in training, where there is one."""
        return None

    def configure_model(self) -> None:
        """Load the base, stack the frozen adapter, add the ranks in training."""
        if self.model is not None:
            return
        model, first = self.load_frozen()
        self.stack = LoRAStack(model, sorted({*self.lora.targets, *first, *self.other_layers(model)}))
        if first:
            self.stack.stack([first])
        lora = self.lora
        self.stack.train_ranks(lora.r, lora.alpha, self.recipe.round_seed, lora.targets, dropout=lora.dropout)
        if self.forwards.checkpointing:
            checkpoint_layers(model)
        if self.recipe.compile and torch.cuda.is_available():
            compile_layers(model)
        self.model = model
        if self.restart_from:
            self.take_over(trained_state(self.restart_from))

    @property
    def is_sharded(self) -> bool:
        """Return whether each device holds a part of the weights alone, as under ZeRO-3."""
        return is_divided(self.parameters())

    def packed_logps(self, rows: Sequence[Encoded]) -> Tensor:
        """Return log pi(response | prompt) of rows, (rows,), float32, in one forward."""
        return self._logps(rows, self.device)

    @cached_property
    def _logps(self) -> AdapterLogps:
        # the states of a replayed forward last for one backward pass
        return AdapterLogps(self.stack, self.forwards.graphs and self.backwards_per_batch == 1)

    def budget(self) -> int | None:
        """Return the tokens of one forward; None where all of a micro-batch must be in one."""
        if self.is_sharded:
            return None  # ZeRO-3 knows gradients of one backward pass alone
        return self.forwards.batch_tokens or tokens_at_once(self.stack.model, self.forwards.checkpointing)

    def check_budget(self, rows: Mapping[str, Sequence[Encoded]]) -> None:
        """Raise UserError where a pair or a row, by its id, is longer than the model or the config's budget takes."""
        budget, limit = self.forwards.batch_tokens, text_limit(self.stack.model)
        for name, together in rows.items():
            if limit:
                limit.check(max(len(row.input_ids) for row in together), f"{name} (data.max_length leaves it out)")
            if budget and (length := packed_length(together)) > budget:
                raise UserError(
                    f"model.forwards.batch_tokens: {name} takes {length} tokens, more than the {budget} of a forward; "
                    "a larger budget holds it, and a smaller data.max_length leaves it out"
                )

    def sum_of(self, losses: Sequence[Callable[[], Tensor]]) -> Tensor:
        """Return the sum of the losses of several forwards, each differentiated before the next one begins."""
        # to touch divided ranks outside of their layers would gather them, at times and not at others
        return summed_over(losses, [] if self.is_sharded else self.stack.trained)

    def load_frozen(self) -> tuple[PreTrainedModel, Factors]:
        """Return the frozen model under the ranks in training, and the frozen adapter that is stacked over it."""
        first = read_adapter(self.first_adapter, self.base_model).factors if self.first_adapter else {}
        model = load_base(self.base_model, self.recipe.dtype, quantize=self.recipe.quantize)
        if self.first_adapter:
            check_fit(self.first_adapter, first, model)
        return model, first

    def other_layers(self, model: PreTrainedModel) -> set[str]:
        """Return the names of layers that adapters need which take the frozen one's place at times."""
        return set()

    def on_train_batch_start(self, batch: FitBatch, batch_idx: int) -> None:
        """Seed the dropout by epoch and rows, so that a fit that was resumed drops the same."""
        if self.lora.dropout:
            torch.manual_seed(seed_of(self.recipe.seed, f"dropout {self.current_epoch} {batch.row_ids}"))

    def take_over(self, state: Mapping[str, Tensor]) -> None:
        """Make trained ranks, by their names in checkpoints, those of the module, whole where it was divided.

        Raises:
            UserError: a tensor is missing, or has another shape than the base model's layer and the rank ask for.
        """
        if not self.is_sharded:
            super().take_over(state)
            return
        for layer_name, layer in self.stack.layers.items():
            (prefix,) = (name for name, module in self.named_modules() if module is layer)
            shapes = {"A": (1, self.lora.r, layer.base.in_features), "B": (1, layer.base.out_features, self.lora.r)}
            for matrix, shape in shapes.items() if layer.lora_A is not None else ():
                value = state.get(f"{prefix}.lora_{matrix}")
                if value is None or tuple(value.shape) != shape:
                    found = "nothing" if value is None else f"shape {tuple(value.shape)}"
                    raise UserError(f"lora_{matrix} of {layer_name}: expected shape {shape}, found {found}")
                setattr(layer, f"lora_{matrix}", torch.nn.Parameter(value))

    def adapter(self) -> Factors:
        """Return the trained policy as one adapter on the base model; it holds the frozen ranks too."""
        trained = trained_factors(self.stack)
        return concatenate(read_adapter(self.first_adapter).factors, trained) if self.first_adapter else trained

    def write(self, folder: Path) -> list[Path]:
        write_adapter(folder / "adapter", self.adapter(), base_model=self.base_model)
        return [folder / "adapter"]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the ranks in training only."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if name in trained}
