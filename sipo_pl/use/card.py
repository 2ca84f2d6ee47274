"""The model card of an exported folder: the hub's metadata, how to load it, what was measured."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sipo_pl.engine.models.merge import Drift
from sipo_pl.recipe.data import HUB_PREFIX
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.report.cells import BASE
from sipo_pl.report.plain_tables import markdown_code, markdown_text
from sipo_pl.use.card_code import code
from sipo_pl.use.fidelity import Fidelity
from sipo_pl.use.scores import Scores
from sipo_pl.use.source import Source

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PAPER = "[Li et al., Findings of ACL 2025](https://aclanthology.org/2025.findings-acl.574)"
_KIND = {
    "interpolated": "One LoRA adapter whose factors are the weighted means of the policies' factors "
    "(A = Σ wᵢAᵢ, B = Σ wᵢBᵢ; rewarded soups). It has the rank of one policy, and its effect differs from the weighted "
    "sum of the policies' effects by cross terms.",
    "sum": "One LoRA adapter of concatenated ranks, whose effect is the weighted sum of the policies' effects exactly "
    "(Σ wᵢBᵢAᵢ). Its rank is the sum of theirs.",
    "merged": "A whole model: the base with the weighted sum of the policies' effects (Σ wᵢBᵢAᵢ) merged into it.",
    "policies": "The policies themselves, one LoRA adapter each, and `fusion.json`, which says how to fuse them while "
    "decoding. This is the method's own model of a weight; the weights may be changed without any export.",
}
_SHOWN = {"interpolated": "interpolated", "sum": "sum", "merged": "sum"}


@dataclass(frozen=True)
class Card:
    """What a card tells.

    Args:
        kind: of the folder
        source: the policies of a run
        weights: one for each objective
        base_name: what the base model is called
        scores: what the run's evaluation measured
        fidelity: distances from fusion
        drift: what merging did
        other_tokens: test prompts that the chat template turns into other tokens than the run did
        end_ids: tokens of which any ends an answer
    """

    kind: str
    source: Source
    weights: tuple[float, ...]
    base_name: str
    scores: Scores | None
    fidelity: Fidelity | None
    drift: Drift | None
    other_tokens: int
    end_ids: list[int]


def card(told: Card) -> str:
    """Return the text of a README.md with the hub's metadata at its top."""
    assert told.source.recipe is not None
    recipe, kept = told.source.recipe
    at = weights_text(told)
    body = [
        f"# {markdown_text(f'{recipe.name}: {at}')}",
        f"{_KIND[told.kind]}",
        f"The policies were aligned with SIPO ({_PAPER}), one for each objective, "
        + ("and re-aligned on Pareto-better answers." if kept == "realign" else "without re-alignment."),
        _facts(told, recipe),
        "## Use",
        *code(told.kind, told.source, told.weights, _short_base(told.base_name), told.end_ids),
        "## How near it is to fusion",
        *_fidelity(told),
        "## Scores",
        *_scores(told, recipe),
        "## Limits",
        "The scores are means over the run's test prompts under the rewards named above, and say nothing of other "
        "uses. Rewards often follow length: compare the words as well.",
    ]
    metadata = yaml.safe_dump(_metadata(told, recipe), sort_keys=False, allow_unicode=True)
    return f"---\n{metadata}---\n\n" + "\n\n".join(body) + "\n"


def weights_text(told: Card) -> str:
    """Return the weights as they are written on the command line."""
    return ",".join(f"{name}={weight:g}" for name, weight in zip(told.source.names, told.weights, strict=True))


