"""Policies over base models of their own. One base model for all is tested in test_adapters.py."""

from pathlib import Path

import pytest
import torch
from fused import DIVERGENCES, fused_scores, greedy
from peft import PeftModel
from tiny import make_tiny_adapter, make_tiny_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.lora.policies import PolicySet, load_policies, read_policies
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Data, Objective, Recipe

GENERATOR = torch.Generator().manual_seed(2)
PROMPTS = [tuple(torch.randint(4, 250, (n,), generator=GENERATOR).tolist()) for n in (5, 12, 3)]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("other") / "model", seed=7, spread=0.3)


@pytest.fixture(scope="module")
def recipe(lively_model: Path, other_model: Path, adapter_folders: list[Path]) -> Recipe:
    """Three policies, the second of which has a base of its own, so that the groups of the first base are apart."""
    own = [None, str(other_model), None]
    objectives = [
        Objective(f"o{index}", adapter=str(folder), base_model=base)
        for index, (folder, base) in enumerate(zip(adapter_folders, own, strict=True))
    ]
    return Recipe("t", str(lively_model), objectives, Data([], []))


@pytest.fixture(scope="module")
def policies(recipe: Recipe) -> PolicySet:
    return load_policies(recipe, read_policies(recipe, "align"), with_base=False)


def decode(policies: PolicySet, rows: list[Request], name: str = "forward KL", **settings: float) -> list[Generated]:
    decoding = Decoding(**{"max_new_tokens": 8, **settings})  # type: ignore[arg-type]
    return generate(policies, rows, decoding, DIVERGENCES[name], 10_000, seed=0)


@pytest.mark.parametrize("name", ["reverse KL", "forward KL", "alpha"])
@pytest.mark.parametrize(
    "weights", [(0.5, 0.2, 0.3), (0.6, 0.4, 0.0), (0.0, 0.4, 0.6), (0.5, 0.0, 0.5), (0.0, 1.0, 0.0)]
)
def test_each_policy_runs_over_its_own_base(
    policies: PolicySet, recipe: Recipe, name: str, weights: tuple[float, ...]
) -> None:
    models = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(recipe.base_of(one)), one.adapter).eval()
        for one in recipe.objectives
    ]
    used = [k for k, weight in enumerate(weights) if weight > 0]
    for prompt in PROMPTS:
        scores = fused_scores([models[k] for k in used], [weights[k] for k in used], name, models[0], prompt)
        assert decode(policies, [Request("", prompt, weights)], name)[0].token_ids == greedy(scores, 8)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.2}, {"beams": 3}], ids=["greedy", "sampled", "beams"])
def test_rows_together_are_rows_alone(policies: PolicySet, settings: dict[str, float]) -> None:
    points = ((0.5, 0.2, 0.3), (0.2, 0.5, 0.3), (0.6, 0.4, 0.0))
    rows = [Request(f"{p}/{w}", prompt, point) for p, prompt in enumerate(PROMPTS) for w, point in enumerate(points)]
    settings = {"max_length": 16, **settings}
    assert decode(policies, rows, **settings) == [decode(policies, [row], **settings)[0] for row in rows]


def test_base_models_are_loaded_once_and_the_recipes_where_it_is_used(
    recipe: Recipe, lively_model: Path, other_model: Path
) -> None:
    read = read_policies(recipe, "align")
    assert len(load_policies(recipe, read, with_base=False).stacks) == 2
    apart = [policy._replace(base_model=str(other_model)) for policy in read]
    assert len(load_policies(recipe, apart, with_base=False).stacks) == 1
    with_base = load_policies(recipe, apart, with_base=True)
    assert len(with_base.stacks) == 2
    base = AutoModelForCausalLM.from_pretrained(lively_model)  # the group behind the policies
    scores = fused_scores([base], [1.0], "reverse KL", base, PROMPTS[0])
    found = decode(with_base, [Request("", PROMPTS[0], (0.0, 0.0, 0.0, 1.0))])
    assert found[0].token_ids == greedy(scores, 8)


def test_policies_without_a_common_reference_are_not_fused_by_one(policies: PolicySet) -> None:
    with pytest.raises(UserError, match="no reference in common"):
        decode(policies, [Request("", PROMPTS[0], (0.5, 0.5, 0.0))], "JSD")
    assert decode(policies, [Request("", PROMPTS[0], (0.5, 0.0, 0.5))], "JSD")  # over one base


def test_base_models_of_other_sizes_are_refused(recipe: Recipe, other_model: Path, tmp_path: Path) -> None:
    config = LlamaConfig.from_pretrained(other_model)
    config.vocab_size += 1
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wider")
    adapter = make_tiny_adapter(tmp_path / "adapter", tmp_path / "wider", 1)
    foreign = Objective("foreign", adapter=str(adapter), base_model=str(tmp_path / "wider"))
    mixed = Recipe("t", recipe.base_model, [recipe.objectives[0], foreign], recipe.data)
    with pytest.raises(UserError, match=r"wider'.*\(261, 64\).*\(260, 64\)"):
        load_policies(mixed, read_policies(mixed, "align"), with_base=False)
