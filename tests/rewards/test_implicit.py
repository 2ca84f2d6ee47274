from pathlib import Path

import pytest
import torch
from tiny import make_tiny_adapter, make_tiny_model

from sipo_pl.engine.logprobs.response_logprobs import response_logps
from sipo_pl.engine.lora.adapters import interpolate, read_adapter
from sipo_pl.engine.lora.policies import BASE, GroupPlace, Policy, PolicySet, load_policies
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.loading import load_base
from sipo_pl.method.divergences import Alpha, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.rewards.implicit import implicit_rewards
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import collate

ROWS = [Encoded([1, *range(10, 10 + length), 2], 3) for length in (4, 15, 2, 9, 9, 3, 30)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", spread=0.2)


@pytest.fixture(scope="module")
def policy_set(base: Path) -> PolicySet:
    policies = [read_adapter(make_tiny_adapter(base.parent / str(seed), base, seed)).factors for seed in (1, 2)]
    stack = LoRAStack(load_base(str(base), "float32"), sorted(policies[0]))
    stack.stack([*policies, interpolate(policies, (0.2, 0.8)), BASE])
    return PolicySet([stack], [GroupPlace(0, k, reference=3) for k in range(4)])


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_rewards_are_beta_times_the_log_ratio_to_the_base(policy_set: PolicySet, base: Path, batch_tokens: int) -> None:
    told: list[tuple[int, int]] = []
    found = implicit_rewards(policy_set, 3, ROWS, ReverseKL(), 0.1, batch_tokens, lambda *counts: told.append(counts))
    stack, reference = policy_set.stacks[0], load_base(str(base), "float32")
    with torch.no_grad():
        ref = torch.cat([response_logps(reference, collate([row])) for row in ROWS])
        for k in range(3):
            with stack.active([k]):
                logps = torch.cat([response_logps(stack.model, collate([row])) for row in ROWS])
            assert (logps - ref).abs().max() > 0.5
            torch.testing.assert_close(found[k], 0.1 * (logps - ref), rtol=1e-4, atol=1e-4)
    assert sum(rows for rows, _ in told) == len(ROWS)
    assert sum(tokens for _, tokens in told) == 4 * sum(len(row.input_ids) for row in ROWS)


def test_no_rows_have_no_rewards(policy_set: PolicySet) -> None:
    assert implicit_rewards(policy_set, 3, [], ReverseKL(), 0.1, 100).shape == (3, 0)


@pytest.mark.parametrize("divergence", [ForwardKL(), JensenShannon(), Alpha(0.5)])
def test_a_divergence_makes_its_own_reward_of_the_log_ratio(
    policy_set: PolicySet, divergence: ForwardKL | JensenShannon | Alpha
) -> None:
    log_ratios = implicit_rewards(policy_set, 3, ROWS, ReverseKL(), 1.0, 1000)
    found = implicit_rewards(policy_set, 3, ROWS, divergence, 0.3, 1000)
    torch.testing.assert_close(found, divergence.reward(log_ratios, 0.3), rtol=1e-3, atol=1e-4)


def test_policies_over_bases_of_their_own_are_scored_against_those(base: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=5, spread=0.2)
    adapters = [read_adapter(make_tiny_adapter(tmp_path / f"a{seed}", base, seed)).factors for seed in (1, 2)]
    bases = [str(base), str(other)]
    recipe = Recipe("t", bases[0], [Objective("a"), Objective("b", base_model=bases[1])], Data([], []))
    both = load_policies(recipe, [Policy(*pair) for pair in zip(bases, adapters, strict=True)], with_base=False)
    found = implicit_rewards(both, 2, ROWS, ReverseKL(), 0.1, 300)
    for k in range(2):
        alone = load_policies(
            Recipe("t", bases[k], recipe.objectives, recipe.data), [Policy(bases[k], adapters[k])], with_base=True
        )
        expected = implicit_rewards(alone, 1, ROWS, ReverseKL(), 0.1, 300)[0]
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-4)
