"""The policies of a problem: adapters over one base model, or over a base model of each policy's own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedModel

from sipo_pl.engine.lora.adapters import Factors, check_fit, interpolate, read_adapter
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.memory_budget import MemoryBudget
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.engine.models.loading import load_base
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Objective, PolicyStage, Recipe
from sipo_pl.registry import command_of

BASE: Factors = {}  # an adapter without effect


class Policy(NamedTuple):
    """An adapter and the base model below it.

    Args:
        base_model: folder or hub name
        factors: the adapter; `BASE` is the base model itself
        source: folder of the adapter, against which it is checked; none for what is made of checked ones
    """

    base_model: str
    factors: Factors
    source: Path | None = None


class GroupPlace(NamedTuple):
    """Where a group lives.

    Args:
        stack: index of its stack
        adapter: index of its adapter there
        reference: the group that is its base model alone
    """

    stack: int
    adapter: int
    reference: int


class PolicySet:
    """Adapter groups over one or several base models.

    Args:
        stacks: frozen adapters over each base model.
        places: one for each group.
    """

    def __init__(self, stacks: Sequence[LoRAStack], places: Sequence[GroupPlace]) -> None:
        self.stacks, self.places = stacks, places
        self.memory_budget = MemoryBudget()  # what fits into memory at once

    def common_reference(self, groups: Sequence[int]) -> int:
        """Return the group that is the base model of all `groups`.

        Raises:
            UserError: policies over base models of their own, which have no reference in common.
        """
        references = {self.places[group].reference for group in groups}
        if len(references) != 1:
            raise UserError("policies over base models of their own have no reference in common to be fused with")
        return references.pop()

    @contextmanager
    def active(self, groups: Sequence[int]) -> Iterator[GroupedForward]:
        """Within the block, the forward that is handed out runs `groups`, in their order."""
        used = sorted({self.places[group].stack for group in groups})
        with ExitStack() as held:
            for index in used:
                adapters = [self.places[group].adapter for group in groups if self.places[group].stack == index]
                held.enter_context(self.stacks[index].active(adapters))
            owners = [used.index(self.places[group].stack) for group in groups]
            yield GroupedForward([self.stacks[index].model for index in used], owners)


def policy_input(recipe: Recipe, stage: PolicyStage, objective: Objective) -> tuple[Path, str]:
    """Return the folder of an objective's policy, see `RunLayout.adapter`, and the command that makes it."""
    if stage == "align" and recipe.round > 1:
        command = command_of("realign", objective.name, recipe.round - 1)
    elif stage == "realign":
        command = command_of("realign", objective.name, recipe.round)
    else:
        command = command_of("align", objective.name)
    return recipe.layout.adapter(stage, objective), command


def read_policies(recipe: Recipe, stage: PolicyStage, *, checked: bool = True) -> list[Policy]:
    """Read the adapters of all objectives after `stage`, in the objectives' order.

    Args:
        recipe: names the objectives, and their base models.
        stage: whose adapters.
        checked: hold them against the stages that made them, see `made_over.check_adapter`.
    """
    policies = []
    for objective in recipe.objectives:
        folder, base = recipe.layout.adapter(stage, objective), recipe.base_of(objective, stage)
        policies.append(Policy(base, read_adapter(folder, base if checked else None).factors, folder))
    return policies


def interpolated_policies(policies: Sequence[Policy], points: Sequence[Sequence[float]]) -> list[Policy]:
    """Return the policies interpolated in weight space at every point, in their order, see `adapters.interpolate`.

    Raises:
        UserError: policies over several base models, or of other ranks or modules.
    """
    if points and len({policy.base_model for policy in policies}) > 1:
        raise UserError("policies over base models of their own cannot be interpolated")
    adapters = [policy.factors for policy in policies]
    return [Policy(policies[0].base_model, interpolate(adapters, point)) for point in points]


def load_policies(recipe: Recipe, policies: Sequence[Policy], with_base: bool) -> PolicySet:
    """Load each base model of `policies` once, and stack over it the policies that belong to it; see `stack_policies`.

    Args:
        recipe: names the base model and the dtype.
        policies: in the order of the groups.
        with_base: load the recipe's base model though no policy may be over it.
    """
    used = {policy.base_model for policy in policies}
    first = [recipe.policy_base] if with_base or recipe.policy_base in used else []
    placing = {"quantize": recipe.quantize, "device_map": recipe.device_map}
    found = stack_policies(policies, recipe.dtype, first, placing)
    if recipe.compile and torch.cuda.is_available():
        for stack in found.stacks:
            compile_layers(stack.model)
    return found


def stack_policies(
    policies: Sequence[Policy],
    dtype: Literal["float32", "bfloat16"],
    bases: Sequence[str] = (),
    placing: Mapping[str, Any] | None = None,
) -> PolicySet:
    """Load base models and stack the policies over them.

    The groups are the policies in their order, then the base models alone.

    Args:
        policies: in the order of the groups.
        dtype: of the base models.
        bases: base models to be loaded before those of the policies.
        placing: further arguments of `load_base`.

    Raises:
        UserError: an adapter that does not fit its base model, or base models of other sizes than the first.
    """
    bases = list(dict.fromkeys([*bases, *(policy.base_model for policy in policies)]))
    groups = [*policies, *(Policy(base, BASE) for base in bases)]
    stacks = []
    for base in bases:
        model = load_base(base, dtype, **(placing or {}))
        stacks.append(_stack([one for one in groups if one.base_model == base], model))
    _check_alike(bases, stacks)
    filled = [0] * len(bases)
    places = []
    for group in groups:
        stack = bases.index(group.base_model)
        places.append(GroupPlace(stack, filled[stack], reference=len(policies) + stack))
        filled[stack] += 1
    return PolicySet(stacks, places)


def _stack(groups: Sequence[Policy], model: PreTrainedModel) -> LoRAStack:
    for group in groups:
        if group.source is not None:
            check_fit(group.source, group.factors, model)
    stack = LoRAStack(model, sorted({name for group in groups for name in group.factors}))
    stack.stack([group.factors for group in groups])
    return stack


def _check_alike(bases: Sequence[str], stacks: Sequence[LoRAStack]) -> None:
    sizes = [tuple(stack.model.get_output_embeddings().weight.shape) for stack in stacks]
    for base, size in zip(bases, sizes, strict=True):
        if size != sizes[0]:
            raise UserError(
                f"base_model {base!r}: vocabulary and width are {size}, those of {bases[0]!r} are {sizes[0]}; policies "
                "that are fused share both"
            )
