"""Alignments in one pass: the fits of several objectives whose forwards and backward passes are one.

Each fit is what it is alone, with its own trainer, batch plan, optimizer, schedule, checkpoints and folder. They take
turns, and meet where they compute losses: there the rows of all of them make one forward over the base that they share,
or, where they are short and on a GPU, one after another a CUDA graph each.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.logprobs.joined import Forward, joined_sums, twin
from sipo_pl.engine.models.loading import load_base
from sipo_pl.messages.errors import Stopped, UsageError, UserError
from sipo_pl.run.turns import Turn, take_turns
from sipo_pl.storage.stopping import Stopping
from sipo_pl.training.lora_fit import LoRAFit
from sipo_pl.training.preference import PreferenceModule

ONE_BY_ONE = "align: one_by_one in the recipe, or a command for each objective"


class Ask(NamedTuple):
    """What a fit asks for.

    Args:
        fit: who asks
        forwards: whose losses are to be summed
        training: whether the gradient is wanted
    """

    fit: LoRAFit
    forwards: Sequence[Forward]
    training: bool


class Together:
    """The fits of several objectives, on one device.

    Args:
        objectives: their names.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        self.objectives = objectives
        self.stopping: Stopping
        self._base: PreTrainedModel | None = None
        self._turns: dict[str, Turn] = {}
        self._layers: tuple[str, set[str]] | None = None
        self._all_run = True
        self._base_model: tuple[str, str] | None = None

    @property
    def size(self) -> int:
        return len(self.objectives)

    def check(self, fit: PreferenceModule) -> None:
        """Raise UsageError where a fit cannot train with the others, or would not train as it does alone.

        Called of each before any of them runs.
        """
        self.stopping = Stopping(fit.recipe.layout.run_dir)
        name = fit.objective.name
        if fit.lora.dropout:
            raise UsageError(f"model.lora.dropout: fits together would not drop as fits alone do ({ONE_BY_ONE})")
        if fit.recipe.compat.merged_reference and fit.first_adapter is not None:
            raise UsageError(f"compat.merged_reference: each objective has a base of its own ({ONE_BY_ONE})")
        self._base_model = self._base_model or (name, fit.base_model)
        other, base = self._base_model
        if fit.base_model != base:
            raise UsageError(
                f"base models of {other!r} and {name!r} differ: {base} and {fit.base_model} ({ONE_BY_ONE})"
            )

    def welcome(self, fit: PreferenceModule, trainer: Trainer) -> None:
        """Let a fit, which was checked, train with the others; raise UsageError where it has several devices."""
        if trainer.world_size > 1:
            raise UsageError(
                f"trainer.devices: alignments in one pass take one device, found {trainer.world_size} ({ONE_BY_ONE})"
            )
        fit.company = self

    def base(self, base_model: str, dtype: Literal["float32", "bfloat16"]) -> PreTrainedModel:
        """Return a base model of a fit's own whose weights all of them share."""
        if self._base is None:
            self._base = load_base(base_model, dtype)
        return twin(self._base)

    def run(self, works: Mapping[str, Callable[[], None]]) -> None:
        """Run the fits of the objectives until all have ended; see `turns.take_turns` for what it raises."""

        def begun(name: str, work: Callable[[], None]) -> Callable[[Turn], None]:
            def run(turn: Turn) -> None:
                self._turns[name] = turn
                try:
                    work()
                except Stopped as stop:
                    raise Stopped(f"{name}: {stop}") from None
                finally:
                    self._all_run = False

            return run

        take_turns([begun(*one) for one in works.items()], self._answer, lambda: self.stopping.listen("step"))

    def sum_of(self, fit: LoRAFit, forwards: Sequence[Forward]) -> Tensor:
        """Return the sum of the losses of a fit's forwards, computed with those of the others."""
        assert isinstance(fit, PreferenceModule)
        answer = self._turns[fit.objective.name].ask(Ask(fit, forwards, torch.is_grad_enabled()))
        assert isinstance(answer, Tensor)
        return answer

    def _answer(self, asked: Mapping[int, Ask]) -> dict[int, Tensor]:
        """Compute what fits ask for; those that validate come first, so that steps stay side by side."""
        training = all(one.training for one in asked.values())
        chosen = {number: one for number, one in asked.items() if one.training == training}
        fits = [one.fit for one in chosen.values()]
        self._check_layers(fits)
        trainer, device = fits[0].trainer, fits[0].device
        place: AbstractContextManager[Any] = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        with torch.set_grad_enabled(training), trainer.precision_plugin.forward_context(), place:
            if training and self._all_run and all(one.fit.replays(one.forwards) for one in chosen.values()):
                # one after another takes a GPU as long, and as graphs costs the CPU less than a pass of all; at once,
                # as a fit that ends takes workspaces along on which the others' graphs rest
                sums = [one.fit.own_sum(one.forwards, at_once=True) for one in chosen.values()]
            else:
                sums = joined_sums([fit.stack for fit in fits], [one.forwards for one in chosen.values()])
        return dict(zip(chosen, sums, strict=True))

    def _check_layers(self, fits: Sequence[LoRAFit]) -> None:
        """Raise UserError where the frozen adapters of two fits are on other layers."""
        for fit in fits:
            assert isinstance(fit, PreferenceModule)
            name, layers = fit.objective.name, set(fit.stack.layers)
            other, known = self._layers = self._layers or (name, layers)
            if layers != known:
                one = min(layers ^ known)
                raise UserError(
                    f"the adapters of {other!r} and {name!r} are on other layers, such as {one!r}: no pass can "
                    f"take both ({ONE_BY_ONE})"
                )
