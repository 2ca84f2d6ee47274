"""How near one model for a weight comes to fusing the policies at it, measured on a run's test prompts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sipo_pl.engine.decoding.distance import Distance, distances
from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.lora.adapters import Factors
from sipo_pl.engine.lora.policies import Policy, stack_policies
from sipo_pl.messages.progress import Progress
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.text.templates import Encoded, PromptTemplate
from sipo_pl.use.source import Source

log = logging.getLogger("sipo_pl")


@dataclass(frozen=True)
class Fidelity:
    """Distances from the fusion, along its own greedy answers.

    Args:
        prompts: how many test prompts were answered
        models: name of a model -> its distance; single policies and the base model are there for comparison
    """

    prompts: int
    models: dict[str, Distance]


def measure(
    source: Source,
    recipe: Recipe,
    template: PromptTemplate,
    weights: Sequence[float],
    models: dict[str, Factors],
    *,
    prompts: int,
    max_new_tokens: int,
) -> Fidelity | None:
    """Answer test prompts by fusion, and compare models with it at every token.

    Args:
        source: the policies.
        recipe: the run's, which knows the test prompts.
        template: puts prompts to the policies.
        weights: of the fusion.
        models: name -> an adapter over the policies' base model.
        prompts: test prompts at most; zero measures nothing.
        max_new_tokens: longest answer.

    Returns:
        The distances; none where there are no test prompts, or none is asked for.
    """
    path = recipe.layout.test_prompts
    rows = read_jsonl(path, ["prompt"])[:prompts] if path.exists() else []
    if not rows:
        return None
    base = source.base_models[0]
    policies = stack_policies([*source.policies, *(Policy(base, factors) for factors in models.values())], source.dtype)
    for stack in policies.stacks:
        stack.model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    names = [*(f"policy {name} alone" for name in source.names), *models, "base model"]
    groups = range(len(names)) if len(source.base_models) == 1 else range(len(names) - 1)
    requests = [
        Request(str(index), tuple(template.prompt_ids(row["prompt"])), tuple(weights)) for index, row in enumerate(rows)
    ]
    decoding = Decoding(max_length=source.decoding.max_length, max_new_tokens=max_new_tokens, batch_rows=None)
    with Progress("distance from fusion", len(requests), "prompts") as progress:
        made = generate(
            policies, requests, decoding, source.divergence, template.end_ids, source.seed, progress.advance
        )
    answers = [
        Encoded([*request.prompt_ids, *one.whole], len(request.prompt_ids))
        for request, one in zip(requests, made, strict=True)
        if one.whole
    ]
    if not answers:
        return None
    found = distances(policies, weights, source.divergence, groups, answers)
    return Fidelity(len(answers), dict(zip((names[group] for group in groups), found, strict=True)))