def _metadata(told: Card, recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if is_hub_name(told.base_name):
        values["base_model"] = told.base_name
        values["base_model_relation"] = "finetune" if told.kind == "merged" else "adapter"
    if datasets := sorted(_hub_data(recipe.data.sources().values())):
        values["datasets"] = datasets
    values["library_name"] = "transformers" if told.kind == "merged" else "peft"
    values["pipeline_tag"] = "text-generation"
    values["tags"] = ["sipo", "multi-objective-alignment", "dpo", *([] if told.kind == "merged" else ["lora"])]
    return values


def is_hub_name(name: str) -> bool:
    """Return whether a base model is called as on the hub, owner/name."""
    return bool(_HUB_NAME.fullmatch(name)) and not Path(name).is_dir()


def _hub_data(sources: Iterable[str]) -> set[str]:
    names = (source.removeprefix(HUB_PREFIX).partition(":")[0] for source in sources if source.startswith(HUB_PREFIX))
    return {"/".join(name.split("/")[:2]) for name in names}


def _short_base(name: str) -> str:
    return name if is_hub_name(name) else "PATH_OF_THE_BASE_MODEL"


def _facts(told: Card, recipe: Recipe) -> str:
    source = told.source
    base = (
        markdown_text(told.base_name)
        if is_hub_name(told.base_name)
        else f"{markdown_code(Path(told.base_name).name)}, a local model"
    )
    lines = [f"- Base model: {base}" + (", fine-tuned by the run" if recipe.runs("sft") else "")]
    for one in recipe.objectives:
        phrase = f" ({one.phrase})" if one.phrase else ""
        reward = "implicit reward of its first policy"
        if one.reward:
            reward = markdown_code(str(one.reward["class_path"]).rpartition(".")[2])
        lines.append(f"- Objective {markdown_text(one.name + phrase)}; its score below: {reward}")
    names = _hub_data(recipe.data.sources().values())
    lines.append(f"- Data: {markdown_text(', '.join(sorted(names))) or 'own files'}")
    lines.append(f"- Fusion rule: {type(source.divergence).__name__}; dtype {source.dtype}; seed {recipe.seed}")
    lines.append(f"- Prompt template: {source.template.kind}, in `chat_template.jinja` for other tools")
    if told.other_tokens:
        lines.append(
            f"- The chat template gives other tokens than the run's own for {told.other_tokens} of its test prompts"
        )
    if told.drift is not None:
        lines.append(f"- Merging: {told.drift}")
    return "\n".join(lines)


def _fidelity(told: Card) -> list[str]:
    found = told.fidelity
    if found is None:
        return ["Not measured: there were no test prompts, or none was asked for."]
    mine = _SHOWN.get(told.kind)
    if mine is None:
        intro = (
            "This folder is fusion itself. One model in its place is farther away, and a policy alone farther still:"
        )
    else:
        one = found.models[mine]
        intro = (
            f"KL from fusion {one.kl:.4g} nats a token, and the same likeliest token at {one.agreement:.1%}. "
            "For comparison:"
        )
    tokens = next(iter(found.models.values())).tokens
    lines = ["| model | mean KL(fused ‖ model), nats a token | same likeliest token |", "|---|---|---|"]
    for name, distance in found.models.items():
        name = f"**{name}**" if name == mine else markdown_text(name)
        lines.append(f"| {name} | {distance.kl:.4g} | {distance.agreement:.1%} |")
    where = f"Along the fused policies' own greedy answers to {found.prompts} test prompts, {tokens} tokens."
    return [intro, "\n".join(lines), where]


def _scores(told: Card, recipe: Recipe) -> list[str]:
    scores = told.scores
    if scores is None:
        return ["The run holds no evaluation of these policies."]
    names = [markdown_text(name) for name in recipe.objective_names]
    lines = [f"| weights ({', '.join(names)}) | {' | '.join(names)} | words |", "|---" * (len(names) + 2) + "|"]
    for point, means in scores.rows.items():
        name = "base model" if point == BASE else point
        name = f"**{name}**" if point == scores.chosen else name
        lines.append(f"| {name} | {' | '.join(f'{mean:.4g}' for mean in means)} | {scores.words[point]:.1f} |")
    here = "These weights are in bold." if scores.chosen else "These weights were not evaluated; their neighbours were."
    what = f"Means over {scores.prompts} test prompts, answered by fusion. {here}"
    if told.kind != "policies":
        what += " The model in this folder was not evaluated itself."
    return ["\n".join(lines), what]
