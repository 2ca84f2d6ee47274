"""Decoding by every divergence's rule; what does not depend on the rule is in test_generation.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fused import DIVERGENCES, Model, cumulative, fused_scores, greedy
from torch import Tensor

from sipo_pl.engine.decoding.fused_rows import log_probabilities
from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.policies import Policy, PolicySet, load_policies
from sipo_pl.method.divergences import Alpha, Divergence, ForwardKL
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.released.divergences import UnscaledAlpha
from sipo_pl.released.scores import raw_logits

NO_EOS = 10_000
GENERATOR = torch.Generator().manual_seed(0)
PROMPTS = [tuple(torch.randint(4, 250, (n,), generator=GENERATOR).tolist()) for n in (5, 12, 3)]
Scores = Callable[[Tensor], Tensor]

BASE = 2  # the group behind the two policies
each_divergence = pytest.mark.parametrize("name", DIVERGENCES)


def requests(*weights: tuple[float, ...]) -> list[Request]:
    return [Request(f"{i}/{w}", prompt, point) for i, prompt in enumerate(PROMPTS) for w, point in enumerate(weights)]


def decode(
    policies: PolicySet,
    rows: list[Request],
    divergence: Divergence,
    greedy_scores: Scores = log_probabilities,
    **settings: float,
) -> list[Generated]:
    decoding = Decoding(**{"max_new_tokens": 8, **settings})  # type: ignore[arg-type]
    return generate(policies, rows, decoding, divergence, NO_EOS, seed=0, greedy_scores=greedy_scores)


@each_divergence
@pytest.mark.parametrize("weights", [(0.6, 0.4), (0.2, 0.8), (0.5, 0.2, 0.3)])
def test_greedy_texts_follow_the_formula_over_whole_texts(
    policies: PolicySet, models: list[Model], name: str, weights: tuple[float, ...]
) -> None:
    used = models[: len(weights)]
    expected = [greedy(fused_scores(used, weights, name, models[BASE], prompt), 8) for prompt in PROMPTS]
    found = decode(policies, requests(weights), DIVERGENCES[name])
    assert [one.token_ids for one in found] == expected


def test_divergences_give_different_texts(policies: PolicySet) -> None:
    texts = [
        tuple(tuple(one.token_ids) for one in decode(policies, requests((0.6, 0.4), (0.3, 0.7)), divergence))
        for divergence in DIVERGENCES.values()
    ]
    assert len(set(texts)) == len(DIVERGENCES)


@each_divergence
def test_a_corner_is_the_policys_own_text(policies: PolicySet, models: list[Model], name: str) -> None:
    found = decode(policies, requests((1.0, 0.0), (0.0, 1.0), (0.0, 0.0, 1.0)), DIVERGENCES[name])
    expected = [greedy(lambda tokens: cumulative(m, p, tokens), 8) for p in PROMPTS for m in models]  # noqa: B023
    assert [one.token_ids for one in found] == expected
    assert expected[0] != expected[1] != expected[2]


@each_divergence
def test_a_policy_fused_with_itself_is_the_policy(lively_model: Path, adapter_folders: list[Path], name: str) -> None:
    policy = Policy(str(lively_model), read_adapter(adapter_folders[0]).factors)
    recipe = Recipe("t", str(lively_model), [Objective("a"), Objective("b")], Data([], []))
    twice = load_policies(recipe, [policy, policy], with_base=False)
    alone = decode(twice, requests((1.0, 0.0)), DIVERGENCES[name], max_new_tokens=20)
    assert decode(twice, requests((0.3, 0.7)), DIVERGENCES[name], max_new_tokens=20) == alone


@each_divergence
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.3, "top_p": 0.95}], ids=["greedy", "sampled"])
def test_a_batch_gives_what_each_row_gives_alone(policies: PolicySet, name: str, settings: dict[str, float]) -> None:
    rows = requests((0.7, 0.3), (0.2, 0.8), (0.0, 1.0), (0.5, 0.2, 0.3))
    settings = {"max_length": 18, "max_new_tokens": 12, **settings}  # rows end at different steps
    together = decode(policies, rows, DIVERGENCES[name], **settings)
    assert len({len(one.token_ids) for one in together}) == 2
    assert together == [decode(policies, [row], DIVERGENCES[name], **settings)[0] for row in rows]


@each_divergence
def test_samples_follow_the_fused_distribution(policies: PolicySet, models: list[Model], name: str) -> None:
    rows = [Request(str(k), PROMPTS[0], (0.5, 0.5)) for k in range(3000)]
    found = decode(policies, rows, DIVERGENCES[name], temperature=2.0, max_new_tokens=2, batch_rows=3000)
    first = torch.bincount(torch.tensor([one.token_ids[0] for one in found]), minlength=260)
    likeliest = int(first.argmax())
    second = torch.bincount(
        torch.tensor([b for a, b in (one.token_ids for one in found) if a == likeliest]), minlength=260
    )
    for said, counts in (([], first), ([likeliest], second)):
        scores = fused_scores(models[:2], (0.5, 0.5), name, models[BASE], PROMPTS[0])(said)
        ranked = (scores / 2).softmax(-1).sort(descending=True)
        shares = counts[ranked.indices] / counts.sum()
        # the likeliest ten tokens, against four standard deviations of a share
        assert ((shares - ranked.values)[:10].abs() < 4 * (0.25 / counts.sum()) ** 0.5).all()


@pytest.mark.parametrize("name", ["forward KL", "JSD"])
def test_a_long_response_stays_finite(policies: PolicySet, name: str) -> None:
    # at this temperature the text is unlikely under every policy; scores that are not numbers would end its variety
    settings = {"max_new_tokens": 300, "max_length": 1000, "temperature": 3.0}
    text = decode(policies, [Request("long", PROMPTS[0], (0.5, 0.5))], DIVERGENCES[name], **settings)[0].token_ids
    assert len(text) == 300
    assert len(set(text[200:])) > 20


# what the released code does


def test_raw_logits_change_greedy_texts_alone(policies: PolicySet) -> None:
    rows = requests((0.6, 0.4), (0.3, 0.7))
    assert decode(policies, rows, ForwardKL(), greedy_scores=raw_logits) != decode(policies, rows, ForwardKL())
    reverse = DIVERGENCES["reverse KL"]
    assert decode(policies, rows, reverse, greedy_scores=raw_logits) == decode(policies, rows, reverse)
    for more in ({"temperature": 1.0}, {"beams": 2}):
        assert decode(policies, rows, ForwardKL(), True, **more) == decode(policies, rows, ForwardKL(), **more)


def test_the_unscaled_alpha_is_a_larger_temperature(policies: PolicySet) -> None:
    rows = requests((0.6, 0.4))
    assert decode(policies, rows, UnscaledAlpha(0.5)) == decode(policies, rows, Alpha(0.5))
    found = decode(policies, rows, UnscaledAlpha(0.5), temperature=0.7)
    assert found == decode(policies, rows, Alpha(0.5), temperature=1.4)
    assert found != decode(policies, rows, Alpha(0.5), temperature=0.7)
