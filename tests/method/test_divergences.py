import math
from typing import Any

import pytest
import torch

from sipo_pl.messages.errors import UsageError
from sipo_pl.method.divergences import Alpha, Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.divergence import recipe_divergence
from sipo_pl.recipe.recipe import Component, Data, Objective, Recipe
from sipo_pl.released.divergences import UnscaledAlpha


def recipe(divergence: Component | None = None, **compat: Any) -> Recipe:
    settings = {} if divergence is None else {"divergence": divergence}
    return Recipe("t", "base", [Objective("a"), Objective("b")], Data([], []), compat=Compat(**compat), **settings)


@pytest.mark.parametrize("divergence", [ReverseKL(), ForwardKL(), JensenShannon(), Alpha(0.3)])
def test_fusion_gives_the_text_whose_reward_is_the_weighted_one(divergence: Divergence) -> None:
    """The rule of MOD: fused scores are those whose reward is the weighted sum of the policies', up to a constant.

    Alpha's and forward KL's need no reference, because it cancels; the normaliser is left out of all.
    """
    ratios = torch.tensor([[0.4, -0.7, 1.1], [-0.2, 0.5, 0.3]])  # log u of two policies for three tokens
    reference, weights = torch.tensor([[-1.0, -1.5, -0.8]]), torch.tensor([[0.3, 0.7]])
    fused = divergence.fuse((reference + ratios)[:, None], weights, reference)
    found = divergence.reward(fused - reference, 1.0)
    expected = 0.3 * divergence.reward(ratios[:1], 1.0) + 0.7 * divergence.reward(ratios[1:], 1.0)
    torch.testing.assert_close(found, expected)


def test_which_divergences_need_what() -> None:
    kinds = (ReverseKL, ForwardKL, JensenShannon, Alpha)
    assert [kind.needs_reference for kind in kinds] == [False, False, True, False]
    assert [kind.needs_history for kind in kinds] == [False, True, True, True]


def test_a_recipe_names_its_divergence() -> None:
    assert recipe_divergence(recipe()) == ReverseKL()
    alpha = {"class_path": "sipo_pl.method.divergences.Alpha", "init_args": {"alpha": 0.3}}
    assert recipe_divergence(recipe(alpha)) == Alpha(0.3)
    assert recipe_divergence(recipe(alpha, unscaled_alpha=True)) == UnscaledAlpha(0.3)
    assert recipe_divergence(recipe(unscaled_alpha=True)) == ReverseKL()


def test_the_unscaled_alpha_lacks_one_factor_and_rewards_alike() -> None:
    scores, weights = torch.tensor([[[-1.0]], [[-3.0]]]), torch.tensor([[0.5, 0.5]])
    full, bare = Alpha(0.25), UnscaledAlpha(0.25)
    assert float(bare.fuse(scores, weights, None)) == pytest.approx(0.25 * float(full.fuse(scores, weights, None)))
    torch.testing.assert_close(bare.reward(scores, 0.1), full.reward(scores, 0.1))


@pytest.mark.parametrize(
    ("divergence", "error", "message"),
    [
        ({"class_path": "sipo_pl.method.divergences.ReversKL"}, UsageError, "did you mean 'ReverseKL'"),
        ({"class_path": "sipo_pl.recipe.recipe.Recipe"}, UsageError, "not a Divergence"),
        ({"class_path": "sipo_pl.method.divergences.ReverseKL", "init_args": {"alpha": 1}}, UsageError, "init_args"),
        (
            {"class_path": "sipo_pl.method.divergences.Alpha", "init_args": {"alpha": 1.0}},
            UsageError,
            r"alpha: expected a number >0 and <1, found 1\.0",
        ),
        (
            {"class_path": "sipo_pl.method.divergences.Alpha", "init_args": {"alpha": math.nan}},
            UsageError,
            "alpha: expected a number >0 and <1, found nan",
        ),
    ],
)
def test_a_wrong_divergence_is_refused(divergence: Component, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        recipe_divergence(recipe(divergence))
